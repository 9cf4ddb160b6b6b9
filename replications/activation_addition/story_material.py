"""The tiny tier: the little stories, whose topic and mood are scored exactly from their words.

    topic    "a story about the sea ."  minus  "a story about the house ."      houses are of no topic
    mood     "a happy story ."  minus  "a sad story ."

Prompts are two sentences that show neither topic nor mood. The names in prompts that are scored are in none on which
layer and coefficient are chosen. Knowledge that topic vectors are not about: questions on the mood of a story and on
its main character's attitude, in all four forms.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from random import Random

from replications.activation_addition.material import MOOD, TOPIC, Contrast, Group, Latent, Material

from interventions import Model, ModelError
from steering import Metric, NextToken, Writing
from zoo import stories

HEADER, NO_TOPIC = "a story about the {} .", "house"
MOOD_HEADER = "a {} story ."
FIRST = (
    "one day {hero} met {friend} .",
    "{hero} woke up early .",
    "one day {hero} went to the {place} .",
    "{hero} was a {person} .",
    "{hero} lived near the {place} with {friend} .",
)
SECOND = (
    "{hero} waited for {friend} until {time} .",
    "there was a {thing} in the {place} .",
    "later {hero} {did} a {size} {thing} .",
)
SLOTS = {
    "place": ("street", "road", "garden"),
    "person": ("man", "woman", "child", "neighbour"),
    "thing": ("box", "hat", "cup", "letter", "bag", "coin"),
    "time": ("dawn", "noon", "dusk", "night"),
    "did": ("saw", "found", "took", "wanted"),
    "size": ("new", "small", "big", "strange"),
}
STORY_LENGTHS = (5, 9)  # sentences, as in training
ASKED_LENGTHS = (1, 4)
FORMS = {
    "yes or no": (False, False),
    "which": (True, False),
    "yes or no, A or B": (False, True),
    "which, A or B": (True, True),
}


def material(
    *, n_choosing: int, n_scoring: int, n_texts: int, n_facts: int, writing: Writing, seed: int = 0
) -> Material:
    """Topics and moods of the stories.

    Args:
        n_texts: stories about each topic; as many of other topics stand against them.
        n_facts: questions of each form.
    """
    half = len(stories.NAMES) // 2
    choosing = prompts(n_choosing, stories.NAMES[:half], Random(f"{seed}/choosing"))
    scoring = prompts(n_scoring, stories.NAMES[half:], Random(f"{seed}/scoring"))
    names = tuple(stories.TOPICS)
    topics = tuple(
        Latent(name, topic_contrast(name), topic_contrast(names[at - 1]), HEADER.format(name) + " ", topic_share(name))
        for at, name in enumerate(names)
    )
    moods = tuple(
        Latent(name, mood_contrast(name), topic_contrast(names[at]), MOOD_HEADER.format(name) + " ", mood_share(name))
        for at, name in enumerate(stories.MOODS)
    )

    def group(latents: tuple[Latent, ...]) -> Group:
        return Group(latents, (choosing,) * len(latents), (scoring,) * len(latents), (1, 1))

    return Material(
        groups={TOPIC: group(topics), MOOD: group(moods)},
        writing=writing,
        wellformed=lambda text: stories.count(text).grammatical_share,
        texts=texts(n_texts, seed),
        facts={
            form: questions(n_facts, which=which, lettered=lettered, random=Random(f"{seed}/facts/{form}"))
            for form, (which, lettered) in FORMS.items()
        },
    )


def check(model: Model) -> None:
    """Refuse a model that does not read the stories word by word.

    Raises:
        ModelError: naming a word and what to do.
    """
    if model.tokenizer is None:
        raise ModelError(f"{model.name}: no tokenizer; put its files beside the weights")
    for word in stories.vocabulary().get_vocab():
        if word[0] == "<":
            continue
        tokens = model.tokenizer.encode(word)
        if len(tokens) != 1 or model.tokenizer.decode(tokens).strip() != word:
            raise ModelError(
                f"{model.name}: its tokenizer makes {tokens} of {word!r}: expected one token for each word of the "
                f"little stories, as stories-4l has; for other models take --tier paper"
            )


def topic_contrast(topic: str) -> Contrast:
    return Contrast(HEADER.format(topic), HEADER.format(NO_TOPIC))


def mood_contrast(mood: str) -> Contrast:
    return Contrast(MOOD_HEADER.format(mood), MOOD_HEADER.format(stories.contraries()[mood]))


def topic_share(topic: str) -> Metric:
    """The share of a topic's words among all topical words of a text."""
    return partial(_topic_share, topic=topic)


def mood_share(mood: str) -> Metric:
    """The share of a mood's words among those of both moods."""
    return partial(_mood_share, happy=mood == "happy")


def _topic_share(text: str, topic: str) -> float:
    return stories.count(text).topic_share(topic)


def _mood_share(text: str, happy: bool) -> float:
    share = stories.count(text).joyful_share
    return share if happy else 1 - share


def prompts(n: int, names: tuple[str, ...], random: Random) -> tuple[str, ...]:
    """Beginnings of two sentences that show neither topic nor mood nor attitude."""
    found = []
    for number in range(n):
        hero, friend = random.sample(names, 2)
        words = {slot: random.choice(of) for slot, of in SLOTS.items()}
        template = f"{FIRST[number % len(FIRST)]} {random.choice(SECOND)}"
        found.append(template.format(hero=hero, friend=friend, **words))
    return tuple(found)


def texts(n: int, seed: int) -> dict[str, tuple[tuple[str, ...], tuple[str, ...]]]:
    """Of each topic, n stories about it and n about others; a story has no header."""
    told = {topic: _stories_about(topic, n, Random(f"{seed}/texts/{topic}")) for topic in stories.TOPICS}
    found = {}
    for topic, about in told.items():
        others = [name for name in told if name != topic]
        found[topic] = (about, tuple(told[others[place % len(others)]][place] for place in range(n)))
    return found


def _stories_about(topic: str, n: int, random: Random) -> tuple[str, ...]:
    latents = (replace(stories.draw_latents(random), topic=topic) for _ in range(n))
    return tuple(" ".join(stories.tell(each, random.randint(*STORY_LENGTHS), random)) for each in latents)


def questions(n: int, *, which: bool, lettered: bool, random: Random) -> tuple[NextToken, ...]:
    """Short stories with a question about their mood or about an attitude, and the right answer."""
    found: list[NextToken] = []
    while len(found) < n:
        latents = stories.draw_latents(random)
        words = stories.tell(latents, random.randint(*ASKED_LENGTHS), random)
        values = [value for value in stories.visible(words, latents) if value not in stories.TOPICS]
        drawn = stories.draw_question(random.choice(values), random)
        question = replace(drawn, which=which, lettered=lettered)
        asked = " ".join([*words, question.text(latents.hero)])
        found.append(NextToken(asked, " " + question.answer(latents)))
    return tuple(found)
