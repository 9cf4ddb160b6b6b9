"""The nnsight way and the engine's: the same numbers, operation by operation and through the whole method."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from function_vectors.decoding import decode
from function_vectors.effects import indirect_effects, top_heads
from function_vectors.engine import EngineRunner
from function_vectors.evaluation import score, score_by_layer, whole_answers
from function_vectors.nnsight_runner import NNsightRunner
from function_vectors.runners import Runner, adding, replacing
from function_vectors.task_vectors import task_vectors
from function_vectors.vectors import function_vector, mean_z
from interventions.views import nnsight_view

from .conftest import D_HEAD, D_MODEL, D_VOCAB, FOUR, N_HEADS, N_LAYERS, encoded, random_network

pytest.importorskip("nnsight")

CLEAN, SHUFFLED = encoded((7, 4, 6, 7, 5), seed=0, answer_lengths=(1, 2)), encoded((6, 7, 3), seed=1)
GENERATOR = torch.Generator().manual_seed(2)
Z = torch.randn(N_LAYERS, N_HEADS, D_HEAD, generator=GENERATOR)
VECTOR = 10 * torch.randn(D_MODEL, generator=GENERATOR)
STATES = 10 * torch.randn(len(CLEAN.answers), N_LAYERS, D_MODEL, generator=GENERATOR)
CANDIDATES = torch.arange(0, D_VOCAB, 2).flip(0)


@functools.cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{at}": at for at in range(D_VOCAB)}, unk_token="w1"))
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w0", bos_token="w0")


def view(name: str, *, with_tokenizer: bool = False) -> Any:
    return nnsight_view(random_network(name), tokenizer() if with_tokenizer else None, name)


OPERATIONS: dict[str, Callable[[Runner], Tensor]] = {
    "z": lambda runner: runner.last_z(CLEAN.prompts),
    "stream": lambda runner: runner.last_stream(CLEAN.prompts),
    "projection": lambda runner: runner.projected(Z.flatten(1)[:, None]),
    "decoded": lambda runner: runner.decoded(STATES[:, 0]),
    "heads": lambda runner: runner.with_head_replaced(CLEAN.prompts, CLEAN.first, Z).values,
    "clean": lambda runner: runner.with_head_replaced(CLEAN.prompts, CLEAN.first, Z).clean,
    "predictions": lambda runner: runner.predictions(CLEAN.prompts),
    "candidates": lambda runner: runner.predictions(CLEAN.prompts, CANDIDATES),
    "added": lambda runner: runner.predictions_by_layer(CLEAN.prompts, adding(VECTOR), [2, 0, 1]),
    "replaced": lambda runner: runner.predictions_by_layer(CLEAN.prompts, replacing(STATES), [0, 1, 2], CANDIDATES),
    "each layer's own": lambda runner: runner.predictions_by_layer(CLEAN.prompts, adding(STATES[0]), [1, 2]),
    "continued": lambda runner: runner.generated(CLEAN.prompts, 4),
    "continued once": lambda runner: runner.generated(CLEAN.prompts, 4, edit=adding(VECTOR), layer=1),
    "continued throughout": lambda runner: runner.generated(
        CLEAN.prompts, 4, edit=adding(VECTOR), layer=1, every_step=True
    ),
    "continued from a state": lambda runner: runner.generated(CLEAN.prompts, 4, edit=replacing(STATES), layer=2),
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("name", [*FOUR, "gemma2", "opt", "attention_only"])
def test_every_operation_is_that_of_the_engine(name: str, operation: str) -> None:
    ours = EngineRunner(random_network(name), batch_size=2)
    theirs = NNsightRunner(view(name), batch_size=3, copies=5)
    expected = OPERATIONS[operation](ours)
    assert expected.float().std() > 1e-3
    torch.testing.assert_close(OPERATIONS[operation](theirs), expected, atol=1e-4, rtol=1e-5)
    assert (theirs.n_layers, theirs.n_heads) == (ours.n_layers, ours.n_heads)
    assert theirs.norm_behind_attention == ours.norm_behind_attention == (name == "gemma2")


def test_a_norm_behind_attention_is_the_models_own() -> None:
    theirs, ours = NNsightRunner(view("gemma2")), EngineRunner(random_network("gemma2"))
    torch.testing.assert_close(theirs.normed(STATES[:3]), ours.normed(STATES[:3]), atol=1e-4, rtol=0)


def whole_method(runner: Runner) -> dict[str, Tensor]:
    """Means, effects, heads, vector, decoding, scores and task vectors."""
    z = mean_z(runner, CLEAN)
    effects = indirect_effects(runner, SHUFFLED, z)
    heads = top_heads(effects.mean(), 4)
    vector = function_vector(runner, z, heads, task="random")
    states = task_vectors(runner, SHUFFLED.prompts)
    decoded = decode(runner, vector, 5)
    return {
        "z": z,
        "effects": effects.effects,
        "heads": torch.tensor(heads),
        "vector": vector.vector,
        "words": decoded.tokens,
        "likely": decoded.probabilities,
        "clean": score(runner, CLEAN).right,
        "layers": score_by_layer(runner, CLEAN, adding(vector.vector)).right,
        "whole": whole_answers(runner, CLEAN, adding(vector.vector), layers=[1, 2]).right,
        "states": states,
        "patched": score_by_layer(runner, SHUFFLED, replacing(states)).right,
    }


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-4, rtol=0, msg=f"{key}: {found[key]} and {value}")


@pytest.mark.parametrize("name", FOUR)
@pytest.mark.parametrize("with_tokenizer", [False, True])
def test_the_whole_method_gives_the_same_numbers(name: str, with_tokenizer: bool) -> None:
    expected = whole_method(EngineRunner(random_network(name)))
    found = whole_method(NNsightRunner(view(name, with_tokenizer=with_tokenizer), batch_size=4))
    assert_same(found, expected)


@pytest.mark.parametrize("name", ["gpt2", "gptj"])
def test_traces_survive_the_packing_of_a_remote_run(name: str) -> None:
    remote = NNsightRunner(view(name, with_tokenizer=True), batch_size=4, remote="local")
    expected, found = whole_method(EngineRunner(random_network(name))), whole_method(remote)
    assert_same(found, expected)


def recorded(model: Any, monkeypatch: pytest.MonkeyPatch, *, serve: bool) -> list[dict[str, Any]]:
    """The arguments of every trace from now on; a server's are taken off, and its one unpadded prompt run here."""
    calls: list[dict[str, Any]] = []
    trace = type(model).trace

    def recording(self: Any, *inputs: Any, **options: Any) -> Any:
        calls.append({"inputs": inputs, **options})
        options.pop("remote", None)
        if serve:
            assert set(options) == {"serve", "temperature", "max_tokens"}
            inputs, options = (torch.tensor([inputs[0]]),), {"use_cache": False}
        return trace(self, *inputs, **options)

    monkeypatch.setattr(type(model), "trace", recording)
    return calls


def test_every_trace_is_sent_where_it_is_asked_to_run(monkeypatch: pytest.MonkeyPatch) -> None:
    model = view("gpt2", with_tokenizer=True)
    calls = recorded(model, monkeypatch, serve=False)
    whole_method(NNsightRunner(model, remote=True))
    assert len(calls) > 10
    assert all(call["remote"] is True for call in calls)
    calls.clear()
    whole_method(NNsightRunner(model))
    assert not any("remote" in call or "serve" in call for call in calls)


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_a_server_gets_one_prompt_a_trace_without_padding(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = view(name, with_tokenizer=True)
    logits = property(lambda self: self.output.logits[:, -1])
    monkeypatch.setattr(type(model), "logits", logits, raising=False)
    calls = recorded(model, monkeypatch, serve=True)
    expected = whole_method(EngineRunner(random_network(name)))
    found = whole_method(NNsightRunner(model, serve="http://somewhere:8000"))
    assert_same(found, expected)
    assert {call["serve"] for call in calls} == {"http://somewhere:8000"}
    assert {(call["temperature"], call["max_tokens"]) for call in calls} == {(0.0, 1)}
    assert all(isinstance(token, int) for call in calls for token in call["inputs"][0])


def test_a_model_that_is_not_loaded_yet_is_loaded_by_its_first_trace(tmp_path: Path) -> None:
    """As from a hub id: nnsight builds the modules without weights, in training mode."""
    from nnsight import TransformersModel

    random_network("llama").save_pretrained(tmp_path)
    model = TransformersModel(str(tmp_path), task="text-generation", tokenizer=tokenizer())
    assert not model.dispatched
    assert_same(whole_method(NNsightRunner(model)), whole_method(EngineRunner(random_network("llama"))))


def test_dropout_is_refused() -> None:
    network = copy.deepcopy(random_network("gpt2")).train()
    with pytest.raises(ValueError, match="the nnsight model is in training mode: expected no dropout"):
        NNsightRunner(nnsight_view(network, None, "gpt2")).predictions(CLEAN.prompts)


def test_an_edit_for_other_prompts_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    runner = NNsightRunner(view("gpt2"))
    monkeypatch.setattr(type(runner.model), "trace", pytest.fail)
    with pytest.raises(ValueError, match=r"stream edit has values of shape \[2, 3, 32\]: expected \[5 or 1, 3 or 1"):
        runner.predictions_by_layer(CLEAN.prompts, replacing(STATES[:2]), [0])
    with pytest.raises(ValueError, match=r"stream edit has values of shape \[2, 3, 32\]: expected \[5 or 1, 3 or 1"):
        runner.generated(CLEAN.prompts, 1, edit=replacing(STATES[:2]))
    with pytest.raises(ValueError, match=r"layers \[0, 0\]: expected at least one of 0 to 2, each once"):
        runner.predictions_by_layer(CLEAN.prompts, adding(VECTOR), [0, 0])


def test_the_network_is_left_as_it_was() -> None:
    network = random_network("gpt2")
    before = {key: value.clone() for key, value in network.state_dict().items()}
    logits = network(CLEAN.prompts.tokens).logits
    whole_method(NNsightRunner(view("gpt2")))
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(network(CLEAN.prompts.tokens).logits, logits)
