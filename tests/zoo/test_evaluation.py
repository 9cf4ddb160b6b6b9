"""The numbers of a card, against loops written out and patterns known beforehand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from zoo import evaluation
from zoo.corpus import BOS_ID, Corpus
from zoo.evaluation import attention_patterns, common_tokens, evaluate, repeated_random_tokens
from zoo.model import AttentionOnly

LENGTH = 19  # of the repeated segment in a context of 40


def test_common_tokens_make_up_the_stated_share_of_the_text() -> None:
    text = torch.tensor([BOS_ID] * 5_000 + [7] * 14_000 + [3] * 2 + [9] * 1 + [5] * 997)  # 20,000: at least 2
    assert common_tokens(text, 12).tolist() == [3, 5, 7]
    assert common_tokens(torch.tensor([BOS_ID, 4, 4, 2]), 12).tolist() == [2, 4]


def test_repeated_tokens_are_bos_and_the_same_segment_twice() -> None:
    vocabulary = torch.arange(5, 300, 2)
    tokens = repeated_random_tokens(200, LENGTH, vocabulary, seed=0)
    assert tokens.shape == (200, 1 + 2 * LENGTH)
    assert set(tokens[:, 0].tolist()) == {BOS_ID}
    assert torch.equal(tokens[:, 1 : 1 + LENGTH], tokens[:, 1 + LENGTH :])
    assert set(tokens[:, 1:].flatten().tolist()) == set(vocabulary.tolist())
    assert all(len(set(row)) == 1 + LENGTH for row in tokens.tolist())  # no token stands twice in a segment
    assert torch.equal(tokens, repeated_random_tokens(200, LENGTH, vocabulary, seed=0))
    assert not torch.equal(tokens, repeated_random_tokens(200, LENGTH, vocabulary, seed=1))


def test_patterns_give_the_logits_of_the_fast_forward_pass(model: AttentionOnly) -> None:
    """The residual stream rebuilt from the patterns, head by head, ends in the model's own logits."""
    tokens = torch.randint(0, 300, (3, 17), generator=torch.Generator().manual_seed(0))
    patterns = attention_patterns(model, tokens)
    assert patterns.shape == (2, 3, 3, 17, 17)
    torch.testing.assert_close(patterns.sum(dim=-1), torch.ones(2, 3, 3, 17))
    state = model.state_dict()
    with torch.no_grad():
        x = state["embed.weight"][tokens] + state["pos_embed.weight"][:17]
        for layer in range(2):
            name = f"blocks.{layer}."
            gain, shift = state[name + "ln1.weight"], state[name + "ln1.bias"]
            normal = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
            v = (normal * gain + shift) @ state[name + "attn.v.weight"].T + state[name + "attn.v.bias"]
            update = state[name + "attn.o.bias"].expand_as(x)
            for head in range(3):
                rows = slice(8 * head, 8 * head + 8)
                update = update + patterns[layer, :, head] @ v[..., rows] @ state[name + "attn.o.weight"][:, rows].T
            x = x + update
        expected = model.unembed(model.ln_final(x))
        torch.testing.assert_close(model(tokens), expected, rtol=0, atol=1e-4)


def log_probabilities(model: AttentionOnly, tokens: Tensor) -> list[list[float]]:
    """Minus the loss of every token after the first, one token at a time."""
    with torch.no_grad():
        table = model(tokens).log_softmax(dim=-1)
    return [
        [float(table[row, position, int(tokens[row, position + 1])]) for position in range(tokens.shape[1] - 1)]
        for row in range(len(tokens))
    ]


def test_losses_are_those_of_single_tokens(model: AttentionOnly, corpus: Corpus) -> None:
    found = evaluate(model, corpus.held_out, n_windows=33)
    rows = log_probabilities(model, repeated_random_tokens(32, LENGTH, common_tokens(corpus.held_out, 300), seed=8))
    assert {len(row) for row in rows} == {2 * LENGTH}
    first = [-value for row in rows for value in row[:LENGTH]]
    second = [-value for row in rows for value in row[LENGTH:]]
    assert found["random_tokens_first_half_loss"] == pytest.approx(sum(first) / len(first), rel=1e-5)
    assert found["random_tokens_second_half_loss"] == pytest.approx(sum(second) / len(second), rel=1e-5)

    generator = torch.Generator().manual_seed(7)
    starts = torch.randint(0, len(corpus.held_out) - 40, (33,), generator=generator).tolist()
    natural = torch.stack([corpus.held_out[start : start + 40] for start in starts])
    natural[:, 0] = BOS_ID
    losses = [-value for row in log_probabilities(model, natural) for value in row]
    assert found["held_out_loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize(
    ("offset", "induction", "previous"),
    [(1 - LENGTH, 1.0, 0.0), (-1, 0.0, 1.0), (-LENGTH, 0.0, 0.0), (2 - LENGTH, 0.0, 0.0), (0, 0.0, 0.0)],
)
def test_scores_of_heads_that_always_look_at_one_place(
    model: AttentionOnly,
    corpus: Corpus,
    monkeypatch: pytest.MonkeyPatch,
    offset: int,
    induction: float,
    previous: float,
) -> None:
    """A query at i of the second copy finds its token at i - length, and what followed it at i - length + 1."""

    def patterns(model: AttentionOnly, tokens: Tensor) -> Tensor:
        n = tokens.shape[1]
        result = torch.zeros(2, len(tokens), 3, n, n)
        for query in range(n):
            result[1, :, 2, query, max(0, query + offset)] = 1.0
        return result

    monkeypatch.setattr(evaluation, "attention_patterns", patterns)
    found = evaluate(model, corpus.held_out, n_windows=1)
    assert found["best_induction_score"] == pytest.approx(induction)
    assert found["best_previous_token_score"] == pytest.approx(previous)
