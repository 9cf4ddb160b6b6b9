"""Models for analysis: `load` turns a folder or a hub id into a TransformerLens bridge with its tokenizer."""

from interventions.errors import ModelError
from interventions.loading import Model, Tokenizer, load, set_weights

__all__ = ["Model", "ModelError", "Tokenizer", "load", "set_weights"]
