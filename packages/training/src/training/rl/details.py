"""The 37 implementation details of PPO, one row each: what stands for it here, or that it is not built.

Huang, Dossa, Raffin, Kanervisto and Wang 2022, The 37 Implementation Details of Proximal Policy Optimization (ICLR blog
track), count 13 of the core, 9 for Atari, 9 for continuous actions, 5 for LSTMs and 1 for multi-discrete actions. Four
more are not in the official implementation and are listed behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Group = Literal["core", "Atari", "continuous", "LSTM", "multi-discrete", "further"]


@dataclass(frozen=True)
class Detail:
    """One detail.

    Attributes:
        fields: of `Settings`, which choose it.
        options: of `AtariOptions`, which choose it.
        elsewhere: what has it where no field does, or why it is not built.
    """

    group: Group
    name: str
    built: bool
    fields: tuple[str, ...] = ()
    elsewhere: str = ""
    options: tuple[str, ...] = ()


def _frames(name: str, *options: str) -> Detail:
    return Detail("Atari", name, True, options=options)


DETAILS = (
    Detail("core", "vectorised environments", True, ("environments", "horizon")),
    Detail("core", "orthogonal weights, constant biases", True, ("orthogonal",)),
    Detail("core", "Adam's epsilon", True, ("adam_epsilon",)),
    Detail("core", "annealed learning rate", True, ("anneal_learning_rate",)),
    Detail("core", "generalised advantage estimation", True, ("gamma", "gae_lambda", "truncation")),
    Detail("core", "minibatch updates", True, ("epochs", "minibatches")),
    Detail("core", "normalised advantages", True, ("normalise_advantages",)),
    Detail("core", "clipped surrogate objective", True, ("objective",)),
    Detail("core", "clipped value loss", True, ("clip_values",)),
    Detail("core", "overall loss and entropy bonus", True, ("value_coefficient", "entropy_coefficient")),
    Detail("core", "gradients clipped together", True, ("max_gradient_norm",)),
    Detail("core", "debug variables", True, elsewhere="PPO.statistics, and the losses of the run"),
    Detail("core", "shared or separate networks", True, ("shared_encoder", "hidden")),
    _frames("up to 30 no-ops at a reset", "noops"),
    _frames("maximum over frames, and skipped frames", "skip", "maximum"),
    _frames("an episode for each life", "life_episodes"),
    _frames("fire at a reset", "fire"),
    _frames("smaller, grey frames", "grey", "size"),
    _frames("rewards by their sign", "sign_rewards"),
    _frames("stacked frames", "stack"),
    Detail("Atari", "a shared convolutional network", True, ("network", "shared_encoder")),
    Detail("Atari", "images scaled to 0 to 1", True, ("scale_images",)),
    Detail("continuous", "actions from normal distributions", True, elsewhere="Policy, wherever actions are a Box"),
    Detail("continuous", "state-independent log standard deviation", True, ("state_independent_log_std",)),
    Detail("continuous", "independent components", True, elsewhere="DiagonalGaussian"),
    Detail("continuous", "separate tanh networks of 64 units", True, ("hidden", "shared_encoder")),
    Detail("continuous", "actions clipped when carried out, kept as drawn", True, ("clip_actions",)),
    Detail("continuous", "normalised observations", True, ("normalise_observations",)),
    Detail("continuous", "clipped observations", True, ("clip_observations",)),
    Detail("continuous", "scaled rewards", True, ("scale_rewards",)),
    Detail("continuous", "clipped rewards", True, ("clip_rewards",)),
    Detail("LSTM", "initialisation of the LSTM", True, ("lstm", "orthogonal")),
    Detail("LSTM", "states that begin at 0", True, ("lstm",)),
    Detail("LSTM", "states that are reset with the episode", True, ("lstm",)),
    Detail("LSTM", "minibatches of sequences", True, ("lstm", "minibatches")),
    Detail("LSTM", "states rebuilt while training", True, ("lstm",)),
    Detail("multi-discrete", "independent components", True, elsewhere="MultiCategorical"),
    Detail("further", "annealed clip range", True, ("anneal_clip_range",)),
    Detail("further", "gradients of several processes", True, elsewhere="training.Options.data_parallel"),
    Detail("further", "early stopping of a rollout's updates", True, ("target_kl",)),
    Detail("further", "masks of invalid actions", False, elsewhere="not built: all actions are valid here"),
)
