"""The numbers of a story model's card, in plain torch: does it read, does it follow, does it write.

Questions: right answers (the more likely letter of the two) to questions with letters, one a story, about stories that
no model was trained on, by the order of the options, reversed, and by what is asked. Headers: texts sampled after a
header alone, scored by their words. Held-out loss: nats a word of documents of both kinds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from zoo.stories_batches import encode, loss
from zoo.stories_grammar import draw_latents, tell
from zoo.stories_lexicon import DIMENSIONS, MOODS, NAMES, TOPICS
from zoo.stories_questions import StoryQuestion, draw_question, visible
from zoo.stories_recipes import Weights
from zoo.stories_scores import StoryCounts, count, total
from zoo.stories_text import question_document, story_document
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SEED = (1 << 40) + 7  # training draws from (seed << 32) + chunk
FORMS = ("yes_no", "which")


@dataclass(frozen=True)
class AskedStory:
    """The words of a story with one question, up to where the letter follows."""

    story: tuple[str, ...]
    hero: str
    question: StoryQuestion
    answer: str

    @property
    def words(self) -> tuple[str, ...]:
        return (*self.story, *self.question.text(self.hero).split())


def asked_stories(n: int, seed: int = SEED) -> list[AskedStory]:
    """Stories of one to nine sentences, each with a question with letters, its options in their first order."""
    random = Random(seed)
    found: list[AskedStory] = []
    while len(found) < n:
        latents = draw_latents(random)
        story = tell(latents, random.randint(1, 9), random)
        question = replace(draw_question(random.choice(visible(story, latents)), random), lettered=True, swapped=False)
        found.append(AskedStory(tuple(story), latents.hero, question, question.answer(latents)))
    return found


def swapped(asked: AskedStory) -> AskedStory:
    """The same with the options in the other order, and so with the other letter right."""
    question = replace(asked.question, swapped=not asked.question.swapped)
    return replace(asked, question=question, answer="AB"[asked.answer == "A"])


def reversed_question(asked: AskedStory) -> AskedStory:
    """The same with the question reversed, and so with the other letter right."""
    return replace(asked, question=asked.question.reversed(), answer="AB"[asked.answer == "A"])


@torch.no_grad()
def last_logits(
    model: GPT2LMHeadModel, rows: Sequence[Sequence[int]], *, chunk: int = 64
) -> Float[Tensor, "row d_vocab"]:
    """Logits after the last token of rows of unequal length, BOS first in each."""
    found = []
    for start in range(0, len(rows), chunk):
        part = [[BOS_ID, *row] for row in rows[start : start + chunk]]
        width = max(map(len, part))
        tokens = torch.tensor([row + [BOS_ID] * (width - len(row)) for row in part], device=model.device)
        resid = model.transformer(tokens, use_cache=False).last_hidden_state
        ends = torch.tensor([len(row) - 1 for row in part], device=model.device)
        found.append(model.lm_head(resid[torch.arange(len(part), device=model.device), ends]))
    return torch.cat(found)


def right(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], asked: Sequence[AskedStory]) -> list[bool]:
    """Whether the right letter is the more likely of the two, for each story."""
    logits = last_logits(model, [[vocabulary[word] for word in each.words] for each in asked])
    prefers_a = (logits[:, vocabulary["A"]] > logits[:, vocabulary["B"]]).tolist()
    return [says_a == (each.answer == "A") for says_a, each in zip(prefers_a, asked, strict=True)]


@torch.no_grad()
def sample(
    model: GPT2LMHeadModel, prompts: Int[Tensor, "row pos"], n_tokens: int, generator: torch.Generator
) -> list[list[int]]:
    """Tokens sampled at temperature 1 after prompts of one length (BOS included), each row up to its text's end."""
    network_input, cache, drawn = prompts.to(model.device), None, []
    for _ in range(n_tokens):
        out = model(network_input, past_key_values=cache, use_cache=True)
        cache = out.past_key_values
        drawn.append(torch.multinomial(out.logits[:, -1].softmax(-1).cpu(), 1, generator=generator))
        network_input = drawn[-1].to(model.device)
    rows = torch.cat(drawn, dim=1).tolist()
    return [row[: row.index(BOS_ID)] if BOS_ID in row else row for row in rows]


def sampled_counts(
    model: GPT2LMHeadModel,
    vocabulary: Mapping[str, int],
    prompts: Sequence[str],
    *,
    n_tokens: int = 64,
    seed: int = 0,
) -> list[StoryCounts]:
    """The counts of one sampled text after each prompt (of equally many words); the prompt is not counted."""
    words = {token: word for word, token in vocabulary.items()}
    tokens = torch.tensor([[BOS_ID, *(vocabulary[word] for word in prompt.split())] for prompt in prompts])
    rows = sample(model, tokens, n_tokens, torch.Generator().manual_seed(seed))
    return [count([words[token] for token in row]) for row in rows]


def evaluate(
    model: GPT2LMHeadModel, vocabulary: Mapping[str, int], *, questions: int = 512, texts: int = 16
) -> dict[str, float]:
    """The metrics of a card; `texts` are sampled after each header. A share of nothing is left out."""
    random = Random(SEED + 1)
    documents = [kind(random) for kind in (story_document, question_document) for _ in range(64)]
    parts = [documents[start : start + 32] for start in range(0, len(documents), 32)]
    with torch.no_grad():
        batches = [encode(part, vocabulary, Weights(shown=0.0, answers=0.0)).to(model.device) for part in parts]
        held_out = [loss(model, batch).item() for batch in batches]
    metrics = {
        "held_out_loss_stories": _mean(held_out[:2]),
        "held_out_loss_questions": _mean(held_out[2:]),
        **answered(model, vocabulary, questions),
        **followed(model, vocabulary, texts),
    }
    return {name: value for name, value in metrics.items() if not math.isnan(value)}


def answered(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], n: int) -> dict[str, float]:
    """Shares of right letters: in both orders, reversed, and by what is asked and in which form (both orders)."""
    asked = asked_stories(n)
    first, second = right(model, vocabulary, asked), right(model, vocabulary, [swapped(each) for each in asked])
    backwards = [
        swapped(reversed_question(each)) if place % 2 else reversed_question(each) for place, each in enumerate(asked)
    ]
    by_kind: dict[str, list[bool]] = {}
    for each, *oks in zip(asked, first, second, strict=True):
        value = each.question.value
        about = "topic" if value in TOPICS else "mood" if value in MOODS else "attitude"
        for kind in (about, FORMS[each.question.which]):
            by_kind.setdefault(kind, []).extend(oks)
    return {
        "answers_right": _mean(first),
        "answers_right_options_swapped": _mean(second),
        "answers_right_reversed": _mean(right(model, vocabulary, backwards)),
        **{f"answers_right_{kind}": _mean(by_kind.get(kind, ())) for kind in ("topic", "mood", "attitude", *FORMS)},
    }


def followed(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], texts: int) -> dict[str, float]:
    """Shares in texts sampled after headers, each averaged over the latents that the headers name."""

    def after(header: str, named: Iterable[str], seed: int) -> dict[str, StoryCounts]:
        prompts = [(value, header.format(value)) for value in named for _ in range(texts)]
        found = sampled_counts(model, vocabulary, [prompt for _, prompt in prompts], seed=seed)
        by_value: dict[str, list[StoryCounts]] = {}
        for (value, _), counts in zip(prompts, found, strict=True):
            by_value.setdefault(value, []).append(counts)
        return {value: total(each) for value, each in by_value.items()}

    topics = after("a story about the {} .", TOPICS, 1)
    moods = after("a {} story .", MOODS, 2)
    attitudes = after(f"a story about {{}} {NAMES[0]} .", [name for each in DIMENSIONS for name in each.names], 3)
    nothing = after(f"one day {NAMES[0]} met {NAMES[1]} .", ("",) * 8, 4)[""]
    written = total([*topics.values(), *moods.values(), *attitudes.values(), nothing])
    return {
        "topic_share_after_header": _mean(topics[topic].topic_share(topic) for topic in topics),
        "joyful_share_after_happy_header": moods["happy"].joyful_share,
        "joyful_share_after_sad_header": moods["sad"].joyful_share,
        "joyful_share_after_no_header": nothing.joyful_share,
        "attitude_share_after_header": _mean(attitudes[name].attitude_share(name) for name in attitudes),
        "grammatical_share": written.grammatical_share,
    }


def _mean(values: Iterable[float | bool]) -> float:
    found = list(values)
    return sum(found) / len(found) if found else math.nan
