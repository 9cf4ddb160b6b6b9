"""The card's numbers, against networks that follow a rule and against attention written out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional

from zoo import ioi
from zoo.gpt2_recipes import Shape
from zoo.in_context_model import build
from zoo.ioi_evaluation import Prompt, draw, evaluate, last_logits, scores, strangers
from zoo.ioi_text import vocabulary
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SHAPE = Shape(n_layers=2, n_heads=2, d_model=16, n_ctx=64)
WORDS = vocabulary().get_vocab()
SPOKEN = {token: word for word, token in WORDS.items()}
TRAINED = [template for template in ioi.TEMPLATES if not template.held_out]
HELD_OUT = [template for template in ioi.TEMPLATES if template.held_out]
Rule = Callable[[list[str], Bool[Tensor, "query key"]], dict[str, float]]


class Reader:
    """Stands in for a network whose last logits follow a rule on a prompt's words and what may attend to what."""

    device = torch.device("cpu")

    def __init__(self, rule: Rule) -> None:
        self.rule = rule
        self.lm_head = lambda resid: resid

    def transformer(self, tokens: Tensor, attention_mask: Tensor, use_cache: bool) -> SimpleNamespace:
        logits = torch.zeros(*tokens.shape, len(WORDS))
        for row, ids in enumerate(tokens.tolist()):
            words = [SPOKEN[token] for token in ids[1:]]
            n = max(place for place, word in enumerate(words) if word == "to") + 1
            for word, logit in self.rule(words[:n], attention_mask[row, 0, 1 : n + 1, 1 : n + 1] == 0).items():
                logits[row, n, WORDS[word]] = logit
        return SimpleNamespace(last_hidden_state=logits)


def as_model(rule: Rule) -> GPT2LMHeadModel:
    return cast("GPT2LMHeadModel", Reader(rule))


def people(words: Sequence[str]) -> list[str]:
    return [word for word in words if word in ioi.NAMES]


def reads(words: list[str], seen: Tensor) -> dict[str, float]:
    """Three nats for the person who is named once."""
    (once,) = (name for name in people(words) if people(words).count(name) == 1)
    return {once: 3.0}


def looks_back(words: list[str], seen: Tensor) -> dict[str, float]:
    """The same, with one nat of three where the repeated name cannot see its first mention, none without the next."""
    (twice,) = {name for name in people(words) if people(words).count(name) == 2}
    s1, s2 = (place for place, word in enumerate(words) if word == twice)
    (once,) = (name for name in people(words) if name != twice)
    return {once: 3.0 - 2.0 * float(not seen[s2, s1]) - 1.0 * float(not seen[s2, s1 + 1])}


def test_a_reader_has_everything_right_and_its_contrary_nothing() -> None:
    right = evaluate(
        as_model(lambda words, seen: reads(words, seen) if len(set(people(words))) == 2 else {}), WORDS, n=80
    )
    assert {value for name, value in right.items() if "accuracy" in name} == {1.0}
    assert {value for name, value in right.items() if name.startswith("logit_difference")} == {3.0}
    assert right["left_without_s2_to_s1"] == right["left_without_s2_to_s1_and_next"] == 1.0
    assert right["probability"] == pytest.approx(torch.tensor([3.0] + [0.0] * (len(WORDS) - 1)).softmax(0)[0].item())
    giver = as_model(lambda words, seen: {people(words)[-1]: 3.0})
    found = scores(giver, draw(40, 0, templates=TRAINED), WORDS)
    assert found["logit_difference"].tolist() == [-3.0] * 40
    assert (found["accuracy"].sum().item(), found["names_accuracy"].sum().item()) == (0, 0)


def test_a_third_name_on_top_is_not_right_among_all_names() -> None:
    other = as_model(lambda words, seen: {**reads(words, seen), next(n for n in ioi.NAMES if n not in words): 4.0})
    found = scores(other, draw(40, 0, templates=TRAINED), WORDS)
    assert (found["accuracy"].mean().item(), found["names_accuracy"].mean().item()) == (1, 0)


def test_what_is_left_is_measured_with_the_attention_cut() -> None:
    rule = as_model(lambda words, seen: looks_back(words, seen) if len(set(people(words))) == 2 else {})
    found = evaluate(rule, WORDS, n=80)
    assert found["left_without_s2_to_s1"] == pytest.approx(1 / 3)
    assert found["left_without_s2_to_s1_and_next"] == pytest.approx(0.0)


def test_the_worst_held_out_template_is_the_one_that_fails() -> None:
    def fails(words: list[str], seen: Tensor) -> dict[str, float]:
        return {} if words[:2] == ["After", "a"] or len(set(people(words))) == 3 else reads(words, seen)

    found = evaluate(as_model(fails), WORDS, n=100)
    assert found["names_accuracy_worst_held_out_template"] < 0.2
    assert found["names_accuracy_held_out_templates"] == pytest.approx(0.8, abs=0.02)
    assert found["names_accuracy"] == 1.0


def test_shares_of_the_giver_and_of_the_others_among_the_names() -> None:
    prompts = draw(20, 0, templates=TRAINED, strangers=True)

    def rule(words: list[str], seen: Tensor) -> dict[str, float]:
        first, second, giver = people(words)
        return dict.fromkeys(ioi.NAMES, -50.0) | {first: 1.0, second: 1.0, giver: 1.0, "a": 9.0}

    found = strangers(as_model(rule), WORDS, prompts)
    assert found == pytest.approx({"stranger_giver_share": 1 / 3, "stranger_others_share": 2 / 3})


@pytest.mark.parametrize("held_out_pairs", [False, True])
@pytest.mark.parametrize("strange", [False, True])
def test_prompts_are_what_was_asked_for(held_out_pairs: bool, strange: bool) -> None:
    prompts = draw(60, 5, templates=HELD_OUT, held_out_pairs=held_out_pairs, strangers=strange)
    assert prompts == draw(80, 5, templates=HELD_OUT, held_out_pairs=held_out_pairs, strangers=strange)[:60]
    orders = set()
    for place, prompt in enumerate(prompts):
        first, second, giver = people(prompt.words)
        assert {first, second} == {prompt.io, prompt.other}
        assert ioi.held_out_pair(first, second) == held_out_pairs
        assert (giver, giver == prompt.other) == (prompt.subject, not strange)
        assert (prompt.words[prompt.s1], prompt.words[prompt.s2]) == (prompt.other, giver)
        assert prompt.s1 < prompt.s2 < len(prompt.words)
        assert prompt.words[0] == HELD_OUT[place % len(HELD_OUT)].text.split()[0].strip(",")
        orders.add(first == prompt.io)
    assert orders == {True, False}


def by_hand(model: GPT2LMHeadModel, prompt: Prompt, cut: Sequence[tuple[int, int]]) -> Float[Tensor, " d_vocab"]:
    """The last logits of one prompt with attention written out."""
    tokens = torch.tensor([BOS_ID, *(WORDS[word] for word in prompt.words)])
    transformer, n = model.transformer, len(tokens)
    resid = transformer.wte.weight[tokens] + transformer.wpe.weight[:n]
    allowed = torch.ones(n, n).tril().bool()
    for query, key in cut:
        allowed[query + 1, key + 1] = False
    for block in transformer.h:
        joint = block.ln_1(resid) @ block.attn.c_attn.weight + block.attn.c_attn.bias
        q, k, v = (part.view(n, SHAPE.n_heads, -1).transpose(0, 1) for part in joint.chunk(3, dim=-1))
        pattern = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
        z = (pattern @ v).transpose(0, 1).flatten(1)
        resid = resid + z @ block.attn.c_proj.weight + block.attn.c_proj.bias
        hidden = functional.gelu(block.ln_2(resid) @ block.mlp.c_fc.weight + block.mlp.c_fc.bias, approximate="tanh")
        resid = resid + hidden @ block.mlp.c_proj.weight + block.mlp.c_proj.bias
    logits: Tensor = transformer.ln_f(resid[-1]) @ model.lm_head.weight.T
    return logits


def test_cut_attention_is_left_out_before_the_softmax_in_every_head() -> None:
    model = build(SHAPE, len(WORDS), seed=2)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape, generator=generator))
    prompts = draw(len(ioi.TEMPLATES), 1, templates=ioi.TEMPLATES)
    nothing: list[list[tuple[int, int]]] = [[] for _ in prompts]
    for cuts in (nothing, [[(each.s2, each.s1), (each.s2, each.s1 + 1)] for each in prompts]):
        found = last_logits(model, prompts, WORDS, cuts)
        expected = torch.stack([by_hand(model, *pair) for pair in zip(prompts, cuts, strict=True)])
        torch.testing.assert_close(found, expected, atol=2e-4, rtol=1e-4)
    assert not torch.allclose(found, last_logits(model, prompts, WORDS), atol=1e-2)
