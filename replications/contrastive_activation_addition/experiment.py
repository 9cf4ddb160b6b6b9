"""Rimsky et al. 2024, stage by stage.

0. gate: whether the unsteered model answers the questions right, in both orders of the options, and reversed.
1. extraction: the vectors, and their cosines between layers and behaviours.
2. picture: how the classes of texts lie, layer by layer.
3. sweep: the layer is chosen; then p(match) by layer and multiplier, on other items.
4. controls: the same with what should do nothing.
5. transfer: the vector of one layer at another.
6. off_target: what steering does to answers about something else.
7. open_ended: what is written under a vector.
8. readings: other readings of a vector and other places to add it, and the best of them through the same scores.
9. readings_open_ended: what is written under that one.

With --data FOLDER the behaviours are the folder's (`data_files`), and with --backend the model is run by nnsight, NDIF
or a server. The measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from replications.contrastive_activation_addition import (
    choice_stages,
    extraction_stages,
    generation_stages,
    reading_stages,
)
from replications.contrastive_activation_addition.claims import CLAIMS

from interventions import backends
from reprise import Stage

__all__ = ["CHECK_BACKEND", "CLAIMS", "STAGES", "TAKES_DATA"]

TAKES_DATA = True
CHECK_BACKEND = backends.check
CHOSEN = ("extraction", "sweep")
STAGES = (
    Stage("gate", extraction_stages.gate, each_model=True),
    Stage("extraction", extraction_stages.extraction, each_model=True),
    Stage("picture", extraction_stages.picture, each_model=True),
    Stage("sweep", choice_stages.sweep, each_model=True, needs=("extraction",)),
    Stage("controls", choice_stages.controls, each_model=True, needs=CHOSEN),
    Stage("transfer", choice_stages.transfer, each_model=True, needs=CHOSEN),
    Stage("off_target", choice_stages.off_target, each_model=True, needs=CHOSEN),
    Stage("open_ended", generation_stages.open_ended, each_model=True, needs=CHOSEN),
    Stage("readings", reading_stages.readings, each_model=True, needs=("extraction",)),
    Stage("readings_open_ended", reading_stages.readings_open_ended, each_model=True, needs=("extraction", "readings")),
)
