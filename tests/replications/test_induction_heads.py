"""The replication of Olsson et al. 2022: its measures on results made by hand, its stages on small random models."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from replications.induction_heads import claims, experiment
from replications.induction_heads.claims import ONE, SEEDS, THREE, TWO
from replications.induction_heads.figures import FIGURES
from safetensors.torch import save_file

import zoo
from reprise import Job, Result, Results
from reprise.claims import committed, evaluate
from reprise.models import ModelReference
from reprise.paper import load
from reprise.plotting import house_style
from reprise.readme import claim_tables
from reprise.tables import insert
from zoo import packing
from zoo.cards import file_sha256
from zoo.held_out import tokenizer_file
from zoo.model import AttentionOnly, AttentionOnlyConfig

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "induction_heads" / "paper.toml")
TOKENS = np.array([0.0, *np.exp(np.linspace(0, 10, 21))])
LOG = np.linspace(0, 10, 21)


def ramp(start: float, end: float) -> np.ndarray:
    """0 before `start`, 1 after `end`, linear between, at the kept checkpoints."""
    return np.clip((LOG - start) / (end - start), 0, 1)


def dynamics(prefix: np.ndarray, score: np.ndarray, loss: np.ndarray, n_layers: int = 2) -> Result:
    """Results of a model with one head whose curves are known; 40 windows and 10 sequences with a little noise."""
    noise = np.random.default_rng(0).normal(0, 1e-3, 40)

    def with_initial(curve: np.ndarray) -> np.ndarray:
        return np.concatenate([[0.0], curve])

    return Result(
        {
            "tokens": TOKENS,
            "prefix_matching": with_initial(prefix)[:, None, None, None] * np.ones((1, 10, 1, 1)),
            "score": with_initial(score)[:, None] + noise,
            "loss": with_initial(loss)[:, None] + noise,
        },
        {"n_layers": n_layers},
    )


def results(**by_stage: Mapping[str, Result]) -> Results:
    return Results(tier="tiny", seed=0, by_stage=by_stage)


def test_the_window_runs_from_a_tenth_to_nine_tenths_of_the_final_score() -> None:
    assert claims.window(dynamics(0.8 * ramp(4, 6), LOG, LOG)) == pytest.approx((4.2, 5.8))


def test_a_model_with_final_weights_alone_has_no_window() -> None:
    assert claims.window(Result({"tokens": np.zeros(1), "prefix_matching": np.zeros((1, 4, 2, 2))})) is None


def test_share_of_the_change_in_the_window() -> None:
    """The score falls by 0.4 across [3, 8], of which the window [4.2, 5.8] holds 1.6 / 5."""
    of = results(dynamics={TWO: dynamics(ramp(4, 6), -0.4 * ramp(3, 8), LOG)})
    share = claims.CLAIMS["one-window-two-layers"](of)
    change = claims.CLAIMS["score-changes-in-window-two-layers"](of)
    assert share is not None
    assert change is not None
    assert share.estimate == pytest.approx(1.6 / 5, abs=1e-6)
    assert change.estimate == pytest.approx(-0.4 * 1.6 / 5, abs=1e-6)


@pytest.mark.parametrize(("inside", "before"), [(0.5, 0.2), (0.2, 0.5)])
def test_the_bump_is_the_difference_of_two_slopes(inside: float, before: float) -> None:
    """Slope `before` up to 4.2, `inside` after it."""
    loss = -np.where(LOG <= 4.2, before * LOG, before * 4.2 + inside * (LOG - 4.2))
    exact = np.array([4.2])
    assert exact not in LOG  # the kink lies between two checkpoints, so interpolation blurs it a little
    bump = claims.CLAIMS["bump-two-layers"](results(dynamics={TWO: dynamics(ramp(4, 6), LOG, loss)}))
    assert bump is not None
    assert bump.estimate == pytest.approx(inside - before, abs=0.06)


def test_the_one_layer_model_is_read_in_the_two_layer_models_window() -> None:
    of = results(dynamics={ONE: dynamics(0 * LOG, -ramp(0, 10), LOG, n_layers=1), TWO: dynamics(ramp(4, 6), LOG, LOG)})
    change = claims.CLAIMS["score-unchanged-one-layer"](of)
    assert change is not None
    assert change.estimate == pytest.approx(-0.16, abs=1e-6)


def test_the_best_head_is_chosen_on_other_sequences_than_it_is_measured_on() -> None:
    scores = np.zeros((10, 1, 2))
    scores[:5, 0, 0], scores[5:, 0, 0] = 0.9, 0.3
    scores[:5, 0, 1], scores[5:, 0, 1] = 0.1, 0.7
    assert claims.best_head(scores).tolist() == [0.3] * 5


def test_over_seeds_the_worst_counts() -> None:
    of = {
        TWO + seed: Result({"prefix_matching": np.full((10, 1, 1), value)}, {"n_layers": 2})
        for seed, value in zip(SEEDS, (0.9, 0.5, 0.7), strict=True)
    }
    lowest = claims.CLAIMS["prefix-matching-every-seed"](results(repeated=of))
    assert lowest is not None
    assert lowest.estimate == pytest.approx(0.5)
    del of[TWO + SEEDS[1]]
    assert claims.CLAIMS["prefix-matching-every-seed"](results(repeated=of)) is None


def test_what_ablation_removes_is_a_share_of_the_score() -> None:
    score = np.full(20, -0.4)
    arrays = {
        "score": score,
        "score_without_induction": score + 0.3,
        "score_without_controls": np.stack([score + 0.1, score + 0.2]),
    }
    of = results(ablation={TWO: Result(arrays, {"n_layers": 2, "induction_heads": [[1, 0]]})})
    removed = claims.CLAIMS["ablation-removes-in-context-learning"](of)
    specific = claims.CLAIMS["ablation-is-specific"](of)
    assert removed is not None
    assert specific is not None
    assert removed.estimate == pytest.approx(0.75)
    assert specific.estimate == pytest.approx(0.75 - 0.375)


def test_controls_are_other_heads_of_the_same_layers() -> None:
    scores = np.zeros((3, 8), dtype=np.float32)
    scores[1, [2, 5]] = scores[2, 0] = 0.9
    heads = experiment.induction_heads(scores)
    assert heads == [(1, 2), (1, 5), (2, 0)]
    for control in experiment.control_heads(scores, heads, n=20, seed=0):
        assert [layer for layer, _ in control] == [1, 1, 2]
        assert not set(control) & set(heads)
        assert len(set(control)) == 3


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    """A random two-layer model over the shipped vocabulary, with seven checkpoints."""
    folder = tmp_path_factory.mktemp("models") / "toy"
    folder.mkdir()
    config = AttentionOnlyConfig(n_layers=2, d_model=16, n_heads=2, d_head=8, d_vocab=1024, n_ctx=104)
    states = {step: AttentionOnly(config, seed=step).state_dict() for step in (0, 10, 20, 40, 60, 80, 100)}
    save_file(states[100], folder / "model.safetensors")
    packing.pack(states, folder / "checkpoints.safetensors")
    (folder / "config.json").write_bytes(msgspec.json.encode(config))
    (folder / "tokenizer.json").write_bytes(tokenizer_file().read_bytes())
    card = json.loads((zoo.folder(TWO) / "card.json").read_text())
    hashes = {path.name: file_sha256(path) for path in folder.iterdir()}
    (folder / "card.json").write_text(json.dumps({**card, "sha256": hashes}))
    return ModelReference("toy", "folder", str(folder), "0" * 64)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    """A random GPT-2 in a Hugging Face folder with a tokenizer of its own: the paper tier's kind of model."""
    from tokenizers import Tokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("models") / "gpt2-random"
    torch.manual_seed(0)
    config = GPT2Config(n_layer=2, n_head=2, n_embd=16, vocab_size=1024, n_positions=512, bos_token_id=0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_file(str(tokenizer_file())), bos_token="<|endoftext|>"
    )
    fast.save_pretrained(folder)
    return ModelReference("gpt2-random", "folder", str(folder), "1" * 64)


def run_stages(reference: ModelReference, tier: str, monkeypatch: pytest.MonkeyPatch) -> Results:
    few = experiment.Trials(windows=4, sequences=4, head_windows=4, joint_windows=4, controls=2)
    monkeypatch.setattr(experiment, "TRIALS", {"tiny": few, "paper": few})
    monkeypatch.setattr(experiment, "INDUCTION_THRESHOLD", 0.005)
    job = Job(
        root=ROOT,
        tier=tier,
        seed=0,
        device="cpu",
        dtype="float32",
        models=(reference,),
        inputs=Results(tier, 0, {}),
        one_model=reference,
    )
    done: dict[str, dict[str, Result]] = {}
    for stage in experiment.STAGES:
        needed = {name: done[name] for name in stage.needs}
        result = stage.function(dataclasses.replace(job, inputs=Results(tier, 0, needed)))
        done[stage.name] = {reference.name: result}
    return Results(tier, 0, done)


def test_every_stage_measure_and_figure_works_on_a_small_model(
    toy: ModelReference, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = run_stages(toy, "tiny", monkeypatch)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    # a random model shows nothing of what the paper claims
    assert rows["prefix-matching-two-layers"].verdict == "refuted"
    assert rows["repeated-tokens-two-layers"].verdict == "refuted"
    with house_style():
        drawn = {name: draw(of) for name, draw in FIGURES.items()}
    assert all(figure is not None for figure in drawn.values())


def test_the_last_checkpoint_is_the_model_file(toy: ModelReference, monkeypatch: pytest.MonkeyPatch) -> None:
    """The end of the training curves and the final stages agree, computed from separately loaded weights."""
    of = run_stages(toy, "tiny", monkeypatch)
    final, along = of.of("repeated")["toy"], of.of("dynamics")["toy"]
    np.testing.assert_allclose(along["prefix_matching"][-1], final["prefix_matching"], rtol=0, atol=1e-6)
    assert not np.allclose(along["prefix_matching"][-2], final["prefix_matching"])


def test_the_paper_tier_runs_on_a_hugging_face_folder(gpt2: ModelReference, monkeypatch: pytest.MonkeyPatch) -> None:
    of = run_stages(gpt2, "paper", monkeypatch)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if "paper" in claim.accept}
    assert rows["prefix-matching-two-layers"].verdict == "refuted"
    assert rows["in-context-learning-score"].n == 4
    assert of.of("dynamics")["gpt2-random"].facts["context"] == 512
    with house_style():
        assert FIGURES["phase_change"](of) is None
        assert FIGURES["loss_per_position"](of) is not None


def test_the_committed_verdicts_are_those_of_the_claims() -> None:
    rows = committed(ROOT, PAPER, "tiny")
    assert [row.claim for row in rows] == [claim.id for claim in PAPER.claims if "tiny" in claim.accept]
    assert all(row.verdict != "not run" for row in rows)


def test_the_readme_tables_are_the_committed_verdicts() -> None:
    for path, table in claim_tables(ROOT).items():
        assert path.read_text() == insert(path, table), f"{path}: run `reprise accept --all`"


def test_the_three_roles_are_shipped_models() -> None:
    assert {ONE, TWO, THREE} <= set(zoo.NAMES)
    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)
