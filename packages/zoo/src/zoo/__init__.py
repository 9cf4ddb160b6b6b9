"""The models that Reprise trains and ships: where they are, how they were made, and the text to evaluate them on."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from zoo.catalogue import NAMES, checkpoint, checkpoint_steps, folder, tokens_per_step

if TYPE_CHECKING:
    from zoo import ioi, people, stories
    from zoo.bigrams import bigram_counts
    from zoo.cards import ModelFolderError, verify
    from zoo.corpus import BOS_ID, CorpusError
    from zoo.held_out import held_out_tokens, held_out_windows
    from zoo.in_context_cards import InContextCard
    from zoo.in_context_recipes import IN_CONTEXT_RECIPES, InContextRecipe
    from zoo.ioi_cards import IoiCard
    from zoo.ioi_recipes import IOI_RECIPES, IoiRecipe
    from zoo.model import AttentionOnly, AttentionOnlyConfig
    from zoo.people_cards import PeopleCard
    from zoo.people_recipes import PEOPLE_RECIPES, PeopleRecipe
    from zoo.pretraining import pretrain
    from zoo.recipes import RECIPES, Recipe
    from zoo.stories_cards import StoriesCard
    from zoo.stories_recipes import STORIES_RECIPES, StoriesRecipe

__all__ = [
    "BOS_ID",
    "IN_CONTEXT_RECIPES",
    "IOI_RECIPES",
    "NAMES",
    "PEOPLE_RECIPES",
    "RECIPES",
    "STORIES_RECIPES",
    "AttentionOnly",
    "AttentionOnlyConfig",
    "CorpusError",
    "InContextCard",
    "InContextRecipe",
    "IoiCard",
    "IoiRecipe",
    "ModelFolderError",
    "PeopleCard",
    "PeopleRecipe",
    "Recipe",
    "StoriesCard",
    "StoriesRecipe",
    "bigram_counts",
    "checkpoint",
    "checkpoint_steps",
    "folder",
    "held_out_tokens",
    "held_out_windows",
    "ioi",
    "people",
    "pretrain",
    "stories",
    "tokens_per_step",
    "verify",
]

# Imported on first use: the command line reads names from `zoo.catalogue` and must not wait for torch.
_LAZY = {
    "AttentionOnly": "model",
    "AttentionOnlyConfig": "model",
    "BOS_ID": "corpus",
    "CorpusError": "corpus",
    "IN_CONTEXT_RECIPES": "in_context_recipes",
    "IOI_RECIPES": "ioi_recipes",
    "InContextCard": "in_context_cards",
    "InContextRecipe": "in_context_recipes",
    "IoiCard": "ioi_cards",
    "IoiRecipe": "ioi_recipes",
    "ModelFolderError": "cards",
    "PEOPLE_RECIPES": "people_recipes",
    "PeopleCard": "people_cards",
    "PeopleRecipe": "people_recipes",
    "RECIPES": "recipes",
    "Recipe": "recipes",
    "STORIES_RECIPES": "stories_recipes",
    "StoriesCard": "stories_cards",
    "StoriesRecipe": "stories_recipes",
    "bigram_counts": "bigrams",
    "held_out_tokens": "held_out",
    "held_out_windows": "held_out",
    "pretrain": "pretraining",
    "verify": "cards",
}


def __getattr__(name: str) -> Any:
    if name in ("ioi", "people", "stories"):
        return import_module(f"zoo.{name}")
    if name not in _LAZY:
        raise AttributeError(f"module 'zoo' has no attribute {name!r}")
    return getattr(import_module(f"zoo.{_LAZY[name]}"), name)
