"""A workspace with one paper: hostile text everywhere, a plot, both kinds of interactive pages, and three runs."""

from __future__ import annotations

from pathlib import Path

import matplotlib.pyplot as plt
import msgspec
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from reprise import Page, Paper, Result, Results, claims, store, workspace
from reprise.claims import ClaimResult
from reprise.drawing import draw
from reprise.pages import attention_page, head_map_page
from reprise.report import build
from reprise.store import Provenance

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)> & \"quoted\""
TOKENS = ["</script><script>alert(1)</script>", " a", " b", " c\n", " a", " b"]
HEADS = [(layer, head) for layer in range(2) for head in range(3)]
VALUES = np.array([[0.5, -0.25, 0.0], [0.125, 1.0, -0.75]])
WITHOUT_PATTERN = (1, 0)
# Estimates are in no order, and one claim is not measured.
ESTIMATES = {"alpha": 0.3, "beta": 20.0, "gamma": -1.5, "delta": None, "epsilon": 4.0}
STATEMENTS = {
    "alpha": f"Alpha {HOSTILE} holds.",
    "beta": "Beta copies a token.",
    "gamma": "Gamma copies nothing.",
    "delta": "Delta is open.",
    "epsilon": "Epsilon copies, too.",
}
ACCEPTED = {"alpha": 0.1, "beta": 30.0, "gamma": -1.5, "delta": 0.0, "epsilon": 2.0}
VERDICTS = {
    "alpha": "supported",
    "beta": "refuted",
    "gamma": "inconclusive",
    "delta": "not run",
    "epsilon": "supported",
}


def toy_report(root: Path) -> Path:
    """Write the workspace and its report below `root`; returns the report's folder."""
    path = root / "replications" / "toys" / "paper.toml"
    path.parent.mkdir(parents=True)
    path.write_text(_paper_toml())
    (paper,) = workspace.load_papers(root)
    for name in ("tiny", "tiny-other+model x"):
        _add_run(root / "out" / "results" / "toys" / name, paper)
    return build(root, (paper,), root / "out").parent


def pattern_of(layer: int, head: int) -> NDArray[np.float64]:
    """A causal attention pattern that no other head has."""
    scores = np.random.default_rng(3 * layer + head).normal(size=(len(TOKENS), len(TOKENS)))
    weights: NDArray[np.float64] = np.where(np.tri(len(TOKENS), dtype=bool), np.exp(scores), 0)
    weights /= weights.sum(axis=-1, keepdims=True)
    return weights


def _paper_toml() -> str:
    head = f"""
title = '''Toys {HOSTILE.replace("'", "`")}'''
authors = ["A <i>First</i>", "B Second"]
year = 2022
link = "https://example.org/paper?a=1&b=2"
owner = "@reprise/toys"
about = "Toys."
[tiers.tiny]
about = "Our own models."
models = ["attn-only-1l"]
[tiers.paper]
about = "The paper's own."
"""
    return head + "".join(
        f"""
[[claims]]
id = "{name}"
statement = {msgspec.json.encode(statement).decode()}
where = "Section {number}"
provenance = "memory"
quantity = "a score of {name}"
unit = "nats"
paper_value = {10 - number}
accept = {{ tiny = {{ at_least = {ACCEPTED[name]} }}, paper = {{ at_least = 0.7 }} }}
"""
        for number, (name, statement) in enumerate(STATEMENTS.items(), 1)
    )


def _row(row: ClaimResult) -> ClaimResult:
    estimate = ESTIMATES[row.claim]
    if estimate is None:
        return row
    return msgspec.structs.replace(row, estimate=estimate, low=estimate - 0.1, high=estimate + 0.1, n=7, over="toys")


def _add_run(folder: Path, paper: Paper) -> None:
    claims.save([_row(row) for row in claims.not_run(paper, "tiny")], folder)
    draw({"plot": plot, "attention": attention, "head map": head_map}, Results("tiny", 0, {}), folder / "figures")
    provenance = Provenance(
        commit="0123456789abcdef0123456789abcdef01234567",
        packages={"torch": "2.13.0"},
        models={"attn-only-1l": "feed" * 16},
        seed=0,
        device="cpu",
        dtype="float32",
        seconds=12.34,
    )
    for stage, seconds in (("first_stage_with_a_long_name", 12.34), ("second", 2.0)):
        told = msgspec.structs.replace(provenance, seconds=seconds)
        store.write(folder / stage / "one.safetensors", Result({"a": np.ones(2)}, {"model": HOSTILE}), "key", told)


def plot(results: Results) -> Figure:
    """A plot

    Of two points.
    """
    figure, axes = plt.subplots()
    axes.plot([0, 1])
    return figure


def attention(results: Results) -> Page:
    """Attention of all heads"""
    labels = [f"{layer}.{head}" for layer, head in HEADS]
    return attention_page(np.stack([pattern_of(*head) for head in HEADS]), TOKENS, labels)


def head_map(results: Results) -> Page:
    """A map of heads"""
    patterns = {head: pattern_of(*head) for head in HEADS if head != WITHOUT_PATTERN}
    return head_map_page(VALUES, f"Score {HOSTILE}", patterns=patterns, tokens=TOKENS)
