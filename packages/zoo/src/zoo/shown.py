"""How a model card looks in a notebook: its facts in tables, whichever family of models it is of.

The tables are read off the card's own fields, group by group: the recipe, what was read, what was measured, the hashes.
"""

from __future__ import annotations

from typing import Any

import msgspec

from training.notebook import table

GROUPS = {
    "recipe": "Recipe",
    "corpus": "Corpus",
    "material": "What it read",
    "text": "What it read",
    "metrics": "Measured after training",
    "sha256": "SHA-256 of its files",
}


def card_text(card: Any) -> str:
    """A card on one line."""
    facts = ", ".join(f"{name} {value:.3g}" for name, value in list(card.metrics.items())[:4])
    return f"<{type(card).__name__} of {card.recipe.name}: {card.parameters:,} parameters; {facts}>"


def card_html(card: msgspec.Struct) -> str:
    """A card as tables; everything in it is escaped."""
    facts = msgspec.to_builtins(card)
    single = {name: value for name, value in facts.items() if name not in GROUPS}
    tables = [_facts(f"Model {facts['recipe']['name']}", single)]
    tables += [_facts(title, facts[name]) for name, title in GROUPS.items() if name in facts]
    return "".join(tables)


def _facts(caption: str, facts: dict[str, Any]) -> str:
    return table(caption, ["", ""], [[name.replace("_", " "), _text(value)] for name, value in facts.items()])


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name.replace('_', ' ')} {_text(of)}" for name, of in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_text, value)) or "none"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
