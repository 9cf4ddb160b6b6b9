"""Cards of the models that read about people: see `zoo.cards` for what a card is for."""

from __future__ import annotations

import msgspec

from zoo.people_recipes import PeopleRecipe
from zoo.people_text import ATTITUDES, THINGS
from zoo.shown import card_html, card_text


class PeopleFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model read; `sha256` is over the first documents of the grammar's seed 0."""

    attitudes: tuple[str, ...]
    things: tuple[str, ...]
    vocabulary: int
    sha256: str

    @classmethod
    def of(cls, vocabulary: int, sha256: str) -> PeopleFacts:
        return cls(attitudes=ATTITUDES, things=THINGS, vocabulary=vocabulary, sha256=sha256)


class PeopleCard(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one trained model; `sha256` maps file names to hashes."""

    recipe: PeopleRecipe
    text: PeopleFacts
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
            "Attitudes": ", ".join(text.attitudes),
            "Things": ", ".join(text.things),
            "Text SHA-256": f"`{text.sha256}`",
            "Documents of a batch": f"{recipe.rows}, {1 - recipe.mixture.stories:.0%} of them with questions",
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
            "reads what people are like, and answers questions about them with letters. Losses are in nats per word;\n"
            "shares are of questions, or of sentences sampled at temperature 1. Generated from `card.json`.\n\n"
            f"| | |\n|---|---|\n{table}\n\n"
            f"Retrain with `reprise train {recipe.name}`.\n"
        )

    def __repr__(self) -> str:
        return card_text(self)

    def _repr_html_(self) -> str:
        return card_html(self)
