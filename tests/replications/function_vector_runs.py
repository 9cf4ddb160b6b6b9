"""What the tests of this replication share: results made by hand, and its stages run without the store."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from replications.function_vectors import claims, experiment, setting

from reprise import Job, Result, Results
from reprise.models import ModelReference
from reprise.paper import load

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "shared" / "data"
PAPER = load(ROOT / "replications" / "function_vectors" / "paper.toml")
FEW = setting.Trials(shots=2, means=4, natural_means=4, effects=3, scored=4, draws=2, rebuilds=1, steps=2, lists=3)
EVERY_STAGE = tuple(stage.name for stage in experiment.STAGES)
PASSED, FAILED = [["", 0.0, "at most", 0.1, True]], [["", 1.0, "at most", 0.1, False]]
LIMITS = (0.4, 0.4, 0.1, 0.1, 0.1)


def results(tier: str = "tiny", **by_stage: Result) -> Results:
    return Results(tier, 0, {name: {"m": result} for name, result in by_stage.items()})


def gate_result(criteria: Mapping[str, Any], **arrays: Any) -> Result:
    """Two queries a task of the first fold, unless arrays say otherwise; the last task is natural."""
    groups = ["primary"] * (len(criteria) - 1) + ["natural"]
    task = np.repeat(np.arange(len(criteria)), 2)
    found = {name: np.array(values, dtype=float) for name, values in arrays.items()}
    facts = {
        "tasks": list(criteria),
        "groups": groups,
        "criteria": dict(criteria),
        "together": [["", None, "", limit, None] for limit in LIMITS],
    }
    return Result({"task": task, "fold": np.zeros(len(found.get("task", task))), **found}, facts)


def measured(claim: str, of: Results) -> Any:
    measurement = claims.CLAIMS[claim](of)
    assert measurement is not None
    return measurement


def job(reference: ModelReference, tier: str, *, root: Path = ROOT, data: Path | None = None, **needs: Any) -> Job:
    inputs = Results(tier, 0, {name: {reference.name: result} for name, result in needs.items()})
    return Job(root, tier, 0, "cpu", "float32", models=(reference,), inputs=inputs, one_model=reference, data=data)


def run(
    reference: ModelReference,
    tier: str,
    *,
    root: Path = ROOT,
    data: Path | None = None,
    only: tuple[str, ...] = EVERY_STAGE,
) -> Results:
    done: dict[str, Result] = {}
    for stage in experiment.STAGES:
        if stage.name not in only:
            continue
        needed = {name: done[name] for name in stage.needs}
        done[stage.name] = stage.function(job(reference, tier, root=root, data=data, **needed))
    return Results(tier, 0, {name: {reference.name: result} for name, result in done.items()})
