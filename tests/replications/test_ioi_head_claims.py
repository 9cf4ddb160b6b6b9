"""The claims of Wang et al. 2022 about heads and circuits: what each measures, on results made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from replications.indirect_object_identification import claims
from replications.indirect_object_identification.circuit import GPT2_SMALL
from replications.indirect_object_identification.grouping import WORDS

from reprise import Result, Results

from .ioi_claim_runs import estimate, heads, measured, results, steps

END = WORDS.index("END")


def column(*values: float) -> Any:
    return np.array(values, dtype=np.float32)


def attention(n: int, of: dict[tuple[int, int], dict[str, Any]]) -> Any:
    """From END, of [prompt, 2, 2] heads."""
    values = np.zeros((n, 2, 2, len(WORDS), len(WORDS)), dtype=np.float32)
    for (layer, head), words in of.items():
        for word, value in words.items():
            values[:, layer, head, END, WORDS.index(word)] = value
    return values


def test_where_heads_look_from_end() -> None:
    looks = attention(2, {(1, 0): {"IO": 0.5}, (1, 1): {"IO": [0.1, 0.3], "S2": 0.2}, (0, 0): {"S2": 0.75, "S1": 0.1}})
    found = steps(movers=[(1, 0), (1, 1)], inhibition=[(0, 0)])
    of = results(**found, attention=Result({"attention": looks}))
    movers = measured("mover-attention", of)
    assert movers.estimate == pytest.approx(0.35)
    assert movers.n == 2
    assert movers.over == "prompts (1.0, 1.1)"
    assert estimate("inhibition-attention", of) == 0.75


def test_attention_against_projection() -> None:
    """One mover writes what it looks at, another looks always alike; both mentions of S count."""
    to_io, to_s1, to_s2 = column(0.1, 0.5, 0.2), column(0.2, 0.1, 0.3), column(0.4, 0.1, 0.1)
    looks = attention(3, {(1, 0): {"IO": to_io, "S1": to_s1, "S2": to_s2}})
    projection = np.zeros((3, 2, 2, 2), dtype=np.float32)
    projection[:, 1, 0] = 3 * np.stack([to_io, to_s1 + to_s2], axis=1) - 7
    projection[:, 1, 1] = np.arange(6).reshape(3, 2)
    of = Result({"attention": looks, "projection": projection})
    assert estimate("mover-scatter", results(**steps(movers=[(1, 0)]), attention=of)) == pytest.approx(1, abs=1e-6)
    both = results(**steps(movers=[(1, 0), (1, 1)]), attention=of)
    assert estimate("mover-scatter", both) == pytest.approx(0.5, abs=1e-6)
    against = Result({"attention": looks, "projection": -projection})
    negative = results(**steps(negative=[(1, 0)]), attention=against)
    assert estimate("negative-scatter", negative) == pytest.approx(-1, abs=1e-6)
    noise = np.random.default_rng(0).normal(size=(3, 2, 2, 2)).astype(np.float32)
    noisy = results(**steps(movers=[(1, 0)]), attention=Result({"attention": looks, "projection": noise}))
    x, y = np.stack([to_io, to_s1 + to_s2], axis=1).ravel(), noise[:, 1, 0].ravel()
    assert estimate("mover-scatter", noisy) == pytest.approx(np.corrcoef(x, y)[0, 1], abs=1e-5)


def test_copying() -> None:
    top, bottom = (np.zeros((2, 3, 2, 2), dtype=np.float32) for _ in range(2))
    top[:, :, 1, 0] = 1
    top[0, 0, 1, 1] = 1
    top[:, :, 0, 1] = 1
    bottom[:, 1, 0, 0] = 1
    of = results(**steps(movers=[(1, 0), (1, 1)], negative=[(0, 0)]), copying=Result({"top": top, "bottom": bottom}))
    assert estimate("mover-copying", of) == pytest.approx((1 + 1 / 6) / 2)
    assert estimate("other-copying", of) == pytest.approx(0.5)
    assert estimate("negative-copying", of) == pytest.approx(1 / 3)


def test_signals() -> None:
    arrays = {"weights": column(2, 1, 4, 0).reshape(2, 2)}
    of = results(**steps(inhibition=[(0, 1)]), signals=Result(arrays))
    assert estimate("signal-position", of) == 3
    assert measured("signal-token", of).over == "prompts (0.1)"
    assert (estimate("signal-token", of), estimate("position-over-token", of)) == (0.5, 2.5)
    published = Result({**arrays, "published.weights": column(1, 0, 1, 0).reshape(2, 2)})
    assert estimate("signal-position", results("paper", **steps(published=True), signals=published)) == 1


def test_random_tokens() -> None:
    scores = {
        "duplicate_token": heads((2, 2), {(0, 0): 0.6, (0, 1): 0.3}),
        "induction": heads((2, 2), {(1, 0): 0.9, (1, 1): 0.5}),
        "previous_token": heads((2, 2), {(0, 1): 0.8}),
    }
    found = steps(duplicate=[(0, 0)], induction=[(1, 0), (1, 1)], previous=[(0, 0)])
    of = results(**found, early=Result(scores))
    assert estimate("early-duplicate", of) == pytest.approx(0.6 - 0.1)
    assert estimate("early-induction", of) == pytest.approx(0.7)
    previous = measured("early-previous", of)
    assert previous.estimate == pytest.approx(-0.8 / 3)
    assert previous.over == "sequences (0.0)"
    every = results(**steps(previous=[(0, 0), (0, 1), (1, 0), (1, 1)]), early=Result(scores))
    assert claims.CLAIMS["early-previous"](every) is None  # no others to compare with


def backup(tier: str = "tiny", shape: tuple[int, int] = (2, 3), **facts: Any) -> Results:
    """A mover of 4; one head grows from 0 to 1, one from -2 to 1, one from -3 to -1, one falls."""
    before = heads(shape, {(0, 0): 4, (0, 2): -2, (1, 0): -3, (1, 1): 1})
    after = heads(shape, {(0, 1): 1, (0, 2): 1, (1, 0): -1, (1, 1): 0.5})
    arrays = {"before": column(10, 10), "after": column(9, 10), "direct.before": before, "direct.after": after}
    is_published = Result({}, {"is_published": bool(facts.pop("published", False))})
    return results(tier, backup=Result(arrays, {"movers": [[0, 0]], **facts}), faithfulness=is_published)


def test_backup() -> None:
    of = backup()
    assert estimate("backup-cost", of) == pytest.approx(0.05)
    assert estimate("backup-take-over", of) == pytest.approx((1 + 3 + 2 - 0.5) / 4)
    assert estimate("backup-above-zero", of) == pytest.approx((1 + 1 + 0) / (1 + 3 + 2))
    assert claims.CLAIMS["backup-published"](of) is None
    for claim in ("backup-cost", "backup-take-over", "backup-above-zero"):
        assert claims.CLAIMS[claim](backup(movers=[])) is None


def test_published_backup_heads() -> None:
    backup_heads = GPT2_SMALL.roles["backup"]
    before = heads((12, 12), {(9, 9): 4})
    after = heads((12, 12), {backup_heads[0]: 1, backup_heads[3]: 0.5, (11, 11): 0.5, (9, 9): 7})
    arrays = {"direct.before": before, "direct.after": after}
    of = results(
        "paper",
        backup=Result(arrays, {"movers": [[9, 9]]}),
        faithfulness=Result({}, {"is_published": True}),
    )
    assert estimate("backup-published", of) == pytest.approx(0.75)


def test_faithfulness_has_two_sides() -> None:
    model = column(4, 6, 5)
    arrays = {"model": model, "circuit": model + 1, "naive": model - 2}
    of = results(faithfulness=Result(arrays, {"is_published": True}))
    assert estimate("faithfulness", of) == pytest.approx(0.8)
    assert estimate("naive-faithful", of) == pytest.approx(0.6)
    assert estimate("paths-alone-less-faithful", of) == pytest.approx(0.2)
    ours = results(faithfulness=Result(arrays, {"is_published": False}))
    for claim in ("faithfulness", "naive-faithful"):
        assert claims.CLAIMS[claim](ours) is None


def discovery(**facts: Any) -> Results:
    model = column(4, 6, 5)
    arrays = {
        "model": model,
        "circuit": 0.9 * model,
        "complement": 0.1 * model,
        "random": np.stack([0.4 * model, -0.2 * model], axis=1),
        "curve.elimination": np.stack([0 * model, 0.5 * model, model, 1.25 * model, model], axis=1)[:2],
        "curve.grown": np.stack([0 * model, -model, 0.75 * model], axis=1)[:2],
    }
    known: dict[str, Any] = {"circuit": [[0, 0], [1, 2], [1, 3]], "n_layers": 2, "n_heads": 4, "sizes": [0, 1, 2, 4, 8]}
    published = Result({}, {"is_published": facts.get("published") is not None})
    return results("paper", discovery=Result(arrays, {**known, "published": None, **facts}), faithfulness=published)


def test_the_circuit_that_the_search_proposes() -> None:
    of = discovery()
    assert estimate("discovered-faithful", of) == pytest.approx(0.9)
    assert estimate("random-circuits", of) == pytest.approx(0.9 - (0.4 - 0.2) / 2)
    assert estimate("complement", of) == pytest.approx(0.1)
    # of one head and of two: .5 and 1 against 0 and .75
    assert estimate("backward-beats-forward", of) == pytest.approx(0.75 - 0.375)
    size = measured("discovered-few-heads", of)
    assert (size.estimate, size.low, size.high, size.n) == (0.375, 0.375, 0.375, 8)
    for claim in ("circuit-size", "precision", "recall"):
        assert claims.CLAIMS[claim](of) is None


def test_the_proposed_circuit_against_the_published_one() -> None:
    of = discovery(published={"heads": [[1, 2], [1, 3], [0, 1], [0, 2]]})
    assert estimate("circuit-size", of) == 3
    precision, recall = measured("precision", of), measured("recall", of)
    assert precision.estimate == pytest.approx(2 / 3)
    assert precision.n == 3
    assert precision.over == "proposed heads"
    assert (recall.estimate, recall.n) == (0.5, 4)


def test_completeness_and_minimality() -> None:
    full, zero = column(8, 10, 12), column(0, 0, 0)
    kinds = [["nothing", []], ["movers", [[0, 0]]], ["random", [[0, 1]]], ["greedy", [[1, 0]]]]
    gaps = np.stack([zero + 9, zero + 1, column(-3, -3, -3), zero + 4], axis=1)
    of_model = np.stack([full, 0 * full, 0 * full, 0 * full], axis=1)
    naive = np.stack([full + 5, full - 9, zero + 7], axis=1)
    arrays = {
        "circuit": of_model + gaps,
        "circuit.model": of_model,
        "naive": naive,
        "naive.model": np.stack([full, full, zero], axis=1),
    }
    facts = {"subsets": {"circuit": kinds, "naive": [["nothing", []], ["random", []], ["greedy", []]]}}
    added = np.stack([column(-3, -3, -3), column(2.5, -2.5, 0.6), column(1, 1, 1)], axis=1)
    of = results(
        completeness=Result(arrays, facts),
        minimality=Result({"without_k": added, "without_both": 0 * added}, {"heads": [[0, 0], [0, 1], [1, 0]]}),
        faithfulness=Result({"model": full}),
    )
    assert estimate("completeness", of) == pytest.approx((1 + 3) / 2 / 10)
    assert estimate("largest-incompleteness", of) == pytest.approx(9)
    assert estimate("naive-less-complete", of) == pytest.approx(0.9 - 0.2)
    least = measured("minimality", of)
    assert least.estimate == pytest.approx(0.02)
    assert least.over == "prompts (0.1)"


def test_adversarial_prompts() -> None:
    of = results(adversarial=Result({"io_again": column(-1, 2, -0.1, 0), "s_again": column(1, 2, 3, -4)}))
    assert (estimate("adversarial", of), estimate("adversarial-control", of)) == (0.5, 0.25)
