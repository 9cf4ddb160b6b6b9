"""Vectors in an nnsight trace: the logits and tokens of plain hooks, of `steered` and of `generate`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions import Model, as_prompts, load
from interventions.views import nnsight_view
from steering.errors import SteeringError
from steering.generation import generate
from steering.nnsight_steering import nnsight_generate, nnsight_logits
from steering.positions import AfterPrompt, Everywhere, First, Mask, Positions, PromptOnly
from steering.steering import Operation, Steer, steered
from steering.texts import encode_texts
from steering.vectors import Component

from .exchange_models import D_VOCAB, THREE, Write, Writes, operated, plain_logits, random_network, vector

nnsight = pytest.importorskip("nnsight")

ROWS = [[3, 5, 7, 2, 9], [4, 1, 6], [8, 8, 2, 5]]
PROMPTS = as_prompts(ROWS)
VALID = torch.arange(5) >= 5 - torch.tensor([[len(row)] for row in ROWS])
MASK = torch.tensor([[1, 0, 0, 1, 0], [1, 1, 1, 0, 0], [0, 1, 0, 0, 1]]).bool()

WHERE: dict[str, tuple[Positions, Callable[[int, int], set[int]]]] = {
    "everywhere": (Everywhere(), lambda row, n: set(range(n))),
    "after the prompt": (AfterPrompt(), lambda row, n: {n - 1}),
    "after a given length": (AfterPrompt(length=torch.tensor([2, 3, 1])), lambda row, n: set(range((1, 2, 0)[row], n))),
    "first": (First(3, keep_last=True), lambda row, n: set(range(min(3, n - 1)))),
    "prompt": (PromptOnly(), lambda row, n: set(range(n - 1))),
    "mask": (Mask(MASK), lambda row, n: {at - (5 - n) for at in range(5 - n, 5) if MASK[row, at]}),
}
"""Positions, and where they are in row `row` of `n` tokens, counted without padding."""


@functools.cache
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({f"w{at}": at for at in range(D_VOCAB)}, unk_token="w1"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="w0", eos_token="w0", bos_token="w0")


@functools.cache
def view(name: str) -> Any:
    return nnsight_view(random_network(name), tokenizer(), name)


def writing(direction: Tensor, coefficient: float, operation: str, places: set[int]) -> Write:
    def write(x: Tensor) -> Tensor:
        for at in places & set(range(len(x))):
            x[at] = operated(x[at], direction if direction.ndim == 1 else direction[at], coefficient, operation)
        return x

    return write


def assert_rows(found: Tensor, expected: list[Tensor]) -> None:
    """Logits of a batch padded on the left, and those of its rows one by one."""
    for row, logits in zip(found, expected, strict=True):
        torch.testing.assert_close(row[-len(logits) :], logits, atol=3e-4, rtol=1e-4)


@pytest.mark.parametrize("place", WHERE)
@pytest.mark.parametrize("operation", ["add", "project_out", "clamp", "norm_preserving"])
@pytest.mark.parametrize("component", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("name", THREE)
def test_logits_are_those_of_plain_hooks(name: str, component: Component, operation: Operation, place: str) -> None:
    network, ours = random_network(name), vector(name, (0, 2), component)
    positions, places = WHERE[place]
    expected = []
    for at, row in enumerate(ROWS):
        here = places(at, len(row))
        writes: Writes = {(component, at): writing(x, 0.7, operation, here) for at, x in ours.directions.items()}
        expected.append(plain_logits(network, name, row, writes))
    found = nnsight_logits(view(name), PROMPTS, [Steer(ours, 0.7, positions=positions, operation=operation)])
    assert_rows(found, expected)
    unsteered = [plain_logits(network, name, row, {}) for row in ROWS]
    assert max(float((a - b).abs().max()) for a, b in zip(expected, unsteered, strict=True)) > 0.05


@pytest.mark.parametrize("remote", [False, "local"])
@pytest.mark.parametrize("name", THREE)
def test_a_direction_for_each_position_and_others_at_the_same_place(name: str, remote: bool | str) -> None:
    rows, first = vector(name, (1,), "resid_pre", n_positions=3), vector(name, (0, 1), seed=1)
    steers = [Steer(first, layers=0, operation="clamp"), Steer(rows, -2.0), Steer(first, 0.5, operation="project_out")]
    steers.append(Steer(first, 3.0, layers=1, positions=First(2)))
    expected = []
    for row in ROWS:
        n = len(row)

        def both(x: Tensor, n: int = n) -> Tensor:
            x = writing(first.directions[0], 1.0, "clamp", set(range(n)))(x)
            return writing(first.directions[0], 0.5, "project_out", set(range(n)))(x)

        def behind(x: Tensor, n: int = n) -> Tensor:
            x = writing(first.directions[1], 0.5, "project_out", set(range(n)))(x)
            return writing(first.directions[1], 3.0, "add", {0, 1})(x)

        before = writing(rows.directions[1], -2.0, "add", {0, 1, 2})
        writes = {("resid_post", 0): both, ("resid_pre", 1): before, ("resid_post", 1): behind}
        expected.append(plain_logits(random_network(name), name, row, writes))
    assert_rows(nnsight_logits(view(name), PROMPTS, steers, remote=remote), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", THREE)
def test_logits_are_those_of_the_context(name: str, dtype: torch.dtype) -> None:
    network = random_network(name, dtype=dtype)
    plain = nnsight_view(network, None, name)
    ours = vector(name, (0, 1, 2))
    for operation in ("add", "project_out", "clamp", "norm_preserving"):
        steers = [Steer(ours, 0.8, positions=First(3), operation=operation)]
        with torch.no_grad(), steered(network, *steers):
            expected = network(
                PROMPTS.tokens,
                attention_mask=VALID.long(),
                position_ids=PROMPTS.position_ids,
                use_cache=False,
            ).logits.float()
        found = nnsight_logits(plain, PROMPTS, steers)
        assert found.dtype == torch.float32
        spread = expected[VALID].std()
        error = (found - expected)[VALID].abs().max() / spread
        assert error < (1e-5 if dtype == torch.float32 else 0.1)
        last = nnsight_logits(plain, PROMPTS, steers, last_only=True)
        torch.testing.assert_close(last, found[:, -1:], atol=1e-5 if dtype == torch.float32 else 0.05, rtol=0)


def test_without_vectors_it_is_the_model() -> None:
    tokens = torch.tensor(ROWS[:1])
    expected = plain_logits(random_network("gpt2"), "gpt2", ROWS[0], {})
    for prompts in (tokens, ROWS[:1], as_prompts(ROWS[:1])):
        torch.testing.assert_close(nnsight_logits(view("gpt2"), prompts, [])[0], expected, atol=1e-5, rtol=0)


@pytest.fixture
def model(tmp_path: Path) -> Model:
    random_network("llama").save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    return load(tmp_path)


def test_texts_are_those_of_a_model(model: Model) -> None:
    texts, steers = ["w3 w5 w7", "w9", ""], [Steer(vector("llama", (1,)), 2.0)]
    with torch.no_grad(), steered(model, *steers):
        prompts = encode_texts(model, texts, allow_empty=True)
        assert prompts.valid is not None
        assert prompts.tokens[0].tolist() == [0, 3, 5, 7]
        expected = model.network(
            prompts.tokens, attention_mask=prompts.valid.long(), position_ids=prompts.position_ids
        ).logits
    found = nnsight_logits(model, texts, steers)
    torch.testing.assert_close(found[prompts.valid], expected[prompts.valid], atol=1e-5, rtol=0)
    with pytest.raises(SteeringError, match="texts for TransformersModel: expected tokens; encode them, or pass an in"):
        nnsight_logits(model.nnsight, texts, steers)
    with pytest.raises(SteeringError, match=r"0 prompts, shortest 0 tokens: expected at least one prompt"):
        nnsight_logits(model, [], steers)


def test_a_model_that_is_not_loaded_yet_is_loaded_by_its_first_trace(model: Model) -> None:
    """As from a hub id: nnsight builds the modules without weights, in training mode."""
    folder = model.network.name_or_path
    lazy = nnsight.TransformersModel(folder, task="text-generation", tokenizer=tokenizer())
    assert not lazy.dispatched
    steers = [Steer(vector("llama", (1,)), 2.0)]
    torch.testing.assert_close(
        nnsight_logits(lazy, PROMPTS, steers), nnsight_logits(model, PROMPTS, steers), atol=1e-5, rtol=0
    )


GENERATED: dict[str, tuple[list[Steer], Callable[[int, int], set[int]]]] = {
    "everywhere": ([Steer(vector("llama", (1,)), 1.5)], lambda n, length: set(range(length))),
    "after the prompt": (
        [Steer(vector("llama", (1,)), 1.5, positions=AfterPrompt())],
        lambda n, length: set(range(n - 1, length)),
    ),
    "first": ([Steer(vector("llama", (1,)), 1.5, positions=First(6))], lambda n, length: set(range(min(6, length)))),
    "prompt": ([Steer(vector("llama", (1,)), 1.5, positions=PromptOnly())], lambda n, length: set(range(n - 1))),
}


@pytest.mark.parametrize("remote", [False, "local"])
@pytest.mark.parametrize("place", GENERATED)
def test_generated_tokens_are_those_of_plain_hooks_without_a_cache(place: str, remote: bool | str) -> None:
    steers, places = GENERATED[place]
    direction, network = steers[0].vector.directions[1], random_network("llama")
    expected = []
    for row in ROWS:
        text = list(row)
        while len(text) < len(row) + 6:
            write = writing(direction, 1.5, "add", places(len(row), len(text)))
            text.append(int(plain_logits(network, "llama", text, {("resid_post", 1): write})[-1].argmax()))
        new = text[len(row) :]
        expected.append(tuple(new[: new.index(0)] if 0 in new else new))
    assert nnsight_generate(view("llama"), PROMPTS, steers, max_new_tokens=6, remote=remote) == tuple(expected)


@pytest.mark.parametrize("name", THREE)
def test_generated_tokens_are_those_of_generate(name: str, tmp_path: Path) -> None:
    random_network(name).save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    model = load(tmp_path)
    texts = ["w3 w5 w7 w2", "w9 w4", "w30 w31 w32"]
    steers = [
        Steer(vector(name, (1,), "resid_pre", n_positions=3), 2.0),
        Steer(vector(name, (2,), seed=3), 1.0, operation="norm_preserving", positions=AfterPrompt()),
    ]
    expected = generate(model, texts, steers=steers, max_new_tokens=8).new_tokens
    assert nnsight_generate(model, texts, steers, max_new_tokens=8) == expected
    assert expected != generate(model, texts, max_new_tokens=8).new_tokens


def test_generation_is_cut_at_the_end_of_the_text(model: Model) -> None:
    steers = [Steer(vector("llama", (1,)), 1.5)]
    whole = nnsight_generate(model, ROWS, steers, max_new_tokens=6)
    assert [len(row) for row in whole] == [6, 6, 6]
    end = whole[0][2]
    model.nnsight._module.generation_config.eos_token_id = [end]
    cut = nnsight_generate(model, ROWS, steers, max_new_tokens=6)
    assert cut == tuple(row[: row.index(end)] if end in row else row for row in whole)
    assert len(cut[0]) <= 2


@pytest.mark.parametrize("name", THREE)
def test_the_token_of_padding_may_stand_in_a_prompt(name: str) -> None:
    """Token 0 is this tokenizer's padding, and BOS: transformers would leave it out of attention without a mask."""
    rows, network = [[0, 3, 5, 0], [0, 9, 9, 7]], random_network(name)
    expected = []
    for row in rows:
        text = list(row)
        while len(text) < 8:
            text.append(int(plain_logits(network, name, text, {})[-1].argmax()))
        expected.append(text[4:])
    found = nnsight_generate(view(name), rows, [], max_new_tokens=4)
    assert [list(row) for row in found] == [row[: row.index(0)] if 0 in row else row for row in expected]


def recorded(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[dict[str, Any]]:
    """The arguments of every trace from now on; what was to run elsewhere is run here."""
    calls: list[dict[str, Any]] = []
    trace = type(model).trace

    def recording(self: Any, *inputs: Any, **options: Any) -> Any:
        calls.append(dict(options))
        options.pop("remote", None)
        return trace(self, *inputs, **options)

    monkeypatch.setattr(type(model), "trace", recording)
    return calls


def test_a_remote_run_is_one_request_to_where_it_is_asked_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    model, steers = view("gpt2"), [Steer(vector("gpt2", (0, 1)))]
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "a key")
    monkeypatch.setattr(model, "repo_id", "owner/name", raising=False)
    expected = nnsight_logits(model, PROMPTS, steers), nnsight_generate(model, PROMPTS, steers, max_new_tokens=3)
    calls = recorded(monkeypatch, model)
    for remote in (True, "https://ndif.example"):
        torch.testing.assert_close(nnsight_logits(model, PROMPTS, steers, remote=remote), expected[0])
        assert nnsight_generate(model, PROMPTS, steers, max_new_tokens=3, remote=remote) == expected[1]
    assert [call["remote"] for call in calls] == [True, True, "https://ndif.example", "https://ndif.example"]
    nnsight_logits(model, PROMPTS, steers)
    assert "remote" not in calls[-1]


def test_what_cannot_run_remotely_is_refused_at_the_start(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", None)
    steers = [Steer(vector("llama", (1,)))]
    monkeypatch.setattr(type(model.nnsight), "trace", pytest.fail)
    no_key = (
        r"^remote=True: nnsight has no NDIF key: set NDIF_API_KEY, or CONFIG\.set_default_api_key\(\.\.\.\) of nnsi"
    )
    for run in (nnsight_logits, functools.partial(nnsight_generate, max_new_tokens=2)):
        with pytest.raises(SteeringError, match=no_key) as caught:
            run(model, ROWS, steers, remote=True)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(nnsight.CONFIG.API, "APIKEY", "a key")
    for here in (model, view("llama")):
        with pytest.raises(
            SteeringError, match="remote=True: the model is on this machine alone: expected one that is h"
        ):
            nnsight_logits(here, ROWS, steers, remote=True)
    plain = nnsight_view(random_network("llama"), None, "llama")
    with pytest.raises(SteeringError, match="NNsight cannot be traced remotely: expected nnsight's TransformersModel"):
        nnsight_logits(plain, ROWS, steers, remote="local")
    with pytest.raises(
        SteeringError, match="NNsight cannot be traced while it generates: expected nnsight's Transform"
    ):
        nnsight_generate(plain, ROWS, steers, max_new_tokens=2)


def test_what_does_not_fit_is_refused_before_anything_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    model = view("llama")
    monkeypatch.setattr(type(model), "trace", pytest.fail)
    with pytest.raises(SteeringError, match=r"love - hate is of a random gpt2 .*the network is llama with 3 layers"):
        nnsight_logits(model, PROMPTS, [Steer(vector("gpt2", (1,)))])
    with pytest.raises(SteeringError, match="love - hate has 4 positions, got a prompt of 3 tokens"):
        nnsight_logits(model, PROMPTS, [Steer(vector("llama", (1,), n_positions=4))])
    with pytest.raises(SteeringError, match=r"Mask of shape \(3, 5\) on tokens \(1, 2\)"):
        nnsight_logits(model, [[1, 2]], [Steer(vector("llama", (1,)), positions=Mask(MASK))])
    with pytest.raises(SteeringError, match="max_new_tokens=0: expected at least 1 token"):
        nnsight_generate(model, PROMPTS, [], max_new_tokens=0)
    training = nnsight_view(copy.deepcopy(random_network("gpt2")).train(), None, "gpt2")
    with pytest.raises(SteeringError, match="the nnsight model is in training mode: expected no dropout"):
        nnsight_logits(training, PROMPTS, [])


@pytest.mark.parametrize("name", THREE)
def test_nothing_is_left_behind(name: str) -> None:
    """Neither in the network nor in its nnsight view, also behind a trace that fails."""
    network, model = random_network(name), view(name)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    logits, there = network(PROMPTS.tokens).logits, nnsight_logits(model, PROMPTS, [])
    steers = [Steer(vector(name, (0, 1, 2), component), 3.0) for component in ("resid_pre", "resid_post")]
    assert not torch.equal(nnsight_logits(model, PROMPTS, steers), there)
    nnsight_generate(model, PROMPTS, steers, max_new_tokens=3)
    with pytest.raises(Exception, match="index out of range"):
        nnsight_logits(model, [[D_VOCAB + 1]], steers)
    assert torch.equal(nnsight_logits(model, PROMPTS, []), there)
    assert torch.equal(network(PROMPTS.tokens).logits, logits)
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
