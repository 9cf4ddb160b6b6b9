"""Cards of the models of indirect objects: see `zoo.cards` for what a card is for."""

from __future__ import annotations

import msgspec

from zoo.ioi import NAMES, OBJECTS, PLACES, TEMPLATES
from zoo.ioi_recipes import IoiRecipe
from zoo.shown import card_html, card_text


class IoiFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model read; `sha256` is over the first sentences of each kind that the grammar's seed 0 gives."""

    names: int
    places: int
    objects: int
    templates: int
    held_out_templates: tuple[str, ...]
    vocabulary: int
    sha256: str

    @classmethod
    def of(cls, vocabulary: int, sha256: str) -> IoiFacts:
        held_out = tuple(template.text for template in TEMPLATES if template.held_out)
        return cls(
            names=len(NAMES),
            places=len(PLACES),
            objects=len(OBJECTS),
            templates=len(TEMPLATES) - len(held_out),
            held_out_templates=held_out,
            vocabulary=vocabulary,
            sha256=sha256,
        )


class IoiCard(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one trained model; `sha256` maps file names to hashes."""

    recipe: IoiRecipe
    text: IoiFacts
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
            f"{shape.d_model // shape.n_heads}, d_model {shape.d_model}, d_mlp {shape.d_mlp or 4 * shape.d_model}, "
            f"context {shape.n_ctx}, vocabulary {text.vocabulary}, a token a word",
            "Parameters": f"{self.parameters:,}",
            "Text": f"{text.names} names, {text.places} places, {text.objects} objects, {text.templates} templates",
            "Held-out templates": "<br>".join(f"`{each}`" for each in text.held_out_templates),
            "Text SHA-256": f"`{text.sha256}`",
            "Odds of the kinds of sentences": ", ".join(f"{kind} {odds:g}" for kind, odds in recipe.mix.shares.items()),
            "Training tokens seen": f"{self.tokens_seen:,} in {recipe.steps:,} steps of {recipe.rows} rows",
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
            "reads sentences in which one of two people gives something to the other. Logit differences are in nats.\n"
            "Generated from `card.json`.\n\n"
            f"| | |\n|---|---|\n{table}\n\n"
            f"Retrain with `reprise train {recipe.name}`.\n"
        )

    def __repr__(self) -> str:
        return card_text(self)

    def _repr_html_(self) -> str:
        return card_html(self)
