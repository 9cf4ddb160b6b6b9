"""Questions about a story, with their right answers: plain, or with the options A and B in either order.

A question asks for a value (a topic, a mood, an attitude) against a contrary. The first option says that the value
holds ("yes", or the value itself), the second that the contrary does; `swapped` gives the second the letter A. The
question reversed is the same with value and contrary exchanged.

    is anna kind ? ( A ) yes ( B ) no answer : ( A ) yes .
    is anna kind or mean ? ( A ) mean ( B ) kind answer : ( B ) kind .
    is the story sad ? answer : no .
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

from zoo.stories_grammar import Latents
from zoo.stories_lexicon import MOODS, TOPICS, attitude_words, contraries, mood_words, topic_words

OPTIONS, ANSWER, CLOSE = "( A ) {first} ( B ) {second} answer : (", "answer :", ") {said} ."


@dataclass(frozen=True)
class Forms:
    """Shares of the questions that have options with letters, and that name both values."""

    lettered: float = 0.75
    which: float = 0.5


ALL_FORMS = Forms()


@dataclass(frozen=True)
class StoryQuestion:
    """A question about `value` against `contrary`; `which` names both, else it is a matter of yes or no."""

    value: str
    contrary: str
    which: bool = False
    lettered: bool = True
    swapped: bool = False

    @property
    def options(self) -> tuple[str, str]:
        """What A and B say, in this order (without letters: the answers in the same order)."""
        first, second = (self.value, self.contrary) if self.which else ("yes", "no")
        return (second, first) if self.swapped else (first, second)

    @property
    def matching(self) -> str:
        """The answer that says that the value holds: a letter, or the word where there are no letters."""
        return self._answer(True)

    @property
    def not_matching(self) -> str:
        """The other answer."""
        return self._answer(False)

    def _answer(self, holds: bool) -> str:
        if self.lettered:
            return "A" if holds != self.swapped else "B"
        return self.options[0 if holds != self.swapped else 1]

    def answer(self, latents: Latents) -> str:
        """The right answer.

        Raises:
            ValueError: if the story has neither the value nor the contrary.
        """
        holds = latents.has(self.value)
        if not holds and not latents.has(self.contrary):
            raise ValueError(
                f"the story has neither {self.value!r} nor {self.contrary!r}, it has {latents}; ask about what it has"
            )
        return self._answer(holds)

    def reversed(self) -> StoryQuestion:
        """The question about the contrary; where a letter said that the value holds, it now says that it does not."""
        return replace(self, value=self.contrary, contrary=self.value)

    def text(self, hero: str) -> str:
        """The question about a story whose main character is `hero`, up to where the answer follows."""
        article = "the " if self.value in TOPICS else ""
        asked = f"{article}{self.value}" + (f" or {article}{self.contrary}" if self.which else "")
        about = (
            "is the story about" if self.value in TOPICS else "is the story" if self.value in MOODS else f"is {hero}"
        )
        first, second = self.options
        return f"{about} {asked} ? " + (OPTIONS.format(first=first, second=second) if self.lettered else ANSWER)

    def after_answer(self, answer: str) -> str:
        """What ends the question after an answer: where that is a letter, also what it stands for."""
        return CLOSE.format(said=self.options["AB".index(answer)]) if self.lettered else "."


def visible(words: Sequence[str], latents: Latents) -> tuple[str, ...]:
    """The latents that the words of a story show: more words of each than of any other of its kind."""
    found = []
    for value, lexicon in ((latents.topic, topic_words()), (latents.mood, mood_words())):
        counts: dict[str, int] = {}
        for word in words:
            if word in lexicon:
                counts[lexicon[word]] = counts.get(lexicon[word], 0) + 1
        if counts.get(value, 0) > max((n for other, n in counts.items() if other != value), default=0):
            found.append(value)
    attitude_of = attitude_words()
    shown = {attitude_of.get(word) for word in words}
    return (*found, *(attitude for attitude in latents.attitudes if attitude in shown))


def draw_question(value: str, random: Random, forms: Forms = ALL_FORMS) -> StoryQuestion:
    """A question about a latent that a story has, in a random form; half of them ask for the contrary."""
    contrary = random.choice([each for each in TOPICS if each != value]) if value in TOPICS else contraries()[value]
    question = StoryQuestion(
        value,
        contrary,
        which=random.random() < forms.which,
        lettered=random.random() < forms.lettered,
        swapped=random.random() < 0.5,
    )
    return question if random.random() < 0.5 else question.reversed()
