"""Adversarial sentences: a remark about one of the two people, between the first clause and the giver.

    "John and Mary went to the store. Mary had a good day. John gave a bottle of milk to"

(Wang et al. 2022, section 4.4 and appendix L.) The circuit finds the answer as the name that is not repeated, and the
remark repeats it. The same remark about S is the control: as long, and nothing that misleads.

A remark goes behind the mark that ends the first clause, which may be a comma, as in the authors' code: "After John and
Mary went to the store, Mary had a good day. John gave". Where the giver's clause goes on from a comma (", and
afterwards John said to") there is no place for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from replications.indirect_object_identification.drawing_prompts import PromptError, Sentence, fill

EXTRA = "EXTRA"  # the span of the name in a remark


@dataclass(frozen=True)
class Adversarial:
    """Sentences of p_IOI, and the same ones with the same remark about either name.

    `plain` have no remark; in `io_again`, the attack, both names are repeated; in `s_again`, the control, S is named
    three times. The three have the same sentence at the same place, and tokens of the latter two align.
    """

    plain: tuple[Sentence, ...]
    io_again: tuple[Sentence, ...]
    s_again: tuple[Sentence, ...]


def place_of_remark(text: str, giver: int) -> int | None:
    """Where a remark fits in, in characters; None where the giver's clause goes on from the one before.

    Args:
        text: a sentence or a template.
        giver: where the giver's name, or its gap, begins.
    """
    mark = max(text.rfind(".", 0, giver), text.rfind(",", 0, giver))
    alone = text[mark + 1 : giver].isspace()
    return mark + 1 if mark >= 0 and (alone or text[mark] == ".") else None


def with_remark(sentence: Sentence, remark: str, name: str) -> Sentence:
    """The sentence with a remark, whose gap {N} is for the name; this name then stands at "EXTRA" too.

    Raises:
        PromptError: the sentence has no place for it.
    """
    place = place_of_remark(sentence.text, sentence.spans["S2"])
    if place is None:
        raise PromptError(
            f"{sentence.text!r} has no place for {remark!r}: expected a first clause with a mark at its end and the "
            f"giver behind it; leave out template {sentence.template}"
        )
    inserted, begins = fill(f" {remark}", {"N": name})
    spans = {span: begin + (len(inserted) if begin >= place else 0) for span, begin in sentence.spans.items()}
    text = sentence.text[:place] + inserted + sentence.text[place:]
    return replace(sentence, text=text, spans={**spans, EXTRA: place + begins["N"]})
