"""Types and shapes checked at every call under pytest, as `jaxtyping.jaxtyped` with beartype does, but cheaply.

jaxtyping's import hook decorates every function of our packages, functions inside functions too, and each decoration
compiles two checks: for a closure whenever what defines it is called. Here a check is compiled at the first call of a
function and shared by all functions of the same code. A call is checked as by jaxtyping: an axis has one size within a
call, in parameters and result. Only the text of the error is shorter. Functions with an axis computed from arguments
("{length}") are left to jaxtyping itself. A sweep makes thousands of closures: unshared checks double its time.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import CodeType, FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import beartype
import jaxtyping
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import TypeCheckError, _decorator
from jaxtyping._storage import pop_shape_memo, push_shape_memo, shape_str

Function = Callable[..., Any]
jaxtyped: Any = jaxtyping.jaxtyped


class Checks(NamedTuple):
    key: CodeType | FunctionType  # kept alive: its id is the key
    parameters: Function
    result: Function


# Within a type of another package, since reprise describes what code of ours holds, and this fills while a run goes on.
_made = SimpleNamespace(by_key={})


def install() -> None:
    """Let jaxtyping's import hook decorate by `checked`; before any of our packages is imported."""
    jaxtyping.jaxtyped = _decorator.jaxtyped = checked  # type: ignore[assignment]


def checked(function: Any = None, *, typechecker: Any = None) -> Any:
    """What `jaxtyping.jaxtyped(function, typechecker=beartype.beartype)` gives; the decorator, without a function.

    A call of what it gives raises jaxtyping.TypeCheckError where a type or a shape is wrong.
    """
    if function is None:
        return functools.partial(checked, typechecker=typechecker)
    if not isinstance(function, FunctionType) or any("{" in str(hint) for hint in function.__annotations__.values()):
        return jaxtyped(function, typechecker=typechecker)
    if function.__globals__ is globals():  # a dataclass that inherits its __init__
        return function

    # Texts mean the same in all functions of a code; what was evaluated early may not.
    early = not all(isinstance(hint, str) for hint in function.__annotations__.values())
    key = function if early else function.__code__

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return function(*args, **kwargs)
        checks = _made.by_key.get(id(key)) or _checks(function, key)
        memo = push_shape_memo({})
        try:
            checks.parameters(*args, **kwargs)
            result = function(*args, **kwargs)
            checks.result(result)
        except BeartypeCallHintViolation as error:
            raise TypeCheckError(f"{function.__module__}.{error}\n{shape_str(memo)}") from None
        finally:
            pop_shape_memo()
        return result

    return wrapper


def _checks(function: FunctionType, key: CodeType | FunctionType) -> Checks:
    signature = inspect.signature(function)
    annotations = function.__annotations__.items()
    evaluated: Any = _decorator._destring_annotation
    hints = {name: evaluated(hint, function.__globals__) for name, hint in annotations}
    parameters = [p.replace(annotation=hints.get(p.name, p.empty)) for p in signature.parameters.values()]
    signature = inspect.Signature(parameters, return_annotation=Any)
    names = function.__name__, function.__qualname__, function.__module__
    of_parameters = _decorator._make_fn_with_signature(*names, signature, output=False)

    def of_result(value: Any) -> Any:
        return value

    of_result.__annotations__ = {"return": hints["return"]} if "return" in hints else {}
    of_result.__qualname__, of_result.__module__ = names[1:]
    made = Checks(key, *map(beartype.beartype, (of_parameters, of_result)))
    _made.by_key[id(key)] = made
    return made
