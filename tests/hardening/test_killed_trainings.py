"""A training that is killed at any moment and started again gives the very bytes that an undisturbed one gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.zoo.conftest import python_text

from zoo import cards

PROGRAM = Path(__file__).with_name("kill_trainings.py")
KILLS = 20


def test_killed_trainings_that_go_on_equal_an_undisturbed_one(tmp_path: Path) -> None:
    source, folder = tmp_path / "source", tmp_path / "trainings"
    source.mkdir()
    for number in range(85):
        (source / f"module_{number}.py").write_text(python_text(number, 13_000))
    folder.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(PROGRAM), str(source), str(folder), str(KILLS)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    undisturbed = contents(folder / "undisturbed")
    assert {"model.safetensors", "checkpoints.safetensors", "card.json", "training_log.jsonl"} <= set(undisturbed)
    assert len(list(folder.iterdir())) == 1 + KILLS
    for number in range(KILLS):
        assert contents(folder / f"killed_{number}") == undisturbed, number


def contents(folder: Path) -> dict[str, object]:
    """All files of a model folder; seconds, which nothing can repeat, left out."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "README.md"}
    card, log = json.loads((folder / cards.CARD).read_text()), (folder / cards.LOG).read_text().splitlines()
    rows = [json.loads(line) for line in log]
    found[cards.CARD] = {**card, "seconds": 0}
    found[cards.LOG] = [{**row, "seconds": 0} for row in rows]
    return found
