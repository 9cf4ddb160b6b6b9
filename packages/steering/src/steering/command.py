"""`reprise steer`: plain and steered text side by side, from a model folder and a contrast.

The command line is made by reprise from this function: its parameters are the options, its docstring the help. Nothing
slow is imported before it is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast, get_args

if TYPE_CHECKING:
    from interventions import Model
    from steering.extraction import ContrastPair
    from steering.outcomes import Writing
    from steering.positions import Positions
    from steering.steering import Steer
    from steering.vectors import SteeringVector

Cell = str | float | int | dict[str, float] | None
Rows = list[dict[str, Cell]]
POSITIONS = "everywhere, after-prompt, prompt, prompt-only (its last token left out) or first:N"
CONTROL_SAMPLES = 16


def steer(
    model: str,
    prompt: list[str],
    coefficient: float,
    layer: list[int] | None = None,
    positive: str | None = None,
    negative: str | None = None,
    pairs: Path | None = None,
    vector: Path | None = None,
    positions: str | None = None,
    operation: str = "add",
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    samples: int | None = None,
    seed: int = 0,
    save: Path | None = None,
    controls: bool = False,
    words: str | None = None,
    prefix: str | None = None,
    other: list[Path] | None = None,
    device: str = "cpu",
    dtype: str = "float32",
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Rows]:
    """Write plain and steered text side by side, with a vector from a contrast, from pairs, or from a file.

    Args:
        model: A folder with a causal model in Hugging Face's format and its tokenizer, or the id of a cached one.
        prompt: What to go on with; may be given several times.
        coefficient: How much of the vector is added (with pairs, the multiplier).
        layer: Where the vector acts; may be given several times. With a file, by default all its layers.
        positive: One text of a contrast; the vector is positive minus negative, added from the first position on,
            so that every prompt has to be at least as long.
        negative: The other text; it may be a space, with which the shorter text is padded anyway.
        pairs: Instead of a contrast, a JSON list of {"positive": ..., "negative": ...}; the mean difference at the
            last token, added from the prompt's last token on.
        vector: Instead of a contrast, a vector in a file, .safetensors or .gguf.
        positions: Where it acts: everywhere, after-prompt, prompt, prompt-only (its last token left out) or first:N.
        operation: add, project_out, clamp or norm_preserving.
        max_new_tokens: Length of what is written.
        temperature: 0 writes the likeliest tokens.
        samples: Completions of each prompt, with a temperature above 0 (by default 1, for the controls 16).
        seed: Of the sampling, the random vectors and the intervals.
        save: Write the vector to this file, .safetensors.
        controls: Put the vector through its controls, with --words as the metric.
        words: Words, with commas between them or in a file; success is the share of completions that contain one.
        prefix: For the controls, a text in front of the prompts that says in words what the vector is for.
        other: For the controls, a file with a vector for something else; may be given several times.
        device: cpu, cuda, cuda:1, mps.
        dtype: float32, bfloat16 or float16.

    Raises:
        SteeringError, ModelError: one line, for anything that is missing, means nothing or does not fit.
    """
    import torch

    from interventions import load
    from steering.errors import SteeringError, check_choice
    from steering.outcomes import Writing
    from steering.steering import Operation, Steer
    from steering.vector_files import save_vector

    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    check_choice("dtype", dtype, list(dtypes))
    check_choice("operation", operation, get_args(Operation))
    if controls and (words is None or layer is None or len(layer) != 1):
        raise SteeringError("--controls: expected --words, to score completions by, and one --layer")
    sources = [pairs is not None, vector is not None, positive is not None or negative is not None]
    if sum(sources) != 1 or (sources[2] and (positive is None or negative is None)):
        raise SteeringError("expected --positive and --negative, or --pairs, or --vector, and one of these alone")
    if layer is None and vector is None:
        raise SteeringError("no --layer: expected the layer in which the vector is to act")
    where = _positions(positions, after_prompt=pairs is not None)
    with _quiet():
        loaded = load(model, device=device, dtype=dtypes[dtype])
    made = _read(vector, loaded) if vector is not None else _extracted(loaded, positive, negative, pairs, layer or [])
    acting = Steer(made, coefficient, tuple(layer) if layer else None, where, cast(Operation, operation))
    if save is not None:
        save_vector(save, made)
    writing = Writing(max_new_tokens, temperature, samples=samples or 1, seed=seed)
    found = {"completions": _side_by_side(loaded, prompt, acting, writing), "vector": _described(acting, save)}
    if controls:
        from dataclasses import asdict, replace

        from steering.controls import controls as controlled
        from steering.outcomes import contains

        many = replace(writing, samples=samples or (CONTROL_SAMPLES if temperature > 0 else 1))
        table = controlled(
            loaded,
            made,
            prompt,
            contains(_words(words or "")),
            layer=acting.chosen[0],
            coefficient=coefficient,
            positions=where,
            operation=acting.operation,
            others=[_read(path, loaded) for path in other or []],
            prefix=prefix,
            writing=many,
            seed=seed,
            progress=progress,
        )
        found["controls"] = [
            {name: cell if isinstance(cell, str) else asdict(cell) for name, cell in row.items()}
            for row in table.table()
        ]
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """No bar of transformers' while it loads weights: standard error is for what went wrong."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _extracted(
    model: Model, positive: str | None, negative: str | None, pairs: Path | None, layers: list[int]
) -> SteeringVector:
    from steering.extraction import activation_addition, contrastive

    if pairs is None:
        return activation_addition(model, positive or "", negative or "", layers=layers)
    return contrastive(model, _pairs(pairs), layers=layers, name=f"mean difference of {pairs.name}")


def _pairs(path: Path) -> list[ContrastPair]:
    import msgspec

    from steering.errors import SteeringError
    from steering.extraction import ContrastPair

    try:
        return msgspec.json.decode(path.read_bytes(), type=list[ContrastPair])
    except (OSError, msgspec.DecodeError) as error:
        raise SteeringError(
            f'{path}: {error}: expected a JSON list of objects {{"positive": text, "negative": text}}'
        ) from error


def _read(path: Path, model: Model) -> SteeringVector:
    from steering.gguf_files import read_gguf
    from steering.vector_files import load_vector

    return read_gguf(path, model) if path.suffix == ".gguf" else load_vector(path)


def _words(given: str) -> list[str]:
    """From a file of that name; where there is none, the words themselves."""
    from steering.errors import SteeringError

    try:
        text = Path(given).read_text(encoding="utf-8")
    except OSError:
        text = given
    except UnicodeDecodeError as error:
        raise SteeringError(f"{given}: {error}: expected words in UTF-8, a line each or with commas") from error
    return text.replace("\n", ",").split(",")


def _positions(name: str | None, *, after_prompt: bool) -> Positions:
    from steering.errors import SteeringError
    from steering.positions import AfterPrompt, Everywhere, First, PromptOnly

    if name is None:
        return AfterPrompt() if after_prompt else Everywhere()
    kind, _, n = name.partition(":")
    if kind == "first" and n.isdecimal():
        return First(int(n))
    known = {
        "everywhere": Everywhere(),
        "after-prompt": AfterPrompt(),
        "prompt": PromptOnly(keep_last=False),
        "prompt-only": PromptOnly(),
    }
    if name not in known:
        raise SteeringError(f"no positions {name!r}: expected {POSITIONS}")
    return known[name]


def _side_by_side(model: Model, prompts: list[str], acting: Steer, writing: Writing) -> Rows:
    from steering.outcomes import measured, written

    def side(*steers: Steer) -> list[tuple[str, float]]:
        completions = written(model, prompts, writing, steers=steers)
        outcome = measured(model, prompts, completions, lambda text: 0.0)
        perplexity = (outcome.losses / outcome.tokens).exp().flatten().tolist()
        return list(zip(completions.texts, perplexity, strict=True))

    of_prompts = [prompt for prompt in prompts for _ in range(writing.samples)]
    return [
        {
            "prompt": prompt,
            "plain": plain,
            "steered": steered,
            "plain perplexity": plain_perplexity,
            "steered perplexity": steered_perplexity,
        }
        for prompt, (plain, plain_perplexity), (steered, steered_perplexity) in zip(
            of_prompts, side(), side(acting), strict=True
        )
    ]


def _described(acting: Steer, saved: Path | None) -> Rows:
    return [
        {
            "vector": acting.vector.name,
            "layer": layer,
            "at": acting.vector.component,
            "coefficient": acting.coefficient,
            "norm": float(acting.vector.directions[layer].norm(dim=-1).max()),
            "saved": None if saved is None else str(saved),
        }
        for layer in acting.chosen
    ]
