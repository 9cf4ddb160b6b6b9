"""The sentences of Wang et al. 2022: read back by regular expressions and by the paper's own three steps."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest
from replications.indirect_object_identification import material, templates
from replications.indirect_object_identification.drawing_prompts import (
    PromptError,
    Sentence,
    abc,
    check_template,
    fill,
    random_names,
    stream,
    swapped_order,
    swapped_roles,
)
from replications.indirect_object_identification.material import PARTS, TemplateMaterial
from replications.indirect_object_identification.remarks import place_of_remark, with_remark

from zoo import ioi

Corruption = Callable[[Sequence[Sentence], int], tuple[Sentence, ...]]
PAPER, TINY = material._paper(), material._tiny()
BOTH = pytest.mark.parametrize("of", [PAPER, TINY], ids=["paper", "tiny"])
CORRUPTIONS: tuple[Corruption, ...] = (abc, random_names, swapped_order, swapped_roles)


def drawn(of: TemplateMaterial, n: int = 300, part: str = "search", seed: int = 5) -> tuple[Sentence, ...]:
    return of.draw(n, seed, part=part)


def names_in(text: str, of: TemplateMaterial) -> list[str]:
    """All names of a text in their order, found without its spans."""
    return [word for word in re.findall(r"\w+", text) if word in set(of.names)]


def read_back(sentence: Sentence, of: TemplateMaterial) -> tuple[str, str, str]:
    """The words in the gaps {X}, {Y} and {S}; the sentence has to fit its template as a whole."""
    pattern = re.escape(of.templates[sentence.template])
    for gap, words in (("P", of.places), ("O", of.objects), *((gap, of.names) for gap in "XYS")):
        escaped = re.escape(f"{{{gap}}}")
        pattern = pattern.replace(escaped, f"(?P<{gap}>{'|'.join(words)})", 1).replace(escaped, f"(?P={gap})")
    found = re.fullmatch(pattern, sentence.text)
    assert found is not None, sentence.text
    return found["X"], found["Y"], found["S"]


def masked(sentence: Sentence) -> str:
    """The text without its names, by the spans."""
    text = sentence.text
    for span, begin in sorted(sentence.spans.items(), key=lambda item: -item[1]):
        text = text[:begin] + "*" + text[begin + len(sentence.name_at(span)) :]
    return text


@BOTH
@pytest.mark.parametrize("part", PARTS)
def test_a_sentence_is_its_template_and_the_name_that_is_not_repeated_is_its_answer(
    of: TemplateMaterial, part: str
) -> None:
    for sentence in drawn(of, part=part):
        x, y, s = read_back(sentence, of)
        assert names_in(sentence.text, of) == [x, y, s]
        (alone,) = (
            name for name, times in Counter([x, y, s]).items() if times == 1
        )  # the paper's algorithm, section 3
        assert (sentence.io, sentence.subject) == (alone, s)
        assert sentence.order == ("ABBA" if x == alone else "BABA")
        by_position = sorted(sentence.spans, key=sentence.spans.__getitem__)
        assert by_position == (["IO", "S1", "S2"] if sentence.order == "ABBA" else ["S1", "IO", "S2"])
        assert [sentence.name_at(span) for span in by_position] == [x, y, s]
        found = [hit.start() for hit in re.finditer(rf"\b(?:{x}|{y})\b", sentence.text)]
        assert [sentence.spans[span] for span in by_position] == found


def test_the_papers_own_example_is_one_of_its_sentences() -> None:
    first = {0: PAPER.templates[5].replace("After", "When")}
    of = [*stream(first, [("Mary", "John")], ["store"], ["drink"], seed=0)]
    assert sorted(each.text for each in of) == [
        "When John and Mary went to the store, John gave a drink to",
        "When Mary and John went to the store, John gave a drink to",
    ]
    assert {each.io for each in of} == {"Mary"}


@BOTH
def test_words_are_enough_and_different(of: TemplateMaterial) -> None:
    assert len(of.templates) >= 15
    assert len(of.names) >= 100
    for words in (of.templates, of.names, of.places, of.objects, of.remarks):
        assert len(set(words)) == len(words) > 1
    assert not {*of.names} & {word for text in of.templates for word in re.findall(r"\w+", text)}
    assert len(PAPER.templates) == 15
    assert all(re.fullmatch(r"\w+", name) for name in of.names)


@BOTH
@pytest.mark.parametrize("part", PARTS)
def test_a_part_has_a_hundred_thousand_different_sentences(of: TemplateMaterial, part: str) -> None:
    texts = {sentence.text for sentence in itertools.islice(of.stream(1, part=part), 100_000)}
    assert len(texts) == 100_000 <= of.count(part)


def test_all_sentences_come_once_and_then_there_are_none() -> None:
    small = replace(PAPER, names=PAPER.names[:5], places=PAPER.places[:2], objects=PAPER.objects[:3])
    for part in PARTS:
        every = {
            fill(text, {"X": x, "Y": y, "S": s, "P": place, "O": thing})[0]
            for x, y in itertools.permutations(small.names, 2)
            for s in (x, y)
            for text in small.templates
            for place, thing in itertools.product(small.places, small.objects)
            if small.part_of(x, y) == part
        }
        told = [sentence.text for sentence in small.stream(0, part=part)]
        assert sorted(told) == sorted(every)
        assert len(told) == small.count(part)
        with pytest.raises(
            PromptError, match=rf"^{len(told) + 1} sentences of part '{part}': there are {len(told)} diff"
        ):
            small.draw(len(told) + 1, 0, part=part)


@BOTH
def test_a_seed_gives_one_stream_and_a_longer_draw_goes_on_from_a_shorter_one(of: TemplateMaterial) -> None:
    ten, twenty = drawn(of, 10), drawn(of, 20)
    assert twenty[:10] == ten == drawn(of, 10)
    assert not {each.text for each in drawn(of, 20, seed=6)} & {each.text for each in twenty}
    endless = of.stream(5, part="search")
    assert tuple(itertools.islice(endless, 10)) == ten
    assert next(endless) == twenty[10]


@BOTH
def test_templates_and_orders_come_equally_often(of: TemplateMaterial) -> None:
    for part in PARTS:
        cells = 2 * len(of.templates_of(part))
        counts = Counter((each.template, each.order) for each in drawn(of, 3 * cells, part=part))
        assert set(counts.values()) == {3}
        assert len(counts) == cells
    orders = [(each.template, each.order) for each in drawn(of, 300)]
    assert orders[:10] != sorted(orders[:10])


@BOTH
def test_names_places_and_objects_are_drawn_from_all_there_are(of: TemplateMaterial) -> None:
    sentences = drawn(of, 20 * len(of.names))
    for word, role in itertools.product(of.names, ("io", "subject")):
        assert 1 <= sum(getattr(each, role) == word for each in sentences) <= 60
    seen = Counter(word for each in sentences for word in re.findall(r"\w+", each.text))
    assert all(seen[word] for word in (*of.places, *of.objects))


@BOTH
def test_parts_share_no_pair_of_names_whatever_the_seed(of: TemplateMaterial) -> None:
    pairs = {
        part: {frozenset((each.io, each.subject)) for seed in range(3) for each in drawn(of, 500, part, seed)}
        for part in PARTS
    }
    assert all(len(of_part) > 100 for of_part in pairs.values())
    for one, other in itertools.combinations(PARTS, 2):
        assert not pairs[one] & pairs[other]
    sizes = {part: len(of.pairs(part)) for part in PARTS}
    assert sum(sizes.values()) == len(of.names) * (len(of.names) - 1)
    assert 0.9 < sizes["search"] / sizes["scores"] < 1.1


def test_what_is_held_out_of_training_is_in_the_held_out_part_alone() -> None:
    for part in PARTS:
        held_out = part == "held_out"
        for each in drawn(TINY, 200, part):
            assert ioi.TEMPLATES[each.template].held_out == held_out
            assert ioi.held_out_pair(each.io, each.subject) == held_out
            assert TINY.templates[each.template] == ioi.TEMPLATES[each.template].text
    assert all(len(PAPER.templates_of(part)) == 15 for part in PARTS)


@BOTH
@pytest.mark.parametrize("corrupt", CORRUPTIONS, ids=lambda corrupt: corrupt.__name__)
def test_a_corruption_changes_names_alone_and_says_which_are_where(of: TemplateMaterial, corrupt: Corruption) -> None:
    sentences = drawn(of)
    corrupted = corrupt(sentences, 3)
    assert len(corrupted) == len(sentences)
    for clean, other in zip(sentences, corrupted, strict=True):
        read_back(replace(other, template=clean.template), of)
        assert masked(other) == masked(clean)
        assert other.template == clean.template
        assert sorted(other.spans) == ["IO", "S1", "S2"]
        assert (other.name_at("IO"), other.name_at("S1")) == (other.io, other.subject)
        assert (other.spans["IO"] < other.spans["S1"]) == (other.order == "ABBA")
        assert max(other.spans.values()) == other.spans["S2"]


def test_unrelated_names_are_three_and_none_of_the_sentences_own() -> None:
    sentences = drawn(PAPER)
    for clean, other in zip(sentences, abc(sentences, 0), strict=True):
        names = names_in(other.text, PAPER)
        assert len(set(names)) == 3
        assert not {*names} & {clean.io, clean.subject}
        assert names[2] == other.name_at("S2")
        assert other.order == clean.order
    assert abc(sentences, 0) == abc(sentences, 0) != abc(sentences, 1)
    counts = Counter(name for other in abc(sentences, 0) for name in names_in(other.text, PAPER))
    assert len(counts) == len(PAPER.names)
    assert {name for seed in range(300) for name in names_in(abc(sentences[:1], seed)[0].text, PAPER)} == {
        *PAPER.names
    } - {sentences[0].io, sentences[0].subject}


def test_random_names_keep_who_is_repeated() -> None:
    sentences = drawn(PAPER)
    for clean, other in zip(sentences, random_names(sentences, 0), strict=True):
        before, behind = names_in(clean.text, PAPER), names_in(other.text, PAPER)
        assert not {*before} & {*behind}
        assert [before.index(name) for name in before] == [behind.index(name) for name in behind]
        assert other.order == clean.order
    assert random_names(sentences, 0) == random_names(sentences, 0) != random_names(sentences, 1)


def test_the_two_swaps_are_those_of_appendix_a() -> None:
    sentences = drawn(PAPER)
    for clean, order, roles, both in zip(
        sentences,
        swapped_order(sentences),
        swapped_roles(sentences),
        swapped_order(swapped_roles(sentences)),
        strict=True,
    ):
        x, y, s = names_in(clean.text, PAPER)
        assert names_in(order.text, PAPER) == [y, x, s]
        assert (order.io, order.subject) == (clean.io, clean.subject)
        assert names_in(roles.text, PAPER) == [x, y, clean.io]
        assert (roles.io, roles.subject) == (clean.subject, clean.io)
        assert names_in(both.text, PAPER) == [y, x, clean.io]
        assert both.order == clean.order != order.order == roles.order
    assert swapped_order(swapped_order(sentences)) == sentences
    assert swapped_roles(swapped_roles(sentences)) == sentences
    assert swapped_order(swapped_roles(sentences)) == swapped_roles(swapped_order(sentences))


def test_corruptions_take_names_from_the_sentences_where_there_is_no_pool() -> None:
    several = [replace(each, pool=()) for each in drawn(PAPER, 20)]
    shown = {name for each in several for name in names_in(each.text, PAPER)}
    assert {name for each in abc(several, 0) for name in names_in(each.text, PAPER)} <= shown
    for corrupt, needed in ((abc, 3), (random_names, 2)):
        with pytest.raises(PromptError, match=rf": 0 other names to take from, expected at least {needed}; draw more"):
            corrupt(several[:1], 0)


@BOTH
def test_a_remark_names_one_of_the_two_once_more_and_changes_nothing_else(of: TemplateMaterial) -> None:
    found = of.adversarial(120, 2)
    pairs = {frozenset((each.io, each.subject)) for each in found.plain}
    assert pairs <= {frozenset(pair) for pair in of.pairs("scores")}
    used = set()
    for plain, attack, control in zip(found.plain, found.io_again, found.s_again, strict=True):
        read_back(plain, of)
        for longer, name in ((attack, plain.io), (control, plain.subject)):
            assert names_in(longer.text, of)[2] == longer.name_at("EXTRA") == name
            (remark,) = {hit for hit in of.remarks if (" " + hit.replace("{N}", name)) in longer.text}
            assert longer.text.replace(" " + remark.replace("{N}", name), "") == plain.text
            assert [longer.name_at(span) for span in plain.spans] == [plain.name_at(span) for span in plain.spans]
            assert longer.spans["S1"] == plain.spans["S1"] < longer.spans["EXTRA"] < longer.spans["S2"]
            assert names_in(longer.text[longer.spans["EXTRA"] :], of) == [name, plain.subject]
            used.add(remark)
            ended, going_on = longer.text[: longer.spans["EXTRA"]], longer.text[longer.spans["EXTRA"] :]
            assert ended[-2:] in (". ", ", ")
            assert going_on.startswith(remark.replace("{N}", name))
        assert attack.text.replace(plain.io, "*").replace(plain.subject, "*") == control.text.replace(
            plain.io, "*"
        ).replace(plain.subject, "*")
    assert used == {*of.remarks}
    assert of.adversarial(120, 2) == found


def test_the_papers_adversarial_example() -> None:
    (plain, *_) = (each for each in stream({0: PAPER.templates[0]}, [("Mary", "John")], ["store"], ["drink"], seed=0))
    longer = with_remark(plain, templates.REMARKS[0], "Mary")
    assert longer.text.endswith("went to the store. Mary had a good day. John gave a drink to")


def test_a_remark_has_no_place_within_a_clause() -> None:
    without = [text for text in PAPER.templates if place_of_remark(text, text.index("{S}")) is None]
    assert without == ["Then, {X} and {Y} had a long argument, and afterwards {S} said to"]
    assert 4 not in {each.template for each in PAPER.adversarial(300, 0).plain}
    (sentence,) = (each for each in drawn(PAPER, 30) if each.template == 4 and each.order == "ABBA")
    with pytest.raises(PromptError, match=r"has no place for '\{N\} was tired.': .*; leave out template 4$"):
        with_remark(sentence, "{N} was tired.", sentence.io)


def test_the_shipped_models_remarks_are_of_words_that_it_reads() -> None:
    known = {word for template in ioi.TEMPLATES if not template.held_out for word in re.findall(r"\w+", template.text)}
    assert {word for remark in TINY.remarks for word in re.findall(r"\w+", remark.replace("{N}", ""))} <= known


@pytest.mark.parametrize(
    ("template", "gaps"),
    [
        ("{X} gave it to", "['X']"),
        ("{X} and {Y} and {Z}, {S} gave it to", "['X', 'Y', 'Z', 'S']"),
        ("{S} met {X} and {Y} and gave it to", "['S', 'X', 'Y']"),
        ("{X} and {Y} sat. {S} and {S} said to", "['X', 'Y', 'S', 'S']"),
    ],
)
def test_a_template_with_other_gaps_is_refused(template: str, gaps: str) -> None:
    message = re.escape(f"has the gaps {gaps}: expected X and Y and then S, once each") + ".*; mend the template$"
    with pytest.raises(PromptError, match=message):
        next(stream({0: template}, [("Mary", "John")], ["store"], ["drink"], seed=0))
    check_template("At the {P} {Y} met {X}. {S} gave the {O} of the {P} to")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(PromptError, match=r"^part 'train': expected one of search, scores, held_out$"):
        PAPER.draw(1, 0, part="train")
    with pytest.raises(PromptError, match=r"^0 sentences of part 'search': expected at least 1$"):
        PAPER.draw(0, 0, part="search")
