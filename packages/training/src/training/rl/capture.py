"""The state of an environment, taken out and put back, so that a resumed run goes on within its episode.

    classic control   `state` (and CartPole's count of steps after the end), generator
    MuJoCo            mj_getState(mjSTATE_INTEGRATION): time, positions, velocities, activations, warm start of the
                      solver, controls, forces; besides the derived positions, from which some environments take the
                      place before a step; generator

mjSTATE_INTEGRATION is all that the integrator reads, so that the same actions give the same bits (MuJoCo's
documentation, Computation, The State). Only what `torch.load(weights_only=True)` reads is used.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch

_DERIVED = ("xpos", "xquat", "xipos", "geom_xpos", "geom_xmat", "site_xpos", "cinert", "cvel", "cfrc_ext")
_DERIVED_MORE = ("qfrc_actuator", "qfrc_constraint", "subtree_com")


def can_capture(environment: Any) -> bool:
    """Whether an unwrapped environment's state can be captured: those of Gymnasium's classic control and MuJoCo."""
    return _is_mujoco(environment) or _is_classic(environment)


def capture(environment: Any) -> dict[str, Any]:
    """All that an environment is, the count of its steps excepted."""
    state: dict[str, Any] = {"rng": environment.np_random.bit_generator.state}
    if _is_mujoco(environment):
        import mujoco

        model, data = environment.model, environment.data
        kind = mujoco.mjtState.mjSTATE_INTEGRATION
        physics = np.empty(mujoco.mj_stateSize(model, kind))
        mujoco.mj_getState(model, data, physics, kind)
        state["physics"] = torch.from_numpy(physics)
        state["derived"] = {
            name: torch.from_numpy(np.array(getattr(data, name))) for name in (*_DERIVED, *_DERIVED_MORE)
        }
    else:
        state["state"] = torch.from_numpy(np.array(environment.state))
        state["beyond"] = getattr(environment, "steps_beyond_terminated", None)
    return state


def restore(environment: Any, state: Mapping[str, Any]) -> None:
    """Put a captured state back."""
    environment.np_random.bit_generator.state = state["rng"]
    if _is_mujoco(environment):
        import mujoco

        model, data = environment.model, environment.data
        mujoco.mj_setState(model, data, state["physics"].numpy(), mujoco.mjtState.mjSTATE_INTEGRATION)
        for name, value in state["derived"].items():
            getattr(data, name)[...] = value.numpy()
    else:
        environment.state = state["state"].numpy().copy()
        if hasattr(environment, "steps_beyond_terminated"):
            environment.steps_beyond_terminated = state["beyond"]


@contextlib.contextmanager
def quiet_mujoco() -> Iterator[None]:
    """Drop MuJoCo's warnings while a model is read: it would print them and write MUJOCO_LOG.TXT into the folder."""
    mujoco = _mujoco_or_none()
    before = mujoco.get_mju_user_warning() if mujoco else None
    if mujoco:
        mujoco.set_mju_user_warning(_ignore)
    try:
        yield
    finally:
        if mujoco:
            mujoco.set_mju_user_warning(before)


def has_mujoco() -> bool:
    """Whether MuJoCo can be imported."""
    return _mujoco_or_none() is not None


def _ignore(message: str) -> None:
    """A warning about the model's file, which is Gymnasium's: nothing that a user of an environment can act on."""


def _mujoco_or_none() -> Any:
    try:
        import mujoco
    except ImportError:
        return None
    return mujoco


def _is_mujoco(environment: Any) -> bool:
    module = sys.modules.get("gymnasium.envs.mujoco.mujoco_env")
    return module is not None and isinstance(environment, module.MujocoEnv)


def _is_classic(environment: Any) -> bool:
    return type(environment).__module__.startswith("gymnasium.envs.classic_control.")
