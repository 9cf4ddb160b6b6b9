"""Claims, runs, figures and report: the harness that every replication is written against.

A replication's experiment.py needs `Stage`, `Job`, `Result`, `Results`, `Measurement` and `bootstrap`; nothing here
imports torch or a model library.
"""

from reprise.errors import UserError
from reprise.experiment import Experiment, Job, Results, Stage
from reprise.measurement import Measurement, bootstrap, judge
from reprise.models import ModelReference
from reprise.notebook import claim_table
from reprise.pages import Page, attention_page, head_map_page
from reprise.paper import Accept, Claim, Paper
from reprise.store import Result

__all__ = [
    "Accept",
    "Claim",
    "Experiment",
    "Job",
    "Measurement",
    "ModelReference",
    "Page",
    "Paper",
    "Result",
    "Results",
    "Stage",
    "UserError",
    "attention_page",
    "bootstrap",
    "claim_table",
    "head_map_page",
    "judge",
]
