"""What the method asks of a model: one small protocol, which the engine and nnsight implement alike.

Everything is at the last token of each prompt, the query's last, where the answer is read. Layers and heads are counted
from 0; the stream of layer l is its output, `resid_post`, the hidden state behind block l. There the public codes of
Todd et al. 2024 and Hendel et al. 2023 add and replace.

A `StreamEdit` says what is done to that stream:  h_l := h_l + v_l  (`adding`)  or  h_l := s_l  (`replacing`), one layer
at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from interventions import Prompts, SweepResult

Head = tuple[int, int]
"""(layer, head)"""


@dataclass(frozen=True)
class StreamEdit:
    """Values to add to the stream, or to put in its place; a first or second dimension of 1 is for all.

    The values of a layer are used when that layer is edited, alone.
    """

    values: Float[Tensor, "prompt_or_1 layer_or_1 d_model"]
    replace: bool = False

    def at(self, layer: int, rows: slice = slice(None)) -> Float[Tensor, "prompt_or_1 d_model"]:
        """The values for a layer, and for some of the prompts."""
        values = self.values[:, layer if self.values.shape[1] > 1 else 0]
        return values if len(values) == 1 else values[rows]

    def check(self, n_prompts: int, n_layers: int) -> None:
        """Refuse an edit that is for other prompts or another model.

        Raises:
            ValueError: naming both shapes.
        """
        prompts, layers, d_model = self.values.shape
        if prompts not in (1, n_prompts) or layers not in (1, n_layers):
            raise ValueError(
                f"stream edit has values of shape [{prompts}, {layers}, {d_model}]: expected [{n_prompts} or 1, "
                f"{n_layers} or 1, d_model], for every prompt and layer or one for all"
            )


def adding(vectors: Float[Tensor, "*layer d_model"]) -> StreamEdit:
    """Add a vector at whichever layer is edited, or each layer's own, [layer, d_model]."""
    return StreamEdit(vectors.view(1, -1, vectors.shape[-1]))


def replacing(states: Float[Tensor, "prompt_or_1 layer d_model"]) -> StreamEdit:
    """Put each layer's own state in place of the stream."""
    return StreamEdit(states, replace=True)


@runtime_checkable
class Runner(Protocol):
    """A model, by the operations of the method. Tensors that come back are on the CPU, activations in float32."""

    @property
    def n_layers(self) -> int: ...

    @property
    def n_heads(self) -> int:
        """Query heads of every layer."""
        ...

    @property
    def batch_size(self) -> int:
        """Prompts that are run at once."""
        ...

    @property
    def norm_behind_attention(self) -> bool:
        """Whether attention's output passes a norm before it is added to the stream (Gemma 2 and 3)."""
        ...

    def last_z(self, prompts: Prompts) -> Float[Tensor, "prompt layer head d_head"]:
        """z, the output of each head before the output projection, at the last token."""
        ...

    def last_stream(self, prompts: Prompts) -> Float[Tensor, "prompt layer d_model"]:
        """The stream behind each layer, at the last token."""
        ...

    def projected(self, inputs: Float[Tensor, "layer row width"]) -> Float[Tensor, "layer row d_model"]:
        """Each layer's output projection of some inputs, the projection's bias with it."""
        ...

    def normed(self, outputs: Float[Tensor, "layer row d_model"]) -> Float[Tensor, "layer row d_model"]:
        """Each layer's norm behind attention, where there is one."""
        ...

    def decoded(self, vectors: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_vocab"]:
        """Logits of vectors: final norm and unembedding."""
        ...

    def with_head_replaced(
        self, prompts: Prompts, tokens: Int[Tensor, " prompt"], z: Float[Tensor, "layer head d_head"]
    ) -> SweepResult:
        """p(token) of each prompt with one head's z at the last token replaced, for all heads; axes layer, head."""
        ...

    def predictions(self, prompts: Prompts, candidates: Int[Tensor, " choice"] | None = None) -> Int[Tensor, " prompt"]:
        """The token of the highest logit, of all tokens or of the candidates alone."""
        ...

    def predictions_and_z(
        self, prompts: Prompts
    ) -> tuple[Int[Tensor, " prompt"], Float[Tensor, "prompt layer head d_head"]]:
        """`predictions` and `last_z` of the same pass."""
        ...

    def predictions_by_layer(
        self,
        prompts: Prompts,
        edit: StreamEdit,
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt layer"]:
        """The same with the stream edited at one layer, for all layers."""
        ...

    def predictions_by_edit(
        self,
        prompts: Prompts,
        edits: Sequence[StreamEdit],
        layers: Sequence[int],
        candidates: Int[Tensor, " choice"] | None = None,
    ) -> Int[Tensor, "prompt edit layer"]:
        """The same of several edits, each alone."""
        ...

    def generated(
        self,
        prompts: Prompts,
        n_tokens: int,
        *,
        edit: StreamEdit | None = None,
        layer: int = 0,
        every_step: bool = False,
    ) -> Int[Tensor, "prompt token"]:
        """Greedy continuations, the stream of `layer` edited at the query's last token.

        With `every_step`, also at every token that is generated.
        """
        ...


def check_layers(layers: Sequence[int], n_layers: int) -> None:
    """Refuse layers that do not exist, or are named twice.

    Raises:
        ValueError: naming them.
    """
    if not layers or len(set(layers)) != len(layers) or not set(layers) <= set(range(n_layers)):
        raise ValueError(f"layers {list(layers)}: expected at least one of 0 to {n_layers - 1}, each once")


def check_edits(edits: Sequence[StreamEdit], layers: Sequence[int], n_prompts: int, n_layers: int) -> None:
    """Refuse no edits, edits that do not fit, or layers as `check_layers`.

    Raises:
        ValueError: naming what does not fit.
    """
    check_layers(layers, n_layers)
    if not edits:
        raise ValueError("no edits: expected at least one")
    for edit in edits:
        edit.check(n_prompts, n_layers)


def check_generation(edit: StreamEdit | None, layer: int, n_tokens: int, every_step: bool, n_layers: int) -> None:
    """Refuse a generation that has no meaning.

    Raises:
        ValueError: no token to generate, a layer that does not exist, or a state that is to replace the stream at every
            step.
    """
    if n_tokens < 1:
        raise ValueError(f"n_tokens={n_tokens}: expected at least 1 token to generate")
    check_layers([layer], n_layers)
    if edit is not None and edit.replace and every_step:
        raise ValueError(
            "every_step=True with a state that replaces the stream: it is the state of one token, the query's last; "
            "pass every_step=False"
        )


def batches(n: int, size: int) -> Iterator[slice]:
    """0..n in parts of at most `size`.

    Raises:
        ValueError: a size below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size={size}: expected at least 1 prompt at a time")
    return (slice(first, min(first + size, n)) for first in range(0, n, size))
