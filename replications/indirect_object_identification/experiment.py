"""Wang et al. 2022, stage by stage.

0. performance, cut: whether the model does the task, and by noticing that a name is repeated; the rest rests on it.
1. attribution; stream, heads, patterns: who writes the answer at END, and activation patching.
2. attention; paths_to_logits, paths_to_queries, paths_to_inhibition, paths_to_induction: path patching, backwards.
3. copying, signals, early: what the heads that were found do.
4. means, ranking, elimination, discovery: a circuit that is proposed without being told a head, and its score.
5. faithfulness, completeness, minimality, backup, adversarial: whether a circuit is the whole story.

The measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from replications.indirect_object_identification import (
    adversarial_stages,
    attribution_stages,
    backup_stages,
    cut_stages,
    discovery_stages,
    head_stages,
    measured_circuits,
    patching_stages,
    path_stages,
    performance_stages,
    signal_stages,
    validation_stages,
)
from replications.indirect_object_identification.claims import CLAIMS
from replications.indirect_object_identification.measured_circuits import ELIMINATION, MEANS, PATHS, RANKING

from reprise import Stage

__all__ = ["CLAIMS", "STAGES"]

LOGITS, QUERIES, INHIBITION, INDUCTION = PATHS
JUDGED = (MEANS, *PATHS, ELIMINATION)
STAGES = (
    Stage("performance", performance_stages.performance, each_model=True),
    Stage("cut", cut_stages.cut, each_model=True),
    Stage("attribution", attribution_stages.attribution, each_model=True),
    Stage("stream", patching_stages.stream, each_model=True),
    Stage("heads", patching_stages.heads, each_model=True),
    Stage("patterns", patching_stages.patterns, each_model=True),
    Stage("attention", head_stages.attention, each_model=True),
    Stage(LOGITS, path_stages.to_logits, each_model=True),
    Stage(QUERIES, path_stages.to_queries, each_model=True, needs=(LOGITS,)),
    Stage(INHIBITION, path_stages.to_inhibition, each_model=True, needs=("attention", LOGITS, QUERIES)),
    Stage(INDUCTION, path_stages.to_induction, each_model=True, needs=(LOGITS, INHIBITION)),
    Stage("copying", head_stages.copying, each_model=True),
    Stage("signals", signal_stages.signals, each_model=True, needs=(LOGITS, QUERIES)),
    Stage("early", head_stages.early, each_model=True),
    Stage(MEANS, measured_circuits.means, each_model=True),
    Stage(RANKING, discovery_stages.ranking, each_model=True, needs=(MEANS, *PATHS)),
    Stage(ELIMINATION, discovery_stages.elimination, each_model=True, needs=(MEANS, RANKING)),
    Stage("discovery", discovery_stages.score, each_model=True, needs=(MEANS, RANKING, ELIMINATION)),
    Stage("faithfulness", validation_stages.faithfulness, each_model=True, needs=JUDGED),
    Stage("completeness", validation_stages.completeness, each_model=True, needs=JUDGED),
    Stage("minimality", validation_stages.minimality, each_model=True, needs=JUDGED),
    Stage("backup", backup_stages.backup, each_model=True, needs=(MEANS, *PATHS)),
    Stage("adversarial", adversarial_stages.adversarial, each_model=True),
)
