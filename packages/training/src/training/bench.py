"""The benchmark `reprise bench training`: what the loop costs beside a loop written by hand, and PPO's steps a second.

    language model   a decoder of 2 layers, width 128, window 64, 16 windows a step: AdamW, clipping, a schedule
    ResNet-20        of He et al. 2016 on 32 images of CIFAR's size a step, augmented: momentum, a schedule

Both loops do the same for the same batches, and append step and loss of every step to a file; their weights are equal
bit for bit. Images and tokens are random: only the time is of interest. Rows of PPO are those of `training.rl.bench`.

A row of a loop takes seconds, and the difference is a share of a percent, less than a busy machine's noise from one
call to the next. `Case.overhead` measures it more sharply: both loops in turn, in blocks of a few steps, in seconds of
the processor, and the median over blocks.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import SGD, AdamW, Optimizer

from training.logs import log_json_lines
from training.loop import train
from training.parts import Part
from training.schedules import Schedule, trapezoid
from training.tasks import FunctionTask, Task

Row = tuple[str, str | None, Callable[[], object]] | tuple[str, str | None, Callable[[], object], Mapping[str, float]]


def rows() -> Iterator[Row]:
    """Two rows for each network, then those of PPO."""
    yield from language_model().rows(steps=150)
    yield from residual_network().rows(steps=16)
    from training.rl import bench as of_agents

    yield from of_agents.rows()


@dataclass(frozen=True)
class Case:
    """A network trained by both loops, each on a copy of its own.

    Args:
        make: the network and its optimiser, the same each time.
    """

    name: str
    make: Callable[[], tuple[nn.Module, Optimizer]]
    task: Task[Any]
    schedule: Schedule
    max_gradient_norm: float

    @cached_property
    def by_hand(self) -> tuple[nn.Module, Optimizer]:
        return self.make()

    @cached_property
    def by_train(self) -> tuple[nn.Module, Optimizer]:
        return self.make()

    def rows(self, steps: int) -> Iterator[Row]:
        hand = f"{self.name}, {steps} steps: loop by hand"
        yield hand, None, lambda: self.hand_written(steps)
        yield f"{self.name}, {steps} steps: train", hand, lambda: self.trained(steps)

    def hand_written(self, steps: int) -> None:
        """What a program would say that trains this and nothing else."""
        model, optimizer = self.by_hand
        parts, rate = {"model": model}, optimizer.param_groups[0]["lr"]
        with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log.jsonl").open("w") as log:
            for step in range(steps):
                for group in optimizer.param_groups:
                    group["lr"] = rate * self.schedule(step)
                loss = self.task.loss(parts, self.task.batch(step))
                assert isinstance(loss, Tensor)
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                norm = nn.utils.clip_grad_norm_(model.parameters(), self.max_gradient_norm)
                optimizer.step()
                row = {"step": step + 1, "loss": loss.item(), "gradient_norm": norm.item()}
                log.write(json.dumps(row) + "\n")
        for group in optimizer.param_groups:
            group["lr"] = rate

    def trained(self, steps: int) -> None:
        model, optimizer = self.by_train
        with tempfile.TemporaryDirectory() as folder:
            train(
                self.task,
                {"model": Part(model, (optimizer,), self.schedule)},
                steps=steps,
                max_gradient_norm=self.max_gradient_norm,
                callbacks=[log_json_lines(Path(folder) / "log.jsonl")],
            )

    def overhead(self, blocks: int, steps: int) -> float:
        """CPU seconds of `train` over those of the loop by hand, minus 1: the median over blocks of so many steps."""
        ratios: list[float] = []
        loops = {"hand": self.hand_written, "train": self.trained}
        for block in range(blocks):
            seconds: dict[str, float] = {}
            for name in sorted(loops, reverse=bool(block % 2)):
                started = time.process_time()
                loops[name](steps)
                seconds[name] = time.process_time() - started
            ratios.append(seconds["train"] / seconds["hand"])
        return median(ratios) - 1


class Decoder(nn.Module):
    """A causal transformer over tokens, with plain torch."""

    def __init__(self, width: int, layers: int, heads: int, vocabulary: int, window: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(vocabulary, width), nn.Embedding(window, width)
        layer = nn.TransformerEncoderLayer(width, heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, nn.LayerNorm(width), enable_nested_tensor=False)
        self.unembed = nn.Linear(width, vocabulary, bias=False)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(window), persistent=False)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos vocabulary"]:
        resid_pre = self.embed(tokens) + self.place.weight
        logits: Tensor = self.unembed(self.layers(resid_pre, mask=self.mask, is_causal=True))
        return logits


def language_model(*, width: int = 128, layers: int = 2, window: int = 64, batch: int = 16) -> Case:
    vocabulary = 1024

    def make() -> tuple[nn.Module, Optimizer]:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model = Decoder(width, layers, 4, vocabulary, window)
        return model, AdamW(model.parameters(), lr=1e-3)

    def batches(step: int) -> Tensor:
        return torch.randint(vocabulary, (batch, window), generator=torch.Generator().manual_seed(step))

    def loss(model: nn.Module, tokens: Int[Tensor, "batch pos"]) -> Tensor:
        logits: Tensor = model(tokens)
        return functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())

    schedule = trapezoid(warmup=20, steps=1000, decay_from=0.7, floor=0.05)
    return Case("language model", make, FunctionTask(batches, loss), schedule, max_gradient_norm=1.0)


def residual_network(*, depth: int = 20, size: int = 32, batch: int = 32) -> Case:
    from training.vision import Architecture, Classification, LabelledImages, ResidualNetwork, divided

    def make() -> tuple[nn.Module, Optimizer]:
        model = ResidualNetwork(Architecture(depth), seed=0)
        return model, SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    generator = torch.Generator().manual_seed(0)
    images = torch.randn(512, 3, size, size, generator=generator)
    data = LabelledImages(images, torch.randint(10, (512,), generator=generator))
    task = Classification(data, batch_size=batch)
    return Case(f"ResNet-{depth}", make, task, divided((32_000, 48_000)), max_gradient_norm=float("inf"))
