"""Path patching backwards and the signals of S-inhibition: against plain passes, and the rules on results by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from replications.indirect_object_identification import (
    circuit,
    head_stages,
    path_stages,
    setting,
    signal_stages,
)
from replications.indirect_object_identification.circuit import Circuit
from replications.indirect_object_identification.grouping import WORDS

from reprise import Job, Result
from reprise.models import ModelReference

from .ioi_search_runs import FEW, KINDS, N_HEADS, N_LAYERS, Plain, job, place, put, row_of, write

MOVERS = [(2, 1), (1, 3)]
HEADS = [(layer, head) for layer in range(N_LAYERS) for head in range(N_HEADS)]


@pytest.fixture(scope="module", params=KINDS)
def reference(request: Any, tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    return write(tmp_path_factory.mktemp("models") / request.param, request.param)


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> ModelReference:
    return write(tmp_path_factory.mktemp("models") / "gpt2", "gpt2")


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(setting, "TRIALS", {"tiny": FEW, "paper": FEW})


def found(does: float = 1.0, **roles: list[tuple[int, int]]) -> Result:
    """What a step found; F is above 0 on a share `does` of ten prompts."""
    clean = np.where(np.arange(10) < 10 * does, 1.0, -1.0)
    return Result({"clean": clean}, {"roles": {role: [list(head) for head in heads] for role, heads in roles.items()}})


def looking(at: dict[tuple[int, int], dict[tuple[str, str], float]], uniform: float = 0.1) -> Result:
    """Attention of some heads by (query, key) word, on two prompts; 0 else."""
    attention = np.zeros((2, N_LAYERS, N_HEADS, len(WORDS), len(WORDS)), dtype=np.float32)
    for (layer, head), pairs in at.items():
        for (query, key), value in pairs.items():
            attention[:, layer, head, WORDS.index(query), WORDS.index(key)] = value
    return Result({"attention": attention, "uniform": np.full((2, len(WORDS)), uniform, dtype=np.float32)})


def test_to_the_logits_by_a_stream_that_is_added_up_by_hand(gpt2: ModelReference) -> None:
    """x := x + attn_out(z), x := x + mlp(x) at END alone, with the sender's z from p_ABC and all others clean."""
    result = path_stages.to_logits(job(gpt2, "paper"))
    clean, abc = setting.settle(job(gpt2, "paper")).pair(FEW.paths)
    plain = Plain(gpt2)
    for row in range(FEW.paths):
        own, other = plain.z(row_of(clean, row)), plain.z(row_of(abc, row))
        tokens = row_of(clean, row)
        transformer = plain.network.transformer
        with torch.no_grad():
            start = transformer.wte(tokens[0, -1]) + transformer.wpe(torch.tensor(tokens.shape[1] - 1))
            values = {}
            for sender in [None, *HEADS]:
                x = start
                for layer in range(N_LAYERS):
                    z = own[layer][0, -1].clone()
                    if sender is not None and sender[0] == layer:
                        z[sender[1]] = other[layer][0, -1, sender[1]]
                    block = plain.layer(layer)
                    x = x + block.attn.c_proj(z.flatten())
                    x = x + block.mlp(block.ln_2(x))
                logits = plain.network.lm_head(transformer.ln_f(x))
                values[sender] = float(logits[clean.io[row]] - logits[clean.s[row]])
        assert result["clean"][row] == pytest.approx(values[None], abs=1e-4)
        for layer, head in HEADS:
            expected = values[layer, head] - values[None]
            assert result["effects"][row, layer, head] == pytest.approx(expected, abs=2e-4)
    mean = result["effects"].mean(axis=0)
    movers, negative = (result.facts["roles"][role] for role in ("movers", "negative"))
    assert mean[tuple(movers[0])] == mean.min() < 0 < mean.max() == mean[tuple(negative[0])]


LOGITS = found(movers=MOVERS)
STEPS = [
    (path_stages.to_logits, {}, "END", {"": "q"}, []),
    (path_stages.to_queries, {}, "END", {"": "q"}, MOVERS),
    (
        path_stages.to_inhibition,
        {
            "paths_to_queries": found(inhibition=[(2, 0), (1, 2)]),
            "attention": looking({(2, 0): {("END", "S2"): 0.5}, (1, 2): {("END", "S1"): 0.3}}),
        },
        "S2",
        {"keys.": "k", "values.": "v"},
        [(2, 0), (1, 2)],
    ),
    (path_stages.to_induction, {"paths_to_inhibition": found(induction=[(2, 2)])}, "S1+1", {"": "k"}, [(2, 2)]),
]


@pytest.mark.parametrize(("stage", "needs", "word", "into", "heads"), STEPS)
def test_steps_are_two_plain_passes_a_sender(
    reference: ModelReference,
    stage: Callable[[Job], Result],
    needs: dict[str, Result],
    word: str,
    into: dict[str, str],
    heads: list[tuple[int, int]],
) -> None:
    result = stage(job(reference, "tiny", paths_to_logits=LOGITS, **needs))
    clean, abc = setting.settle(job(reference, "tiny")).pair(FEW.paths if word == "END" else FEW.inner_paths)
    plain = Plain(reference)
    assert (result.facts["word"], result.facts["why_not"]) == (word, None)
    for row in range(2):
        before, column = plain.difference(clean, row), place(clean, row, word)
        z = plain.z(row_of(clean, row)), plain.z(row_of(abc, row))
        for name, projection in into.items():
            shared = reference.name == "llama" and projection != "q"
            receivers = sorted({(layer, head // 2 if shared else head) for layer, head in heads})
            last = max((layer for layer, _ in heads), default=N_LAYERS)
            for layer, head in HEADS:
                expected = 0.0
                if layer < last:
                    sender = (layer, head)
                    after = plain.path_difference(clean, row, z, sender, column, receivers, projection)
                    expected = after - before
                effect = result[f"{name}effects"][row, layer, head]
                assert effect == pytest.approx(expected, abs=5e-4), (name, layer, head)
    effects = [-result[f"{name}effects"] for name in into]
    roles = {role: heads for role, heads in result.facts["roles"].items() if role != "negative"}
    named = {(layer, head) for of in roles.values() for layer, head in of}
    assert named == set(path_stages.strongest(effects))


def test_the_strongest_heads_by_the_rule() -> None:
    effects = np.zeros((2, 6, 12))  # 72 heads: 6 at most
    effects[:, 1, 2], effects[:, 5, 0], effects[:, 2, 2], effects[:, 0, 1] = 1.0, 0.5, 0.2, 0.19
    effects[0, 3, 3], effects[1, 3, 3] = 4.0, -3.4  # 0.3 on average
    effects[:, 4, 4] = -9.0
    assert path_stages.strongest([effects]) == [(1, 2), (5, 0), (3, 3), (2, 2)]
    effects[:, 4, 4:12] = 0.9
    assert path_stages.strongest([effects]) == [(1, 2), (4, 4), (4, 5), (4, 6), (4, 7), (4, 8)]
    assert path_stages.strongest([-np.ones((2, 2, 2))]) == []
    assert len(path_stages.strongest([np.ones((2, 2, 2))])) == 3
    keys, values = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    keys[:, 0, 1], values[:, 1, 0] = 0.3, 1.0
    assert path_stages.strongest([keys, values]) == [(1, 0), (0, 1)]


def test_what_inhibition_reads_and_the_roles_of_what_writes_it() -> None:
    attention = looking(
        {
            (2, 0): {("END", "S2"): 0.2, ("END", "S1"): 0.3, ("END", "END"): 0.9},
            (2, 1): {("END", "S2"): 0.4},
            (1, 0): {("S2", "S1+1"): 0.5, ("S2", "S1"): 0.2},
            (1, 1): {("S2", "S1"): 0.5, ("S2", "S1+1"): 0.2},
            (1, 2): {("S2", "S1"): 0.05, ("S2", "S2"): 0.9},
        }
    )
    assert path_stages.read_from(attention, []) == "S2"
    assert path_stages.read_from(attention, [(2, 0)]) == "S1"
    assert path_stages.read_from(attention, [(2, 0), (2, 1)]) == "S2"
    roles = path_stages.early_roles(attention, [(1, 2), (1, 1), (1, 0)], "S2")
    assert roles == {circuit.INDUCTION: [(1, 0)], circuit.DUPLICATE: [(1, 1)], circuit.OTHER: [(1, 2)]}


def test_receivers_of_keys_are_whole_groups() -> None:
    assert path_stages.whole_groups([(1, 3), (0, 1), (1, 2)], 2) == [(0, 0), (0, 1), (1, 2), (1, 3)]
    assert path_stages.whole_groups([(1, 3), (0, 1)], 1) == [(0, 1), (1, 3)]


def test_a_step_without_receivers_says_so(gpt2: ModelReference) -> None:
    result = path_stages.to_queries(job(gpt2, "tiny", paths_to_logits=found(movers=[(0, 1)])))
    assert result.facts["why_not"] == "1 movers heads, none behind the first layer: no head comes before them"
    assert (dict(result.arrays), result.facts["roles"]) == ({}, {"inhibition": []})
    none = {"paths_to_logits": LOGITS, "paths_to_queries": found(inhibition=[]), "attention": looking({})}
    result = path_stages.to_inhibition(job(gpt2, "tiny", **none))
    assert result.facts["roles"] == {"induction": [], "duplicate": [], "other": []}
    assert signal_stages.signals(job(gpt2, "tiny", **none)).arrays == {}


def test_the_paper_tier_reads_published_heads_as_well(gpt2: ModelReference, monkeypatch: pytest.MonkeyPatch) -> None:
    published = Circuit("p", {"movers": ((2, 3),), "inhibition": ((1, 1),), "induction": ((1, 0),)})
    monkeypatch.setattr(circuit, "published", lambda config: (published, published))
    needs = {"paths_to_logits": found(movers=[(2, 1)]), "paths_to_queries": found(inhibition=[(1, 1)])}
    result = path_stages.to_queries(job(gpt2, "paper", **needs))
    own = path_stages.to_queries(job(gpt2, "paper", paths_to_logits=found(movers=[(2, 3)])))
    np.testing.assert_array_equal(result["published.effects"], own["effects"])
    assert not np.array_equal(result["effects"], own["effects"])
    assert result.facts["published.receivers"] == [[2, 3]]
    assert result.facts["published.roles"] == own.facts["roles"]
    signals = signal_stages.signals(job(gpt2, "paper", **needs))
    np.testing.assert_array_equal(signals["published.logit_difference"], signals["logit_difference"])
    assert "published.effects" not in path_stages.to_queries(job(gpt2, "tiny", **needs)).arrays
    needs["paths_to_logits"] = found(does=0.8, movers=[(2, 1)])
    assert "published.effects" not in path_stages.to_queries(job(gpt2, "paper", **needs)).arrays


def test_all_steps_on_a_folder(reference: ModelReference) -> None:
    done: dict[str, Result] = {"attention": head_stages.attention(job(reference, "tiny"))}
    done["paths_to_logits"] = path_stages.to_logits(job(reference, "tiny", **done))
    done["paths_to_queries"] = path_stages.to_queries(job(reference, "tiny", **done))
    done["paths_to_inhibition"] = path_stages.to_inhibition(job(reference, "tiny", **done))
    done["paths_to_induction"] = path_stages.to_induction(job(reference, "tiny", **done))
    roles = path_stages.roles_found(done)
    assert set(roles) <= set(circuit.ROLES)
    assert roles["movers"]
    assert all(0 <= layer < N_LAYERS and 0 <= head < N_HEADS for of in roles.values() for layer, head in of)


def test_sentences_have_the_signals_that_they_are_listed_under(gpt2: ModelReference) -> None:
    of = setting.settle(job(gpt2, "paper"))
    sentences = of.sentences(20)
    clean = of.tokenized(sentences)
    for (position, token), change in signal_stages.SIGNALS.items():
        other = of.tokenized(change(sentences, 0))
        for row in range(20):
            tokens = row_of(other, row)[0]
            at = {word: place(clean, row, word) for word in ("IO", "S1", "S2")}
            name = int(tokens[at["S2"]])
            assert name == int(tokens[at["S1" if position == 1 else "IO"]])
            assert name != int(tokens[at["IO" if position == 1 else "S1"]])
            kind = {int(clean.s[row]): 1, int(clean.io[row]): -1}.get(name, 0)
            assert kind == token
            differ = (tokens != row_of(clean, row)[0]).nonzero().flatten().tolist()
            assert set(differ) <= set(at.values())


def test_signals_are_heads_replaced_together_at_end(reference: ModelReference) -> None:
    heads = [(1, 1), (2, 0), (2, 3)]
    needs = {"paths_to_logits": LOGITS, "paths_to_queries": found(inhibition=heads)}
    result = signal_stages.signals(job(reference, "paper", **needs))
    of, plain = setting.settle(job(reference, "paper")), Plain(reference)
    sentences = of.sentences(FEW.signals)
    clean = of.tokenized(sentences)
    assert [tuple(signal) for signal in result.facts["signals"]] == list(signal_stages.SIGNALS)
    for at, change in enumerate(signal_stages.SIGNALS.values()):
        other = of.tokenized(change(sentences, 0))
        for row in range(FEW.signals):
            z = plain.z(row_of(other, row))
            with plain.z_edited({1: put(z[1], [-1], [1]), 2: put(z[2], [-1], [0, 3])}):
                expected = plain.difference(clean, row)
            assert result["logit_difference"][row, at] == pytest.approx(expected, abs=2e-4)
    np.testing.assert_allclose(
        result["logit_difference"][:, 0], [plain.difference(clean, row) for row in range(4)], atol=2e-4
    )


def test_weights_of_position_and_token() -> None:
    design = np.array(list(signal_stages.SIGNALS), dtype=float)
    true = np.array([[2.31, 0.99], [-1.0, 4.0]])
    np.testing.assert_allclose(signal_stages.weights_of(true @ design.T), true, rtol=1e-6)
