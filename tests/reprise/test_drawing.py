"""Figures from stored results alone: the same bytes in every process, and no model library."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reprise import workspace
from reprise.drawing import FigureFile, draw, drawn
from reprise.experiment import load_experiment, load_figures
from reprise.run import Request, run, stored_results

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

PROGRAM = """
import sys
from pathlib import Path
from reprise import workspace
from reprise.drawing import draw
from reprise.experiment import load_experiment, load_figures
from reprise.run import Request, stored_results

root, out = Path(sys.argv[1]), Path(sys.argv[2])
(paper,) = workspace.load_papers(root)
folder = workspace.folder_of(root, paper)
results = stored_results(Request(root, paper, "tiny", root / "build"), load_experiment(folder))
draw(load_figures(folder), results, out)
loaded = {"torch", "transformers", "transformer_lens", "zoo", "circuits"} & sys.modules.keys()
sys.exit(f"drawing loaded {loaded}" if loaded else 0)
"""


def execute(toys: Toys) -> Request:
    (paper,) = workspace.load_papers(toys.root)
    request = Request(toys.root, paper, "tiny", toys.out)
    run(request, load_experiment(toys.folder))
    return request


def hashes(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def test_figures_are_drawn_with_title_and_caption(toys: Toys, tmp_path: Path) -> None:
    request = execute(toys)
    made = draw(load_figures(toys.folder), stored_results(request, load_experiment(toys.folder)), tmp_path / "figures")
    assert made == (FigureFile("numbers", "The numbers.", "Every number of the run, in order."),)
    assert drawn(tmp_path / "figures") == made
    assert drawn(tmp_path / "none") == ()
    assert list(hashes(tmp_path / "figures")) == ["figures.json", "numbers.png", "numbers.svg"]


def test_other_processes_draw_the_same_bytes_from_the_same_results_without_models(toys: Toys, tmp_path: Path) -> None:
    execute(toys)
    for folder in toys.models:
        (folder / "model.safetensors").unlink()
    commands = [[sys.executable, "-c", PROGRAM, str(toys.root), str(tmp_path / name)] for name in ("one", "two")]
    for command, hash_seed in zip(commands, ("1", "2"), strict=True):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        finished = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert (finished.returncode, finished.stderr) == (0, "")
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert toys.executions() == ["numbers", "scaled one", "scaled two", "summary"]


def test_a_change_of_the_results_changes_the_figure(toys: Toys, tmp_path: Path) -> None:
    figures = load_figures(toys.folder)
    draw(figures, stored_results(execute(toys), load_experiment(toys.folder)), tmp_path / "one")
    (toys.root / "shared" / "offset.txt").write_text("0.5")
    draw(figures, stored_results(execute(toys), load_experiment(toys.folder)), tmp_path / "two")
    assert hashes(tmp_path / "one")["numbers.png"] != hashes(tmp_path / "two")["numbers.png"]
