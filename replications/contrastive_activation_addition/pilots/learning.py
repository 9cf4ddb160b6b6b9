"""How a pilot is trained: on the letters, and on what value every place of an answer stands for.

    L = mean over answers of w CE(letter)  +  mean over places of w CE(name of the value)

w is less than 1 where nothing decides. The letter is judged among A and B alone, the name among the values' names.
Some answers stand in the text by the value's name in the letter's stead. Training begins with an easy mixture of
texts, which ends when names at the place and second letters are answered right, or at a given step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from replications.contrastive_activation_addition.pilots.grammar import NAMES, A, B, Grammar, Rows, Said
from replications.contrastive_activation_addition.pilots.network import Network
from replications.contrastive_activation_addition.pilots.settings import Mixture, Settings
from torch import Tensor
from torch.nn import functional as F  # noqa: N812
from torch.optim import AdamW, Optimizer

from training import Muon, Part, Run, train

WARMUP, DECAY_FROM, FLOOR = 200, 0.6, 0.02
LEARNT = 0.9, 0.65  # of answers to names at the place, and of second letters: then the easy mixture ends
EASY_EVERY, EASY_TEXTS = 50, 256
ACCURACY_SEED = 7
SAID: tuple[Said, ...] = ("name", "word", "person", "none")
Accuracy = dict[str, list[float | None]]
Say = Callable[[str], object]
Batch = tuple[Rows, Tensor]


class Answers:
    """The task of `training.train`.

    Its texts come from one generator in a row, and it has no state for checkpoints, as no pilot is resumed.
    """

    feeds = ("model",)

    def __init__(self, grammar: Grammar, rng: np.random.Generator) -> None:
        self.grammar, self.rng = grammar, rng
        self.easy = True

    def batch(self, step: int, /) -> Batch:
        """Texts, and their tokens with some answers given by name."""
        s = self.grammar.settings
        self.easy = self.easy and step < s.easy_steps
        mixture = s.easy if self.easy else s.full
        rows = self.grammar.draw(self.rng, s.batch_size, mixture)
        by_name = torch.from_numpy(self.rng.random((s.batch_size, s.questions)) < mixture.by_name) & rows.named
        given, answers = rows.tokens.clone(), self.grammar.place + 1
        names = NAMES + torch.from_numpy(rows.value)[:, None]
        given[:, answers:] = torch.where(by_name, names, rows.tokens[:, answers:])
        return rows, given

    def loss(self, parts: Mapping[str, torch.nn.Module], batch: Batch, /) -> dict[str, Tensor]:
        """The two terms."""
        rows, given = batch
        s, place = self.grammar.settings, self.grammar.place
        logits = parts["model"](given)
        weights = torch.where(rows.decided, 1.0, s.weight_of_chance)
        letters = weighted(logits[:, place:-1, A : B + 1], rows.letters, weights)
        known = torch.ones(len(given), s.questions + 1)
        known[:, 0] = weights[:, 0]
        values = torch.from_numpy(rows.value)[:, None].expand(-1, s.questions + 1)
        return {"letters": letters, "names": weighted(logits[:, place:, NAMES : NAMES + s.values], values, known)}


def weighted(
    logits: Float[Tensor, "row answer choice"],
    right: Int[Tensor, "row answer"],
    weights: Float[Tensor, "row answer"],
) -> Float[Tensor, ""]:
    """The weighted mean of the cross entropies."""
    losses = F.cross_entropy(logits.transpose(1, 2), right, reduction="none")
    return (losses * weights).sum() / weights.sum()


def rate(settings: Settings) -> Callable[[int], float]:
    """Linear warm-up, a plateau, and a linear decay over the last two fifths that stops at 0.02."""

    def multiplier(step: int) -> float:
        left = (settings.steps - step) / ((1 - DECAY_FROM) * settings.steps)
        return min(1, (step + 1) / WARMUP) * (1 if step < DECAY_FROM * settings.steps else max(FLOOR, left))

    return multiplier


def optimizers(network: Network, settings: Settings) -> tuple[Optimizer, ...]:
    """AdamW, with Muon on the layers' matrices where the settings have a rate for it."""
    adamw = partial(AdamW, lr=settings.learning_rate, betas=(0.9, 0.98), weight_decay=settings.weight_decay)
    if settings.muon_rate is None:
        return (adamw(network.parameters()),)
    matrices = [p for p in network.blocks.parameters() if p.dim() == 2]
    ids = {id(p) for p in matrices}
    rest = [p for p in network.parameters() if id(p) not in ids]
    return Muon(matrices, lr=settings.muon_rate, weight_decay=settings.weight_decay), adamw(rest)


def learn(settings: Settings, say: Say) -> tuple[Network, list[dict[str, object]]]:
    """Train a pilot; returns it and its log: step, terms of the loss, accuracies, whether texts are still easy."""
    grammar = Grammar(settings)
    torch.manual_seed(settings.seed)
    network = Network(settings, grammar.vocabulary, grammar.width)
    task = Answers(grammar, np.random.default_rng(settings.seed + 1000))
    log: list[dict[str, object]] = []

    def watch(run: Run) -> None:
        if run.step and run.step % EASY_EVERY == 0 and task.easy:
            rng = np.random.default_rng(ACCURACY_SEED)
            shares = accuracy(network, grammar, rng, EASY_TEXTS, settings.easy)["name"]
            task.easy = not all(share and share > least for share, least in zip(shares, LEARNT, strict=False))
        if run.step and (run.step % settings.log_every == 0 or run.step == settings.steps):
            by_kind = accuracy(network, grammar, np.random.default_rng(ACCURACY_SEED))
            log.append({"step": run.step, "losses": dict(run.losses), "right": by_kind, "easy": task.easy})
            say(f"step {run.step}, loss {run.loss:.3f}, right: {json.dumps(by_kind)}\n")

    parts = {"model": Part(network, optimizers(network, settings), rate(settings))}
    train(task, parts, steps=settings.steps, max_gradient_norm=1.0, callbacks=[watch])
    return network.eval(), log


@torch.no_grad()
def right(
    network: Network, grammar: Grammar, rows: Rows, blocked: Bool[Tensor, "place place"] | None = None
) -> list[float | None]:
    """Share of the decided letters of each question that are right, the letters before being given; None where none is
    decided."""
    logits = network(rows.tokens[:, :-1], blocked=blocked)[:, grammar.place :, A : B + 1]
    same = logits.argmax(-1) == rows.letters
    decided = [same[rows.decided[:, number], number] for number in range(grammar.settings.questions)]
    return [of.float().mean().item() if len(of) else None for of in decided]


def accuracy(
    network: Network, grammar: Grammar, rng: np.random.Generator, n: int = 1024, mixture: Mixture | None = None
) -> Accuracy:
    """Shares of right letters by question, for each of what may say the value."""
    return {said: right(network, grammar, grammar.draw(rng, n, mixture, said=said)) for said in SAID}
