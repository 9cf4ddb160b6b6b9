"""Todd et al. 2024, stage by stage.

1. means, effects, selection: mean head outputs, indirect effects, and the choice of heads, their number and the layer;
   exchanged: all of that once more from the other half of the pairs, for the gate of the primary tasks.
2. gate: whether the model infers the tasks, and the controls of the vector; what is claimed below rests on it.
3. layers, heads, table: what the vector does, beside every baseline.
4. decoding, composition, templates: what it decodes to, adds up with, and whether it depends on its template.

With --data FOLDER all tasks are the folder's, and with --backend the model is run by nnsight, NDIF or a server. The
measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from pathlib import Path

from replications.function_vectors import extraction_stages, score_stages, vector_stages
from replications.function_vectors.claims import CLAIMS

from function_vectors import backends
from reprise import Stage

__all__ = ["CHECK_BACKEND", "CLAIMS", "STAGES", "TAKES_DATA"]

TAKES_DATA = True
CHECK_BACKEND = backends.check
ROOT = Path(__file__).resolve().parents[2]
DATA = (
    "shared/data/templates.json",
    *sorted(
        path.relative_to(ROOT).as_posix()
        for folder in ("tasks", "town")
        for path in (ROOT / "shared" / "data" / folder).glob("*.json")
    ),
)
MEANS = ("means",)
CHOSEN = ("means", "selection")
STAGES = (
    Stage("means", extraction_stages.means, each_model=True, data=DATA),
    Stage("effects", extraction_stages.effects, each_model=True, needs=MEANS, data=DATA),
    Stage("selection", extraction_stages.selection, each_model=True, needs=("means", "effects"), data=DATA),
    Stage("exchanged", extraction_stages.exchanged, each_model=True, needs=MEANS, data=DATA),
    Stage("gate", score_stages.gate_stage, each_model=True, needs=(*CHOSEN, "exchanged"), data=DATA),
    Stage("layers", score_stages.layers, each_model=True, needs=CHOSEN, data=DATA),
    Stage("heads", score_stages.heads, each_model=True, needs=CHOSEN, data=DATA),
    Stage("table", score_stages.table, each_model=True, needs=CHOSEN, data=DATA),
    Stage("decoding", vector_stages.decoding, each_model=True, needs=CHOSEN, data=DATA),
    Stage("composition", vector_stages.composition, each_model=True, needs=CHOSEN, data=DATA),
    Stage("templates", vector_stages.templates, each_model=True, needs=CHOSEN, data=DATA),
)
