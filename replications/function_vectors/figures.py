"""The figures of Todd et al. 2024 in the order of the argument, from stored results alone."""

from __future__ import annotations

from replications.function_vectors import accuracy_figures, effect_figures, vector_figures

from reprise.experiment import Draw

FIGURES: dict[str, Draw] = {
    "gate": accuracy_figures.gate,
    "indirect_effects": effect_figures.indirect_effects,
    "by_layer": accuracy_figures.by_layer,
    "baselines": accuracy_figures.baselines,
    "by_number_of_heads": effect_figures.by_number_of_heads,
    "by_task": accuracy_figures.by_task,
    "decoded_tokens": vector_figures.decoded_tokens,
    "rebuilt": vector_figures.rebuilt,
    "composition": vector_figures.composition,
    "templates": vector_figures.templates,
}
