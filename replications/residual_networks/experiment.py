"""He et al. 2016, section 4.2: one stage, a sweep over kind, depth and seed (`setting.UNITS`).

The measurements that judge the claims are in `claims.py`; they read stored results alone.
"""

from __future__ import annotations

from replications.residual_networks.claims import CLAIMS
from replications.residual_networks.setting import UNITS
from replications.residual_networks.training_stage import train_one

from reprise import Stage

__all__ = ["CLAIMS", "STAGES", "TAKES_DATA"]

STAGES = (Stage("train", train_one, units=UNITS, minutes={"tiny": 0.6, "paper": 60.0}),)
TAKES_DATA = True
