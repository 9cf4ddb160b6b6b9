"""Reading a model's stream on texts: some layers in one pass, which ends behind the last of them.

Texts are padded on the left, in batches of similar lengths, and read at a position counted from the end, at their mean,
or everywhere. What comes out is float32 on the CPU.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Literal, TypeVar, get_args

from jaxtyping import Float
from torch import Tensor

from interventions import Model
from interventions.hooks import Modules
from steering.errors import SteeringError, check_choice
from steering.passes import passes_of
from steering.texts import encode
from steering.vector_files import library_versions
from steering.vectors import Component, ModelIdentity, SteeringVector

Read = int | Literal["mean"]
"""A position counted from the end of each text (-1 is the last token), or the mean over its tokens without BOS."""

Rows = Sequence[list[int]]
T = TypeVar("T")
_WINDOW = 32  # batches whose texts are sorted by length, so that little padding is run


class Reader:
    """Reads a model's stream on batches of texts: some layers, at one place of each text or at all."""

    def __init__(
        self, model: Model, layers: int | Sequence[int] | None, component: Component, read: Read | None
    ) -> None:
        self.model, self.component, self.where = model, component, read
        self.passes, n_layers = passes_of(model), len(Modules(model.network))
        chosen = range(n_layers) if layers is None else [layers] if isinstance(layers, int) else layers
        self.layers = sorted(set(chosen))
        if not self.layers or self.layers[0] < 0 or self.layers[-1] >= n_layers:
            raise SteeringError(f"layers {list(chosen)}: expected some of 0 to {n_layers - 1}, as the model has")
        check_choice("component", component, get_args(Component))
        if isinstance(read, int) and read >= 0:
            raise SteeringError(f"read={read}: expected -1 or less, counted from the end of each text, or 'mean'")

    def encode(self, text: str, where: str) -> list[int]:
        row = encode(self.model, text)
        n_own = len(row) - (self.model.bos is not None)
        if isinstance(self.where, int) and n_own < -self.where:
            raise SteeringError(f"{where} has {n_own} tokens: expected at least {-self.where}, to read at {self.where}")
        return row

    def read(self, rows: Rows) -> Float[Tensor, "text layer *pos d_model"]:
        """The stream, float32 on the CPU."""
        return self.passes.streams(rows, self.component, self.layers, self.where)

    def vector(self, found: Float[Tensor, "layer *pos d_model"], name: str, facts: dict[str, Any]) -> SteeringVector:
        """Raises: SteeringError, if it is 0 in all layers."""
        if not bool(found.any()):
            raise SteeringError(
                f"{name}: 0 in layers {self.layers}: expected texts that differ there; read at a position, or in a "
                f"layer, that sees their difference"
            )
        network = self.model.network
        facts |= {"dtype": str(network.dtype).removeprefix("torch."), "versions": library_versions()}
        identity = ModelIdentity.of(network, self.model.name)
        directions = {layer: of_layer.clone() for layer, of_layer in zip(self.layers, found, strict=True)}
        return SteeringVector(directions, name, identity, self.component, facts)


class Digest:
    """A hash of texts in their order."""

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def add(self, text: str) -> None:
        self.sha256.update(len(text.encode()).to_bytes(8, "little") + text.encode())

    def text(self) -> str:
        return self.sha256.hexdigest()


def in_batches(items: Iterable[T], size: int, length: Callable[[T], int]) -> Iterator[list[T]]:
    """Items in batches of similar lengths; a window of them is held at a time."""
    items = iter(items)
    while window := sorted(islice(items, size * _WINDOW), key=length):
        for first in range(0, len(window), size):
            yield window[first : first + size]
