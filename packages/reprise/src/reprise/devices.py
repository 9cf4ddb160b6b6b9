"""Whether a device is here; torch is asked, and imported, for all but the CPU."""

from __future__ import annotations

import re

from reprise.errors import UserError

_FORM = re.compile(r"cpu|mps|cuda(?::\d+)?")


def check(device: str) -> None:
    """Refuse a device that is not here, before anything is loaded.

    Raises:
        UserError: no such device, or no such name.
    """
    if not _FORM.fullmatch(device):
        raise UserError(f"no device {device!r}; expected cpu, cuda, cuda:1 or mps")
    if device == "cpu":
        return
    import torch

    kind, _, number = device.partition(":")
    here = torch.cuda.device_count() if kind == "cuda" else int(torch.backends.mps.is_available())
    if int(number or 0) >= here:
        raise UserError(
            f"--device {device}: torch finds {here or 'no'} device{'s'[: here != 1]} of that kind here; leave --device "
            "out for the CPU, or ask `reprise doctor` what is here"
        )
