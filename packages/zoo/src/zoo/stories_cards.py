"""Cards of the story models: see `zoo.cards` for what a card is for."""

from __future__ import annotations

import msgspec

from zoo.shown import card_html, card_text
from zoo.stories_lexicon import DIMENSIONS, MOODS, TOPICS
from zoo.stories_recipes import StoriesRecipe


class StoriesFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model read; `sha256` is over the first documents of the grammar's seed 0."""

    topics: tuple[str, ...]
    moods: tuple[str, ...]
    attitudes: tuple[str, ...]
    vocabulary: int
    sha256: str

    @classmethod
    def of(cls, vocabulary: int, sha256: str) -> StoriesFacts:
        attitudes = tuple(name for dimension in DIMENSIONS for name in dimension.names)
        return cls(topics=tuple(TOPICS), moods=tuple(MOODS), attitudes=attitudes, vocabulary=vocabulary, sha256=sha256)


class StoriesCard(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one trained model; `sha256` maps file names to hashes."""

    recipe: StoriesRecipe
    text: StoriesFacts
    parameters: int
    tokens_seen: int
    seconds: float
    hardware: str
    torch: str
    metrics: dict[str, float]
    sha256: dict[str, str]

    def page(self) -> str:
        """The card as a page for people."""
        recipe, shape, text = self.recipe, self.recipe.shape, self.text
        rows = {
            "Architecture": f"GPT-2, {shape.n_layers} layer{'s'[: shape.n_layers != 1]}, {shape.n_heads} heads x "
            f"{shape.d_model // shape.n_heads}, d_model {shape.d_model}, context {shape.n_ctx}, vocabulary "
            f"{text.vocabulary}, a token a word",
            "Parameters": f"{self.parameters:,}",
            "Topics": ", ".join(text.topics),
            "Moods": ", ".join(text.moods),
            "Attitudes": ", ".join(text.attitudes),
            "Text SHA-256": f"`{text.sha256}`",
            "Documents of a batch": f"{recipe.rows}, {recipe.question_share:.0%} of them short stories with questions",
            "Training tokens seen": f"{self.tokens_seen:,} in {recipe.steps:,} steps",
            "Seed": str(recipe.seed),
            "Wall-clock": f"{self.seconds / 60:.0f} minutes",
            "Hardware": self.hardware,
            "torch": self.torch,
            **{name.replace("_", " ").capitalize(): f"{value:.3f}" for name, value in self.metrics.items()},
            **{f"SHA-256 of {name}": f"`{value}`" for name, value in self.sha256.items()},
        }
        table = "\n".join(f"| {name} | {value} |" for name, value in rows.items())
        return (
            f"# {recipe.name}\n\n"
            "Trained by Reprise for the tiny tier: it shows mechanisms, it does not reproduce a paper's numbers. It\n"
            "reads and writes little stories of a grammar, and answers questions about them. Losses are in nats per\n"
            "word; shares are of texts sampled at temperature 1. Generated from `card.json`.\n\n"
            f"| | |\n|---|---|\n{table}\n\n"
            f"Retrain with `reprise train {recipe.name}`.\n"
        )

    def __repr__(self) -> str:
        return card_text(self)

    def _repr_html_(self) -> str:
        return card_html(self)
