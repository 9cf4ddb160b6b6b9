"""The state of an environment, taken out and put back, so that a resumed run goes on within its episode.

    classic control   `state` (and CartPole's count of steps after the end), generator
    MuJoCo            mj_getState(mjSTATE_INTEGRATION): time, positions, velocities, activations, warm start of the
                      solver, controls, forces; besides the derived positions, from which some environments take the
                      place before a step; generator
    Atari             the emulator's state with its random numbers, serialised; generator. Not of Miniature Golf,
                      Pitfall 2, Qbert and Tetris, whose state ale-py 0.12.1 leaves incomplete (its pull request 732)
    others            what their method `capture_state` returns, put back by `restore_state`; generator

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
_INCOMPLETE = ("miniature_golf", "pitfall2", "qbert", "tetris")  # games of Atari


def can_capture(environment: Any) -> bool:
    """Whether an unwrapped environment's state can be captured.

    It can for Gymnasium's classic control and MuJoCo, most Atari games, and what has `capture_state` and
    `restore_state`.
    """
    return any(kind(environment) for kind in (_is_mujoco, _is_classic, _is_atari, _captures_itself))


def capture(environment: Any) -> dict[str, Any]:
    """All that an environment is, the count of its steps excepted."""
    state: dict[str, Any] = {"rng": environment.np_random.bit_generator.state}
    if _captures_itself(environment):
        state["own"] = environment.capture_state()
    elif _is_atari(environment):
        emulator = environment.clone_state(include_rng=True).serialize()
        state["emulator"] = torch.frombuffer(bytearray(emulator), dtype=torch.uint8)
    elif _is_mujoco(environment):
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
    if _captures_itself(environment):
        environment.restore_state(state["own"])
    elif _is_atari(environment):
        emulator = sys.modules["ale_py"].ALEState(state["emulator"].numpy().tobytes())
        environment.restore_state(emulator)
    elif _is_mujoco(environment):
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


def _is_atari(environment: Any) -> bool:
    module = sys.modules.get("ale_py")
    return module is not None and isinstance(environment, module.AtariEnv) and environment._game not in _INCOMPLETE


def _captures_itself(environment: Any) -> bool:
    return hasattr(environment, "capture_state") and hasattr(environment, "restore_state")
