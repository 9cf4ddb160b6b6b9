"""What a text shows of topics, moods and attitudes, counted exactly from its words.

    topic share     words of a topic / words of all topics
    joyful share    words of the happy mood / words of both moods
    attitude share  words of an attitude / words of it and of its contrary
    grammatical     finished sentences that fill a template / finished sentences

A sentence ends with a full stop; a question and its answer are one. What follows the last full stop is cut off by the
length of a sample and is no sentence. A share of nothing is NaN. Counts add up: `sum` of many texts' counts by `total`.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from zoo.stories_grammar import BODIES, ENDINGS, OPENINGS, SHOWING
from zoo.stories_lexicon import MOODS, TOPICS, attitude_words, contraries, mood_words, topic_words, word_classes
from zoo.stories_questions import ANSWER, CLOSE, OPTIONS
from zoo.stories_text import HEADERS, QUESTIONS
from zoo.words import split

_SLOT = re.compile(r"\{\w+\}")


@dataclass(frozen=True)
class StoryCounts:
    """Words of one text or of many: by topic, by mood, by attitude, and all; finished and grammatical sentences."""

    topics: Mapping[str, int]
    moods: Mapping[str, int]
    attitudes: Mapping[str, int]
    words: int
    sentences: int
    grammatical: int

    def topic_share(self, topic: str) -> float:
        """The share of a topic's words among the topical ones.

        Raises:
            ValueError: if there is no such topic.
        """
        if topic not in TOPICS:
            raise ValueError(f"no topic {topic!r}; expected one of {', '.join(TOPICS)}")
        return _share(self.topics.get(topic, 0), sum(self.topics.values()))

    @property
    def joyful_share(self) -> float:
        """The share of the happy mood's words among those of both moods."""
        return _share(self.moods.get("happy", 0), sum(self.moods.values()))

    def attitude_share(self, attitude: str) -> float:
        """The share of an attitude's words among those of it and of its contrary.

        Raises:
            ValueError: if there is no such attitude.
        """
        others = {name: other for name, other in contraries().items() if name not in MOODS}
        if attitude not in others:
            raise ValueError(f"no attitude {attitude!r}; expected one of {', '.join(others)}")
        own = self.attitudes.get(attitude, 0)
        return _share(own, own + self.attitudes.get(others[attitude], 0))

    @property
    def grammatical_share(self) -> float:
        """The share of the finished sentences that fill a template."""
        return _share(self.grammatical, self.sentences)


def count(text: str | Sequence[str]) -> StoryCounts:
    """The counts of a text, or of a list of words."""
    found = split(text) if isinstance(text, str) else list(text)
    ends = [place + 1 for place, word in enumerate(found) if word == "."]
    skeletons = [skeleton(found[start:end]) for start, end in zip([0, *ends], ends, strict=False)]
    return StoryCounts(
        topics=_counts(found, topic_words()),
        moods=_counts(found, mood_words()),
        attitudes=_counts(found, attitude_words()),
        words=len(found),
        sentences=len(skeletons),
        grammatical=sum(each in grammatical_skeletons() for each in skeletons),
    )


def total(counts: Iterable[StoryCounts]) -> StoryCounts:
    """The counts of several texts together."""
    counts = list(counts)
    return StoryCounts(
        topics=_sum(each.topics for each in counts),
        moods=_sum(each.moods for each in counts),
        attitudes=_sum(each.attitudes for each in counts),
        words=sum(each.words for each in counts),
        sentences=sum(each.sentences for each in counts),
        grammatical=sum(each.grammatical for each in counts),
    )


def skeleton(sentence: Sequence[str]) -> str:
    """A sentence with every word of a lexicon, name and latent's name replaced by the slot that it fills."""
    classes = _classes()
    return " ".join(f"{{{classes[word]}}}" if word in classes else word for word in sentence)


@cache
def grammatical_skeletons() -> frozenset[str]:
    """The skeletons of all sentences, headers, and questions with their answers."""
    sentences = (*OPENINGS, *BODIES, *ENDINGS, *(each for shown in SHOWING.values() for each in shown), *HEADERS)
    found = {
        f"{sentence} ." for template in sentences for sentence in _people(template).removesuffix(" .").split(" . ")
    }
    for question in QUESTIONS:
        kinds = [slot for slot in _SLOT.findall(question) if slot != "{name}"]
        pairs = [("yes", "no"), ("no", "yes")] if len(kinds) == 1 else [(kinds[0], kinds[0])]
        for first, second in pairs:
            asked = f"{question} {OPTIONS.format(first=first, second=second)}"
            found |= {
                f"{asked} {letter} {CLOSE.format(said=said)}"
                for letter, said in zip("AB", (first, second), strict=True)
            }
            found.add(f"{question} {ANSWER} {first} .")
    return frozenset(found)


def _people(template: str) -> str:
    return template.replace("{hero}", "{name}").replace("{friend}", "{name}")


@cache
def _classes() -> Mapping[str, str]:
    return word_classes()


def _counts(found: Sequence[str], lexicon: Mapping[str, str]) -> dict[str, int]:
    return dict(Counter(lexicon[word] for word in found if word in lexicon))


def _sum(counts: Iterable[Mapping[str, int]]) -> dict[str, int]:
    together: Counter[str] = Counter()
    for each in counts:
        together.update(each)
    return dict(together)


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan
