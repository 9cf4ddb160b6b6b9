"""One run of the sweep: a network is trained, and looked at while it is.

Training goes through `training.train`. Two callbacks go with it: `Curves` measures errors and gradients and is part of
the checkpoints, and a checkpoint is written now and then into the run's scratch folder, from which a killed run goes on
to the same bits. Everything of a run follows from its name.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from replications.residual_networks.setting import SCALES, Unit, architecture, images, recipe

import training
from reprise import Job, Result
from training import Run
from training.vision import (
    Classification,
    LabelledImages,
    ResidualNetwork,
    Split,
    error,
    gradient_norms,
    part,
    response_deviations,
)

Rows = dict[str, list[float]]
PROBED = 1000  # test images on which responses are measured


class Curves:
    """A callback that keeps the learning curves of a run and the norms of its gradients; part of checkpoints.

    Args:
        every: steps between two measurements of the errors, at which the mean loss since the last is kept too.
        moments: steps after which gradients are measured, on `batch`.
    """

    def __init__(
        self, network: ResidualNetwork, data: Split, *, every: int, moments: set[int], batch: LabelledImages
    ) -> None:
        self.network, self.data, self.every, self.moments, self.batch = network, data, every, moments, batch
        self.losses: list[float] = []
        self.rows: Rows = {"steps": [], "training_loss": [], "training_error": [], "test_error": []}
        self.gradients: dict[str, list[list[float]]] = {"signal_gradients": [], "weight_gradients": []}
        self.gradient_steps: list[int] = []

    def __call__(self, run: Run) -> None:
        if run.step:
            self.losses.append(run.loss)
        if run.step % self.every == 0:
            self.rows["steps"].append(float(run.step))
            self.rows["training_loss"].append(float(np.mean(self.losses)) if self.losses else math.nan)
            self.rows["training_error"].append(error(self.network, self.data.train))
            self.rows["test_error"].append(error(self.network, self.data.test))
            self.losses = []
        if run.step in self.moments:
            self.gradient_steps.append(run.step)
            for name, norms in zip(self.gradients, gradient_norms(self.network, self.batch), strict=True):
                self.gradients[name].append(norms.tolist())

    def state_dict(self) -> dict[str, object]:
        return {
            "losses": self.losses,
            "rows": self.rows,
            "gradients": self.gradients,
            "gradient_steps": self.gradient_steps,
        }

    def load_state_dict(self, state: dict[str, object]) -> None:
        for name, value in state.items():
            setattr(self, name, value)

    def arrays(self) -> dict[str, NDArray[np.float32]]:
        """Curves of [row], gradients of [moment, layer]; the loss of the first row, before any step, is NaN."""
        found = {**self.rows, **self.gradients, "gradient_steps": self.gradient_steps}
        return {name: np.array(values, np.float32) for name, values in found.items()}


def train_one(job: Job) -> Result:
    """Train the network that the unit names."""
    with one_thread():
        return trained(job, Unit.parse(job.unit))


def trained(job: Job, unit: Unit) -> Result:
    """Learning curves, gradient norms and responses of one run.

    Raises:
        UserError: the data is missing or damaged.
    """
    scale, how = SCALES[job.tier], recipe(job.tier, unit.depth)
    data = images(job.tier, job.data).to(job.device)
    network = ResidualNetwork(architecture(job.tier, unit), unit.seed).to(job.device)
    trained_part, callbacks = part(network, how, data.train[:PROBED])
    task = Classification(data.train, min(how.batch_size, len(data.train)), how.augmentation, unit.seed)
    curves = Curves(
        network,
        data,
        every=max(1, how.steps // scale.evaluations),
        moments={round(share * how.steps) for share in scale.moments},
        batch=data.train[: task.batch_size],
    )
    run = Run.of(task, {"model": trained_part})
    checkpoint = job.scratch / "checkpoint.pt"
    if checkpoint.exists():
        training.restore(run, checkpoint)
    training.train(
        run.tasks,
        run.parts,
        steps=how.steps,
        callbacks=(
            *callbacks,
            curves,
            training.every(scale.checkpoints, training.checkpoint(checkpoint)),
            training.every(20, lambda run: job.progress(run.step, how.steps)),
        ),
        run=run,
    )
    responses = response_deviations(network, data.test.images[:PROBED])
    parameters = sum(parameter.numel() for parameter in network.parameters())
    facts = {"kind": unit.kind, "depth": unit.depth, "seed": unit.seed, "steps": how.steps}
    facts |= {"divide_at": list(how.divide_at), "parameters": parameters}
    return Result({**curves.arrays(), "responses": responses.numpy()}, facts)


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread inside: sums in one order, so the same bits, and runs side by side do not hinder each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
