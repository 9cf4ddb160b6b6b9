"""Watching a run: a progress bar in the terminal, and curves in TensorBoard."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from training.errors import TrainingError
from training.run import Callback, Run

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


def progress_bar() -> Callback:
    """Show steps, steps a second, the loss and what was measured last, on standard error."""
    return ProgressBar()


def tensorboard(folder: Path) -> Callback:
    """Write loss, terms, gradient norm and metrics as scalars for TensorBoard; `every(n, tensorboard(...))` thins out.

    Raises:
        TrainingError: if tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # noqa: F401 (asked for before training, not at the first line)
    except ImportError as error:
        raise TrainingError(
            f"tensorboard: expected the package tensorboard, got {error}; run "
            "`pip install 'reprise-training[tensorboard]'`"
        ) from error
    return TensorBoard(folder)


@dataclass
class ProgressBar:
    """See `progress_bar`."""

    bar: Any = None
    metrics: dict[str, float] = field(default_factory=dict)

    def __call__(self, run: Run) -> None:
        if run.process:
            return
        if self.bar is None:
            from tqdm import tqdm  # type: ignore[import-untyped]

            self.bar = tqdm(total=run.steps, initial=run.step, unit="step")
        self.bar.n = run.step
        self.metrics.update(run.metrics)
        shown = {"loss": run.loss, **self.metrics} if run.step else self.metrics
        self.bar.set_postfix({name: f"{value:.4g}" for name, value in shown.items()}, refresh=False)
        self.bar.update(0)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


@dataclass
class TensorBoard:
    """See `tensorboard`."""

    folder: Path
    writer: SummaryWriter | None = None

    def __call__(self, run: Run) -> None:
        if run.process:
            return
        if self.writer is None:
            from torch.utils.tensorboard import SummaryWriter

            # What a run that went further left is dropped by TensorBoard itself, from this step on.
            self.writer = SummaryWriter(str(self.folder), purge_step=run.step)
        scalars = {"loss": run.loss, "gradient_norm": run.gradient_norm, **run.losses, **run.metrics}
        for name, value in scalars.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, run.step)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
            self.writer = None
