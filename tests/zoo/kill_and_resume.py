"""Train a tiny recipe undisturbed, then killed at given and at random moments and resumed: one folder for each.

Run as a program, since a process that is to be killed for good cannot be the one that tests: this one imports torch
once, builds the corpus, and forks every run from there.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo import cards, packing, pretraining
from zoo.corpus import Corpus, build
from zoo.evaluation import evaluate
from zoo.model import AttentionOnly, AttentionOnlyConfig
from zoo.recipes import Recipe

CONFIG = AttentionOnlyConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_vocab=300, n_ctx=40)
STEPS = 30
RECIPE = Recipe(
    name="tiny",
    config=CONFIG,
    tokens=STEPS * 4 * 40,
    batch_size=4,
    warmup_steps=4,
    n_checkpoints=4,
    first_checkpoint=5,
)


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_in(module: Any, name: str, call: int, write: bytes | None = None) -> Callable[[], None]:
    """Arrange for death inside the given call of `module.name`, with `write` in the file that it was to write."""

    def arrange() -> None:
        original, calls = getattr(module, name), iter(range(1, 1000))

        def replacement(*args: Any, **keywords: Any) -> Any:
            if next(calls) < call:
                return original(*args, **keywords)
            if write is not None:
                file = args[1]
                if isinstance(file, Path):
                    file.write_bytes(write)
                else:
                    file.write(write)
                    file.flush()
            return die()

        setattr(module, name, replacement)

    return arrange


MOMENTS: dict[str, Callable[[], None]] = {
    "before_the_first_step": die_in(pretraining, "batch_at", 1),
    "before_the_second_checkpoint": die_in(pretraining, "batch_at", 6),
    "between_checkpoints": die_in(pretraining, "batch_at", 19),
    "writing_the_first_checkpoint": die_in(torch, "save", 1, b"half"),
    "writing_a_later_checkpoint": die_in(torch, "save", 3, b"half"),
    "keeping_weights": die_in(pretraining, "save_whole", 3, b"half"),
    "evaluating": die_in(pretraining, "evaluate", 3),
    "writing_the_weights": die_in(pretraining, "save_whole", 6, b"half"),
    "packing": die_in(packing, "save_whole", 1, b"half"),
    "renaming": die_in(Path, "replace", 5),
    "writing_the_card": die_in(cards, "write", 1),
    "cleaning_up": die_in(shutil, "rmtree", 1),
}


def fork(out: Path, corpus: Corpus, arrange: Callable[[], None] = lambda: None) -> int:
    """Start a run in a process of its own and return its id."""
    process = os.fork()
    if process == 0:
        try:
            arrange()
            pretraining.pretrain(RECIPE, out, corpus=corpus)
        except BaseException as error:
            sys.stderr.write(f"{out.name}: {error!r}\n")
            os._exit(1)
        os._exit(0)
    return process


def ended(process: int) -> int:
    """How the process ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def main(corpus: Corpus, folder: Path) -> None:
    start = time.monotonic()
    assert ended(fork(folder / "undisturbed", corpus)) == 0
    duration = time.monotonic() - start
    for name, arrange in MOMENTS.items():
        assert ended(fork(folder / name, corpus, arrange)) == -signal.SIGKILL, name
        assert ended(fork(folder / name, corpus)) == 0, name
    for seed in range(3):
        generator, out, kills = random.Random(seed), folder / f"random_{seed}", 0
        while kills < 3:
            process = fork(out, corpus)
            time.sleep(generator.uniform(0.1, 0.9) * duration)
            os.kill(process, signal.SIGKILL)
            kills += 1
            if ended(process) == 0:
                break
        # A kill may also fall between the card and the end of the clearing up behind it.
        left = [name for name in ("kept", "training.pt") if (out / name).exists()]
        assert ((out / "card.json").exists() and not left) or ended(fork(out, corpus)) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    pretraining.CHECKPOINT_EVERY = 7
    setattr(pretraining, "evaluate", partial(evaluate, n_windows=4))  # noqa: B010 (mypy: not exported there)
    pretraining.optimizers(AttentionOnly(CONFIG), RECIPE)  # torch imports much at the first one: once, before any fork
    main(build(CONFIG.d_vocab, Path(sys.argv[1])), Path(sys.argv[2]))
