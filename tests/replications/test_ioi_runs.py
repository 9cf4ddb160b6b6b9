"""All stages of Wang et al. 2022 on small random models in folders, through the store; and attention that is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from replications.indirect_object_identification import (
    backup_stages,
    circuit,
    claims,
    cut_stages,
    discovery_stages,
    experiment,
    measured_circuits,
    measures,
    setting,
)

from reprise import Results
from reprise.claims import ClaimResult, evaluate

from .ioi_claim_runs import FEW, PAPER, few, whole_run, write_doer
from .ioi_search_runs import KINDS, Plain, job, place, row_of, write

PUBLISHED_ALONE = {
    *("roles-recall", "roles-precision", "backup-published", "circuit-size", "faithfulness", "naive-faithful"),
    *("precision", "recall"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_attention_is_cut_as_by_a_mask_before_the_softmax(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against plain transformers with a mask of its own, one prompt at a time."""
    few(monkeypatch, "tiny")
    reference = write(tmp_path / kind, kind)
    found = cut_stages.cut(job(reference, "tiny"))
    of = setting.settle(job(reference, "tiny"))
    prompts, plain = of.clean(FEW.validated, setting.SCORES), Plain(reference)
    changed = 0.0
    for row in range(4):
        tokens = row_of(prompts, row)
        n = tokens.shape[1]
        expected = {"plain": plain.difference(prompts, row)}
        for name, words in {"s1": ["S1"], "s1_and_next": ["S1", "S1+1"], "io": ["IO"]}.items():
            mask = torch.full((n, n), float("-inf")).triu(1)
            for word in words:
                mask[place(prompts, row, "S2"), place(prompts, row, word)] = float("-inf")
            logits = plain.run(tokens, attention_mask=mask[None, None]).logits[0, -1]
            expected[name] = float(logits[prompts.io[row]] - logits[prompts.s[row]])
            changed = max(changed, abs(expected[name] - expected["plain"]))
        assert {name: float(found[name][row]) for name in expected} == pytest.approx(expected, abs=2e-4)
    assert changed > 0.01
    assert found.facts["cuts"] == {"s1": ["S1"], "s1_and_next": ["S1", "S1+1"], "io": ["IO"]}


def test_a_row_of_which_all_attention_is_cut_stays_0() -> None:
    pattern = torch.tensor([[[0.0, 1.0, 0.0], [0.25, 0.5, 0.25]]])
    cut = cut_stages.cutting([1])(pattern)
    assert cut.tolist() == [[[0.0, 0.0, 0.0], [0.5, 0.0, 0.5]]]
    assert pattern[0, 0, 1] == 1


def judged(of: Results) -> dict[str, ClaimResult]:
    """The rows of a run; what was not run says when in its note."""
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if of.tier in claim.accept}
    not_run = {claim for claim, row in rows.items() if row.verdict == "not run"}
    assert all("Not run" in PAPER.claim(claim).note for claim in not_run)
    stages = {stage.name for stage in experiment.STAGES}
    assert set(of.by_stage) == stages
    return rows


def not_run(rows: dict[str, ClaimResult]) -> set[str]:
    return {claim for claim, row in rows.items() if row.verdict == "not run"}


def roles_without_heads(of: Results) -> set[str]:
    """The claims about roles of which this run found no heads."""
    about = {
        circuit.MOVERS: {"movers-by-attention", "mover-attention", "mover-scatter", "mover-copying"},
        circuit.NEGATIVE: {"negative-scatter", "negative-copying"},
        circuit.INHIBITION: {"inhibition-attention", "signal-position", "signal-token", "position-over-token"},
        circuit.DUPLICATE: {"early-duplicate"},
        circuit.INDUCTION: {"early-induction"},
        circuit.PREVIOUS: {"early-previous"},
    }
    behind = (circuit.DUPLICATE, circuit.INDUCTION, circuit.PREVIOUS)
    early = () if measures.heads_of(of, circuit.INHIBITION) else behind
    first = (circuit.MOVERS, circuit.NEGATIVE, circuit.INHIBITION)
    silent = {claim for role in (*first, *early) if not measures.heads_of(of, role) for claim in about[role]}
    steps = {
        "paths_to_queries": {"inhibition-through-queries"},
        "paths_to_inhibition": {"early-through-inhibition", "values-not-keys"},
        "paths_to_induction": {"previous-through-induction"} if early else set(),
    }
    for stage, of_step in steps.items():
        if measures.main(of, stage).facts["why_not"]:
            silent |= of_step
    return silent


def test_the_tiny_tier_on_a_model_that_does_the_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few(monkeypatch, "tiny")
    write_doer(tmp_path / "doer", n_layers=3, n_heads=4, d_head=16)
    of = whole_run(tmp_path / "doer", "tiny", tmp_path / "out")
    rows = judged(of)
    assert not_run(rows) == roles_without_heads(of)
    assert rows["io-above-s"].verdict == "supported"
    # It does so without noticing that a name is repeated, by heads that write the opposite of what they read.
    assert rows["needs-repetition"].verdict == "refuted"
    assert rows["mover-copying"].verdict == "refuted"
    assert rows["discovered-few-heads"].n == 12
    plain = of.of("cut")["doer"]["plain"].mean()
    assert plain == pytest.approx(of.of("faithfulness")["doer"]["model"].mean(), rel=1e-4)
    assert plain == pytest.approx(of.of("discovery")["doer"]["model"].mean(), rel=1e-4)
    again = whole_run(tmp_path / "doer", "tiny", tmp_path / "out")
    assert again.of("discovery")["doer"].facts == of.of("discovery")["doer"].facts


def test_the_paper_tier_validates_the_published_circuit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a model with GPT-2 small's layers and heads, but narrow."""
    few(monkeypatch, "paper")
    both = (circuit.GPT2_SMALL, circuit.NAIVE_GPT2_SMALL)
    for module in (circuit, measured_circuits, discovery_stages, backup_stages):
        monkeypatch.setattr(module, "published", lambda config: both)
    write_doer(tmp_path / "doer", n_layers=12, n_heads=12, d_head=8)
    of = whole_run(tmp_path / "doer", "paper", tmp_path / "out")
    rows = judged(of)
    # What two of the published movers do in this model cannot be told from 0.
    assert not_run(rows) <= {"movers-by-attention", "backup-take-over"}
    assert measures.heads_of(of, circuit.INHIBITION) == ((7, 3), (7, 9), (8, 6), (8, 10))
    assert rows["mover-attention"].over == "prompts (9.6, 9.9, 10.0)"
    faithful = of.of("faithfulness")["doer"]
    assert faithful.facts["circuit"]["heads"] == [list(head) for head in circuit.GPT2_SMALL.heads]
    f_model, f_circuit = (float(faithful[name].mean()) for name in ("model", "circuit"))
    assert rows["faithfulness"].estimate == pytest.approx(1 - abs(f_model - f_circuit) / f_model, abs=1e-5)
    proposed = {tuple(head) for head in of.of("elimination")["doer"].facts["circuit"]}
    assert rows["circuit-size"].estimate == len(proposed)
    both_have = len(proposed & set(circuit.GPT2_SMALL.heads))
    assert (rows["precision"].estimate, rows["recall"].estimate) == pytest.approx(
        (both_have / len(proposed), both_have / 26)
    )


@pytest.mark.parametrize(("kind", "tier"), [("llama", "paper"), ("gpt_neox", "tiny")])
def test_any_folder_goes_through_all_stages(
    kind: str, tier: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Llama with grouped queries and NeoX: random, they do not do the task."""
    few(monkeypatch, tier)
    write(tmp_path / kind, kind)
    of = whole_run(tmp_path / kind, tier, tmp_path / "out")
    rows = judged(of)
    assert rows["io-above-s"].verdict != "supported"
    if tier == "paper":
        assert not_run(rows) >= PUBLISHED_ALONE
    assert not_run(rows) >= roles_without_heads(of)


def test_the_tiny_tier_is_of_a_model_of_the_zoo() -> None:
    import zoo

    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)
