"""Proximal policy optimisation (Schulman et al. 2017, Algorithm 1) as a task of the training loop.

    repeat: collect T steps of N environments with pi_old = pi; advantages A by GAE, targets R = A + V_old
            for each epoch, for each minibatch (a step of the loop):
                loss = policy_loss(pi / pi_old, A) + beta KL[pi_old, pi] + c1 value_loss(V, R) - c2 entropy(pi)

`batch(step)` gives the next minibatch and collects a rollout when the last one's are used up; the loop does the rest.
What it remembers between steps is its state: environments, normalisers, random numbers, the rollout and the place in
it. A run that was killed and restored goes on bit for bit (on a CPU, with environments whose state can be captured).
With `Options.data_parallel` every process collects the same rollout and takes its share of each minibatch; `target_kl`
is refused there, as each process would see another KL.

With a memory the rows of a minibatch are whole sequences of some environments. The states of the memory before a
rollout are kept as they were, and those inside it are rebuilt by the present weights in every update (Huang et al.
2022, LSTM details 4 and 5).

The approximate KL is the mean of (r - 1) - log r (Schulman 2020, Approximating KL Divergence; core detail 12).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from training.errors import TrainingError
from training.options import Options
from training.parts import Part
from training.rl import fused
from training.rl.agents import check_agent
from training.rl.distributions import Distribution
from training.rl.environments import Environments
from training.rl.memory import Sequences, features
from training.rl.minibatches import Minibatch, Prepared, cut, prepare
from training.rl.objectives import (
    AdaptiveKL,
    Clip,
    FixedKL,
    first_coefficient,
    next_coefficient,
    policy_loss,
    value_loss,
)
from training.rl.rollouts import Collector, EpisodeLog
from training.rl.settings import Settings
from training.rl.statistics import Statistics
from training.run import Run
from training.schedules import constant

_CLIP_FRACTION = 0.2  # what counts as clipped under objectives that do not clip


class PPO:
    """The task. Modules are those of `agent`: "policy", "value", and "encoder" and "memory" where they share them.

    Args:
        environments: as many copies as the settings say.
        seed: of the actions' and the minibatches' random numbers.

    Raises:
        ValueError: if modules or environments are not those that the settings describe.
    """

    def __init__(
        self, environments: Environments, modules: Mapping[str, nn.Module], settings: Settings, *, seed: int
    ) -> None:
        check_agent(environments, modules, settings)
        self.feeds = tuple(modules)
        self.modules, self.settings = dict(modules), settings
        self.collector = Collector(environments, modules, settings, seed=seed)
        self.rollouts = 0
        self.kl_coefficient = first_coefficient(settings.objective)
        self._device = next(modules["policy"].parameters()).device
        self._prepared: Prepared | None = None
        self._order = torch.zeros(0, dtype=torch.int64)
        self._epoch: list[Minibatch] = []
        self._position, self._last_step = 0, -1
        self._sums, self._counted, self._approx_kl = (0.0, 0.0), 0, 0.0

    @property
    def updates(self) -> int:
        """Steps of the loop for the settings' `total_steps`."""
        return self.settings.updates

    @property
    def environment_steps(self) -> int:
        """Steps of all environments together so far."""
        return self.collector.steps

    @property
    def episodes(self) -> EpisodeLog:
        """All training episodes that have ended, with raw returns."""
        return self.collector.episodes

    @property
    def progress(self) -> float:
        """Share of the training that is done, in rollouts: 0 while the first is used, 1 behind the last."""
        return (self.rollouts if self._used_up() else self.rollouts - 1) / self.settings.rollouts

    def parts(self) -> dict[str, Part]:
        """Each module with an Adam of its own, and the annealed rate if the settings say so."""
        schedule = self.annealing if self.settings.anneal_learning_rate else constant
        found = {}
        for name, module in self.modules.items():
            rate, epsilon = self.settings.learning_rate, self.settings.adam_epsilon
            optimizer = torch.optim.Adam(module.parameters(), lr=rate, eps=epsilon, fused=True)
            found[name] = Part(module, (optimizer,), schedule)
        return found

    def annealing(self, step: int) -> float:
        """Schedule of the learning rate: 1 for the first rollout, and less by 1 / rollouts with each."""
        current = step <= self._last_step or not self._used_up()
        return 1.0 - (self.rollouts - 1 if current else self.rollouts) / self.settings.rollouts

    def finish(self, run: Run) -> None:
        """Callback: end the run once `total_steps` are used up, which `target_kl` lets come before `updates` steps."""
        if self.rollouts >= self.settings.rollouts and self._used_up():
            run.stopped = f"{self.environment_steps} environment steps"

    def check_options(self, options: Options, /) -> None:
        """Raises TrainingError for `target_kl` in several processes."""
        if options.data_parallel and self.settings.target_kl is not None:
            raise TrainingError(
                f"Settings.target_kl with Options.data_parallel: expected None, got {self.settings.target_kl}, as "
                "every process would see the KL of its own rows and stop at another step; leave one of the two out"
            )

    def batch(self, step: int, /) -> Minibatch:
        """The next minibatch."""
        if self._used_up():
            self._next_rollout()
        count = self.settings.minibatches
        if self._position % count == 0:
            self._order = torch.from_numpy(self.collector.rng.permutation(self.settings.shuffled))
            self._cut()
        batch = self._epoch[self._position % count]
        self._position += 1
        self._last_step = step
        return batch._replace(observations=batch.observations.float())  # bytes until here, where they are images

    def loss(self, parts: Mapping[str, nn.Module], batch: Minibatch, /) -> dict[str, Tensor]:
        """The terms of the loss, weighted: "policy", "value", and where they count "entropy" and "kl"."""
        settings, objective = self.settings, self.settings.objective
        scale = 1.0 - (self.rollouts - 1) / settings.rollouts if settings.anneal_clip_range else 1.0
        epsilon = scale * objective.epsilon if isinstance(objective, Clip) else _CLIP_FRACTION
        if fused.applies(parts, batch):
            weights = (settings.value_coefficient, settings.entropy_coefficient, self.kl_coefficient)
            rule = fused.Rule(objective, epsilon, settings.clip_values, *weights)
            found = fused.terms(parts, batch, rule)
            self._note(rule.noted["approx_kl"], rule.noted["clip_fraction"])
            return found
        seen = features(parts, batch.observations, batch.sequences)
        policy: Distribution = parts["policy"](seen)
        log_ratio = policy.log_prob(batch.actions) - batch.log_probs
        ratio = log_ratio.exp()
        error = value_loss(parts["value"](seen), batch.targets, batch.values, clip=settings.clip_values)
        terms = {
            "policy": policy_loss(objective, ratio, batch.advantages, epsilon),
            "value": settings.value_coefficient * error,
        }
        if settings.entropy_coefficient:
            terms["entropy"] = -settings.entropy_coefficient * policy.entropy().mean()
        if self.kl_coefficient:
            # mypy: `like` gives a distribution of the same kind, which a union cannot say
            terms["kl"] = self.kl_coefficient * policy.like(batch.old).kl(policy).mean()  # type: ignore[arg-type]
        moved = ratio.detach() - 1
        self._note(float((moved - log_ratio.detach()).mean()), float((moved.abs() > epsilon).float().mean()))
        return terms

    @property
    def statistics(self) -> Statistics | None:
        """Of the last rollout; None before the first."""
        if self._prepared is None:
            return None
        return Statistics(
            environment_steps=self.environment_steps,
            rollouts=self.rollouts,
            updates=self._position,
            approx_kl=self._sums[0] / max(1, self._counted),
            clip_fraction=self._sums[1] / max(1, self._counted),
            explained_variance=self._prepared.explained_variance,
            entropy=self._prepared.entropy,
            kl=self._kl(self._prepared.rows),
            kl_coefficient=self.kl_coefficient,
        )

    def state_dict(self) -> dict[str, Any]:
        """All that the next steps depend on, the weights excepted."""
        prepared = self._prepared
        return {
            "collector": self.collector.state_dict(),
            "rollouts": self.rollouts,
            "kl_coefficient": self.kl_coefficient,
            "rows": None if prepared is None else [tensor.clone() for tensor in prepared.rows.numbers()],
            "sequences": _cloned(prepared.rows.sequences) if prepared is not None else None,
            "explained_variance": 0.0 if prepared is None else prepared.explained_variance,
            "entropy": 0.0 if prepared is None else prepared.entropy,
            "order": self._order,
            "position": self._position,
            "last_step": self._last_step,
            "sums": list(self._sums),
            "counted": self._counted,
            "approx_kl": self._approx_kl,
        }

    def load_state_dict(self, state: dict[str, Any], /) -> None:
        """Go back to a saved state; the modules are the loop's to restore."""
        self.collector.load_state_dict(state["collector"])
        self.rollouts, self.kl_coefficient = int(state["rollouts"]), float(state["kl_coefficient"])
        self._position, self._last_step = int(state["position"]), int(state["last_step"])
        self._sums, self._counted = (float(state["sums"][0]), float(state["sums"][1])), int(state["counted"])
        self._approx_kl, self._order = float(state["approx_kl"]), state["order"]
        self._prepared = None
        if state["rows"] is not None:
            rows = Minibatch(*(tensor.to(self._device) for tensor in state["rows"]))
            if state.get("sequences") is not None:
                rows = rows._replace(sequences=Sequences(*(tensor.to(self._device) for tensor in state["sequences"])))
            self._prepared = Prepared(rows, float(state["explained_variance"]), float(state["entropy"]))
            self._cut()

    def _used_up(self) -> bool:
        """Whether the next minibatch comes from a new rollout."""
        settings = self.settings
        if self._prepared is None or self._position >= settings.epochs * settings.minibatches:
            return True
        whole_epochs = self._position > 0 and self._position % settings.minibatches == 0
        return settings.target_kl is not None and whole_epochs and self._approx_kl > settings.target_kl

    def _next_rollout(self) -> None:
        if self._prepared is not None and isinstance(self.settings.objective, AdaptiveKL):
            kl = self._kl(self._prepared.rows)
            self.kl_coefficient = next_coefficient(self.settings.objective, self.kl_coefficient, kl)
        rollout = self.collector.collect()
        self._prepared = prepare(rollout, self.modules, self.settings, self._device)
        self.rollouts += 1
        self._position, self._sums, self._counted = 0, (0.0, 0.0), 0

    def _cut(self) -> None:
        assert self._prepared is not None
        self._epoch = cut(
            self._prepared.rows,
            self._order,
            self.settings.minibatches,
            normalise=self.settings.normalise_advantages,
            with_old=isinstance(self.settings.objective, FixedKL | AdaptiveKL),
        )

    def _kl(self, rows: Minibatch) -> float:
        with torch.no_grad():
            seen = features(self.modules, rows.observations, rows.sequences)
            policy: Distribution = self.modules["policy"](seen)
            # mypy: as in the loss
            return float(policy.like(rows.old).kl(policy).mean())  # type: ignore[arg-type]

    def _note(self, approx_kl: float, clip_fraction: float) -> None:
        self._approx_kl = approx_kl
        self._sums = (self._sums[0] + approx_kl, self._sums[1] + clip_fraction)
        self._counted += 1


def _cloned(sequences: Sequences | None) -> list[Tensor] | None:
    return None if sequences is None else [tensor.clone() for tensor in sequences]
