"""Cards of the in-context models: see `zoo.cards` for what a card is for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from zoo.in_context_recipes import InContextRecipe
from zoo.shown import card_html, card_text

if TYPE_CHECKING:
    from zoo.in_context_text import Material


class MaterialFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a model read; `sha256` is over every text and pair."""

    people: int
    relations: int
    natural_tasks: tuple[str, ...]
    templates: tuple[str, ...]
    vocabulary: int
    sha256: str

    @classmethod
    def of(cls, material: Material) -> MaterialFacts:
        return cls(
            people=len(material.people),
            relations=len(material.answers),
            natural_tasks=material.natural_names,
            templates=tuple(template.name for template in material.templates),
            vocabulary=material.tokenizer.get_vocab_size(),
            sha256=material.sha256,
        )


class InContextCard(msgspec.Struct, frozen=True, kw_only=True):
    """The facts of one trained model; `sha256` maps file names to hashes."""

    recipe: InContextRecipe
    material: MaterialFacts
    parameters: int
    rows_seen: int
    seconds: float
    hardware: str
    torch: str
    metrics: dict[str, float]
    sha256: dict[str, str]

    def page(self) -> str:
        """The card as a page for people."""
        recipe, shape, text = self.recipe, self.recipe.shape, self.material
        rows = {
            "Architecture": f"GPT-2, {shape.n_layers} layer{'s'[: shape.n_layers != 1]}, {shape.n_heads} heads x "
            f"{shape.d_model // shape.n_heads}, d_model {shape.d_model}, context {shape.n_ctx}, vocabulary "
            f"{text.vocabulary}, a token a word",
            "Parameters": f"{self.parameters:,}",
            "Relations": f"{text.relations} over {text.people} people",
            "Templates in training": ", ".join(text.templates),
            "Natural tasks": ", ".join(text.natural_tasks) or "none",
            "Text SHA-256": f"`{text.sha256}`",
            "Rows of a batch": f"{recipe.relation_rows} prompts of relations, {recipe.natural_rows} of natural tasks, "
            f"{recipe.list_rows} of list selection, {recipe.sentence_rows} of {recipe.sentences_a_row} sentences",
            "Rows seen": f"{self.rows_seen:,} in {recipe.steps:,} steps",
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
            "reads prompts and sentences about the people of a small town. Accuracies are of the most likely token.\n"
            "Generated from `card.json`.\n\n"
            f"| | |\n|---|---|\n{table}\n\n"
            f"Retrain with `reprise train {recipe.name}`.\n"
        )

    def __repr__(self) -> str:
        return card_text(self)

    def _repr_html_(self) -> str:
        return card_html(self)
