"""From sentences to tokens, and where the names stand in them.

    When Mary and John went to the store, John gave a drink to
         IO       S1   S1+1               S2               END

A name's token is what the tokenizer makes of it behind a word: " Mary" of a byte-level tokenizer, "▁Mary" of
SentencePiece, "Mary" of one that reads words. It is the token of the answer, and the names of a sentence are found by
it: as often as the text has the name, in the same order. Hence every name has to be one token that reads as the name
itself; others are refused.

Positions are columns of `tokens`, which is padded on the left as `interventions.Prompts` is: END is the last column of
every prompt, and `column - tokens.shape[1]` is the position counted from the end that the engine takes.

The model's BOS goes in front where it has one (`model.bos`), unless the tokenizer puts it there itself. The paper's
prompts have none: `material.model_for` gives the model that reads them so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from replications.indirect_object_identification.drawing_prompts import PromptError, Sentence
from torch import Tensor

from interventions import Model, Prompts, Tokenizer, as_prompts

IO, S1, S1_NEXT, S2, END = "IO", "S1", "S1+1", "S2", "END"
BEHIND = "gave it to"  # what a name stands behind where there is no sentence yet


@dataclass(frozen=True)
class Layout:
    """What prompts of one group share: template, order, real tokens, and the places of names counted from the end."""

    template: int
    order: str
    length: int
    names: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class IOIPrompts:
    """Sentences as a model reads them; all tensors are on the CPU.

    Args:
        tokens: padded on the left with 0, as in `prompts`.
        lengths: tokens of every prompt without padding, BOS included.
        positions: columns of `tokens` by word: "IO", "S1", "S1+1", "S2", "END"; "EXTRA" where every sentence has it.
        io, s: the tokens that the two names are as answers.
        templates: the group of every prompt for means "by template": prompts of a group have the same `Layout`, so that
            their tokens align one by one. Groups are counted from 0 without gaps.
        layouts: by group; prompts that were tokenized apart are of one group where their layouts are equal.
    """

    sentences: tuple[Sentence, ...]
    tokens: Int[Tensor, "prompt pos"]
    lengths: Int[Tensor, " prompt"]
    positions: Mapping[str, Int[Tensor, " prompt"]]
    io: Int[Tensor, " prompt"]
    s: Int[Tensor, " prompt"]
    templates: Int[Tensor, " prompt"]
    layouts: tuple[Layout, ...]
    prompts: Prompts

    def __len__(self) -> int:
        return len(self.sentences)


def tokenized(model: Model, sentences: Sequence[Sentence]) -> IOIPrompts:
    """The tokens of sentences, the columns of their names, and the tokens of the two answers.

    Raises:
        PromptError: there is no tokenizer or no sentence, a name is not one token, or does not stand in the tokens as
            often as in the text.
    """
    tokenizer = tokenizer_of(model)
    if not sentences:
        raise PromptError("no sentences to tokenize: expected at least one")
    token_of: dict[str, int] = {}
    rows, found = [], []
    for number, sentence in enumerate(sentences):
        for span in sentence.spans:
            name = sentence.name_at(span)
            if name not in token_of:
                token_of[name] = name_token(tokenizer, name, behind=sentence.text)
        row = list(tokenizer.encode(sentence.text))
        if model.bos is not None and row[:1] != [model.bos]:
            row = [model.bos, *row]
        rows.append(row)
        found.append(_places(row, sentence, token_of, number))
    prompts = as_prompts(rows)
    lengths = torch.tensor([len(row) for row in rows])
    padding = prompts.length - lengths
    layouts = [
        Layout(each.template, each.order, len(row), tuple((span, at - len(row)) for span, at in places.items()))
        for each, row, places in zip(sentences, rows, found, strict=True)
    ]
    kinds = sorted(set(layouts), key=lambda each: (each.template, each.order, each.length, each.names))
    group_of = {kind: group for group, kind in enumerate(kinds)}
    common = [span for span in found[0] if all(span in places for places in found)]
    positions = {span: torch.tensor([places[span] for places in found]) + padding for span in common}
    return IOIPrompts(
        sentences=tuple(sentences),
        tokens=prompts.tokens,
        lengths=lengths,
        positions={**positions, S1_NEXT: positions[S1] + 1, END: padding + lengths - 1},
        io=torch.tensor([token_of[sentence.io] for sentence in sentences]),
        s=torch.tensor([token_of[sentence.subject] for sentence in sentences]),
        templates=torch.tensor([group_of[layout] for layout in layouts]),
        layouts=tuple(kinds),
        prompts=prompts,
    )


def tokenizer_of(model: Model) -> Tokenizer:
    """Raises PromptError where there is none."""
    if model.tokenizer is None:
        raise PromptError(f"{model.name} has no tokenizer: expected one beside the weights; put its files there")
    return model.tokenizer


def name_token(tokenizer: Tokenizer, name: str, *, behind: str = BEHIND) -> int:
    """The one token of a name where it follows a text and a space.

    Raises:
        PromptError: it is several tokens, merges with the text, or its token reads otherwise, as that of unknown words.
    """
    before, whole = list(tokenizer.encode(behind)), list(tokenizer.encode(f"{behind} {name}"))
    own = whole[len(before) :]
    if whole[: len(before)] == before and len(own) == 1 and tokenizer.decode(own).strip() == name:
        return own[0]
    pieces = ", ".join(f"{token} {tokenizer.decode([token])!r}" for token in own) or "none"
    merged = "" if whole[: len(before)] == before else f", merged with {behind[-12:]!r} before it"
    raise PromptError(
        f"the name {name!r} behind a space has the tokens {pieces}{merged}: expected one that reads as the name; leave "
        f"the name out, as material_for does, or take a model whose tokenizer has it whole"
    )


def _places(row: Sequence[int], sentence: Sentence, token_of: Mapping[str, int], number: int) -> dict[str, int]:
    """The place of every span in `row`, in the order in which they stand there."""
    spans_of: dict[str, list[str]] = {}
    for span in sorted(sentence.spans, key=sentence.spans.__getitem__):
        spans_of.setdefault(sentence.name_at(span), []).append(span)
    places: dict[str, int] = {}
    for name, spans in spans_of.items():
        at = [place for place, token in enumerate(row) if token == token_of[name]]
        if len(at) != len(spans):
            raise PromptError(
                f"sentence {number}: {name!r} is {len(at)} times token {token_of[name]} in {sentence.text!r}, expected "
                f"{len(spans)} times ({', '.join(spans)}); begin the template with a word that is no name, put a space "
                f"before each name, and let nothing else there be a name"
            )
        places |= dict(zip(spans, at, strict=True))
    return dict(sorted(places.items(), key=lambda item: item[1]))
