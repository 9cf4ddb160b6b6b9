"""CIFAR-10 from a folder: 50,000 training and 10,000 test images of 32x32 pixels in 10 classes (Krizhevsky 2009).

The folder holds the six batches of one of the two forms in which the data set is distributed, or the archive's own
folder with them: `cifar-10-batches-py` (data_batch_1 to data_batch_5, test_batch) or `cifar-10-batches-bin` (the same
with .bin). Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import torch

from training.vision.cifar_files import REMEDY, ImageFileError, read_binary, read_python
from training.vision.images import Split, prepare

TRAIN, TEST = tuple(f"data_batch_{number}" for number in range(1, 6)), "test_batch"
FOLDERS = ("", "cifar-10-batches-py", "cifar-10-batches-bin")


def load_cifar10(folder: Path) -> Split:
    """The training and the test images, prepared (`training.vision.images`).

    Raises:
        ImageFileError: a batch is missing, damaged or shorter than the others; it is named.
    """
    place, ending = _find(folder)
    read = read_binary if ending else read_python
    paths = [place / f"{name}{ending}" for name in (*TRAIN, TEST)]
    batches = [read(path) for path in paths]
    most = max(len(labels) for _, labels in batches)
    for path, (_, labels) in zip(paths, batches, strict=True):
        if len(labels) != most:
            raise ImageFileError(
                f"{path}: {len(labels):,} images where other batches have {most:,}, expected as many in each: the file "
                f"is truncated; {REMEDY}"
            )
    pixels, classes = zip(*batches, strict=True)
    return prepare((torch.cat(pixels[:-1]), torch.cat(classes[:-1])), (pixels[-1], classes[-1]))


def _find(folder: Path) -> tuple[Path, str]:
    """The folder with the batches, and the ending of their names."""
    for name in FOLDERS:
        for ending in ("", ".bin"):
            if any((folder / name / f"{batch}{ending}").exists() for batch in (*TRAIN, TEST)):
                return folder / name, ending
    raise ImageFileError(
        f"{folder}: no batch of CIFAR-10 there, expected {TRAIN[0]} to {TRAIN[-1]} and {TEST} (or the same with .bin), "
        f"in it or in {FOLDERS[1]} or {FOLDERS[2]} below it; unpack the CIFAR-10 archive there"
    )
