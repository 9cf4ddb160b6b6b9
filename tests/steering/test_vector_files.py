"""Vectors in files: the same bits in another process, and an error for every kind of damage."""

from __future__ import annotations

import contextlib
import hashlib
import json
import random
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from steering.errors import SteeringError
from steering.vector_files import library_versions, load_vector, save_vector
from steering.vectors import ModelIdentity, SteeringVector

GENERATOR = torch.Generator().manual_seed(0)
MODEL = ModelIdentity("gpt2-xl", "gpt2", n_layers=48, d_model=24, sha256="ab12")
FACTS = {"method": "contrast", "texts": ["Love", "Hate"], "seed": 3, "norms": {"mean": 0.1, "none": None, "on": True}}
VECTOR = SteeringVector(
    {6: torch.randn(24, generator=GENERATOR), 20: torch.randn(5, 24, generator=GENERATOR)},
    "love - hate ✓",
    MODEL,
    "resid_pre",
    FACTS,
)

IN_A_FRESH_PROCESS = """
import json, sys
from pathlib import Path
import torch
from steering.vector_files import load_vector
for path in sys.argv[1:]:
    vector = load_vector(Path(path))
    stored = vector.directions.items()
    bits = {layer: [str(x.dtype), list(x.shape), x.view(torch.uint8).flatten().tolist()] for layer, x in stored}
    print(json.dumps([bits, vector.name, vector.component, vars(vector.model), vector.facts]))
"""


def raw(x: torch.Tensor) -> list[int]:
    values: list[int] = x.contiguous().view(torch.uint8).flatten().tolist()
    return values


def same(found: SteeringVector, expected: SteeringVector) -> bool:
    return (
        found.layers == expected.layers
        and all(found.directions[at].dtype == x.dtype for at, x in expected.directions.items())
        and all(found.directions[at].shape == x.shape for at, x in expected.directions.items())
        and all(raw(found.directions[at]) == raw(x) for at, x in expected.directions.items())
        and (found.name, found.model, found.component) == (expected.name, expected.model, expected.component)
        and found.facts == {"versions": library_versions(), **expected.facts}
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "love.safetensors"
    save_vector(path, VECTOR)
    return path


def test_a_fresh_process_reads_the_same_bits(tmp_path: Path) -> None:
    saved = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        directions = {layer: x.to(dtype) for layer, x in VECTOR.directions.items()}
        directions[6][3] = -0.0
        saved[tmp_path / str(dtype)] = replace(VECTOR, directions=directions)
    for path, vector in saved.items():
        save_vector(path, vector)
    done = subprocess.run(
        [sys.executable, "-c", IN_A_FRESH_PROCESS, *saved], capture_output=True, text=True, check=True
    )
    for line, vector in zip(done.stdout.splitlines(), saved.values(), strict=True):
        bits, name, component, model, facts = json.loads(line)
        assert bits == {str(at): [str(x.dtype), list(x.shape), raw(x)] for at, x in vector.directions.items()}
        assert (name, component) == ("love - hate ✓", "resid_pre")
        assert model == {"name": "gpt2-xl", "model_type": "gpt2", "n_layers": 48, "d_model": 24, "sha256": "ab12"}
        assert facts == {"versions": library_versions(), **FACTS}


def test_everything_comes_back(path: Path) -> None:
    assert same(load_vector(path), VECTOR)
    assert load_vector(path).facts["versions"]["torch"] == str(torch.__version__)
    views = torch.randn(48, 9, generator=GENERATOR)
    of_others = SteeringVector(
        {0: views[::2, 3], 1: views[:24, 1], 47: views[:24, 1]},
        "",
        replace(MODEL, sha256=None),
        facts={"pair": (1, (2,))},
    )
    save_vector(path, of_others)
    assert same(load_vector(path), replace(of_others, facts={"pair": [1, [2]]}))


def test_the_versions_that_made_a_vector_stay_with_it(path: Path) -> None:
    made = replace(VECTOR, facts={"versions": {"torch": "1.13"}})
    save_vector(path, made)
    save_vector(path, load_vector(path))
    assert load_vector(path).facts == {"versions": {"torch": "1.13"}}


def test_the_file_is_what_it_says(path: Path) -> None:
    """Read with nothing but the format's definition: a length, a JSON header, bytes."""
    whole = path.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    header, data = json.loads(whole[8 : 8 + size]), whole[8 + size :]
    metadata = header.pop("__metadata__")
    assert {name: (entry["dtype"], entry["shape"]) for name, entry in header.items()} == {
        "layer.6": ("F32", [24]),
        "layer.20": ("F32", [5, 24]),
    }
    for layer, direction in VECTOR.directions.items():
        first, last = header[f"layer.{layer}"]["data_offsets"]
        assert np.array_equal(np.frombuffer(data[first:last], "<f4"), direction.numpy().ravel())
    text = json.loads(metadata["steering_vector"])
    assert text["component"] == "resid_pre"
    assert text["model"]["d_model"] == 24
    parts = [
        b"6 torch.float32 (24,)\n" + VECTOR.directions[6].numpy().tobytes(),
        b"20 torch.float32 (5, 24)\n" + VECTOR.directions[20].numpy().tobytes(),
        metadata["steering_vector"].encode(),
    ]
    assert metadata["sha256"] == hashlib.sha256(b"".join(parts)).hexdigest()


def test_any_byte_that_changed_is_noticed(path: Path) -> None:
    """Every third byte of the file in turn, in the header and in the numbers."""
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        with pytest.raises(SteeringError, match=r"love\.safetensors: .*(restore it|no file of save_vector)"):
            load_vector(path)


def test_nothing_but_its_own_error_comes_out_of_damaged_files(path: Path) -> None:
    whole, generator = path.read_bytes(), random.Random(0)
    for _ in range(400):
        damaged = bytearray(whole[: generator.choice([len(whole), generator.randrange(len(whole) + 1)])])
        for _ in range(generator.randrange(4) if damaged else 0):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(SteeringError):
            assert same(load_vector(path), VECTOR), "only a change that changes nothing may pass"


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_file_that_was_cut_is_an_error(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(SteeringError, match=r"love\.safetensors: no readable safetensors file \(.*\); restore it or"):
        load_vector(path)


def test_other_files_are_refused(path: Path) -> None:
    with pytest.raises(SteeringError, match=r"nowhere: no such file; save a vector there with save_vector"):
        load_vector(path.parent / "nowhere")
    with pytest.raises(SteeringError, match="no readable safetensors file"):
        load_vector(path.parent)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(
        SteeringError, match=r"tensors \['weight'\] and metadata \[\]: expected one float tensor 'layer"
    ):
        load_vector(path)
    save_file({f"h.{at}.{'x' * 50}": torch.zeros(3) for at in range(9)}, path)
    with pytest.raises(SteeringError, match=r"tensors \['h.0.x{26}', .*'h.3.x{26}'\]\.\.\. and metadata"):
        load_vector(path)


def forged(path: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> None:
    """A file with a right hash, and something else that is wrong."""
    text = {
        "name": "n",
        "component": "resid_post",
        "model": {"name": "m", "model_type": "gpt2", "n_layers": 3, "d_model": 4, "sha256": None},
        "facts": {},
        **changes,
    }
    digest = hashlib.sha256()
    for name, x in sorted(tensors.items(), key=lambda item: int(item[0][6:])):
        digest.update(f"{int(name[6:])} {x.dtype} {tuple(x.shape)}\n".encode() + bytes(raw(x)))
    digest.update(json.dumps(text).encode())
    save_file(tensors, path, {"steering_vector": json.dumps(text), "sha256": digest.hexdigest()})


ONES = {"layer.1": torch.ones(4)}
NESTED: Any = []
for _ in range(500):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    ("tensors", "changes", "expected"),
    [
        ({}, {}, "it has no directions; it is no file of save_vector: save anew"),
        ({"layer.3": torch.ones(4)}, {}, "it has a layer 3, m has layers 0 to 2;"),
        ({"layer.1": torch.ones(5)}, {}, r"layer 1 has shape \(5,\), not \[4\] or \[pos, 4\];"),
        ({"layer.1": torch.ones(1, 1, 4)}, {}, r"layer 1 has shape \(1, 1, 4\), not"),
        ({"layer.1": torch.ones(0, 4)}, {}, r"layer 1 has shape \(0, 4\), not"),
        ({"layer.1": torch.full((4,), torch.inf)}, {}, "layer 1 has numbers that are not finite"),
        ({"layer.1": torch.ones(4, dtype=torch.int32)}, {}, "expected one float tensor 'layer.N' a layer"),
        ({"layer.01": torch.ones(4)}, {}, "expected one float tensor 'layer.N' a layer"),
        (ONES, {"component": "mlp_out"}, r"steering_vector is not as expected \(Invalid enum value 'mlp_out'"),
        (ONES, {"more": 1}, r"steering_vector is not as expected \(.*unknown field `more`"),
        (ONES, {"model": {"name": "m"}}, "steering_vector is not as expected .*model_type"),
        (ONES, {"model": NESTED}, r"steering_vector is not as expected \(.*; save anew"),
    ],
)
def test_a_file_with_a_right_hash_is_checked_all_the_same(
    path: Path, tensors: dict[str, torch.Tensor], changes: dict[str, Any], expected: str
) -> None:
    forged(path, ONES)
    assert load_vector(path).directions[1].tolist() == [1.0] * 4
    forged(path, tensors, **changes)
    with pytest.raises(SteeringError, match=rf"love\.safetensors: .*{expected}"):
        load_vector(path)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"directions": {}}, "cannot be saved: it has no directions; compute it anew"),
        ({"directions": {1: torch.full((24,), torch.nan)}}, "layer 1 has numbers that are not finite"),
        ({"directions": {48: torch.ones(24)}}, "it has a layer 48, gpt2-xl has layers 0 to 47"),
        ({"directions": {-1: torch.ones(24)}}, "it has a layer -1, gpt2-xl has layers 0 to 47"),
        ({"directions": {1: torch.ones(23)}}, r"layer 1 has shape \(23,\), not \[24\] or \[pos, 24\]"),
        (
            {"facts": {"share": torch.ones(1)}},
            "name and facts of love - hate ✓ are not what JSON can hold: expected texts",
        ),
        ({"facts": {"share": float("nan")}}, "are not what JSON can hold"),
        ({"facts": {"layers": {3: "a"}}}, "are not what JSON can hold"),
        ({"name": "\ud800"}, "are not what JSON can hold"),
    ],
)
def test_what_cannot_be_saved_is_refused(path: Path, changes: dict[str, Any], expected: str) -> None:
    before = path.read_bytes()
    with pytest.raises(SteeringError, match=expected):
        save_vector(path, replace(VECTOR, **changes))
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["love.safetensors"]


def test_a_file_is_written_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, write = path.read_bytes(), Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        write(self, data[:50])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(SteeringError, match=r"cannot be written \(No space left on device\); choose another place"):
        save_vector(path, -VECTOR)
    monkeypatch.undo()
    assert path.read_bytes() == before
    with pytest.raises(SteeringError, match=r"folder .*missing does not exist; make it first"):
        save_vector(path.parent / "missing" / "v", VECTOR)
    (path.parent / "folder").mkdir()
    with pytest.raises(SteeringError, match=r"folder: cannot be written \(.*\); choose another place"):
        save_vector(path.parent / "folder", VECTOR)
    assert sorted(each.name for each in path.parent.iterdir()) == ["folder", "love.safetensors"]
