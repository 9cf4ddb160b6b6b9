"""What is steered and how it is scored: plain data that the two tiers fill in (`story_material`, `paper_material`).

A latent is a topic or a mood, with one contrast pair of texts, the pair of another latent as a control, a text that
names it in words, and a metric of completions. Prompts on which layer and coefficient are chosen are others than those
that are scored; so are the halves of the texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from steering import Metric, NextToken, Writing

TOPIC, MOOD = "topic", "mood"


@dataclass(frozen=True)
class Contrast:
    """Two prompts; the vector is that of the first minus that of the second."""

    positive: str
    negative: str


@dataclass(frozen=True)
class Latent:
    """One topic or mood.

    Args:
        prefix: says in words what the vector is for; goes in front of a prompt as it stands.
        metric: of the text of a completion, from 0 to 1; NaN where it shows neither this nor another.
    """

    name: str
    contrast: Contrast
    other: Contrast
    prefix: str
    metric: Metric


@dataclass(frozen=True)
class Group:
    """Latents of one kind, and the prompts that each of them is tried on, equally many for all.

    Args:
        choosing, scoring: prompts by latent.
        samples: completions of each choosing and of each scoring prompt.
    """

    latents: tuple[Latent, ...]
    choosing: tuple[tuple[str, ...], ...]
    scoring: tuple[tuple[str, ...], ...]
    samples: tuple[int, int]


@dataclass(frozen=True)
class Material:
    """All that a tier shows to a model.

    Args:
        groups: by kind.
        writing: how completions are sampled.
        wellformed: the share of grammatical sentences of a completion, where there is a grammar.
        texts: of each topic, texts about it and others.
        facts: questions that topic vectors are not about, by form.
    """

    groups: Mapping[str, Group]
    writing: Writing
    wellformed: Metric | None
    texts: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    facts: Mapping[str, tuple[NextToken, ...]]

    def writing_of(self, kind: str, seed: int, *, scoring: bool) -> Writing:
        """How completions of a kind are written; choosing and scoring draw by different numbers."""
        return replace(self.writing, samples=self.groups[kind].samples[scoring], seed=2 * seed + int(scoring))
