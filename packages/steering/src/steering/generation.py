"""Generation in batches: prompts padded on the left, a key-value cache, greedy or sampled, steered or not.

Greedy decoding gives the tokens that plain transformers gives, one prompt at a time or many (equal but for rounding,
which can decide between two tokens that are as good as equally likely). Sampled, row i draws its tokens by numbers that
depend on the seed and on i alone: its text does not change with the other prompts, with the batch size, or with a
longer `max_new_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from interventions import Model, Prompts
from steering.errors import SteeringError
from steering.passes import Drawn, passes_of
from steering.sampling import Sampling
from steering.steering import Steer
from steering.texts import encode_texts, longest

OnText = Callable[[int, str], None]


@dataclass(frozen=True)
class Completions:
    """What was written, by prompt.

    `texts` follow their prompts, with the space between them where there is one. `prompt_tokens` have the BOS,
    `new_tokens` end before the end-of-text token; `ended` says whether there was one.
    """

    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    prompt_tokens: tuple[tuple[int, ...], ...]
    new_tokens: tuple[tuple[int, ...], ...]
    ended: tuple[bool, ...]

    def __len__(self) -> int:
        return len(self.prompts)

    def __getitem__(self, rows: slice) -> Completions:
        return Completions(*(getattr(self, each.name)[rows] for each in fields(self)))


def generate(
    model: Model,
    prompts: Sequence[str],
    *,
    steers: Sequence[Steer] = (),
    max_new_tokens: int,
    temperature: float = 0.0,
    top_k: int | None = None,
    top_p: float | None = None,
    seed: int = 0,
    batch_size: int = 64,
    on_text: OnText | None = None,
    bias: Float[Tensor, " d_vocab"] | None = None,
    numbers: Int[Tensor, " prompt"] | None = None,
) -> Completions:
    """Completions of prompts; "" begins with the BOS alone.

    Args:
        steers: acting as in `steered`. Masks and lengths of their positions are by prompt; a mask's columns are those
            of `encode_texts(model, prompts)`.
        temperature: 0 is greedy.
        on_text: called with (row, piece) as soon as more of a row's text is settled; the pieces of a row make up its
            text. Batches come by length, so that rows may begin in any order.
        bias: added to the logits of every step, as in `logit_bias`.
        numbers: by which rows draw their tokens, instead of their places: rows of equal number draw by equal ones.

    Raises:
        SteeringError: there is no prompt, one has no tokens or does not fit into n_ctx with its completion, a number
            that means nothing, logits that are not finite, or as `steered`.
    """
    sampling = Sampling(temperature, top_k, top_p, seed)
    if max_new_tokens < 1 or batch_size < 1:
        raise SteeringError(
            f"max_new_tokens={max_new_tokens}, batch_size={batch_size}: expected at least 1 token and 1 prompt"
        )
    encoded = encode_texts(model, prompts, allow_empty=True)
    n_ctx = longest(model)
    if n_ctx is not None and encoded.length + max_new_tokens - 1 > n_ctx:
        raise SteeringError(
            f"prompts of up to {encoded.length} tokens and {max_new_tokens} new ones do not fit into n_ctx={n_ctx} of "
            f"{model.name}; ask for fewer"
        )
    rows: list[_Row | None] = [None] * len(prompts)
    for places, batch in _of_like_length(encoded, batch_size):
        first = encoded.length - batch.length
        here = [replace(steer, positions=steer.positions.of_rows(places, first)) for steer in steers]
        writing = [_Row(model, place, prompt) for place, prompt in zip(places.tolist(), _lists(batch), strict=True)]
        ends = _ends(model.network)
        draws = places if numbers is None else numbers[places]
        drawn = passes_of(model).drawn(batch, draws, max_new_tokens, sampling, here, bias, ends)
        _write(writing, drawn, max_new_tokens, ends, on_text)
        for place, row in zip(places.tolist(), writing, strict=True):
            rows[place] = row
    written = [row for row in rows if row is not None]
    return Completions(
        prompts=tuple(prompts),
        texts=tuple(row.text() for row in written),
        prompt_tokens=tuple(tuple(row.prompt) for row in written),
        new_tokens=tuple(tuple(row.new) for row in written),
        ended=tuple(row.ended for row in written),
    )


@dataclass
class _Row:
    """One text while it is written."""

    model: Model
    place: int
    prompt: list[int]
    new: list[int] = field(default_factory=list)
    ended: bool = False
    given: str = ""

    def __post_init__(self) -> None:
        assert self.model.tokenizer is not None
        self.tokenizer = self.model.tokenizer
        self.before = self.tokenizer.decode(self.prompt)

    def add(self, token: int, ends: frozenset[int]) -> None:
        if not self.ended and token in ends:
            self.ended = True
        elif not self.ended:
            self.new.append(token)

    def text(self) -> str:
        """What the new tokens add to the prompt's text: decoded together, as a tokenizer may join them by a space."""
        whole = self.tokenizer.decode(self.prompt + self.new)
        return whole[len(self.before) :] if whole.startswith(self.before) else self.tokenizer.decode(self.new)

    def give(self, on_text: OnText, *, last: bool) -> None:
        """Hand on what is settled: bytes that are not yet a character are held back."""
        text = self.text()
        if text.startswith(self.given) and len(text) > len(self.given) and (last or not text.endswith("\ufffd")):
            piece, self.given = text[len(self.given) :], text
            on_text(self.place, piece)


def _write(rows: list[_Row], drawn: Drawn, n: int, ends: frozenset[int], on_text: OnText | None) -> None:
    """Up to n tokens for every row of a batch."""
    found, stops, done, finite = [], torch.tensor(sorted(ends)), torch.tensor(False), torch.tensor(True)
    with closing(drawn):
        for step, (new, good) in enumerate(drawn):
            finite = finite & (good | done)
            found.append(new)
            if on_text is not None:
                for row, token in zip(rows, new.tolist(), strict=True):
                    row.add(token, ends)
                    row.give(on_text, last=row.ended or step == n - 1)
            if ends:
                done = done | torch.isin(new, stops.to(new.device))
                if bool(done.all()):
                    break
    if not bool(finite.all()):
        raise SteeringError(
            f"prompt {rows[int((~finite).nonzero()[0])].place}: logits are not finite; steer with a smaller "
            f"coefficient, or run the model in float32"
        )
    if on_text is None:
        for row, of_row in zip(rows, torch.stack(found, dim=1).tolist(), strict=True):
            for token in of_row:
                row.add(token, ends)


def _ends(network: Any) -> frozenset[int]:
    """The tokens that end a text, as transformers' own generation knows them."""
    settings = getattr(network, "generation_config", None)
    ends = getattr(settings, "eos_token_id", None)
    ends = getattr(network.config, "eos_token_id", None) if ends is None else ends
    return frozenset() if ends is None else frozenset([ends] if isinstance(ends, int) else ends)


def _of_like_length(prompts: Prompts, size: int) -> Iterator[tuple[Int[Tensor, " row"], Prompts]]:
    """Batches, the shortest prompts first, without the padding that all of a batch have, and their places."""
    lengths = torch.tensor([len(row) for row in _lists(prompts)])
    order = lengths.argsort(stable=True)
    for places in torch.split(order, size):
        first = prompts.length - int(lengths[places[-1]])
        valid = None if prompts.valid is None else prompts.valid[places, first:]
        tokens = prompts.tokens[places, first:]
        yield places, Prompts(tokens, None if valid is None or bool(valid.all()) else valid)


def _lists(prompts: Prompts) -> list[list[int]]:
    """The prompts' tokens without padding."""
    if prompts.valid is None:
        return [list(row) for row in prompts.tokens.tolist()]
    return [tokens[keep].tolist() for tokens, keep in zip(prompts.tokens, prompts.valid, strict=True)]
