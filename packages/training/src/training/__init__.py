"""One training loop for every model of the project: see `training.loop`."""

from training.callbacks import at_steps, checkpoint, early_stop, evaluate, every
from training.checkpoints import restore, save
from training.curves import plot_log
from training.displays import progress_bar, tensorboard
from training.errors import CheckpointError, NonFiniteLoss, TrainingError
from training.logs import log_csv, log_json_lines
from training.loop import train
from training.muon import Muon
from training.options import Options
from training.parts import Part
from training.run import Callback, Run
from training.schedules import Schedule, constant, trapezoid
from training.tasks import FunctionTask, Parts, Restricted, Sharded, Stateful, Task, Terms

__all__ = [
    "Callback",
    "CheckpointError",
    "FunctionTask",
    "Muon",
    "NonFiniteLoss",
    "Options",
    "Part",
    "Parts",
    "Restricted",
    "Run",
    "Schedule",
    "Sharded",
    "Stateful",
    "Task",
    "Terms",
    "TrainingError",
    "at_steps",
    "checkpoint",
    "constant",
    "early_stop",
    "evaluate",
    "every",
    "log_csv",
    "log_json_lines",
    "plot_log",
    "progress_bar",
    "restore",
    "save",
    "tensorboard",
    "train",
    "trapezoid",
]
