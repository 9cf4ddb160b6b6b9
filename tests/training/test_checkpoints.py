"""Checkpoints: exact resumption, and what happens to bad files and bad moments."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import IO

import pytest
import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from training import CheckpointError, Muon, Run, checkpoint, every, restore, save, train, trapezoid

STEPS, SAVE_EVERY = 23, 4


class KilledError(RuntimeError):
    pass


def network(width: int = 8) -> nn.Sequential:
    """Matrices and vectors, and dropout, which makes the result depend on the random state."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Dropout(0.3), nn.Linear(width, 1))


def optimizers(model: nn.Module) -> tuple[Optimizer, ...]:
    matrices = [parameter for parameter in model.parameters() if parameter.ndim == 2]
    vectors = [parameter for parameter in model.parameters() if parameter.ndim != 2]
    return (Muon(matrices, lr=0.02), AdamW(vectors, lr=0.01))


def fresh(width: int = 8) -> Run:
    model = network(width)
    return Run(model, optimizers(model))


def batches(step: int) -> Tensor:
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(step))


def loss(model: nn.Module, batch: Tensor) -> Tensor:
    prediction: Tensor = model(batch)
    return (prediction.squeeze(1) - batch.sum(dim=1)).square().mean()


def go_on(run: Run, path: Path, kill_after: int | None = None) -> Run:
    def kill(run: Run) -> None:
        if run.step == kill_after:
            raise KilledError

    return train(
        run.model,
        run.optimizers,
        batches,
        loss,
        steps=STEPS,
        schedule=trapezoid(warmup=3, steps=STEPS, decay_from=0.5, floor=0.1),
        max_gradient_norm=1.0,
        callbacks=(every(SAVE_EVERY, checkpoint(path)), kill),
        run=run,
    )


def weights(run: Run) -> Mapping[str, Tensor]:
    state: Mapping[str, Tensor] = run.model.state_dict()
    return state


def equal(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("seed", range(4))
def test_a_run_killed_at_random_steps_is_bit_identical_to_an_undisturbed_one(tmp_path: Path, seed: int) -> None:
    undisturbed = go_on(fresh(), tmp_path / "undisturbed.pt")
    path = tmp_path / "training.pt"
    kills = sorted(random.Random(seed).sample(range(1, STEPS), 3))
    for number, kill_after in enumerate(kills):
        run = fresh()
        if number:
            torch.manual_seed(100 + number)  # a new process has another random state
            restore(run, path)
        with pytest.raises(KilledError):
            go_on(run, path, kill_after)
    run = fresh()
    torch.manual_seed(999)
    resumed = go_on(restore(run, path), path)
    assert equal(weights(resumed), weights(undisturbed))
    assert resumed.loss == undisturbed.loss


def test_another_random_state_would_have_shown(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    first = go_on(fresh(), path)
    resumed = restore(fresh(), path)
    torch.manual_seed(1)
    assert not equal(weights(go_on(resumed, path)), weights(first))


def one_line_error(run: Run, path: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        restore(run, path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{path}: not a checkpoint of this run (")
    assert message.endswith("; delete it to start again")
    return message


@pytest.mark.parametrize("share", [0.0, 0.3, 0.7, 0.99])
def test_a_truncated_checkpoint_is_refused_in_one_line(tmp_path: Path, share: float) -> None:
    path = tmp_path / "training.pt"
    save(fresh(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    one_line_error(fresh(), path)


def test_a_checkpoint_of_another_model_is_refused_in_one_line_that_names_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    save(fresh(width=8), path)
    assert "size mismatch for 0.weight" in one_line_error(fresh(width=9), path)


def test_a_checkpoint_of_another_set_of_optimisers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "training.pt"
    save(fresh(), path)
    model = network()
    one_line_error(Run(model, (AdamW(model.parameters(), lr=0.1),)), path)


@pytest.mark.parametrize("content", [{"step": 3}, [1, 2], torch.zeros(3)])
def test_a_file_that_torch_wrote_but_is_no_checkpoint_is_refused(tmp_path: Path, content: object) -> None:
    path = tmp_path / "training.pt"
    torch.save(content, path)
    one_line_error(fresh(), path)


def test_a_checkpoint_never_runs_code(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (str(tmp_path / "harmed"),))

    path = tmp_path / "training.pt"
    torch.save({"step": 0, "model": Harmful()}, path)
    one_line_error(fresh(), path)
    assert not (tmp_path / "harmed").exists()


def test_an_exception_while_writing_leaves_the_previous_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "training.pt"
    run = fresh()
    run.step = 7
    save(run, path)
    before = path.read_bytes()
    torch_save = torch.save

    def fails_half_way(state: object, file: IO[bytes]) -> None:
        torch_save({"half": torch.zeros(9)}, file)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fails_half_way)
    run.step = 8
    with pytest.raises(OSError, match="No space left"):
        save(run, path)
    assert path.read_bytes() == before
    assert restore(fresh(), path).step == 7
