"""Vectors against plain hooks that run one text at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from interventions import Model
from steering.errors import SteeringError
from steering.extraction import ContrastPair, activation_addition, between, contrastive
from steering.reading import Reader
from steering.texts import continuation, encode, encode_texts

from .conftest import (
    D_MODEL,
    NETWORKS,
    hooks_of,
    plain_run,
    random_model,
    random_network,
    same_state,
    state_of,
    texts,
    tokens_of,
)

LENGTHS = [7, 4, 6, 2, 9, 4, 3, 5, 8, 6, 7, 2, 5, 4, 6, 3, 3, 8, 9, 2, 4, 5, 7]
PAIRS = [
    ContrastPair(f"{one} love", f"{other} hate")
    for one, other in zip(texts(LENGTHS, seed=1), texts(LENGTHS[::-1], seed=2), strict=True)
]


def close(actual: Tensor, expected: Tensor, atol: float = 3e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=atol, rtol=0)


def streams(name: str, text: str, component: str) -> Tensor:
    """[layer, pos, d_model] of one text."""
    seen = plain_run(random_network(name), tokens_of(text))[1]
    return torch.stack([seen[component, layer] for layer in range(3)])


def table(vector: Any) -> Tensor:
    return torch.stack([vector.directions[layer] for layer in vector.layers])


@pytest.mark.parametrize("name", NETWORKS)
def test_one_pair_gives_the_difference_at_every_position(name: str) -> None:
    model = random_model(name)
    vector = activation_addition(model, "the king love", "the queen hate of", pad_with=".")
    expected = streams(name, "the king love .", "resid_pre") - streams(name, "the queen hate of", "resid_pre")
    close(table(vector), expected)
    assert vector.component == "resid_pre"
    assert table(vector).shape == (3, 5, D_MODEL)
    assert not table(vector)[:, :2].any()  # BOS and "the", to the last bit
    assert table(vector)[:, 2:].abs().sum(dim=-1).min() > 0.1
    other = activation_addition(model, "love", "hate", layers=[2, 0], component="resid_post")
    assert (other.layers, other.component) == ((0, 2), "resid_post")
    difference = streams(name, "love", "resid_post") - streams(name, "hate", "resid_post")
    close(table(other), difference[[0, 2]])


def test_rounding_does_not_reach_positions_that_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Reader.read

    def rounded(self: Reader, rows: Any) -> Tensor:
        both = read(self, rows)
        return both + 1e-6 * torch.arange(2)[:, None, None, None]

    monkeypatch.setattr(Reader, "read", rounded)
    vector = activation_addition(random_model("gpt2"), "the king love", "the king hate")
    assert not table(vector)[:, :3].any()
    assert table(vector)[:, 3].any()


def test_the_shorter_prompt_is_padded_with_the_tokens_again_and_again() -> None:
    model = random_model("gpt2")
    for vector in (
        activation_addition(model, "love", "sea war farm ship", pad_with=", ."),
        -activation_addition(model, "sea war farm ship", "love", pad_with=", ."),
    ):
        expected = streams("gpt2", "love , . ,", "resid_pre") - streams("gpt2", "sea war farm ship", "resid_pre")
        close(table(vector), expected)


@pytest.mark.parametrize("component", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("read", [-1, -2, "mean"])
@pytest.mark.parametrize("name", NETWORKS)
def test_the_mean_difference_is_that_of_a_loop_over_texts(name: str, read: Any, component: Any) -> None:
    def at(text: str) -> Tensor:
        stream = streams(name, text, component)
        return stream[:, 1:].mean(dim=1) if read == "mean" else stream[:, read]

    expected = torch.stack([at(pair.positive) - at(pair.negative) for pair in PAIRS]).mean(dim=0)
    vector = contrastive(random_model(name), PAIRS, read=read, component=component, batch_size=6)
    close(table(vector), expected)
    assert expected.abs().max() > 0.1 or (component, read) == ("resid_pre", -1)


@pytest.mark.parametrize("read", [-1, "mean"])
def test_texts_without_a_bos(read: Any) -> None:
    model = random_model("llama", bos=None)
    rows = [[encode(model, pair.positive), encode(model, pair.negative)] for pair in PAIRS]
    assert rows[0][0][0] != 0

    def at(tokens: list[int]) -> Tensor:
        stream = plain_run(model.network, tokens)[1]["resid_post", 1]
        return stream.mean(dim=0) if read == "mean" else stream[read]

    expected = torch.stack([at(one) - at(other) for one, other in rows]).mean(dim=0)
    found = contrastive(model, PAIRS, layers=1, read=read).directions[1]
    close(found, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_unpaired_texts(name: str) -> None:
    positives, negatives = texts([3, 5, 8], seed=3), texts([2, 2, 6, 4, 7], seed=4)
    means = [
        torch.stack([streams(name, text, "resid_post")[:, 1:].mean(dim=1) for text in kind]).mean(dim=0)
        for kind in (positives, negatives)
    ]
    vector = between(random_model(name), iter(positives), iter(negatives), batch_size=2)
    close(table(vector), means[0] - means[1])


@pytest.mark.parametrize("estimator", ["mean_difference", "pca", "pca_centred", "logistic"])
def test_batches_give_what_one_pair_at_a_time_gives(estimator: Any) -> None:
    model = random_model("gpt_neox")
    many = contrastive(model, PAIRS, estimator=estimator, batch_size=16)
    one = contrastive(model, PAIRS, estimator=estimator, batch_size=1)
    close(table(many), table(one), 1e-4)
    assert (many.facts["estimator"], many.facts["pairs"], many.facts["batch_size"]) == (estimator, len(PAIRS), 16)


@pytest.mark.parametrize("estimator", ["mean_difference", "pca", "logistic"])
def test_the_same_texts_give_the_same_bits(estimator: Any) -> None:
    model = random_model("llama")
    one = contrastive(model, PAIRS, estimator=estimator, seed=4)
    torch.manual_seed(99)
    again = contrastive(model, iter(list(PAIRS)), estimator=estimator, seed=4)
    assert torch.equal(table(one), table(again))
    assert one.facts == again.facts
    swapped = [replace(PAIRS[0], positive=PAIRS[1].positive), *PAIRS[1:]]
    assert contrastive(model, swapped).facts["texts_sha256"] != one.facts["texts_sha256"]


def test_one_pass_a_text_that_ends_behind_the_last_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    model, passes, rows = random_model("gpt2"), [], []
    read = Reader.read

    def counted(self: Reader, batch: Any) -> Tensor:
        rows.append(len(batch))
        return read(self, batch)

    monkeypatch.setattr(Reader, "read", counted)
    handles = [
        block.register_forward_hook(lambda m, a, o, at=at: passes.append(at))
        for at, block in enumerate(model.network.transformer.h)
    ]
    handles.append(model.network.lm_head.register_forward_hook(lambda m, a, o: passes.append(99)))
    try:
        contrastive(model, PAIRS, layers=1, batch_size=16)
        contrastive(model, PAIRS, layers=1, component="resid_pre", batch_size=16)
    finally:
        for handle in handles:
            handle.remove()
    assert rows == [16, 16, 14] * 2
    assert passes == [0, 1] * 3 + [0] * 3  # the hook of the layer behind the last resid_pre is not reached


def test_texts_are_asked_for_a_window_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("steering.reading._WINDOW", 2)
    events: list[str] = []
    read = Reader.read

    def counted(self: Reader, batch: Any) -> Tensor:
        events.append("run")
        return read(self, batch)

    def pairs() -> Iterator[ContrastPair]:
        for pair in PAIRS[:8]:
            events.append("text")
            yield pair

    monkeypatch.setattr(Reader, "read", counted)
    contrastive(random_model("gpt2"), pairs(), batch_size=4)
    assert events == (["text"] * 4 + ["run"] * 2) * 2


@pytest.mark.parametrize("name", NETWORKS)
def test_the_model_is_as_it_was_afterwards(name: str) -> None:
    model = random_model(name)
    network, tokens = model.network, torch.tensor([tokens_of("the king sat")])
    before, clean = state_of(network), network(tokens).logits
    traces = hooks_of(network)
    network.train()
    try:
        contrastive(model, PAIRS[:2], layers=[0])
        assert network.training
        with pytest.raises(SteeringError):
            contrastive(model, [PAIRS[0], ContrastPair("love", "love")], batch_size=2)
    finally:
        network.eval()
    assert hooks_of(network) == traces
    assert same_state(network, before)
    assert torch.equal(network(tokens).logits, clean)


def test_half_precision_gives_float32_vectors() -> None:
    model = random_model("llama", dtype=torch.bfloat16)
    vector, exact = contrastive(model, PAIRS), contrastive(random_model("llama"), PAIRS)
    assert table(vector).dtype == torch.float32
    assert vector.facts["dtype"] == "bfloat16"
    cosine = torch.nn.functional.cosine_similarity(table(vector), table(exact), dim=1)
    assert cosine.min() > 0.99


BAD: list[tuple[Any, str]] = [
    (lambda m: activation_addition(m, "love", " "), "text ' ' has no tokens in gpt2: expected at least one"),
    (lambda m: activation_addition(m, "love", "hate of"), "text ' ' has no tokens in gpt2"),
    (lambda m: activation_addition(m, "love", "love"), "'love' and 'love': positive and negative have the same tokens"),
    (lambda m: activation_addition(m, "love", "love .", pad_with="."), "'love' and 'love .': positive and negative"),
    (
        lambda m: activation_addition(m, "love", "hate", layers=3),
        r"layers \[3\]: expected some of 0 to 2, as the model",
    ),
    (lambda m: activation_addition(m, "love", "hate", layers=[-1]), r"layers \[-1\]: expected some of 0 to 2"),
    (lambda m: activation_addition(m, "love", "hate", layers=[]), r"layers \[\]: expected some of 0 to 2"),
    (lambda m: contrastive(m, []), "no pairs: expected at least one ContrastPair"),
    (lambda m: contrastive(m, [PAIRS[0], ContrastPair("sea", "sea")]), "pair 1: positive and negative have the same"),
    (lambda m: contrastive(m, [ContrastPair("", "sea")]), "text '' has no tokens in gpt2"),
    (
        lambda m: contrastive(m, [ContrastPair("a sea", "sea")], read=-2),
        "pair 0: negative has 1 tokens: expected at least 2",
    ),
    (
        lambda m: contrastive(m, PAIRS, read=0),
        "read=0: expected -1 or less, counted from the end of each text, or 'mean'",
    ),
    (lambda m: contrastive(m, PAIRS, batch_size=0), "batch_size=0: expected at least 1 text at a time"),
    (
        lambda m: contrastive(m, [ContrastPair("the king", "a king")], layers=0, component="resid_pre"),
        r"mean_difference of 1 pairs: 0 in layers \[0\]: expected texts that differ there",
    ),
    (lambda m: between(m, [], ["sea"]), "no positive texts: expected at least one"),
    (lambda m: between(m, ["sea"], []), "no negative texts: expected at least one"),
    (lambda m: contrastive(m, [ContrastPair("sea " * 64, "war")]), "has 65 tokens in gpt2: expected at most n_ctx=64"),
]


@pytest.mark.parametrize(("run", "text"), BAD)
def test_bad_contrasts_are_named_in_one_line(run: Any, text: str) -> None:
    with pytest.raises(SteeringError, match=text) as caught:
        run(random_model("gpt2"))
    assert "\n" not in str(caught.value)


def test_vectors_move_scale_and_say_what_they_are() -> None:
    model = random_model("gpt2")
    vector = contrastive(model, PAIRS)
    assert vector.model.model_type == "gpt2"
    assert vector.name == "mean_difference of 23 pairs"
    assert contrastive(model, PAIRS, name="love").name == "love"
    moved = vector.moved(0, 1, 2)
    assert moved.layers == (1, 2)
    assert torch.equal(moved.directions[2], vector.directions[0])
    for direction in vector.unit().directions.values():
        assert float(direction.norm()) == pytest.approx(1.0)
    other = contrastive(model, PAIRS[:3])
    scaled = other.scaled_like(vector)
    for layer in range(3):
        assert float(scaled.directions[layer].norm()) == pytest.approx(float(vector.directions[layer].norm()))
        cosine = torch.nn.functional.cosine_similarity(scaled.directions[layer], other.directions[layer], dim=0)
        assert float(cosine) == pytest.approx(1.0)
    with pytest.raises(SteeringError, match=r"love has no layer 5: expected one of \[0, 1, 2\]"):
        contrastive(model, PAIRS, name="love").moved(5, 1)
    with pytest.raises(SteeringError, match="layer 3: expected 0 to 2"):
        vector.moved(0, 3)
    with pytest.raises(SteeringError, match="has no layer 1"):
        vector.scaled_like(vector.at(0))


def test_texts_are_encoded_with_one_bos() -> None:
    model = random_model("gpt2")
    assert encode(model, "the king") == encode(model, "<bos> the king") == [0, 3, 11]
    assert encode(model, "", allow_empty=True) == [0]
    prompts = encode_texts(model, ["the king", "sea"])
    assert prompts.tokens[0].tolist() == [0, 3, 11]
    assert prompts.valid is not None
    assert prompts.valid.tolist() == [[True, True, True], [False, True, True]]
    assert continuation(model, "the", " king sat") == ([0, 3], [11, 26])
    with pytest.raises(SteeringError, match="text ' ' adds no token to its prompt"):
        continuation(model, "the", " ")
    with pytest.raises(SteeringError, match="no texts: expected at least one"):
        encode_texts(model, [])
    with pytest.raises(SteeringError, match="text '' has no tokens"):
        encode(random_model("gpt2", bos=None), "", allow_empty=True)
    with pytest.raises(SteeringError, match="bare has no tokenizer: expected one beside the weights"):
        encode(Model("bare", model.network, None, 0), "the")


def test_a_tokenizer_that_merges_across_the_border_has_no_continuation() -> None:
    class Merging:
        def encode(self, text: str) -> list[int]:
            return [len(word) for word in text.split()]

        def decode(self, tokens: list[int]) -> str:
            return ""

    model = Model("merging", random_network("gpt2"), Merging(), None)
    with pytest.raises(SteeringError, match="'ing' behind 'the k': merging's tokenizer merges across the border"):
        continuation(model, "the k", "ing")
    assert continuation(model, "the k", " ing") == ([3, 1], [3])
