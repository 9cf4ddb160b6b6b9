"""What a tier asks: templates and words behind one interface.

    tiny     the templates and names that the shipped model was trained on (`zoo.ioi`), and those held out of training
    paper    the paper's (`templates`), for any model of English

Names that are not one token of the model's tokenizer are left out, and so are places and objects that have another
number of tokens than most of them: then all sentences of a template have the same length, and their tokens align.

Parts share no pair of names, whichever of the two is the indirect object, whatever the seed:

| part | tiny | paper |
|---|---|---|
| "search", "scores" | half each of the pairs that training showed, in templates that it showed | a third each |
| "held_out" | pairs that training never showed, in templates that it never showed | a third |

No template can be held out of a model that is not ours, so that at the paper tier all parts have all fifteen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice, permutations
from random import Random
from typing import Protocol
from zlib import crc32

from replications.indirect_object_identification import templates as paper
from replications.indirect_object_identification.drawing_prompts import (
    PromptError,
    Sentence,
    check_template,
    count,
    stream,
)
from replications.indirect_object_identification.positions import BEHIND, name_token, tokenizer_of
from replications.indirect_object_identification.remarks import Adversarial, place_of_remark, with_remark

from interventions import Model, Tokenizer
from zoo import ioi

SEARCH, SCORES, HELD_OUT = "search", "scores", "held_out"
PARTS = (SEARCH, SCORES, HELD_OUT)
TINY, PAPER = "tiny", "paper"
FEWEST_NAMES = 20
# Of words of the shipped model's training texts; the paper's have others.
TINY_REMARKS = ("{N} had a long day.", "{N} had a lot of fun.")


class Material(Protocol):
    """What a tier asks."""

    @property
    def names(self) -> tuple[str, ...]:
        """Of all parts; corruptions take theirs from the same ones."""
        ...

    def stream(self, seed: int, *, part: str) -> Iterator[Sentence]:
        """Sentences of a part, all different, until there is none left.

        Raises:
            PromptError: there is no such part.
        """
        ...

    def draw(self, n: int, seed: int, *, part: str) -> tuple[Sentence, ...]:
        """The first n of `stream`.

        Raises:
            PromptError: there is no such part, or it has fewer sentences.
        """
        ...

    def adversarial(self, n: int, seed: int) -> Adversarial:
        """Sentences of the part "scores" in which a remark has a place, and with remarks.

        Raises:
            PromptError: there are fewer.
        """
        ...


@dataclass(frozen=True)
class TemplateMaterial:
    """Material of templates with gaps.

    Args:
        held_out: the indices of templates that belong to the part "held_out"; where there are none, all have all.
        held_out_pair: whether a pair of names belongs to that part; None for a third of them.
        remarks: with a gap {N}.
    """

    templates: tuple[str, ...]
    held_out: frozenset[int]
    names: tuple[str, ...]
    places: tuple[str, ...]
    objects: tuple[str, ...]
    remarks: tuple[str, ...]
    held_out_pair: Callable[[str, str], bool] | None = None

    def part_of(self, one: str, other: str) -> str:
        """The part of a pair of names, in either order."""
        drawn = crc32("/".join(sorted((one, other))).encode())
        if self.held_out_pair is None:
            return PARTS[drawn % 3]
        return HELD_OUT if self.held_out_pair(one, other) else PARTS[drawn % 2]

    def pairs(self, part: str) -> list[tuple[str, str]]:
        """All pairs of IO and S of a part."""
        return [pair for pair in permutations(self.names, 2) if self.part_of(*pair) == part]

    def templates_of(self, part: str) -> dict[int, str]:
        """By index."""
        return {
            index: text
            for index, text in enumerate(self.templates)
            if not self.held_out or (index in self.held_out) == (part == HELD_OUT)
        }

    def count(self, part: str) -> int:
        """How many sentences a part has.

        Raises:
            PromptError: there is no such part.
        """
        _check_part(part)
        return count(self.templates_of(part), len(self.pairs(part)), len(self.places), len(self.objects))

    def stream(self, seed: int, *, part: str) -> Iterator[Sentence]:
        _check_part(part)
        return self._stream(self.templates_of(part), part, f"{seed}/{part}")

    def draw(self, n: int, seed: int, *, part: str) -> tuple[Sentence, ...]:
        return _taken(n, self.stream(seed, part=part), f"part {part!r}")

    def adversarial(self, n: int, seed: int) -> Adversarial:
        fitting = {
            index: text
            for index, text in self.templates_of(SCORES).items()
            if place_of_remark(text, text.index("{S}")) is not None
        }
        plain = _taken(n, self._stream(fitting, SCORES, f"{seed}/adversarial"), f"part {SCORES!r} with a remark")
        random = Random(f"{seed}/remarks")
        remarks = [random.choice(self.remarks) for _ in plain]
        about_io = tuple(with_remark(each, remark, each.io) for each, remark in zip(plain, remarks, strict=True))
        about_s = tuple(with_remark(each, remark, each.subject) for each, remark in zip(plain, remarks, strict=True))
        return Adversarial(plain, about_io, about_s)

    def _stream(self, templates: dict[int, str], part: str, seed: str) -> Iterator[Sentence]:
        return stream(templates, self.pairs(part), self.places, self.objects, seed=seed, pool=self.names)


def material_for(model: Model, tier: str) -> TemplateMaterial:
    """A tier's material, of words that the model's tokenizer has.

    Raises:
        PromptError: there is no such tier, the model has no tokenizer, or too few names are one token.
    """
    if tier not in (TINY, PAPER):
        raise PromptError(f"tier {tier!r}: expected {TINY} or {PAPER}")
    all_of = _tiny() if tier == TINY else _paper()
    for template in all_of.templates:
        check_template(template)
    tokenizer = tokenizer_of(model)
    return replace(
        all_of,
        names=_one_token(model.name, tokenizer, all_of.names),
        places=_alike(tokenizer, all_of.places),
        objects=_alike(tokenizer, all_of.objects),
    )


def model_for(model: Model, tier: str) -> Model:
    """The model as a tier asks it: GPT-2 at the paper tier without BOS, as the paper's prompts have none.

    GPT-2's tokenizer has a BOS, which OpenAI's models saw between documents alone. Other models keep theirs: those of
    the zoo and of the Llama family are never without it.
    """
    if tier == PAPER and model.network.config.model_type == "gpt2":
        return replace(model, bos=None)
    return model


def _tiny() -> TemplateMaterial:
    return TemplateMaterial(
        templates=tuple(template.text for template in ioi.TEMPLATES),
        held_out=frozenset(index for index, template in enumerate(ioi.TEMPLATES) if template.held_out),
        names=tuple(ioi.NAMES),
        places=tuple(ioi.PLACES),
        objects=tuple(ioi.OBJECTS),
        remarks=TINY_REMARKS,
        held_out_pair=ioi.held_out_pair,
    )


def _paper() -> TemplateMaterial:
    return TemplateMaterial(
        paper.TEMPLATES, frozenset(), paper.NAMES, paper.PLACES, paper.OBJECTS, remarks=paper.REMARKS
    )


def _one_token(model: str, tokenizer: Tokenizer, names: Sequence[str]) -> tuple[str, ...]:
    kept, refused = [], []
    for name in names:
        try:
            name_token(tokenizer, name)
            kept.append(name)
        except PromptError as error:
            refused.append(str(error))
    if len(kept) < FEWEST_NAMES:
        raise PromptError(
            f"{model}: its tokenizer has one token for {len(kept)} of {len(names)} names, expected at least "
            f"{FEWEST_NAMES}; take a model of English text, or --tier tiny for one of the zoo (first: {refused[0]})"
        )
    return tuple(kept)


def _alike(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[str, ...]:
    """The words with the most common number of tokens."""
    sizes = [len(tokenizer.encode(f"{BEHIND} {word}")) for word in words]
    ((common, _),) = Counter(sizes).most_common(1)
    return tuple(word for word, size in zip(words, sizes, strict=True) if size == common)


def _check_part(part: str) -> None:
    if part not in PARTS:
        raise PromptError(f"part {part!r}: expected one of {', '.join(PARTS)}")


def _taken(n: int, sentences: Iterator[Sentence], of: str) -> tuple[Sentence, ...]:
    if n < 1:
        raise PromptError(f"{n} sentences of {of}: expected at least 1")
    taken = tuple(islice(sentences, n))
    if len(taken) < n:
        raise PromptError(f"{n} sentences of {of}: there are {len(taken)} different ones; ask for fewer")
    return taken
