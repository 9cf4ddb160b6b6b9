"""The figures of Schulman et al. 2017, from stored results alone; a figure whose runs are missing is not drawn."""

from __future__ import annotations

from replications.proximal_policy_optimization.curve_figures import (
    cartpole_curves,
    comparison_curves,
    every_objective,
    first_code_curves,
)
from replications.proximal_policy_optimization.frame_figures import body_frames, cartpole_frames
from replications.proximal_policy_optimization.probe_runs import probe_figure
from replications.proximal_policy_optimization.score_figures import table_of_scores
from replications.proximal_policy_optimization.update_figures import adaptive_penalty, first_update, size_of_updates

from reprise.experiment import Draw

FIGURES: dict[str, Draw] = {
    "table_of_scores": table_of_scores,
    "comparison_curves": comparison_curves,
    "every_objective": every_objective,
    "first_code_curves": first_code_curves,
    "size_of_updates": size_of_updates,
    "adaptive_penalty": adaptive_penalty,
    "first_update": first_update,
    "cartpole_curves": cartpole_curves,
    "cartpole_frames": cartpole_frames,
    "body_frames": body_frames,
    "probes": probe_figure,
}
