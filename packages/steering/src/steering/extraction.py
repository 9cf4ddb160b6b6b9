"""Steering vectors from contrasts of texts, in one pass over them and one forward pass a text.

Activation addition (Turner et al. 2023, section 3): of one pair of prompts, padded on the right to equal length,

    v_l[p] = h_l(positive)[p] - h_l(negative)[p]        at every position p, the BOS included, h_l = resid_pre

Contrastive activation addition (Rimsky et al. 2024, section 3.1): of many pairs that differ in their answer,

    v_l = mean over pairs of  h_l(positive)[read] - h_l(negative)[read]        h_l = resid_post, read = the answer token

or another direction between the two classes (see `estimators`). All layers are read in the same pass, which ends behind
the last layer that is asked for and computes no logits. Texts come from any iterable and are let go after their batch.

Directions are float32 on the CPU. The same texts in the same order with the same batch size, number of threads and
build of torch give the same bits; another batch size (other padding, other kernels) changes the last ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from interventions import Model
from steering.errors import SteeringError
from steering.estimators import Estimator, Sum, estimating
from steering.reading import Digest, Read, Reader, in_batches
from steering.texts import encode
from steering.vectors import Component, SteeringVector


@dataclass(frozen=True)
class ContrastPair:
    """Two texts that differ in what the vector is to be about."""

    positive: str
    negative: str


def activation_addition(
    model: Model,
    positive: str,
    negative: str,
    *,
    layers: int | Sequence[int] | None = None,
    component: Component = "resid_pre",
    pad_with: str = " ",
    name: str | None = None,
) -> SteeringVector:
    """The vector of one pair, [pos, d_model] in each layer (by default all), to add from the first position on.

    Positions up to which the two have the same tokens, the BOS first of all, are exactly 0.

    Args:
        pad_with: what the shorter prompt is padded with on the right, its tokens repeated as needed.

    Raises:
        SteeringError: a text or (where it is needed) the padding has no tokens, both have the same, or a layer does not
            exist.
    """
    pair = [encode(model, positive), encode(model, negative)]
    length = max(map(len, pair))
    for row in pair:
        padding = encode(model, pad_with)[model.bos is not None :] if len(row) < length else []
        while len(row) < length:
            row.extend(padding[: length - len(row)])
    if pair[0] == pair[1]:
        raise SteeringError(f"{positive!r} and {negative!r}: {_same(model)}")
    reader = Reader(model, layers, component, None)
    both = reader.read(pair)
    differ = next(at for at, tokens in enumerate(zip(*pair, strict=True)) if tokens[0] != tokens[1])
    difference = both[0] - both[1]
    difference[:, :differ] = 0.0  # causal: they are the same but for rounding
    facts = {"method": "activation_addition", "positive": positive, "negative": negative, "pad_with": pad_with}
    return reader.vector(difference, name or f"{positive!r} - {negative!r}", facts)


def contrastive(
    model: Model,
    pairs: Iterable[ContrastPair],
    *,
    layers: int | Sequence[int] | None = None,
    component: Component = "resid_post",
    read: Read = -1,
    estimator: Estimator = "mean_difference",
    batch_size: int = 16,
    seed: int = 0,
    name: str | None = None,
) -> SteeringVector:
    """The direction from the negative to the positive texts, [d_model] in each layer (by default all).

    Args:
        batch_size: texts in a forward pass; a pair is not parted, so that 1 counts as 2.
        seed: where the search for the first principal axis starts; the other estimators draw nothing.

    Raises:
        SteeringError: there is no pair; a text has no tokens or is too short for `read`; the two texts of a pair have
            the same tokens; the classes do not differ in any layer; a layer does not exist.
    """
    reader, digest = Reader(model, layers, component, read), Digest()

    def encoded() -> Iterator[tuple[list[int], list[int]]]:
        for number, pair in enumerate(pairs):
            digest.add(pair.positive)
            digest.add(pair.negative)
            both = (
                reader.encode(pair.positive, f"pair {number}: positive"),
                reader.encode(pair.negative, f"pair {number}: negative"),
            )
            if both[0] == both[1]:
                raise SteeringError(f"pair {number}: {_same(model)}")
            yield both

    n = 0
    with estimating(estimator, seed=seed) as direction:
        for batch in in_batches(encoded(), _at_least_one(batch_size, 2), lambda pair: max(map(len, pair))):
            found = reader.read([row for pair in batch for row in pair])
            direction.add(found[0::2], found[1::2])
            n += len(batch)
        if not n:
            raise SteeringError("no pairs: expected at least one ContrastPair")
        directions = direction.found()
    facts = {"method": "contrastive", "estimator": estimator, "pairs": n, "read": read, "seed": seed}
    facts |= {"batch_size": batch_size, "texts_sha256": digest.text()}
    return reader.vector(directions, name or f"{estimator} of {n} pairs", facts)


def between(
    model: Model,
    positives: Iterable[str],
    negatives: Iterable[str],
    *,
    layers: int | Sequence[int] | None = None,
    component: Component = "resid_post",
    read: Read = "mean",
    batch_size: int = 16,
    name: str | None = None,
) -> SteeringVector:
    """mean over positive texts - mean over negative texts, of texts that come in no pairs: [d_model] in each layer.

    Raises:
        SteeringError: as `contrastive`; either collection is empty.
    """
    reader, digest = Reader(model, layers, component, read), Digest()

    def mean(texts: Iterable[str], kind: str) -> Sum:
        def encoded() -> Iterator[list[int]]:
            for number, text in enumerate(texts):
                digest.add(text)
                yield reader.encode(text, f"{kind} text {number}")

        total = Sum()
        for batch in in_batches(encoded(), _at_least_one(batch_size, 1), len):
            total.add(reader.read(batch))
        if not total.n:
            raise SteeringError(f"no {kind} texts: expected at least one")
        digest.add("")  # so that a text that changes sides changes the hash
        return total

    of_positives, of_negatives = mean(positives, "positive"), mean(negatives, "negative")
    facts = {"method": "between", "positives": of_positives.n, "negatives": of_negatives.n, "read": read}
    facts |= {"batch_size": batch_size, "texts_sha256": digest.text()}
    found = (of_positives.mean() - of_negatives.mean()).float()
    return reader.vector(found, name or f"{of_positives.n} texts - {of_negatives.n} texts", facts)


def _at_least_one(batch_size: int, texts: int) -> int:
    if batch_size < 1:
        raise SteeringError(f"batch_size={batch_size}: expected at least 1 text at a time")
    return max(1, batch_size // texts)


def _same(model: Model) -> str:
    return (
        f"positive and negative have the same tokens in {model.name}: their difference is 0; expected texts that its "
        f"tokenizer tells apart"
    )
