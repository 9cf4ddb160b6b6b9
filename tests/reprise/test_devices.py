"""A device that is not here is refused in one line, before anything is loaded."""

from __future__ import annotations

import pytest
import torch

from reprise import devices
from reprise.errors import UserError


@pytest.fixture
def one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:0"])
def test_what_is_here_is_taken(one_gpu: None, device: str) -> None:
    devices.check(device)


@pytest.mark.parametrize(
    ("device", "said"),
    [
        ("cuda:1", "--device cuda:1: torch finds 1 device of that kind here; leave --device out for the CPU"),
        ("mps", "--device mps: torch finds no devices of that kind here; leave --device out"),
        ("banana", "no device 'banana'; expected cpu, cuda, cuda:1 or mps"),
        ("cuda:x", "no device 'cuda:x'; expected"),
    ],
)
def test_what_is_not_is_refused(one_gpu: None, device: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        devices.check(device)
    assert str(caught.value).startswith(said)
