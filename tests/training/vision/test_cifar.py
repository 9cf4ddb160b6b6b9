"""CIFAR-10 in both forms, read from files written byte by byte; what is missing, damaged or hostile is named."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from training.vision import ImageFileError, load_cifar10
from training.vision.cifar_files import read_binary, read_python

from . import cifar_folders as folders


@pytest.mark.parametrize("form", ["python", "binary"])
def test_a_batch_is_read_as_it_was_drawn(tmp_path: Path, form: str) -> None:
    pixels, labels = folders.drawn(7, seed=3)
    path = tmp_path / "data_batch_1"
    path.write_bytes(getattr(folders, form)(pixels, labels))
    images, classes = (read_python if form == "python" else read_binary)(path)
    assert classes.tolist() == labels
    assert images.shape == (7, 3, 32, 32)
    # the green value at row 2, column 5 of image 4: the planes follow each other, each row by row
    assert int(images[4, 1, 2, 5]) == pixels[4, 1024 + 2 * 32 + 5]
    assert torch.equal(images.flatten(1), torch.from_numpy(pixels))


def test_the_python_form_is_one_that_pickle_itself_reads() -> None:
    """The bytes that the other tests are made of are a real pickle with a real array."""
    pixels, labels = folders.drawn(5, seed=1)
    content = pickle.loads(folders.python(pixels, labels), encoding="bytes")
    assert isinstance(content[b"data"], np.ndarray)
    assert content[b"data"].dtype == np.uint8
    assert np.array_equal(content[b"data"], pixels)
    assert content[b"labels"] == labels


@pytest.mark.parametrize("inside", [True, False])
def test_both_forms_give_the_same_images(tmp_path: Path, inside: bool) -> None:
    split, other = (
        load_cifar10(place.parent if inside else place)
        for place in (folders.write(tmp_path / form, form=form) for form in ("python", "binary"))
    )
    assert (len(split.train), len(split.test)) == (60, 12)
    assert torch.equal(split.train.images, other.train.images)
    assert torch.equal(split.test.labels, other.test.labels)
    assert split.train.labels[12:24].tolist() == folders.drawn(12, seed=1)[1]
    assert split.test.labels.tolist() == folders.drawn(12, seed=5)[1]


def test_the_mean_training_image_is_subtracted_and_the_scale_is_theirs(tmp_path: Path) -> None:
    split = load_cifar10(folders.write(tmp_path, form="binary"))
    raw = np.concatenate([folders.drawn(12, seed)[0] for seed in range(5)]).astype(float)
    centred = raw - raw.mean(axis=0)
    scale = centred.std(ddof=1)
    np.testing.assert_allclose(split.train.images.flatten(1), centred / scale, atol=1e-5)
    test = (folders.drawn(12, 5)[0] - raw.mean(axis=0)) / scale
    np.testing.assert_allclose(split.test.images.flatten(1), test, atol=1e-5)
    assert split.train.images.dtype == torch.float32


@pytest.mark.parametrize(("form", "ending"), [("python", ""), ("binary", ".bin")])
def test_a_missing_batch_is_named(tmp_path: Path, form: str, ending: str) -> None:
    place = folders.write(tmp_path, form=form)
    (place / f"data_batch_4{ending}").unlink()
    with pytest.raises(
        ImageFileError, match=f"data_batch_4{ending}: this batch of CIFAR-10 is missing; unpack a fresh"
    ):
        load_cifar10(tmp_path)


@pytest.mark.parametrize("form", ["python", "binary"])
@pytest.mark.parametrize("kept", [0, 1, 100, -1, -2000, -3073])
def test_a_truncated_batch_is_named(tmp_path: Path, form: str, kept: int) -> None:
    place = folders.write(tmp_path, form=form)
    path = sorted(place.iterdir())[2]
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ImageFileError, match=rf"{re.escape(str(path))}: .*truncated.*; unpack a fresh copy"):
        load_cifar10(tmp_path)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("import pathlib; pathlib.Path('exploded').touch()",))


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_wants_to_run_something_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    place = folders.write(tmp_path, form="python")
    (place / "test_batch").write_bytes(pickle.dumps({"data": Bomb()}, protocol))
    with pytest.raises(
        ImageFileError, match=r"test_batch: .*asks for \w+\.exec, which no batch needs and which was not run"
    ):
        load_cifar10(tmp_path)
    assert not Path("exploded").exists()
    pickle.loads((place / "test_batch").read_bytes())
    assert Path("exploded").exists(), "the file was harmless, and the test shows nothing"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (pickle.dumps([1, 2]), "expected a dictionary with an array 'data' and a list 'labels'"),
        (pickle.dumps({b"labels": [1]}), "expected a dictionary with an array 'data' and a list 'labels'"),
        (folders.python(folders.drawn(3, 0)[0], [1, 2]), r"data of shape \(3, 3072\) and 2 labels"),
        (folders.python(folders.drawn(3, 0)[0][:, :3000], [1, 2, 3]), r"data of shape \(3, 3000\) and 3 labels"),
        (folders.python(folders.drawn(2, 0)[0], [1, 10]), "label 10, expected 0 to 9"),
        (folders.python(folders.drawn(2, 0)[0], [-1, 3]), "label -1, expected 0 to 9"),
        (folders.python(*folders.drawn(2, 0)).replace(b"U\x02u1", b"U\x02i2"), "another type than uint8"),
        (b"<html>not found</html>", "truncated or no python batch of CIFAR-10"),
    ],
)
def test_what_is_no_python_batch_is_named(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "data_batch_2"
    path.write_bytes(content)
    with pytest.raises(ImageFileError, match=rf"data_batch_2: .*{said}.*; unpack a fresh copy"):
        read_python(path)


def test_a_binary_batch_with_a_wrong_label_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data_batch_2.bin"
    path.write_bytes(folders.binary(folders.drawn(2, 0)[0], [3, 77]))
    with pytest.raises(ImageFileError, match=r"data_batch_2\.bin: label 77, expected 0 to 9"):
        read_binary(path)


def test_a_folder_without_batches_says_what_belongs_there(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ImageFileError, match=r"no batch of CIFAR-10 there, expected data_batch_1 to data_batch_5 and"):
        load_cifar10(tmp_path)
