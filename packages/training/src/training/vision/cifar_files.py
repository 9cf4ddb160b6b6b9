"""Reading one batch file of CIFAR-10, in either of the two forms in which it is distributed.

The binary form is a row of 3,073 bytes for each image: its label, then the red, green and blue planes of 32x32 pixels.
The python form is a pickle, written by Python 2, of a dictionary with `data` (uint8, one row of 3,072 for each image,
in the same order) and `labels`. A pickle can run any code when it is read. The reader here can not: of all names that a
pickle may ask for it knows the three that a numpy array needs, and gives stand-ins of its own for them, so that nothing
in the file decides what is called.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

PIXELS = 3 * 32 * 32
REMEDY = "unpack a fresh copy of the CIFAR-10 archive there"


class ImageFileError(ValueError):
    """A file of images is missing, damaged, or something else than what it should be."""


Batch = tuple[UInt8[Tensor, "image 3 32 32"], Int[Tensor, " image"]]


def read_binary(path: Path) -> Batch:
    """Images and labels of a binary batch.

    Raises:
        ImageFileError: the file cannot be read, ends inside an image, or holds another label than 0 to 9.
    """
    content = np.frombuffer(_content(path), np.uint8)
    if content.size == 0 or content.size % (1 + PIXELS):
        raise ImageFileError(
            f"{path}: {content.size:,} bytes, expected a multiple of {1 + PIXELS:,} (a label and 3x32x32 pixels for "
            f"each image): the file is truncated or no binary batch; {REMEDY}"
        )
    rows = content.reshape(-1, 1 + PIXELS)
    return _batch(path, rows[:, 1:], rows[:, 0])


def read_python(path: Path) -> Batch:
    """Images and labels of a python batch, without running anything that the file says.

    Raises:
        ImageFileError: the file cannot be read, is truncated, asks for a name that an array does not need, or does not
            hold images with their labels.
    """
    try:
        content = _Reader(io.BytesIO(_content(path)), encoding="bytes").load()
    except ImageFileError:
        raise
    except Exception as error:  # unpickling damaged bytes can fail in any way
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageFileError(f"{path}: truncated or no python batch of CIFAR-10 ({reason}); {REMEDY}") from error
    data, labels = (content.get(name) if isinstance(content, dict) else None for name in (b"data", b"labels"))
    if not isinstance(data, _Array) or data.values is None or not isinstance(labels, list):
        raise ImageFileError(f"{path}: expected a dictionary with an array 'data' and a list 'labels'; {REMEDY}")
    if data.values.ndim != 2 or data.values.shape != (len(labels), PIXELS) or not labels:
        raise ImageFileError(
            f"{path}: data of shape {data.values.shape} and {len(labels)} labels, expected ({len(labels)}, {PIXELS}); "
            f"{REMEDY}"
        )
    if not all(isinstance(label, int) for label in labels):
        raise ImageFileError(f"{path}: expected whole numbers as labels; {REMEDY}")
    return _batch(path, data.values, np.array(labels))


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise ImageFileError(f"{path}: this batch of CIFAR-10 is missing; {REMEDY}") from error
    except OSError as error:
        raise ImageFileError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _batch(path: Path, pixels: NDArray[np.integer], labels: NDArray[np.integer]) -> Batch:
    if labels.min() < 0 or labels.max() > 9:
        raise ImageFileError(
            f"{path}: label {labels.max() if labels.max() > 9 else labels.min()}, expected 0 to 9: the file is damaged "
            f"or belongs to another data set; {REMEDY}"
        )
    images = np.ascontiguousarray(pixels).reshape(-1, 3, 32, 32)
    return torch.from_numpy(images.copy()), torch.from_numpy(labels.astype(np.int64))


class _Dtype:
    """Stands in for numpy.dtype; remembers the code of the type."""

    def __init__(self, code: object = None, *_: object) -> None:
        self.code = code

    def __setstate__(self, state: object) -> None:
        """Byte order and the like; a single byte has none."""


class _Array:
    """Stands in for numpy.ndarray; its state is (version, shape, type, Fortran order, bytes)."""

    values: NDArray[np.integer] | None = None

    def __setstate__(self, state: tuple[int, tuple[int, ...], _Dtype, bool, bytes]) -> None:
        _, shape, dtype, fortran, content = state
        if not isinstance(dtype, _Dtype) or dtype.code not in (b"u1", "u1"):
            raise ValueError("an array of another type than uint8")
        self.values = np.frombuffer(content, np.uint8).reshape(shape, order="F" if fortran else "C")


def _reconstruct(*_: object) -> _Array:
    return _Array()


KNOWN = {
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): _Dtype,
}


class _Reader(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in KNOWN:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs and which was not run")
        return KNOWN[module, name]
