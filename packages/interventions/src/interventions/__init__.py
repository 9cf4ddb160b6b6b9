"""Models for analysis, and interventions on them: activation patching at the cost of a forward pass.

`load` gives a model with its views; `captured` and `edited` are for runs of one's own, `hooked` for hooks that must
know of padding and cache; `sweep` edits every layer, head and position in turn. Start at `interventions.branching` for
how that costs no more than a pass or two.
"""

from interventions.architectures import ARCHITECTURES, Architecture
from interventions.attribution_patching import attribution_patch
from interventions.calls import Call, CallHook, hooked
from interventions.comparison import Comparison, agreement
from interventions.contexts import Site, captured, edited, values_of
from interventions.edits import Add, Apply, Edit, Given, Mean, ProjectOut, Replace, Resample, Zero
from interventions.errors import ModelError
from interventions.hooks import COMPONENTS
from interventions.loading import Model, load, set_weights
from interventions.losses import loss_sweep, next_token_log_probs
from interventions.metrics import (
    Metric,
    custom,
    kl_to_clean,
    log_probability,
    logit_difference,
    probability,
    rank,
    token_logit,
)
from interventions.path_patching import path_patch
from interventions.path_removal import path_edits
from interventions.prompts import Prompts, as_prompts
from interventions.receivers import FinalStream, HeadInputs
from interventions.recordings import LastPass, Recordings
from interventions.results import SweepResult
from interventions.sweeps import sweep
from interventions.tokenizing import Tokenizer

__all__ = [
    "ARCHITECTURES",
    "COMPONENTS",
    "Add",
    "Apply",
    "Architecture",
    "Call",
    "CallHook",
    "Comparison",
    "Edit",
    "FinalStream",
    "Given",
    "HeadInputs",
    "LastPass",
    "Mean",
    "Metric",
    "Model",
    "ModelError",
    "ProjectOut",
    "Prompts",
    "Recordings",
    "Replace",
    "Resample",
    "Site",
    "SweepResult",
    "Tokenizer",
    "Zero",
    "agreement",
    "as_prompts",
    "attribution_patch",
    "captured",
    "custom",
    "edited",
    "hooked",
    "kl_to_clean",
    "load",
    "log_probability",
    "logit_difference",
    "loss_sweep",
    "next_token_log_probs",
    "path_edits",
    "path_patch",
    "probability",
    "rank",
    "set_weights",
    "sweep",
    "token_logit",
    "values_of",
]
