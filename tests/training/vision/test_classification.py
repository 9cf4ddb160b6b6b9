"""Classification as a task: batches, loss, errors, recipes, and resumption through the loop."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import training
from training import Part, Run
from training.vision import (
    Architecture,
    Augmentation,
    Classification,
    LabelledImages,
    Recipe,
    ResidualNetwork,
    WarmUp,
    divided,
    error,
    hold_out,
    part,
    recipe_for,
)


def data(n: int = 50, classes: int = 10, seed: int = 0) -> LabelledImages:
    """Random images whose class can be learnt: its number is a bright pixel."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(n, 1, 8, 8, generator=generator)
    labels = torch.arange(n) % classes
    images[torch.arange(n), 0, 2 + labels // 4, 2 + labels % 4] += 3
    return LabelledImages(images, labels)


def test_every_epoch_takes_every_image_once_in_a_new_order() -> None:
    """40 batches of 20 out of 50 images are 16 epochs; batches that straddle epochs take from both."""
    task = Classification(data(), 20, Augmentation(0, flip=False))
    drawn = torch.cat([task.places(step) for step in range(40)]).view(16, 50)
    assert all(sorted(epoch.tolist()) == list(range(50)) for epoch in drawn)
    assert len({tuple(epoch.tolist()) for epoch in drawn}) == 16


def test_a_batch_follows_from_seed_and_step_alone() -> None:
    task, twin = (Classification(data(), 20, seed=3) for _ in range(2))
    late = task.batch(7)
    for step in range(7):
        twin.batch(step)
    torch.manual_seed(99)
    assert torch.equal(twin.batch(7).images, late.images)
    assert torch.equal(twin.batch(7).labels, late.labels)
    other = Classification(data(), 20, seed=4).batch(7)
    assert not torch.equal(other.labels, late.labels)


def test_images_keep_their_labels() -> None:
    task = Classification(data(), 20, Augmentation(0, flip=False))
    batch = task.batch(2)
    for image, label in zip(batch.images, batch.labels, strict=True):
        brightest = int(image.argmax())
        assert (brightest // 8 - 2) * 4 + brightest % 8 - 2 == int(label)


def test_the_loss_is_minus_the_log_probability_of_the_right_class() -> None:
    class Fixed(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.log(torch.tensor([[0.7, 0.2, 0.1]])).expand(len(images), 3)

    task = Classification(data(6, classes=3), 6, part="encoder")
    expected = -(math.log(0.7) + math.log(0.2) + math.log(0.1)) / 3
    assert task.feeds == ("encoder",)
    assert task.loss({"encoder": Fixed()}, task.batch(0)).item() == pytest.approx(expected, rel=1e-6)


def test_the_error_is_the_share_of_wrong_answers_in_evaluation_mode() -> None:
    network = ResidualNetwork(Architecture(8, width=2, channels=1), seed=0)
    images = data(53)
    network.train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = error(network, images, batch_size=10)
    assert network.training
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    network.eval()
    one_by_one = [int(network(images.images[i : i + 1]).argmax()) != int(images.labels[i]) for i in range(53)]
    assert found == sum(one_by_one) / 53
    error(network, images)
    assert not network.training


@pytest.mark.parametrize("size", [0, 51])
def test_a_batch_larger_than_an_epoch_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match=f"batch_size {size} of 50 images: expected between 1"):
        Classification(data(), size)


def test_the_rate_is_the_papers_at_every_step() -> None:
    paper = recipe_for(56)
    schedule = divided(paper.divide_at)
    rates = {step: paper.learning_rate * schedule(step) for step in (0, 31_999, 32_000, 47_999, 48_000, 63_999)}
    assert list(rates.values()) == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    assert (paper.steps, paper.batch_size, paper.momentum, paper.weight_decay) == (64_000, 128, 0.9, 1e-4)
    assert (paper.augmentation.pad, paper.augmentation.flip) == (4, True)
    assert paper.warm_up_error is None
    assert recipe_for(110).warm_up_error == 0.8


def test_a_warm_up_ends_when_the_training_error_has_fallen() -> None:
    """Rates seen by the optimiser: a tenth until the error is below 80 %, then the schedule as if without warm-up."""
    images = data(60)
    network = ResidualNetwork(Architecture(8, width=4, channels=1), seed=0)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    warm_up = WarmUp(divided((30,)), images, interval=5)
    rates: list[float] = []
    errors: dict[int, float] = {}
    optimizer.register_step_pre_hook(lambda *_: rates.append(optimizer.param_groups[0]["lr"]))

    def watch(run: Run) -> None:
        errors[run.step] = error(network, images)

    task = Classification(images, 20, Augmentation(0, flip=False))
    training.train(
        task, {"model": Part(network, (optimizer,), warm_up.multiplier)}, steps=40, callbacks=(warm_up, watch)
    )
    end = warm_up.ended_at
    assert end is not None
    assert end < 30
    assert end == min(step for step in errors if step and step % 5 == 0 and errors[step] < 0.8)
    assert rates == pytest.approx([0.01] * end + [0.1] * (30 - end) + [0.01] * 10)


def train_to(
    folder: Path, steps: int, *, resume: bool = False, warm_up: float | None = None, save: int | None = None
) -> tuple[ResidualNetwork, list[float]]:
    images = data(60)
    network = ResidualNetwork(Architecture(8, width=4, channels=1), seed=0)
    recipe = Recipe(steps, (12,), 16, augmentation=Augmentation(1, flip=True), warm_up_error=warm_up)
    trained, callbacks = part(network, recipe, images)
    for callback in callbacks:
        assert isinstance(callback, WarmUp)
        callback.interval = 4
    task = Classification(images, recipe.batch_size, recipe.augmentation)
    run = Run.of(task, {"model": trained})
    if resume:
        training.restore(run, folder / "run.pt")
    losses: list[float] = []
    callbacks = (*callbacks, lambda run: losses.append(run.loss))
    if save:
        callbacks = (*callbacks, training.at_steps([save], training.checkpoint(folder / "run.pt")))
    training.train(run.tasks, run.parts, steps=steps, callbacks=callbacks, run=run)
    return network, losses


@pytest.mark.parametrize(("warm_up", "killed_at"), [(None, 7), (1.01, 3), (1.01, 5), (1.01, 13)])
def test_a_resumed_network_has_the_bits_of_an_undisturbed_one(
    tmp_path: Path, warm_up: float | None, killed_at: int
) -> None:
    """Weights, batch normalisation's running statistics, momentum, the end of a warm-up; also after a drop.

    A warm-up until the error is below 101 % ends at its first look, after 4 steps; the drop is at 12.
    """
    whole, losses = train_to(tmp_path, 20, warm_up=warm_up)
    train_to(tmp_path, killed_at, warm_up=warm_up, save=killed_at)
    torch.manual_seed(1234)
    resumed, rest = train_to(tmp_path, 20, resume=True, warm_up=warm_up)
    assert rest == losses[killed_at + 1 :]
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_small_network_learns() -> None:
    images = data(200)
    network = ResidualNetwork(Architecture(8, width=4, channels=1), seed=0)
    recipe = Recipe(60, (40,), 50, augmentation=Augmentation(0, flip=False))
    trained, callbacks = part(network, recipe, images)
    task = Classification(images, recipe.batch_size, recipe.augmentation)
    training.train(task, {"model": trained}, steps=recipe.steps, callbacks=callbacks)
    assert error(network, images) < 0.1


def test_images_held_out_are_others_than_those_to_train_on() -> None:
    images = data(50)
    split = hold_out(images, 5, seed=0)
    assert (len(split.train), len(split.test)) == (45, 5)
    together = torch.cat([split.train.images, split.test.images]).flatten(1)
    assert sorted(map(tuple, together.tolist())) == sorted(map(tuple, images.images.flatten(1).tolist()))
    assert not torch.equal(hold_out(images, 5, seed=1).test.images, split.test.images)
    with pytest.raises(ValueError, match="50 images held out of 50: expected between 1 and 49"):
        hold_out(images, 50, seed=0)
