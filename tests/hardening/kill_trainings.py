"""Train a tiny recipe of the zoo undisturbed, then killed at random moments and gone on with: a folder for each kill.

Arguments: a folder of Python text, the folder for all trainings, and how many to kill. The program imports torch once
and forks from there.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import torch
from tests.zoo.kill_and_resume import CONFIG, RECIPE, ended, fork

from zoo import pretraining
from zoo.corpus import Corpus, build
from zoo.evaluation import evaluate
from zoo.model import AttentionOnly


def program(corpus: Corpus, folder: Path, kills: int) -> None:
    start = time.monotonic()
    assert ended(fork(folder / "undisturbed", corpus)) == 0
    duration, generator = time.monotonic() - start, random.Random(0)
    for number in range(kills):
        out, killed = folder / f"killed_{number}", False
        while not killed:
            process = fork(out, corpus)
            time.sleep(generator.uniform(0, duration))
            os.kill(process, signal.SIGKILL)
            killed = ended(process) == -signal.SIGKILL
            if not killed:  # it had come to its end before
                shutil.rmtree(out)
        assert ended(fork(out, corpus)) == 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    pretraining.CHECKPOINT_EVERY = 7
    setattr(pretraining, "evaluate", partial(evaluate, n_windows=4))  # noqa: B010 (mypy: not exported there)
    pretraining.optimizers(AttentionOnly(CONFIG), RECIPE)  # torch imports much at the first one: once, before any fork
    program(build(CONFIG.d_vocab, Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3]))
