"""Proximal policy optimisation as a task of the training loop: see `training.rl.ppo`."""

from training.rl.agents import agent
from training.rl.details import DETAILS, Detail
from training.rl.environments import Environments, Episode, Step, make_environments
from training.rl.evaluation import Evaluation, Frames, evaluate, record
from training.rl.games import AtariOptions
from training.rl.objectives import AdaptiveKL, Clip, FixedKL, Objective, Unpenalised
from training.rl.ppo import PPO
from training.rl.probes import MEMORY, PROBES, Probe, ProbeResult, check_probe, check_probes
from training.rl.rollouts import EpisodeLog
from training.rl.settings import Settings, atari, classic_control, mujoco_tasks
from training.rl.spaces import Box, Discrete, MultiDiscrete, UnsupportedEnvironment
from training.rl.statistics import Statistics

__all__ = [
    "DETAILS",
    "MEMORY",
    "PPO",
    "PROBES",
    "AdaptiveKL",
    "AtariOptions",
    "Box",
    "Clip",
    "Detail",
    "Discrete",
    "Environments",
    "Episode",
    "EpisodeLog",
    "Evaluation",
    "FixedKL",
    "Frames",
    "MultiDiscrete",
    "Objective",
    "Probe",
    "ProbeResult",
    "Settings",
    "Statistics",
    "Step",
    "Unpenalised",
    "UnsupportedEnvironment",
    "agent",
    "atari",
    "check_probe",
    "check_probes",
    "classic_control",
    "evaluate",
    "make_environments",
    "mujoco_tasks",
    "record",
]
