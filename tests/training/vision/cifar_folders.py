"""Small folders in the two forms of CIFAR-10, written byte by byte."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

NAMES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")


def drawn(n: int, seed: int) -> tuple[NDArray[np.uint8], list[int]]:
    """Random images [image, 3072] and labels."""
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (n, 3072), dtype=np.uint8), generator.integers(0, 10, n).tolist()


def binary(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    return b"".join(bytes([label]) + row.tobytes() for row, label in zip(pixels, labels, strict=True))


def text(value: bytes) -> bytes:
    """A Python 2 string: SHORT_BINSTRING or BINSTRING."""
    if len(value) < 256:
        return b"U" + bytes([len(value)]) + value
    return b"T" + struct.pack("<i", len(value)) + value


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def python(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """A pickle as Python 2 and its numpy write it: protocol 2, strings as bytes, an array by `_reconstruct`."""
    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    shape = number(pixels.shape[0]) + number(pixels.shape[1]) + b"\x86"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + number(1) + shape + dtype + b"\x89" + text(pixels.tobytes()) + b"tb"
    names = b"](" + b"".join(text(f"image_{place}.png".encode()) for place in range(len(labels))) + b"e"
    content = text(b"batch_label") + text(b"training batch 1 of 5")
    content += text(b"labels") + b"](" + b"".join(map(number, labels)) + b"e"
    content += text(b"data") + array + text(b"filenames") + names
    return b"\x80\x02}(" + content + b"u."


def write(folder: Path, *, form: str, n: int = 12) -> Path:
    """Six batches of n images each, in the archive's own folder; returns that folder."""
    place = folder / ("cifar-10-batches-py" if form == "python" else "cifar-10-batches-bin")
    place.mkdir(parents=True)
    for seed, name in enumerate(NAMES):
        encode, ending = (python, "") if form == "python" else (binary, ".bin")
        (place / f"{name}{ending}").write_bytes(encode(*drawn(n, seed)))
    return place
