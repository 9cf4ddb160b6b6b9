"""The checks of every call under pytest: verdicts against jaxtyping's own decorator, and how often one is compiled."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import beartype
import jaxtyping
import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError
from tests import shape_checks
from torch import Tensor


def product(x: Float[Tensor, "row inner"], y: Float[Tensor, "inner column"] | None = None) -> Float[Tensor, "row row"]:
    return x @ (x.T if y is None else y)


def counts(*tokens: Int[Tensor, "*batch"], size: int = 3) -> list[int]:
    return [len(tokens), size] if size else ["none"]  # type: ignore[list-item]


def steps(n: int) -> Iterator[Float[Tensor, " n"]]:
    yield from (torch.zeros(n) for _ in range(n))


def ranges(length: int) -> Float[Tensor, "1+{length} 2"]:
    return torch.zeros(4, 2)


def nothing(x, y=1):  # type: ignore[no-untyped-def]
    return x


class Holder:
    """Methods, properties and a closure with a default."""

    @functools.cached_property
    def wrong(self) -> int:
        return "1"  # type: ignore[return-value]

    def scaled(self, by: float) -> Callable[[Any], Any]:
        def scale(x: Float[Tensor, " n"], by: float = by) -> Float[Tensor, " n"]:
            return (x * by)[: int(by)]

        return shape_checks.checked(scale, typechecker=beartype.beartype)  # type: ignore[no-any-return]


def zeros(*shape: int) -> Tensor:
    return torch.zeros(shape)


CALLS: tuple[tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]], ...] = (
    (product, (zeros(2, 3),), {}),
    (product, (zeros(2, 3), zeros(3, 2)), {}),
    (product, (zeros(2, 3), zeros(2, 2)), {}),  # inner is 3 and 2
    (product, (zeros(2, 3), zeros(3, 4)), {}),  # row is 2 and 4 in the result
    (product, (zeros(2),), {}),
    (product, (zeros(2, 3).long(),), {}),
    (product, (zeros(2, 3),), {"y": "y"}),
    (product, (), {"x": zeros(2, 3)}),
    (product, (), {}),
    (product, (zeros(2, 3),), {"z": 1}),
    (counts, (zeros(2).long(), zeros(2).long()), {}),
    (counts, (zeros(2).long(), zeros(2, 1).long()), {}),
    (counts, (), {"size": 0}),  # what it gives is no list of numbers
    (counts, (), {"size": "3"}),
    (steps, (2,), {}),
    (steps, ("2",), {}),
    (ranges, (3,), {}),
    (ranges, (4,), {}),
    (nothing, (1,), {"y": "anything"}),
    (Holder.wrong.func, (Holder(),), {}),  # type: ignore[attr-defined]
)


def kind_of_outcome(call: Callable[[], object]) -> type | None:
    try:
        call()
    except TypeError as error:
        return type(error)
    return None


@pytest.mark.parametrize(("function", "args", "kwargs"), CALLS)
def test_the_verdict_is_jaxtypings(function: Callable[..., Any], args: Any, kwargs: Any) -> None:
    ours = shape_checks.checked(typechecker=beartype.beartype)(function)
    theirs = shape_checks.jaxtyped(function, typechecker=beartype.beartype)
    for _ in range(2):  # the first call compiles
        found = kind_of_outcome(lambda: ours(*args, **kwargs))
        assert found is kind_of_outcome(lambda: theirs(*args, **kwargs))


def test_the_error_names_the_function_the_parameter_and_the_sizes() -> None:
    checked = shape_checks.checked(product, typechecker=beartype.beartype)
    with pytest.raises(TypeCheckError, match=r"(?s)test_shape_checks.*product\(\).*parameter y=.*inner=3"):
        checked(zeros(2, 3), zeros(2, 2))


def test_closures_share_what_was_compiled_and_keep_what_is_their_own() -> None:
    scale, other = Holder().scaled(2.0), Holder().scaled(3.0)
    before = len(shape_checks._made.by_key)
    assert scale(torch.ones(2)).tolist() == [2, 2]
    assert other(torch.ones(3)).tolist() == [3, 3, 3]
    assert len(shape_checks._made.by_key) == before + 1
    with pytest.raises(TypeCheckError):
        other(torch.ones(4))


def test_sizes_hold_within_a_call_alone() -> None:
    checked = shape_checks.checked(product, typechecker=beartype.beartype)
    assert [len(checked(zeros(n, 3))) for n in (2, 4)] == [2, 4]


def test_checks_are_switched_off_as_jaxtypings_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    assert shape_checks.checked(nothing, typechecker=beartype.beartype)(1) == 1
    checked = shape_checks.checked(product, typechecker=beartype.beartype)
    assert checked(zeros(2, 3), zeros(3, 4)).shape == (2, 4)


EARLY = """
def sized(n):
    def same(x: Float[Tensor, f"{n}"]):
        return x
    return same
"""


def test_annotations_that_differ_between_closures_of_one_code_are_each_closures_own() -> None:
    names: dict[str, Any] = {"Float": Float, "Tensor": Tensor}
    exec(compile(EARLY, __file__, "exec", dont_inherit=True), names)  # in this file they are texts until they are read
    of_two, of_three = (shape_checks.checked(names["sized"](n), typechecker=beartype.beartype) for n in (2, 3))
    assert (len(of_two(zeros(2))), len(of_three(zeros(3)))) == (2, 3)
    with pytest.raises(TypeCheckError):
        of_three(zeros(2))


def test_dataclasses_are_checked_when_made() -> None:
    @dataclasses.dataclass
    class Pair:
        x: Float[Tensor, " n"]
        y: Float[Tensor, " n"]

    class Inherits(Pair):
        pass

    for kind in (Pair, Inherits):
        made: Any = shape_checks.checked(kind, typechecker=beartype.beartype)
        made(zeros(2), zeros(2))
        with pytest.raises(TypeCheckError):
            made(zeros(2), zeros(3))


def test_every_package_is_checked_under_pytest() -> None:
    import circuits
    import function_vectors
    import interventions
    import reprise
    import steering
    import training
    import zoo

    for package in (circuits, function_vectors, interventions, reprise, steering, training, zoo):
        functions = [getattr(package, name) for name in package.__all__]
        assert any(getattr(each, "__globals__", {}) is vars(shape_checks) for each in functions), package.__name__
