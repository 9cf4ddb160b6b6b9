"""Elhage et al. 2021, stage by stage.

1. heads: which heads are previous-token and induction heads, on repeated random tokens.
2. bigrams (zero layers), skip_trigrams (one), copying, composition: read from the weights.
3. paths, positions, terms, attribution: read from runs. codes: what linear codes can and cannot do.

A stage that says nothing about a model of some depth stores an empty result for it. The measurements that judge the
claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from replications.transformer_circuits import run_stages, weight_stages
from replications.transformer_circuits.claims import CLAIMS

from reprise import Stage

__all__ = ["CLAIMS", "STAGES"]

TEXT = ("shared/data/held_out/tokens.safetensors",)
COUNTS = ("shared/data/bigrams/counts.safetensors",)
HEADS = ("heads",)
STAGES = (
    Stage("heads", run_stages.heads, each_model=True, data=TEXT),
    Stage("bigrams", weight_stages.bigrams, each_model=True, data=COUNTS),
    Stage("copying", weight_stages.copying, each_model=True, needs=HEADS, data=TEXT),
    Stage("skip_trigrams", weight_stages.skip_trigrams, each_model=True, data=TEXT),
    Stage("composition", weight_stages.composition, each_model=True, needs=HEADS, data=TEXT),
    Stage("paths", run_stages.paths, each_model=True, needs=HEADS, data=TEXT),
    Stage("positions", run_stages.positions, each_model=True, needs=HEADS, data=TEXT),
    Stage("terms", run_stages.terms, each_model=True, data=TEXT),
    Stage("attribution", run_stages.attribution, each_model=True, data=TEXT),
    Stage("codes", run_stages.codes, each_model=True, data=TEXT),
)
