"""The numbers of a card of a model that reads about people, in plain torch.

Right letters: to the first question where the text says the value, in either order of the options; to the first where
its name stands in the person's place; to the second where nothing but the first letter says it. Own words: of the words
that show an attitude in sampled sentences about a person, the share that show what the text said of that person.
Held-out loss: nats a word.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from random import Random
from typing import TYPE_CHECKING

import msgspec
import torch

from zoo.people_batches import encode, loss
from zoo.people_recipes import Weights
from zoo.people_text import ATTITUDES, LETTERS, NAMES, Document, Mixture, draw, question_document, sentence
from zoo.stories_evaluation import sample
from zoo.stories_lexicon import attitude_words
from zoo.words import BOS_ID

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

SEED = (1 << 40) + 11  # training draws from (seed << 32) + chunk
CLEAN = Mixture(decided=1.0, at_place=0.0, by_name=0.0, against=0.0, stories=0.0)
CHUNK = 64


def asked(n: int, number: int, mixture: Mixture, seed: int = SEED) -> list[Document]:
    """Documents in which the letter of a question (0 or 1) is decided."""
    random, found = Random(seed), list[Document]()
    while len(found) < n:
        document = question_document(random, mixture)
        if document.letters[number].decided:
            found.append(document)
    return found


@torch.no_grad()
def right(
    model: GPT2LMHeadModel, vocabulary: Mapping[str, int], documents: Sequence[Document], number: int
) -> list[bool]:
    """Whether the right letter of a question is the more likely of the two, what stands before it being given."""
    letters, found = [vocabulary[letter] for letter in LETTERS], list[bool]()
    for start in range(0, len(documents), CHUNK):
        part = documents[start : start + CHUNK]
        tokens = encode(part, vocabulary, Weights()).tokens.to(model.device)
        resid = model.transformer(tokens, use_cache=False).last_hidden_state
        places = torch.tensor([1 + document.letters[number].behind for document in part], device=model.device)
        chosen = model.lm_head(resid[torch.arange(len(part), device=model.device), places])[:, letters].argmax(-1)
        found += [says == of.letters[number].right for says, of in zip(chosen.tolist(), part, strict=True)]
    return found


def own_words(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], n: int, *, n_tokens: int = 4) -> float:
    """The share of a person's own words in sentences that are sampled about somebody of whom the text tells."""
    random, words = Random(SEED + 1), {token: word for word, token in vocabulary.items()}
    attitude_of = attitude_words()
    by_length: dict[int, list[tuple[str, list[int]]]] = {}
    for _ in range(n):
        people, values = random.sample(NAMES, 2), random.sample(ATTITUDES, 2)
        told = [word for pair in zip(people, values, strict=True) for word in sentence(*pair, random)]
        row = [BOS_ID, *(vocabulary[word] for word in (*told, people[0]))]
        by_length.setdefault(len(row), []).append((values[0], row))
    own = counted = 0
    for rows in by_length.values():
        generator = torch.Generator().manual_seed(0)
        texts = sample(model, torch.tensor([row for _, row in rows]), n_tokens, generator)
        for (value, _), text in zip(rows, texts, strict=True):
            first = next((attitude_of[words[each]] for each in text if words[each] in attitude_of), None)
            own, counted = own + (first == value), counted + (first is not None)
    return own / counted if counted else float("nan")


def evaluate(model: GPT2LMHeadModel, vocabulary: Mapping[str, int], *, texts: int = 512) -> dict[str, float]:
    """The metrics of a card."""
    was_training = model.training
    model.eval()
    random = Random(SEED + 2)
    held_out = encode([draw(random, Mixture()) for _ in range(128)], vocabulary, Weights())
    only_words = Weights(words=1.0)
    with torch.no_grad():
        resid = model.transformer(held_out.to(model.device).tokens, use_cache=False).last_hidden_state
        targets = held_out.targets.to(model.device)
        words = torch.nn.functional.cross_entropy(model.lm_head(resid).flatten(0, 1), targets.flatten())
        whole = loss(model, held_out.to(model.device), vocabulary, only_words)
    told = asked(texts, 0, CLEAN)
    says = right(model, vocabulary, told, 0)
    by_letter = [
        [is_right for is_right, of in zip(says, told, strict=True) if of.letters[0].right == at] for at in (0, 1)
    ]
    of_name = asked(texts, 0, msgspec.structs.replace(CLEAN, at_place=1.0))
    of_letter = asked(texts, 1, msgspec.structs.replace(CLEAN, decided=0.0))
    model.train(was_training)
    return {
        "held_out_loss": words.item(),
        "held_out_loss_with_choices": whole.item(),
        "answers_right": _share(says),
        **{f"answers_right_{name}": _share(of) for name, of in zip(LETTERS, by_letter, strict=True)},
        "answers_right_by_name": _share(right(model, vocabulary, of_name, 0)),
        "second_answers_right": _share(right(model, vocabulary, of_letter, 1)),
        "own_words": own_words(model, vocabulary, texts),
    }


def _share(of: Sequence[bool]) -> float:
    return sum(of) / len(of)
