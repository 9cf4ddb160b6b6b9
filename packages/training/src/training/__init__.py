"""One training loop for every model of the project: see `training.loop`."""

from training.callbacks import at_steps, checkpoint, every, log_json_lines
from training.checkpoints import CheckpointError, restore, save
from training.loop import Callback, NonFiniteLoss, Run, train
from training.muon import Muon
from training.schedules import Schedule, constant, trapezoid

__all__ = [
    "Callback",
    "CheckpointError",
    "Muon",
    "NonFiniteLoss",
    "Run",
    "Schedule",
    "at_steps",
    "checkpoint",
    "constant",
    "every",
    "log_json_lines",
    "restore",
    "save",
    "train",
    "trapezoid",
]
