"""Generation against transformers' own, and against plain hooks that run the whole text again for every token."""

from __future__ import annotations

import copy
from collections import defaultdict
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions import Model
from steering.errors import SteeringError
from steering.generation import Completions, _Row, generate
from steering.positions import AfterPrompt, Everywhere, First, Mask, Positions, PromptOnly
from steering.sampling import Sampling
from steering.steering import Steer
from steering.texts import encode_texts

from .conftest import (
    D_VOCAB,
    NETWORKS,
    WORDS,
    adding,
    hooks_of,
    plain_greedy,
    plain_run,
    random_model,
    random_network,
    random_vector,
    same_state,
    state_of,
    texts,
    tokens_of,
)

PROMPTS = texts([5, 2, 7, 3, 5], seed=7)
NEW = 6


def cut(tokens: list[int]) -> tuple[int, ...]:
    """Up to the end of text, token 0."""
    return tuple(tokens[: tokens.index(0)] if 0 in tokens else tokens)


def test_greedy_is_what_transformers_generates() -> None:
    ended = 0
    for name in NETWORKS:
        model = random_model(name)
        found = generate(model, PROMPTS, max_new_tokens=NEW, batch_size=2)
        for at, prompt in enumerate(PROMPTS):
            tokens = torch.tensor([tokens_of(prompt)])
            mask = torch.ones_like(tokens)
            written = model.network.generate(tokens, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
            whole = written[0, tokens.shape[1] :].tolist()
            assert found.new_tokens[at] == cut(whole)
            assert found.ended[at] == (0 in whole)
            assert found.prompt_tokens[at] == tuple(tokens_of(prompt))
            ended += found.ended[at]
        assert found.prompts == tuple(PROMPTS)
        assert len(found) == len(PROMPTS)
    assert ended < 3 * len(PROMPTS)


def test_rows_end_at_an_end_of_text_each_at_its_own() -> None:
    network = copy.deepcopy(random_network("llama"))
    written = [plain_greedy(network, tokens_of(prompt), 12) for prompt in PROMPTS]
    ends = [written[0][2], written[1][5]]
    network.generation_config.eos_token_id = ends
    model = Model("ending", network, random_model("llama").tokenizer, 0)
    found = generate(model, PROMPTS, max_new_tokens=12)
    expected = [next((at for at, token in enumerate(new) if token in ends), 12) for new in written]
    assert [len(new) for new in found.new_tokens] == expected
    assert list(found.ended) == [n < 12 for n in expected]
    assert expected[0] < 3
    assert len(set(expected)) > 1
    for new, whole in zip(found.new_tokens, written, strict=True):
        assert list(new) == whole[: len(new)]
    network.generation_config.eos_token_id = None
    network.config.eos_token_id = None
    assert [list(new) for new in generate(model, PROMPTS, max_new_tokens=12).new_tokens] == written


CASES: list[tuple[Positions, Any]] = [
    (Everywhere(), lambda n, p, row: range(n)),
    (AfterPrompt(), lambda n, p, row: range(p - 1, n)),
    (AfterPrompt(torch.tensor([2, 1, 3, 4, 5])), lambda n, p, row: range((2, 1, 3, 4, 5)[row] - 1, n)),
    (First(5, keep_last=True), lambda n, p, row: [at for at in range(min(n, 5)) if at != p - 1]),
    (PromptOnly(), lambda n, p, row: range(p - 1)),
]


@pytest.mark.parametrize(("positions", "places"), CASES)
@pytest.mark.parametrize("name", NETWORKS)
def test_steered_rows_are_those_of_plain_hooks_one_at_a_time(name: str, positions: Positions, places: Any) -> None:
    model = random_model(name)
    vector = random_vector(model.network, (0, 2), seed=2)
    found = generate(model, PROMPTS, steers=[Steer(vector, 6.0, positions=positions)], max_new_tokens=NEW, batch_size=2)
    expected = []
    for row, prompt in enumerate(PROMPTS):
        tokens = tokens_of(prompt)
        where = partial(places, p=len(tokens), row=row)
        writes = {("resid_post", at): adding(6.0 * vector.directions[at], where) for at in (0, 2)}
        expected.append(cut(plain_greedy(model.network, tokens, NEW, writes)))
    assert list(found.new_tokens) == expected
    assert found.new_tokens != generate(model, PROMPTS, max_new_tokens=NEW).new_tokens


def test_a_mask_is_in_the_columns_of_all_prompts() -> None:
    model = random_model("llama")
    vector = random_vector(model.network, (0,), seed=2)
    prompts = encode_texts(model, PROMPTS)
    mask = torch.rand(prompts.tokens.shape, generator=torch.Generator().manual_seed(4)) < 0.5
    steer = Steer(vector, 6.0, positions=Mask(mask))
    found = generate(model, PROMPTS, steers=[steer], max_new_tokens=NEW, batch_size=2)
    for row, prompt in enumerate(PROMPTS):
        tokens = tokens_of(prompt)
        places = mask[row, prompts.length - len(tokens) :].nonzero().flatten().tolist()
        write = adding(6.0 * vector.directions[0], lambda n, places=places: places)  # type: ignore[misc]
        expected = plain_greedy(model.network, tokens, NEW, {("resid_post", 0): write})
        assert found.new_tokens[row] == cut(expected)


def test_a_vector_with_rows_acts_on_the_first_tokens_of_every_prompt() -> None:
    model = random_model("gpt2")
    vector = random_vector(model.network, (1,), component="resid_pre", positions=3)
    found = generate(model, PROMPTS, steers=[Steer(vector, 5.0)], max_new_tokens=NEW)
    for row, prompt in enumerate(PROMPTS):
        write = adding(5.0 * vector.directions[1], lambda n: range(3))
        expected = plain_greedy(model.network, tokens_of(prompt), NEW, {("resid_pre", 1): write})
        assert found.new_tokens[row] == cut(expected)
    with pytest.raises(SteeringError, match="has 3 positions, got a prompt of 2 tokens"):
        generate(model, ["king", *PROMPTS], steers=[Steer(vector)], max_new_tokens=1)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_sampled_row_does_not_depend_on_its_batch(name: str) -> None:
    model = random_model(name)
    steers = [Steer(random_vector(model.network), 0.5)]
    options: dict[str, Any] = {"steers": steers, "temperature": 1.3, "top_p": 0.9, "seed": 11}
    many = generate(model, PROMPTS, max_new_tokens=NEW, **options)
    assert many == generate(model, PROMPTS, max_new_tokens=NEW, **options)
    for size in (1, 2):
        assert generate(model, PROMPTS, max_new_tokens=NEW, batch_size=size, **options) == many
    fewer = generate(model, PROMPTS[:3], max_new_tokens=3, **options)
    assert fewer.new_tokens == tuple(new[:3] for new in many.new_tokens[:3])
    same_prompt = generate(model, PROMPTS[:1] * 6, max_new_tokens=NEW, **options)
    assert len(set(same_prompt.new_tokens)) > 1
    assert same_prompt.new_tokens[0] == many.new_tokens[0]
    assert generate(model, PROMPTS, max_new_tokens=NEW, **{**options, "seed": 12}) != many


@pytest.mark.parametrize("likeliest", [2, 1024])
@pytest.mark.parametrize(
    ("top_k", "top_p", "temperature"), [(None, None, 0.7), (5, None, 2.0), (None, 0.6, 1.0), (6, 0.8, 1.5)]
)
def test_sampled_tokens_have_the_distribution(
    top_k: int | None, top_p: float | None, temperature: float, likeliest: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the distribution written out with numpy's sort, by a chi-squared statistic of 20,000 draws."""
    logits = 2 * torch.randn(D_VOCAB, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = (logits / temperature).softmax(dim=0)
    order = p.argsort(descending=True).tolist()
    if top_k is not None:
        p[order[top_k:]] = 0.0
        p = p / p.sum()
    if top_p is not None:
        kept, total = [], 0.0
        for token in order:
            if total < top_p:
                kept.append(token)
                total += float(p[token])
        p = torch.tensor([float(p[token]) if token in kept else 0.0 for token in range(D_VOCAB)], dtype=torch.float64)
        p = p / p.sum()
    monkeypatch.setattr("steering.sampling._LIKELIEST", likeliest)
    sampling, n = Sampling(temperature, top_k, top_p), 20_000
    u = torch.rand(n, generator=torch.Generator().manual_seed(1))
    tokens, good = sampling.tokens(logits.float().expand(n, -1), u)
    counts = torch.bincount(tokens, minlength=D_VOCAB).double()
    assert bool(good.all())
    assert not counts[p == 0].any()
    some = p > 0
    statistic = float(((counts - n * p)[some].square() / (n * p[some])).sum())
    degrees = int(some.sum()) - 1
    assert statistic < degrees + 5 * (2 * degrees) ** 0.5 + 5


def test_numbers_of_a_row_begin_the_same() -> None:
    sampling = Sampling(1.0, seed=3)
    for row in range(4):
        assert torch.equal(sampling.uniform(row, 200)[:7], sampling.uniform(row, 7))
    many = torch.stack([sampling.uniform(row, 500) for row in range(40)])
    assert abs(float(many.mean()) - 0.5) < 0.01
    assert abs(float(torch.corrcoef(many).triu(1).abs().max())) < 0.25
    logits = torch.tensor([[0.0, -1e9, 0.0, -1e9]])
    for u, token in ((0.0, 0), (0.49, 0), (0.51, 2), (1.0, 2)):  # as float32, a number just below 1 can be 1
        assert sampling.tokens(logits, torch.tensor([u]))[0].tolist() == [token]


class Bytes:
    """A tokenizer of bytes: characters of several tokens, which are no text before they are whole."""

    def __init__(self, text: str) -> None:
        self.bytes = [0, *sorted(set(text.encode()))]

    def encode(self, text: str) -> list[int]:
        return [self.bytes.index(byte) for byte in text.encode()]

    def decode(self, tokens: list[int]) -> str:
        return bytes(self.bytes[token % len(self.bytes)] for token in tokens if token).decode(errors="replace")


class Metaspace:
    """Pieces that bring their space along, of which the first of a text loses it, as SentencePiece has it."""

    def encode(self, text: str) -> list[int]:
        return [WORDS.index(word) for word in text.split()]

    def decode(self, tokens: list[int]) -> str:
        return "".join(f" {WORDS[token]}" for token in tokens)[1:]


@pytest.mark.parametrize("kind", ["words", "metaspace", "bytes"])
def test_pieces_come_as_they_are_written_and_make_up_the_text(kind: str) -> None:
    story = "añ→ß€ 日本 é"
    tokenizer: Any = {"words": random_model("gpt2").tokenizer, "metaspace": Metaspace(), "bytes": Bytes(story)}[kind]
    prompts = ["añ", "日本 é", "€"] if kind == "bytes" else PROMPTS[:3]
    model = Model("streaming", random_network("gpt2"), tokenizer, 0)
    pieces: dict[int, list[str]] = defaultdict(list)
    order: list[int] = []

    def on_text(row: int, piece: str) -> None:
        pieces[row].append(piece)
        order.append(row)

    options: dict[str, Any] = {"max_new_tokens": 20, "temperature": 1.0, "seed": 1}
    found = generate(model, prompts, on_text=on_text, **options)
    assert found == generate(model, prompts, **options)
    for row, prompt in enumerate(prompts):
        assert "".join(pieces[row]) == found.texts[row]
        whole = tokenizer.decode([*found.prompt_tokens[row], *found.new_tokens[row]])
        assert whole == tokenizer.decode(list(found.prompt_tokens[row])) + found.texts[row]
        assert len(pieces[row]) > 3 or found.ended[row]
        assert prompt
    if kind != "bytes":
        assert all(piece.startswith(" ") for of_row in pieces.values() for piece in of_row)
        assert order[:3] != sorted(order)[:3]  # the rows of a batch take turns


def test_characters_of_several_tokens_come_whole() -> None:
    story = "añ→ß€ 日本 é"
    tokenizer = Bytes(story)
    row = _Row(Model("bytes", random_network("gpt2"), tokenizer, 0), 7, [0, *tokenizer.encode("é")])
    pieces: list[str] = []
    tokens = tokenizer.encode(story)
    for at, token in enumerate(tokens):
        row.add(token, frozenset())
        row.give(lambda place, piece: pieces.append(piece), last=at == len(tokens) - 1)
    assert pieces == list(story)
    row.add(tokens[-2], frozenset())  # the first byte of two, and then no more
    row.give(lambda place, piece: pieces.append(piece), last=False)
    assert pieces == list(story)
    row.give(lambda place, piece: pieces.append(piece), last=True)
    assert pieces == [*story, "\ufffd"]


def test_an_empty_prompt_begins_with_the_bos() -> None:
    model = random_model("gpt2")
    found = generate(model, ["", "king"], max_new_tokens=3)
    assert found.prompt_tokens[0] == (0,)
    assert found.new_tokens[0] == cut(plain_greedy(model.network, [0], 3))
    with pytest.raises(SteeringError, match="text '' has no tokens"):
        generate(random_model("gpt2", bos=None), [""], max_new_tokens=3)


def test_the_first_token_is_that_of_one_plain_pass() -> None:
    model = random_model("llama")
    for at, prompt in enumerate(PROMPTS):
        logits: Tensor = plain_run(model.network, tokens_of(prompt))[0][-1]
        found = generate(model, PROMPTS, max_new_tokens=1)
        assert cut([int(logits.argmax())]) == found.new_tokens[at]


def test_the_model_is_as_it_was_afterwards_also_after_an_exception() -> None:
    model = random_model("gpt2")
    network, tokens = model.network, torch.tensor([tokens_of(PROMPTS[0])])
    before, clean, traces = state_of(network), network(tokens).logits, hooks_of(network)
    steers = [Steer(random_vector(network, (0, 1, 2)), 3.0)]

    def fail(row: int, piece: str) -> None:
        raise KeyError("on purpose")

    with pytest.raises(KeyError):
        generate(model, PROMPTS, steers=steers, max_new_tokens=3, on_text=fail)
    generate(model, PROMPTS, steers=steers, max_new_tokens=3)
    assert hooks_of(network) == traces
    assert same_state(network, before)
    assert torch.equal(network(tokens).logits, clean)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"prompts": []}, "no texts: expected at least one"),
    ({"max_new_tokens": 0}, "max_new_tokens=0, batch_size=64: expected at least 1 token and 1 prompt"),
    ({"batch_size": 0}, "max_new_tokens=4, batch_size=0: expected at least 1 token"),
    ({"temperature": -1.0}, "temperature=-1.0: expected 0, for greedy, or a positive number"),
    ({"temperature": float("nan")}, "temperature=nan: expected 0"),
    ({"top_k": 0}, "top_k=0: expected at least 1 token, or None for all"),
    ({"top_p": 0.0}, "top_p=0.0: expected a probability above 0 and up to 1"),
    ({"top_p": 1.5}, "top_p=1.5: expected a probability"),
    (
        {"max_new_tokens": 61},
        "prompts of up to 5 tokens and 61 new ones do not fit into n_ctx=64 of gpt2; ask for fewer",
    ),
]


@pytest.mark.parametrize(("options", "text"), BAD)
def test_what_means_nothing_is_refused(options: dict[str, Any], text: str) -> None:
    given = {"prompts": ["the king sat ."], "max_new_tokens": 4, **options}
    with pytest.raises(SteeringError, match=text):
        generate(random_model("gpt2"), **given)
    generate(random_model("gpt2"), ["the king sat ."], max_new_tokens=60)


def test_logits_that_are_no_numbers_are_an_error() -> None:
    model = random_model("gpt2", dtype=torch.float16)
    steer = Steer(random_vector(model.network), 1e5)
    for temperature in (0.0, 1.0):
        with pytest.raises(SteeringError, match="prompt 0: logits are not finite; steer with a smaller coefficient"):
            generate(model, PROMPTS[:1], steers=[steer], max_new_tokens=2, temperature=temperature)


def test_completions_are_equal_by_what_they_hold() -> None:
    one = Completions(("a",), (" b",), ((0, 4),), ((5,),), (False,))
    assert one == Completions(("a",), (" b",), ((0, 4),), ((5,),), (False,))
