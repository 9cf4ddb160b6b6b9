"""The replication of Elhage et al. 2021: its measures on results made by hand, its stages on small random models."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from replications.transformer_circuits import claims, experiment, models, prompts, run_stages, weight_stages
from replications.transformer_circuits.figures import FIGURES
from safetensors.torch import save_file

import circuits
import zoo
from circuits import SkipTrigram
from reprise import Job, Page, Result, Results
from reprise.claims import committed, evaluate
from reprise.models import ModelReference
from reprise.paper import load
from reprise.plotting import house_style
from zoo.held_out import tokenizer_file
from zoo.model import AttentionOnly, AttentionOnlyConfig

ROOT = Path(__file__).resolve().parents[2]
PAPER = load(ROOT / "replications" / "transformer_circuits" / "paper.toml")
TWO = {"n_layers": 2, "n_heads": 2}


def results(**by_stage: Mapping[str, Result]) -> Results:
    return Results(tier="tiny", seed=0, by_stage=by_stage)


def measured(claim: str, of: Results) -> float:
    measurement = claims.CLAIMS[claim](of)
    assert measurement is not None
    return measurement.estimate


def test_a_bigram_model_leaves_no_divergence() -> None:
    weight, scale = np.full(4, 0.25), np.array([1.0, 2.0, 1.0, 2.0])
    result = Result(
        {"weight": weight, "divergence": 0.1 * scale, "divergence_of_frequency": scale}, {"n_layers": 0, "n_heads": 2}
    )
    assert measured("zero-layer-bigrams", results(bigrams={"m": result})) == pytest.approx(0.9)


def test_copying_heads_are_counted() -> None:
    result = Result({"score": np.array([[0.9, 0.6, 0.4, -1.0]])}, {"n_layers": 1, "n_heads": 4, "induction": []})
    assert measured("copying-heads-one-layer", results(copying={"m": result})) == 0.5


def test_composition_is_in_multiples_of_chance_and_pools_seeds() -> None:
    def one(value: float) -> Result:
        k = np.full((2, 2, 2, 2), 0.05)
        k[0, 1, 1, 0] = value
        facts = {**TWO, "previous": [0, 1], "induction": [[1, 0], [1, 1]], "chance": 0.05}
        return Result({"k": k, "q": np.full_like(k, 0.05), "v": k}, facts)

    of = results(composition={"m": one(0.15), "m-seed1": one(0.25)})
    assert measured("k-composition", of) == pytest.approx((3 + 1 + 5 + 1) / 4)
    assert measured("q-composition", of) == pytest.approx(1)
    assert measured("k-composition-first", of) == pytest.approx(0.5)  # ties go to the first head, which is not it


def test_the_worst_seed_counts_for_the_diagonal() -> None:
    def one(share: float) -> Result:
        hit = (np.arange(10) < 10 * share).astype(float)
        return Result({"diagonal": np.stack([np.zeros(10), hit])}, {**TWO, "previous": [0, 1]})

    of = results(composition={"m": one(0.8), "m-seed1": one(0.3)})
    assert measured("k-composition-diagonal", of) == pytest.approx(0.3)


def test_the_largest_part_of_the_score() -> None:
    parts = np.zeros((1, 3, 3))
    parts[0, 1, 2] = 5
    facts = {**TWO, "previous": [0, 6], "induction": [[1, 0]], "labels": ["positions", "tokens", "L0H6"]}
    contrast = -parts
    contrast[0, 0, 0] = 1

    def of(labels: list[str]) -> Results:
        result = Result({"parts": parts, "contrast": contrast}, {**facts, "labels": labels})
        return results(paths={"m": result, "m-seed1": result})

    assert measured("score-parts", of(["positions", "tokens", "L0H6"])) == 1
    assert measured("score-parts", of(["positions", "L0H3", "L0H6"])) == 0
    assert measured("score-contrast", of(["positions", "tokens", "L0H6"])) == 0
    assert measured("score-contrast", of(["L0H6", "tokens", "L0H3"])) == 1


def test_induction_lost_and_orders() -> None:
    facts = {**TWO, "previous": [0, 1], "induction": [[1, 0]]}
    arrays = {"induction_intact": np.full((4, 1), 0.8), "induction_k": np.full((4, 1), 0.2)}
    assert measured("keys-carry-induction", results(paths={"m": Result(arrays, facts)})) == pytest.approx(0.75)
    orders = Result({"by_order": np.array([[6.0, 4.0, 3.0], [6.0, 4.0, 3.0]])}, facts)
    assert measured("order-one-terms", results(terms={"m": orders})) == pytest.approx(2)
    assert measured("order-two-terms", results(terms={"m": orders})) == pytest.approx(0.5)


def test_a_kernel_that_peaks_one_back() -> None:
    kernel = np.eye(5, k=-1)
    kernel[0, 0] = 1
    one = Result({"kernel": kernel}, {**TWO, "previous": [0, 0]})
    assert measured("positional-kernel", results(positions={"m": one})) == 1
    one = Result({"kernel": np.eye(5)}, {**TWO, "previous": [0, 0]})
    assert measured("positional-kernel", results(positions={"m": one})) == 0


def test_a_skip_trigrams_two_contexts_differ_in_the_source_alone() -> None:
    trigrams = [SkipTrigram(source=900, destination=901, output=902, qk=1.0, ov=1.0)]
    filler = torch.arange(10, 60)
    with_source, without = prompts.skip_trigram_contexts(trigrams, filler, contexts=7, length=12, seed=0)
    differ = with_source != without
    assert differ.sum(dim=1).tolist() == [1] * 7
    assert with_source[differ].tolist() == [900] * 7
    assert (with_source[:, -1] == 901).all()
    assert (with_source[:, 0] == 0).all()


def test_the_bigram_table_is_the_models_next_token_distribution() -> None:
    """Against the plain network's own modules."""
    config = AttentionOnlyConfig(n_layers=0, d_model=16, n_heads=2, d_head=8, d_vocab=50, n_ctx=128)
    network = AttentionOnly(config, seed=0)
    x = network.embed.weight[:, None] + network.pos_embed.weight[weight_stages.POSITIONS]
    expected = network.unembed(network.ln_final(x)).softmax(dim=-1).mean(dim=1)
    bridge_free = circuits.Weights(
        W_E=network.embed.weight.detach() - network.embed.weight.detach().mean(-1, keepdim=True),
        W_pos=network.pos_embed.weight.detach() - network.pos_embed.weight.detach().mean(-1, keepdim=True),
        **{f"W_{name}": torch.zeros(0, 2, 16, 8) for name in "QKV"},
        **{f"b_{name}": torch.zeros(0, 2, 8) for name in "QKV"},
        W_O=torch.zeros(0, 2, 8, 16),
        b_O=torch.zeros(0, 16),
        W_U=network.unembed.weight.detach().T.clone(),
        b_U=network.unembed.bias.detach(),
        rotary=False,
        centred=True,
        eps=1e-5,
    )
    torch.testing.assert_close(weight_stages.bigram_table(bridge_free), expected, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelReference, ...]:
    """Random models of zero, one and two layers over the shipped vocabulary."""
    found = []
    for n_layers in (0, 1, 2):
        folder = tmp_path_factory.mktemp("models") / f"toy-{n_layers}l"
        folder.mkdir()
        config = AttentionOnlyConfig(n_layers=n_layers, d_model=16, n_heads=2, d_head=8, d_vocab=1024, n_ctx=128)
        save_file(AttentionOnly(config, seed=0).state_dict(), folder / "model.safetensors")
        (folder / "config.json").write_bytes(msgspec.json.encode(config))
        (folder / "tokenizer.json").write_bytes(tokenizer_file().read_bytes())
        found.append(ModelReference(folder.name, "folder", str(folder), "0" * 64))
    return tuple(found)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelReference, ...]:
    """A random GPT-2 in a Hugging Face folder: the paper tier's kind of model."""
    from transformers import GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("models") / "gpt2-random"
    torch.manual_seed(0)
    GPT2LMHeadModel(
        GPT2Config(n_layer=3, n_head=2, n_embd=16, vocab_size=300, n_positions=128, bos_token_id=0)
    ).save_pretrained(folder)
    return (ModelReference("gpt2-random", "folder", str(folder), "1" * 64),)


def run(references: tuple[ModelReference, ...], tier: str, monkeypatch: pytest.MonkeyPatch) -> Results:
    for module in (models, run_stages):
        monkeypatch.setattr(module, "INDUCTION", 0.0)
    for name, value in (("SEQUENCES", 4), ("WINDOWS", 8), ("CODES", (1, 2)), ("STEPS", 2)):
        monkeypatch.setattr(run_stages, name, value)
    done: dict[str, dict[str, Result]] = {}
    for stage in experiment.STAGES:
        for reference in references:
            needed = {name: {reference.name: done[name][reference.name]} for name in stage.needs}
            job = Job(
                root=ROOT,
                tier=tier,
                seed=0,
                device="cpu",
                dtype="float32",
                models=references,
                inputs=Results(tier, 0, needed),
                one_model=reference,
            )
            done.setdefault(stage.name, {})[reference.name] = stage.function(dataclasses.replace(job))
    return Results(tier, 0, done)


def test_every_stage_measure_and_figure_works_on_small_models(
    toys: tuple[ModelReference, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = run(toys, "tiny", monkeypatch)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert all(row.verdict != "not run" for row in rows.values())
    # random models show nothing of what the paper claims
    for claim in ("zero-layer-bigrams", "skip-trigrams-act", "k-composition", "k-composition-diagonal"):
        assert rows[claim].verdict == "refuted"
    with house_style():
        drawn = {name: draw(of) for name, draw in FIGURES.items()}
    assert all(figure is not None for figure in drawn.values())
    assert isinstance(drawn["attention"], Page)


def test_the_paper_tier_runs_on_a_hugging_face_folder(
    gpt2: tuple[ModelReference, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    of = run(gpt2, "paper", monkeypatch)
    rows = {row.claim: row for row in evaluate(PAPER, claims.CLAIMS, of)}
    assert set(rows) == {claim.id for claim in PAPER.claims if "paper" in claim.accept}
    assert all(row.verdict != "not run" for row in rows.values())
    with house_style():
        assert FIGURES["copying"](of) is not None
        assert FIGURES["bigrams"](of) is None
        assert FIGURES["attention"](of) is None


def test_the_committed_verdicts_are_those_of_the_claims() -> None:
    rows = committed(ROOT, PAPER, "tiny")
    assert [row.claim for row in rows] == [claim.id for claim in PAPER.claims if "tiny" in claim.accept]
    assert all(row.verdict != "not run" for row in rows)
    assert set(PAPER.tier("tiny").models) <= set(zoo.NAMES)
