"""The figures of Elhage et al. 2021 in the order of the argument, from stored results alone."""

from __future__ import annotations

from replications.transformer_circuits import composition_figures, layer_figures

from reprise.experiment import Draw

FIGURES: dict[str, Draw] = {
    "bigrams": layer_figures.bigrams,
    "skip_trigrams": layer_figures.skip_trigrams,
    "skip_trigrams_act": layer_figures.skip_trigrams_act,
    "copying": layer_figures.copying,
    "composition": composition_figures.composition,
    "k_composition": composition_figures.k_composition,
    "score_parts": composition_figures.score_parts,
    "paths": composition_figures.paths,
    "positions": composition_figures.positions,
    "terms": composition_figures.terms,
    "attention": layer_figures.attention,
    "attribution": layer_figures.attribution,
    "ablation": layer_figures.ablation,
    "codes": layer_figures.codes,
}
