"""The figures of Wang et al. 2022 in the order of the argument, from stored results alone.

Each shows the first model of the run; bands and bars are 95 % bootstrap intervals over prompts.
"""

from __future__ import annotations

from replications.indirect_object_identification import (
    circuit_figures,
    discovery_figures,
    head_figures,
    search_figures,
    task_figures,
    validation_figures,
)

from reprise.experiment import Draw

FIGURES: dict[str, Draw] = {
    "performance": task_figures.performance,
    "cut": task_figures.cut,
    "attribution": search_figures.attribution,
    "stream": search_figures.stream,
    "heads": search_figures.heads,
    "paths": search_figures.paths,
    "paths_from_published": search_figures.paths_from_published,
    "attention": head_figures.attention,
    "movers": head_figures.movers,
    "copying": head_figures.copying,
    "signals": head_figures.signals,
    "early": head_figures.early,
    "backup": validation_figures.backup,
    "circuit": circuit_figures.diagram,
    "faithfulness": validation_figures.faithfulness,
    "completeness": validation_figures.completeness,
    "minimality": validation_figures.minimality,
    "ranking": discovery_figures.ranking,
    "discovery": discovery_figures.discovery,
    "discovered_heads": discovery_figures.discovered_heads,
    "adversarial": task_figures.adversarial,
}
