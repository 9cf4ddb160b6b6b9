"""What is chosen about PPO: every implementation detail that applies here is a field, with where it comes from.

"Core" and "continuous" with a number are rows of Huang et al. 2022, The 37 Implementation Details of Proximal Policy
Optimization; `training.rl.details` lists all of them, with what is not built.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, get_args

from training.rl.objectives import Clip, Objective

Truncation = Literal["terminal", "bootstrap"]
Network = Literal["tanh", "nature"]


@dataclass(frozen=True)
class Settings:
    """Hyperparameters and details; the defaults are those of the paper for MuJoCo (Schulman et al. 2017, Table 3).

    Attributes:
        total_steps: steps of all environments together, of the whole training (1 million in the paper).
        environments: copies that are stepped together (core 1).
        horizon: steps of each copy between updates (the paper's T, Table 3).
        epochs: passes over a rollout (Table 3).
        minibatches: into which each pass is cut, shuffled anew, every step in one of them (core 6).
        objective: clipping, no clipping or penalty, fixed or adaptive penalty (sections 3, 4 and 6.1; core 8).
        anneal_clip_range: let epsilon fall to 0 with the learning rate (Atari in the paper, Table 5).
        learning_rate: Adam's (Table 3).
        anneal_learning_rate: let it fall to 0, linearly, once a rollout (core 4).
        adam_epsilon: 1e-5 in OpenAI's baselines; PyTorch's own is 1e-8 (core 3).
        gamma: discount (Table 3).
        gae_lambda: decay of generalised advantages (Table 3; core 5).
        truncation: what follows an episode that the time limit ended. "terminal": nothing, as in `ppo2`; "bootstrap":
            the value of its last observation (Pardo et al. 2018, Time Limits in Reinforcement Learning).
        normalise_advantages: to mean 0 and standard deviation 1 in each minibatch (core 7).
        clip_values: the value function moves by no more than this in an update; None: free (core 9).
        value_coefficient: of half the squared error of the value function (core 10; the paper's c1).
        entropy_coefficient: of the entropy bonus (core 10; the paper's c2; none for MuJoCo, section 6.1).
        max_gradient_norm: of all parts' gradients together, for `train` (core 11).
        target_kl: leave out a rollout's remaining epochs once the approximate KL of the last minibatch is over this;
            None: never (OpenAI's Spinning Up; detail "early stopping").
        network: "tanh" for vectors (section 6.1), or "nature" for images: the convolutional network of Mnih et al.
            2015, which policy and value function share (Atari 8).
        scale_images: let that network divide its bytes by 255 (Atari 9).
        hidden: units of the tanh layers (section 6.1; continuous 4).
        shared_encoder: let policy and value function share those layers (core 13); they are separate in section 6.1.
        lstm: units of an LSTM between the shared layers and both heads (LSTM 1 to 5; 128 in `ppo2`); None: no memory. A
            minibatch then has whole sequences of some environments, instead of steps of all.
        orthogonal: orthogonal weights with gains sqrt(2), 0.01, 1 and biases 0, or PyTorch's own (core 2).
        state_independent_log_std: log standard deviation as a parameter, or as an output of the policy (continuous 2).
        clip_actions: hold actions within the bounds of the Box when they are carried out, and learn from them as they
            were drawn (continuous 5).
        normalise_observations: by running mean and variance (continuous 6).
        clip_observations: normalised observations are held within this (continuous 7).
        scale_rewards: divide by the running standard deviation of discounted returns (continuous 8).
        clip_rewards: scaled rewards are held within this (continuous 9).
    """

    total_steps: int
    environments: int = 1
    horizon: int = 2048
    epochs: int = 10
    minibatches: int = 32
    objective: Objective = Clip(0.2)  # noqa: RUF009 (frozen)
    anneal_clip_range: bool = False
    learning_rate: float = 3e-4
    anneal_learning_rate: bool = True
    adam_epsilon: float = 1e-5
    gamma: float = 0.99
    gae_lambda: float = 0.95
    truncation: Truncation = "terminal"
    normalise_advantages: bool = True
    clip_values: float | None = 0.2
    value_coefficient: float = 0.5
    entropy_coefficient: float = 0.0
    max_gradient_norm: float = 0.5
    target_kl: float | None = None
    network: Network = "tanh"
    scale_images: bool = True
    hidden: tuple[int, ...] = (64, 64)
    shared_encoder: bool = False
    lstm: int | None = None
    orthogonal: bool = True
    state_independent_log_std: bool = True
    clip_actions: bool = True
    normalise_observations: bool = False
    clip_observations: float = 10.0
    scale_rewards: bool = False
    clip_rewards: float = 10.0

    def __post_init__(self) -> None:
        for name in ("environments", "horizon", "epochs", "minibatches"):
            if getattr(self, name) < 1:
                raise ValueError(f"Settings.{name}: expected a whole number from 1, got {getattr(self, name)}")
        if self.batch % self.minibatches:
            raise ValueError(
                f"Settings.minibatches: expected a divisor of environments x horizon = {self.batch}, got "
                f"{self.minibatches}; take one that leaves no rest"
            )
        if self.total_steps < self.batch:
            raise ValueError(
                f"Settings.total_steps: expected at least one rollout, {self.batch} steps, got {self.total_steps}"
            )
        if self.truncation not in get_args(Truncation):
            raise ValueError(f"Settings.truncation: expected terminal or bootstrap, got {self.truncation!r}")
        if self.network not in get_args(Network):
            raise ValueError(f"Settings.network: expected tanh or nature, got {self.network!r}")
        if self.network == "nature" and not self.shared_encoder:
            raise ValueError(
                "Settings.shared_encoder: expected True with the network 'nature', which policy and value function "
                "share, got False; set it"
            )
        if self.network == "nature" and self.normalise_observations:
            raise ValueError(
                "Settings.normalise_observations: expected False with the network 'nature', which scales the bytes of "
                "images itself, got True; leave it out"
            )
        if self.lstm is not None:
            self._check_memory(self.lstm)
        for name in ("gamma", "gae_lambda"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"Settings.{name}: expected a number from 0 to 1, got {getattr(self, name)}")

    def _check_memory(self, units: int) -> None:
        if units < 1:
            raise ValueError(f"Settings.lstm: expected a number of units from 1, or None, got {units}")
        if not self.shared_encoder:
            raise ValueError(
                "Settings.shared_encoder: expected True with lstm, which stands behind the layers that policy and "
                "value function share, got False; set it"
            )
        if self.environments % self.minibatches:
            raise ValueError(
                f"Settings.minibatches: expected a divisor of environments = {self.environments} with lstm, as a "
                f"minibatch has whole sequences, got {self.minibatches}; take one that leaves no rest"
            )

    @property
    def shuffled(self) -> int:
        """What an epoch puts in random order: the steps of a rollout, or with a memory its environments."""
        return self.batch if self.lstm is None else self.environments

    @property
    def batch(self) -> int:
        """Steps of a rollout, of all environments together."""
        return self.environments * self.horizon

    @property
    def rollouts(self) -> int:
        """Rollouts that `total_steps` are enough for."""
        return self.total_steps // self.batch

    @property
    def updates(self) -> int:
        """Minibatch updates of the whole training, if no `target_kl` leaves some out: steps of `training.train`."""
        return self.rollouts * self.epochs * self.minibatches

    def described(self) -> dict[str, str]:
        """Every field as text, for a log or a table."""
        return {field.name: str(getattr(self, field.name)) for field in fields(self)}


def classic_control(total_steps: int) -> Settings:
    """CartPole and its like: those of `ppo2` for such tasks, as CleanRL's `ppo.py` has them."""
    return Settings(
        total_steps=total_steps,
        environments=4,
        horizon=128,
        epochs=4,
        minibatches=4,
        learning_rate=2.5e-4,
        entropy_coefficient=0.01,
    )


def mujoco_tasks(total_steps: int) -> Settings:
    """MuJoCo: the paper's Table 3, with the details for continuous actions that `ppo2` has."""
    return Settings(total_steps=total_steps, normalise_observations=True, scale_rewards=True)


def atari(total_steps: int, *, source: Literal["paper", "ppo2"] = "paper") -> Settings:
    """Atari games: the paper's Table 5, or `ppo2`'s own settings for them, where the two differ.

    The paper has 3 epochs and c1 = 1 of the squared error of the value function, which is 2 of half of it; `ppo2` (its
    `defaults.py`) has 4 epochs and 0.5, and lets the clipping of values fall with the clip range, which stays at 0.1
    here. The frames are those of `AtariOptions()`; 10 million steps in the paper, each of 4 frames (Table 6).
    """
    return Settings(
        total_steps=total_steps,
        environments=8,
        horizon=128,
        epochs=3 if source == "paper" else 4,
        minibatches=4,
        objective=Clip(0.1),
        anneal_clip_range=True,
        learning_rate=2.5e-4,
        clip_values=0.1,
        value_coefficient=2.0 if source == "paper" else 0.5,
        entropy_coefficient=0.01,
        network="nature",
        shared_encoder=True,
    )
