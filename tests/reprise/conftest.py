"""A toy workspace: one paper whose stages count their executions in a log outside the results."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

PAPER = """
title = "Toys"
authors = ["A. Author", "B. Author"]
year = 2020
link = "https://example.org/toys"
owner = "@reprise/toys"
about = "Two toy models."

[tiers.tiny]
about = "Toy models."
models = [{models}]

[tiers.paper]
about = "The paper's model."

[[claims]]
id = "mean-is-positive"
statement = "The mean is positive."
where = "section 1"
provenance = "read"
quantity = "mean of the numbers"
unit = "nats"
paper_value = 0.5
accept = {{ tiny = {{ at_least = {at_least} }}, paper = {{ at_least = 0.4, at_most = 0.6 }} }}

[[claims]]
id = "spread-is-small"
statement = "The spread is small."
where = "figure 1"
provenance = "memory"
quantity = "spread of the numbers"
unit = "nats"
accept = {{ tiny = {{ at_most = 100.0 }} }}
"""

EXPERIMENT = """
import os
import time
from pathlib import Path

import numpy as np

from reprise import Measurement, Result, Stage, bootstrap

SCALE = 2.0


def ran(label):
    log = os.environ.get("TOYS_LOG")
    if log:
        with open(log, "a") as file:
            file.write(label + "\\n")
    time.sleep(float(os.environ.get("TOYS_SLEEP", "0")))


def numbers(job):
    ran("numbers")
    offset = float((job.root / "shared" / "offset.txt").read_text())
    values = np.random.default_rng(job.seed).normal(1.0, 0.1, size=50) + offset
    return Result({"values": values}, {"labels": ("a", "b"), "count": {1: 50}})


def scaled(job):
    ran("scaled " + job.model.name)
    weights = np.frombuffer((Path(job.model.location) / "model.safetensors").read_bytes(), dtype=np.uint8)
    job.progress(1, 1)
    return Result({"values": job.inputs.one("numbers")["values"] * SCALE + weights.sum() % 7})


def summary(job):
    ran("summary")
    of = job.inputs.of("scaled")
    return Result({"mean": np.array(sum(float(of[name]["values"].mean()) for name in sorted(of)))})


STAGES = (
    Stage("numbers", numbers, data=("shared/offset.txt",)),
    Stage("scaled", scaled, each_model=True, needs=("numbers",)),
    Stage("summary", summary, needs=("scaled",)),
)


def mean(results):
    return bootstrap(np.mean, results.one("numbers")["values"], over="numbers", seed=results.seed, resamples=50)


def spread(results):
    return Measurement(estimate=1.0, low=0.5, high=1.5, n=50, over="numbers")


CLAIMS = {"mean-is-positive": mean, "spread-is-small": spread}
"""

FIGURES = '''
def line(results):
    """The numbers.

    Every number of the run,
    in order.
    """
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots()
    axes.plot(results.one("numbers")["values"])
    axes.set_title("Numbers")
    return figure


FIGURES = {"numbers": line, "nothing": lambda results: None}
'''


class Toys:
    """A workspace with the paper "toys", to be changed piece by piece."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "replications" / "toys"
        self.out = root / "build"
        self.log = root / "log.txt"
        self.folder.mkdir(parents=True)
        (root / "shared").mkdir()
        (root / "shared" / "offset.txt").write_text("0.0")
        self.models = tuple(write_model(root / "models" / name, seed) for seed, name in enumerate(("one", "two")))
        self.write_paper()
        (self.folder / "experiment.py").write_text(EXPERIMENT)
        (self.folder / "figures.py").write_text(FIGURES)

    def write_paper(self, at_least: str = "0.0") -> None:
        models = ", ".join(f'"{folder}"' for folder in self.models)
        (self.folder / "paper.toml").write_text(PAPER.format(models=models, at_least=at_least))

    def edit(self, old: str, new: str, name: str = "experiment.py") -> None:
        text = (self.folder / name).read_text()
        assert old in text
        (self.folder / name).write_text(text.replace(old, new))

    def executions(self) -> list[str]:
        """The stages that ran since the last call."""
        ran = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return ran


def write_model(folder: Path, seed: int) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"d_model": 4}')
    save_file({"w": np.random.default_rng(seed).normal(size=8)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toys:
    made = Toys(tmp_path / "workspace")
    monkeypatch.setenv("REPRISE_ROOT", str(made.root))
    monkeypatch.setenv("TOYS_LOG", str(made.log))
    monkeypatch.delenv("TOYS_SLEEP", raising=False)
    monkeypatch.chdir(made.root)
    return made


@pytest.fixture
def make_model(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a further model folder."""
    return lambda name: write_model(tmp_path / "further" / name, 9)


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Code is written anew within a second, and as long as before: what was compiled of it would be taken."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
