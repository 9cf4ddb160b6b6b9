"""What a pilot is: its grammar, network and training, and the two kinds that the paper's README reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mixture:
    """How often each kind of text comes.

    Attributes:
        decided: share of the texts in which something says the value before the first letter.
        kinds: of those, the shares in which the place before the first letter holds the value's name, one of its words,
            or a person of whom the text tells.
        by_name: share of the answers that are given by the value's name in the letter's stead.
        b_first: share of the questions that name option B first.
        against: how much rarer, in nats a sentence, texts are whose sentences about the person speak for the other
            option more often than for the value that is the answer; None: there are no such texts.
    """

    decided: float
    kinds: tuple[float, float, float]
    by_name: float
    b_first: float
    against: float | None


EASY = Mixture(decided=0.8, kinds=(0.6, 0.1, 0.3), by_name=0.7, b_first=0.1, against=None)
FULL = Mixture(decided=0.5, kinds=(0.1, 0.1, 0.8), by_name=0.4, b_first=0.5, against=1.5)


@dataclass(frozen=True)
class Settings:
    """A pilot.

    Attributes:
        values: how many values there are; each has a name and `words` words that show it.
        people: how many people there are; a text tells of three of them.
        sentences: of a text, each a person and what shows a value.
        questions: about the same person, each with two options and one letter.
        distraction: share of the sentences about other people that show an option of the first question; the others
            show any value.
        easy_steps: until when the mixture is `easy`, unless names and second letters are learnt before.
        weight_of_chance: weight in the loss of an answer that nothing decides.
        texts: for each value and order that a vector is read from, and steered in.
        muon_rate: the rate of Muon on the layers' matrices; None: AdamW has all parameters.
    """

    seed: int
    values: int = 10
    words: int = 3
    people: int = 8
    sentences: int = 3
    questions: int = 2
    distraction: float = 0.7
    easy: Mixture = EASY
    full: Mixture = FULL
    layers: int = 3
    heads: int = 4
    d_model: int = 64
    steps: int = 1500
    easy_steps: int = 1000
    batch_size: int = 128
    weight_of_chance: float = 0.3
    learning_rate: float = 2e-3
    muon_rate: float | None = 0.01
    weight_decay: float = 0.01
    log_every: int = 250
    texts: int = 128


def with_muon(seed: int) -> Settings:
    """Muon on the layers' matrices, AdamW on everything else."""
    return Settings(seed)


def with_adamw(seed: int) -> Settings:
    """AdamW on everything, for longer."""
    return Settings(seed, steps=2200, easy_steps=1200, muon_rate=None, weight_decay=0.05)
