"""Steered passes of the caller's own, against plain hooks that run one prompt at a time, without padding or cache."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from steering.errors import SteeringError
from steering.positions import AfterPrompt, Everywhere, First, Mask, Positions, PromptOnly
from steering.steering import Operation, Steer, steered
from steering.vectors import ModelIdentity, SteeringVector

from .conftest import (
    D_MODEL,
    NETWORKS,
    Write,
    adding,
    hooks_of,
    padded,
    plain_greedy,
    plain_run,
    random_model,
    random_network,
    random_vector,
    same_state,
    state_of,
    stream_behind,
)

ROWS = [[0, 3, 8, 21, 9, 14], [0, 12, 30, 7], [0, 5, 5, 2, 33]]
LENGTHS = [len(row) for row in ROWS]


def close(actual: Tensor, expected: Tensor, atol: float = 2e-4) -> None:
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


@torch.no_grad()
def batched(network: Any, *steers: Steer, left: bool) -> list[Tensor]:
    """Logits [pos, d_vocab] of every row's real tokens, from one padded pass."""
    tokens, mask = padded(ROWS, left=left)
    ids = (mask.cumsum(dim=1) - 1).clamp(min=0)
    with steered(network, *steers):
        logits = network(tokens, attention_mask=mask, position_ids=ids, use_cache=False).logits
    return [of_row[keep] for of_row, keep in zip(logits, mask.bool(), strict=True)]


def operations(v: Tensor, c: float) -> dict[Operation, Write]:
    """The formulas of the module, once more."""
    u = v / v.norm()
    return {
        "add": lambda h: h + c * v,
        "project_out": lambda h: h - c * torch.outer(h @ u, u),
        "clamp": lambda h: h - torch.outer(h @ u, u) + c * v.norm() * u,
        "norm_preserving": lambda h: (h + c * v) / (h + c * v).norm(dim=1)[:, None] * h.norm(dim=1)[:, None],
    }


PLACES: list[tuple[Positions, Callable[[int], list[int]]]] = [
    (Everywhere(), lambda n: list(range(n))),
    (AfterPrompt(), lambda n: [n - 1]),
    (AfterPrompt(torch.tensor([2, 4, 1])), lambda n: list(range({6: 1, 4: 3, 5: 0}[n], n))),
    (First(2), lambda n: [0, 1]),
    (First(5, keep_last=True), lambda n: list(range(min(5, n - 1)))),
    (PromptOnly(), lambda n: list(range(n - 1))),
]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize(("positions", "places"), PLACES)
@pytest.mark.parametrize("name", NETWORKS)
def test_positions_of_padded_rows_are_those_of_plain_hooks(
    name: str, positions: Positions, places: Callable[[int], list[int]], left: bool
) -> None:
    network = random_network(name)
    vector = random_vector(network, (0, 2))
    found = batched(network, Steer(vector, -1.5, positions=positions), left=left)
    for row, logits in zip(ROWS, found, strict=True):
        writes = {("resid_post", at): adding(-1.5 * vector.directions[at], places) for at in (0, 2)}
        close(logits, plain_run(network, row, writes)[0])
        assert (logits - plain_run(network, row)[0]).abs().max() > 0.1


@pytest.mark.parametrize("operation", ["add", "project_out", "clamp", "norm_preserving"])
@pytest.mark.parametrize("component", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("name", NETWORKS)
def test_operations_are_their_formulas(name: str, component: Any, operation: Operation) -> None:
    network = random_network(name)
    vector = random_vector(network, component=component)
    steer = Steer(vector, 0.7, operation=operation, positions=PromptOnly())
    write = operations(vector.directions[1], 0.7)[operation]
    found = batched(network, steer, left=True)
    for row, logits in zip(ROWS, found, strict=True):
        some: Write = lambda h: torch.cat([write(h[:-1]), h[-1:]])  # noqa: E731
        close(logits, plain_run(network, row, {(component, 1): some})[0])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_clamped_stream_has_the_component_and_a_projected_one_none(name: str) -> None:
    network, (tokens, mask) = random_network(name), padded(ROWS, left=False)
    vector = random_vector(network)
    u = vector.directions[1] / vector.directions[1].norm()
    for operation, expected in (("clamp", 2.5 * float(vector.directions[1].norm())), ("project_out", 0.0)):
        c = 2.5 if operation == "clamp" else 1.0
        with steered(network, Steer(vector, c, operation=operation)):  # type: ignore[arg-type]
            stream = stream_behind(network, 1, tokens, attention_mask=mask)
        close(stream @ u, torch.full(tokens.shape, expected))


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("name", NETWORKS)
def test_rows_of_a_vector_go_to_the_first_positions(name: str, left: bool) -> None:
    network = random_network(name)
    vector = random_vector(network, component="resid_pre", positions=3)
    vector.directions[1][0] = 0.0  # as the BOS has it
    found = batched(network, Steer(vector, 4.0), left=left)
    for row, logits in zip(ROWS, found, strict=True):
        write = adding(4.0 * vector.directions[1], lambda n: range(3))
        expected = plain_run(network, row, {("resid_pre", 1): write})[0]
        close(logits, expected)
        assert torch.equal(plain_run(network, row)[0][0], expected[0])
    # Padding is no position.
    tokens, mask = padded(ROWS, left=left)
    clean = stream_behind(network, 0, tokens, attention_mask=mask)
    with steered(network, Steer(random_vector(network, component="resid_pre", positions=3), 4.0)):
        stream = stream_behind(network, 0, tokens, attention_mask=mask)
    assert torch.equal(stream[~mask.bool()], clean[~mask.bool()])
    assert not torch.equal(stream[mask.bool()], clean[mask.bool()])
    # A row of 0 is no direction: nothing happens there, and where there are other positions than a steer's.
    for operation in ("project_out", "clamp", "norm_preserving"):
        steer = Steer(vector, 4.0, operation=operation, positions=Mask(_first_column(left)))
        for one, other in zip(batched(network, steer, left=left), batched(network, left=left), strict=True):
            assert torch.equal(one, other)


def _first_column(left: bool) -> Tensor:
    mask = padded(ROWS, left=left)[1]
    return (mask.cumsum(dim=1) == 1) & mask.bool()


@pytest.mark.parametrize("left", [True, False])
def test_a_mask_for_every_row(left: bool) -> None:
    network = random_network("llama")
    vector = random_vector(network)
    tokens, mask = padded(ROWS, left=left)
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(2)) < 0.4
    found = batched(network, Steer(vector, 2.0, positions=Mask(chosen)), left=left)
    for row, logits, keep, where in zip(ROWS, found, mask.bool(), chosen, strict=True):
        places = where[keep].nonzero().flatten().tolist()
        write = adding(2.0 * vector.directions[1], lambda n, places=places: places)  # type: ignore[misc]
        close(logits, plain_run(network, row, {("resid_post", 1): write})[0])


def test_positions_that_are_left_alone_keep_their_bits() -> None:
    network, (tokens, mask) = random_network("gpt2"), padded(ROWS, left=True)
    clean = stream_behind(network, 1, tokens, attention_mask=mask)
    for operation in ("add", "project_out", "clamp", "norm_preserving"):
        steer = Steer(random_vector(network), 3.0, positions=AfterPrompt(), operation=operation)
        with steered(network, steer):
            states = stream_behind(network, 1, tokens, attention_mask=mask)
        assert torch.equal(states[:, :-1], clean[:, :-1])
        assert not torch.equal(states[:, -1], clean[:, -1])


@pytest.mark.parametrize("name", NETWORKS)
def test_several_vectors_act_in_their_order_and_so_do_contexts(name: str) -> None:
    network = random_network(name)
    one, two = (random_vector(network, seed=seed) for seed in (1, 2))
    add, out = Steer(one, 3.0), Steer(two, 1.0, operation="project_out")
    formulas = operations(one.directions[1], 3.0)["add"], operations(two.directions[1], 1.0)["project_out"]
    tokens = torch.tensor([ROWS[0]])
    for steers, (first, second) in (((add, out), formulas), ((out, add), formulas[::-1])):
        expected = plain_run(network, ROWS[0], {("resid_post", 1): lambda h, f=first, s=second: s(f(h))})[0]  # type: ignore[misc]
        close(batched(network, *steers, left=True)[0], expected)
        with torch.no_grad(), steered(network, steers[0]), steered(network, steers[1]):
            close(network(tokens).logits[0], expected)


@pytest.mark.parametrize("positions", [Everywhere(), AfterPrompt(), First(7), PromptOnly(), First(3, keep_last=True)])
@pytest.mark.parametrize("name", NETWORKS)
def test_generate_of_transformers_with_its_cache(name: str, positions: Positions) -> None:
    """Greedy, padded, cached: the tokens of plain hooks on the whole text."""
    network = random_network(name)
    vector = random_vector(network, (0,), seed=5)
    tokens, mask = padded(ROWS, left=True)
    with steered(network, Steer(vector, 8.0, positions=positions)):
        found = network.generate(tokens, attention_mask=mask, max_new_tokens=5, do_sample=False, eos_token_id=None)
    written = found[:, tokens.shape[1] :].tolist()
    expected = []
    for row in ROWS:
        last = len(row) - 1

        def places(n: int, last: int = last) -> list[int]:
            match positions:
                case Everywhere():
                    return list(range(n))
                case AfterPrompt():
                    return list(range(last, n))
                case First(k, keep_last):
                    return [at for at in range(min(n, k)) if not (keep_last and at == last)]
            return list(range(last))

        write = adding(8.0 * vector.directions[0], places)
        expected.append(plain_greedy(network, row, 5, {("resid_post", 0): write}))
    assert written == expected
    assert written != [plain_greedy(network, row, 5) for row in ROWS]


def test_a_loop_of_the_callers_own_with_a_cache() -> None:
    network = random_network("llama")
    vector = random_vector(network, seed=5)
    write = adding(2.0 * vector.directions[1], lambda n: range(len(ROWS[0]) - 1, n))
    tokens, cache, written = torch.tensor([ROWS[0]]), None, []
    with torch.no_grad(), steered(network, Steer(vector, 2.0, positions=AfterPrompt())):
        for _ in range(5):
            output = network(tokens, past_key_values=cache, use_cache=True)
            tokens, cache = output.logits[:, -1:].argmax(dim=-1), output.past_key_values
            written.append(int(tokens))
    assert written == plain_greedy(network, ROWS[0], 5, {("resid_post", 1): write})


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@pytest.mark.parametrize("operation", ["add", "project_out", "clamp", "norm_preserving"])
def test_other_number_formats(dtype: torch.dtype, operation: Operation) -> None:
    network = random_network("gpt2", dtype=dtype)
    vector = random_vector(network)
    steer = Steer(vector, 1.5, operation=operation)
    tokens = torch.tensor([ROWS[0]])
    with steered(network, steer):
        found = stream_behind(network, 1, tokens)
    assert found.dtype == dtype
    clean = stream_behind(network, 1, tokens)[0].double()
    expected = operations(vector.directions[1].double(), 1.5)[operation](clean)
    error, eps = (found[0].double() - expected).abs(), torch.finfo(dtype).eps
    # Rounded once, from float32; `add` rounds the vector as well.
    once = 0.51 * eps * expected.abs() + 1e-6 * expected.abs().max()
    added = 0.51 * eps * 1.5 * vector.directions[1].abs() if operation == "add" else 0.0
    assert (error <= once + added).all()
    assert ((clean - expected).abs() > 4 * (once + added)).any()


def test_a_stream_that_is_0_does_not_become_nan() -> None:
    """As at padding of a network without biases, whose values would spread through attention."""
    from interventions.calls import Call
    from steering.steering import _Step, _Where

    vector = random_vector(random_network("gpt2"))
    for operation in ("add", "project_out", "clamp", "norm_preserving"):
        steer = Steer(-vector, operation=operation)
        step = _Step(steer, 1, _Where(steer))
        for x in (torch.zeros(1, 1, D_MODEL), vector.directions[1][None, None]):
            assert step(x, Call(1, 1, 0, None, x.device)).isfinite().all()


def test_the_model_is_as_it_was_afterwards_also_after_an_exception() -> None:
    for name in NETWORKS:
        network, tokens = random_network(name), torch.tensor([ROWS[0]])
        before, clean = state_of(network), network(tokens).logits
        network(tokens, output_hidden_states=True)  # transformers puts hooks of its own here, once
        traces = hooks_of(network)
        vector = random_vector(network, (0, 1, 2))
        with steered(network, Steer(vector, 3.0)):
            assert not torch.equal(network(tokens).logits, clean)
            with (
                pytest.raises(SteeringError),
                steered(network, Steer(vector, 1.0, positions=Mask(torch.ones(1, 2) > 0))),
            ):
                network(tokens)
            assert not torch.equal(network(tokens).logits, clean)
        with pytest.raises(KeyError), steered(network, Steer(vector, 3.0)):
            raise KeyError("on purpose")
        assert hooks_of(network) == traces
        assert same_state(network, before)
        assert torch.equal(network(tokens).logits, clean)


def test_a_model_or_its_network_and_no_vector_at_all() -> None:
    model, tokens = random_model("gpt2"), torch.tensor([ROWS[0]])
    steer = Steer(random_vector(model.network), 2.0)
    with steered(model.network, steer):
        expected = model.network(tokens).logits
    with steered(model, steer):
        assert torch.equal(model.network(tokens).logits, expected)
    with steered(model):
        assert torch.equal(model.network(tokens).logits, model.network(tokens).logits)


def test_layers_of_a_steer_are_some_of_the_vectors() -> None:
    network = random_network("gpt2")
    vector = random_vector(network, (0, 2))
    assert Steer(vector).chosen == (0, 2)
    assert Steer(vector, layers=2).chosen == (2,)
    two = batched(network, Steer(vector, 2.0, layers=[2]), left=True)
    for found, expected in zip(two, batched(network, Steer(vector.at(2), 2.0), left=True), strict=True):
        assert torch.equal(found, expected)
    with pytest.raises(SteeringError, match=r"random 0 has no layer 1: expected some of \[0, 2\]"):
        Steer(vector, layers=1)


def test_vectors_that_do_not_fit_are_refused() -> None:
    network = random_network("gpt2")
    vector = random_vector(network)

    def error(changed: SteeringVector, any_weights: bool = False) -> str:
        with pytest.raises(SteeringError) as caught, steered(network, Steer(changed, any_weights=any_weights)):
            raise AssertionError("not refused")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    other = random_vector(random_network("llama"))
    assert error(other) == (
        "random 0 is of random (llama, 3 layers, d_model 32), the network is gpt2 with 3 layers, d_model 32: expected "
        "a vector of this model"
    )
    assert "(gpt2, 5 layers, d_model 32)" in error(replace(vector, model=replace(vector.model, n_layers=5)))
    assert "d_model 64), the network" in error(replace(vector, model=replace(vector.model, d_model=64)))
    assert "layer 3: expected 0 to 2" in error(replace(vector, directions={3: torch.ones(D_MODEL)}))
    assert "shape (16,): expected [32] or [pos, 32]" in error(replace(vector, directions={1: torch.ones(16)}))
    nan = torch.full((D_MODEL,), float("nan"))
    assert "layer 1 has numbers that are not finite" in error(replace(vector, directions={1: nan}))
    assert "random 0 has no directions" in error(replace(vector, directions={}))


def test_a_vector_of_other_weights_is_refused_unless_it_is_said_so(tmp_path: Any) -> None:
    import json

    from interventions import load

    random_network("gpt2").save_pretrained(tmp_path)
    tokens = torch.tensor([ROWS[0]])
    network = load(tmp_path).network
    unknown = random_vector(network)
    assert unknown.model.sha256 is None
    import hashlib

    sha256 = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "card.json").write_text(json.dumps({"sha256": {"model.safetensors": sha256}}))
    assert ModelIdentity.of(network, "x").sha256 == sha256
    mine = random_vector(network)
    theirs = replace(mine, model=replace(mine.model, sha256="0" * 64))
    for vector in (unknown, mine, replace(mine, model=replace(mine.model, name="another name"))):
        with steered(network, Steer(vector)):
            network(tokens)
    with pytest.raises(SteeringError, match=r"SHA-256 000000000000\.\.\., the network has .*any_weights=True"):
        steered(network, Steer(theirs)).__enter__()
    with steered(network, Steer(theirs, any_weights=True)):
        network(tokens)


@pytest.mark.parametrize("coefficient", [float("nan"), float("inf"), -float("inf")])
def test_coefficients_must_be_finite(coefficient: float) -> None:
    vector = random_vector(random_network("gpt2"))
    with pytest.raises(SteeringError, match=rf"random 0: coefficient {coefficient}: expected a finite number"):
        Steer(vector, coefficient)


def test_a_prompt_shorter_than_the_vector_is_refused() -> None:
    network = random_network("gpt2")
    vector = random_vector(network, positions=5)
    tokens, mask = padded(ROWS, left=True)
    with steered(network, Steer(vector)):
        with pytest.raises(SteeringError, match="random 0 has 5 positions, got a prompt of 4 tokens: expected whole"):
            network(tokens, attention_mask=mask)
        network(tokens)
    cache = network(tokens, use_cache=True).past_key_values
    with steered(network, Steer(vector)), pytest.raises(SteeringError, match="5 positions, got a cache of 6"):
        network(tokens, past_key_values=cache)
