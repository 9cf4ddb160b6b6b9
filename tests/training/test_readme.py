"""The code in the README runs as it stands, from the first block to the last, and then goes on from its checkpoint."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import training

README = Path(__file__).parents[2] / "packages" / "training" / "README.md"


def test_the_code_of_the_readme_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for extra in ("sklearn", "gymnasium"):
        pytest.importorskip(extra)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
    assert {path.name for path in (tmp_path / "build").iterdir()} == {
        "example.pt",
        "example.csv",
        "resnet.csv",
        "ppo.csv",
    }
    resumed: dict[str, Any] = {}
    exec(compile(blocks[0], str(README), "exec"), resumed)
    assert resumed["run"].step == 500
    assert resumed["run"].loss < 1e-3


def test_the_table_of_names_is_complete() -> None:
    rows = [line for line in README.read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])}
    of_errors_and_types = {"Callback", "CheckpointError", "NonFiniteLoss", "Schedule", "TrainingError"}
    assert named & set(training.__all__) == set(training.__all__) - of_errors_and_types
