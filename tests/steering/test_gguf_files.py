"""Control vectors of llama.cpp: what its loader and its graph make of a file is what the vector does here."""

from __future__ import annotations

import contextlib
import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from interventions import Model
from steering.errors import SteeringError
from steering.gguf_files import read_gguf, write_gguf
from steering.repeng_form import from_repeng, to_repeng
from steering.vectors import SteeringVector

from .exchange_models import D_MODEL, N_LAYERS, THREE, identity, plain_logits, plus, random_network, vector

gguf = pytest.importorskip("gguf")

TOKENS = [3, 5, 7, 2, 9, 1]
LLAMA = identity("llama")
Tensors = Sequence[tuple[str, int, tuple[int, ...], bytes]]
"""Name, ggml type (0 is F32), dimensions and data."""


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def file_of(tensors: Tensors, texts: dict[str, str], counts: dict[str, int] | None = None) -> bytes:
    """A GGUF file by the format's definition, version 3, without the library."""
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(texts) + len(counts or {}))
    for key, value in texts.items():
        header += text(key) + struct.pack("<I", 8) + text(value)
    for key, count in (counts or {}).items():
        header += text(key) + struct.pack("<Ii", 5, count)
    data = b""
    for name, kind, shape, raw in tensors:
        header += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += raw + bytes(-len(raw) % 32)
    return header + bytes(-len(header) % 32) + data


def parsed(whole: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray[Any, Any]]]:
    """Texts, counts and F32 arrays of a GGUF file, read by the format's definition."""
    magic, version, n_tensors, n_keys = struct.unpack_from("<4sIQQ", whole)
    assert (magic, version) == (b"GGUF", 3)
    at = 24

    def taken(form: str) -> Any:
        nonlocal at
        (value,) = struct.unpack_from(form, whole, at)
        at += struct.calcsize(form)
        return value

    def string() -> str:
        return bytes(taken(f"{taken('<Q')}s")).decode()

    keys: dict[str, Any] = {}
    for _ in range(n_keys):
        key, kind = string(), taken("<I")
        keys[key] = string() if kind == 8 else taken({4: "<I", 5: "<i"}[kind])
    places = []
    for _ in range(n_tensors):
        name, n_dims = string(), taken("<I")
        shape, kind, offset = [taken("<Q") for _ in range(n_dims)], taken("<I"), taken("<Q")
        assert (n_dims, kind) == (1, 0), "llama.cpp takes F32 of one dimension alone"
        places.append((name, shape[0], offset))
    start = -(-at // 32) * 32
    return keys, {name: np.frombuffer(whole, "<f4", n, start + offset) for name, n, offset in places}


def llama_cpp(whole: bytes, n_layers: int, scale: float) -> dict[int, Tensor]:
    """What llama.cpp adds to the output of each layer: its loader's buffer, then its adapter's tensors."""
    _, arrays = parsed(whole)
    buffer = np.zeros(0, np.float32)
    for name, array in arrays.items():
        layer = int(name.split(".")[1])
        assert layer > 0, "invalid (zero) direction tensor layer index"
        if len(buffer) < len(array) * layer:
            buffer = np.concatenate([buffer, np.zeros(len(array) * layer - len(buffer), np.float32)])
        buffer[len(array) * (layer - 1) : len(array) * layer] += array * np.float32(scale)
    added = {}
    for il in range(1, n_layers):
        offset = D_MODEL * (il - 1)
        if offset + D_MODEL <= len(buffer):
            added[il] = torch.from_numpy(buffer[offset : offset + D_MODEL].copy())
    return added


def control_vector(layers: tuple[int, ...] = (1, 2), texts: dict[str, str] | None = None) -> bytes:
    arrays = [(f"direction.{at}", 0, (D_MODEL,), np.full(D_MODEL, at + 0.25, "<f4").tobytes()) for at in layers]
    given = {"general.architecture": "controlvector", "controlvector.model_hint": "llama", **(texts or {})}
    return file_of(arrays, given, {"controlvector.layer_count": len(layers)})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "love.gguf"


@pytest.mark.parametrize("component", ["resid_pre", "resid_post"])
@pytest.mark.parametrize("name", THREE)
def test_llama_cpp_does_with_the_file_what_the_vector_does(path: Path, name: str, component: Any) -> None:
    network = random_network(name)
    ours = vector(name, (2,) if component == "resid_pre" else (1, 2), component)
    write_gguf(path, ours)
    theirs = {("resid_post", il): plus(x) for il, x in llama_cpp(path.read_bytes(), N_LAYERS, -1.5).items()}
    expected = plain_logits(network, name, TOKENS, theirs)
    writes = {(component, layer): plus(x, -1.5) for layer, x in ours.directions.items()}
    torch.testing.assert_close(plain_logits(network, name, TOKENS, writes), expected, atol=2e-5, rtol=0)
    assert (expected - plain_logits(network, name, TOKENS, {})).abs().max() > 0.1
    again = read_gguf(path, network)
    assert (again.name, again.component, again.model.name) == ("love - hate", "resid_post", name)
    writes = {("resid_post", layer): plus(x, -1.5) for layer, x in again.directions.items()}
    torch.testing.assert_close(plain_logits(network, name, TOKENS, writes), expected, atol=2e-5, rtol=0)


def test_the_bits_come_back(path: Path) -> None:
    ours = vector("llama", (1, 2))
    ours.directions[1][5] = -0.0
    write_gguf(path, ours)
    again = read_gguf(path, LLAMA)
    assert again == replace(
        ours, directions=again.directions, facts={"from": "gguf", "file": "love.gguf", "model_hint": "llama"}
    )
    for layer, direction in ours.directions.items():
        assert torch.equal(again.directions[layer].view(torch.int32), direction.view(torch.int32))


def test_the_file_is_what_llama_cpp_and_repeng_read(path: Path) -> None:
    ours = vector("gpt_neox", (2, 1))
    write_gguf(path, ours)
    keys, arrays = parsed(path.read_bytes())
    assert keys["general.architecture"] == "controlvector"
    assert keys["controlvector.model_hint"] == "gpt_neox"
    assert keys["controlvector.layer_count"] == 2
    assert list(arrays) == ["direction.1", "direction.2"]
    assert all(np.array_equal(arrays[f"direction.{at}"], ours.directions[at].numpy()) for at in (1, 2))


def test_a_file_written_by_the_definition_is_read(path: Path) -> None:
    path.write_bytes(control_vector())
    found = read_gguf(path, LLAMA)
    assert (found.name, found.component, found.layers) == ("love", "resid_post", (1, 2))
    assert [set(x.tolist()) for x in found.directions.values()] == [{1.25}, {2.25}]
    assert read_gguf(path, Model("mine", random_network("llama"), None, None), name="other").model.name == "mine"
    assert read_gguf(path, LLAMA, name="other").name == "other"
    path.write_bytes(control_vector((2,), {"general.name": "hope"}))
    assert read_gguf(path, LLAMA).name == "hope"


def test_a_file_as_repeng_exports_it_is_repengs_vector(path: Path) -> None:
    """The calls are those of ControlVector.export_gguf."""
    theirs = to_repeng(vector("gpt2", (1, 2)))
    writer = gguf.GGUFWriter(str(path), "controlvector")
    writer.add_string("controlvector.model_hint", theirs.model_type)
    writer.add_uint32("controlvector.layer_count", len(theirs.directions))
    for layer in (2, 1):
        writer.add_tensor(f"direction.{layer}", theirs.directions[layer])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    found, expected = read_gguf(path, identity("gpt2")), from_repeng(theirs, identity("gpt2"), "love")
    assert found.layers == expected.layers == (1, 2)
    assert all(torch.equal(found.directions[at], expected.directions[at]) for at in (1, 2))


def test_big_endian_files_are_read(path: Path) -> None:
    writer = gguf.GGUFWriter(str(path), "controlvector", endianess=gguf.GGUFEndian.BIG)
    array = np.arange(D_MODEL, dtype=np.float32)
    writer.add_tensor("direction.2", array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert np.array_equal(read_gguf(path, LLAMA).directions[2].numpy(), array)


@pytest.mark.parametrize(
    ("model_type", "hint"), [("gpt_neox", "gptneox"), ("mistral", "llama"), ("phi", "phi2"), ("gemma3_text", "gemma3")]
)
def test_llama_cpps_name_of_an_architecture_will_do(path: Path, model_type: str, hint: str) -> None:
    path.write_bytes(control_vector(texts={"controlvector.model_hint": hint}))
    of = replace(LLAMA, model_type=model_type)
    assert read_gguf(path, of).facts["model_hint"] == hint
    path.write_bytes(control_vector(texts={"controlvector.model_hint": "gpt2"}))
    with pytest.raises(SteeringError, match=r"love\.gguf: it is of model type 'gpt2': expected .*any_model_type=True"):
        read_gguf(path, of)
    assert read_gguf(path, of, any_model_type=True).layers == (1, 2)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (vector("llama", (0, 1)), "has the output of layer 0, which llama.cpp cannot steer: expected layers 1 to 2"),
        (vector("llama", (1, 2), "resid_pre"), "has the output of layer 0, which llama.cpp cannot steer"),
        (vector("llama", (0, 2), "resid_pre"), "resid_pre of layer 0 is behind no layer: a GGUF file cannot hold it"),
        (
            vector("llama", (1,), n_positions=2),
            r"layer 1 has shape \(2, 32\): a GGUF file holds directions \[d_model\]",
        ),
        (vector("llama", (3,)), "layer 3: expected 0 to 2, as a random llama has"),
        (SteeringVector({}, "love - hate", LLAMA), "no directions: expected at least one"),
        (
            SteeringVector({1: torch.full((D_MODEL,), 0.1, dtype=torch.float64)}, "love - hate", LLAMA),
            "is torch.float64 and would be rounded: expected numbers that float32 holds",
        ),
        (SteeringVector({1: torch.full((D_MODEL,), torch.nan)}, "love - hate", LLAMA), "numbers that are not finite"),
    ],
)
def test_what_the_format_cannot_hold_is_refused(path: Path, given: SteeringVector, expected: str) -> None:
    with pytest.raises(SteeringError, match=f"love - hate.*{expected}"):
        write_gguf(path, given)
    assert not list(path.parent.iterdir())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_number_formats_are_written_where_nothing_is_lost(path: Path, dtype: torch.dtype) -> None:
    direction = vector("llama", (1,)).directions[1].to(torch.bfloat16).to(dtype)
    write_gguf(path, SteeringVector({1: direction}, "", LLAMA))
    assert torch.equal(read_gguf(path, LLAMA).directions[1].double(), direction.double())


ROW = np.ones(D_MODEL, "<f4").tobytes()
LAST = text("direction.2") + struct.pack("<IQI", 1, D_MODEL, 0)
KEYS = {"general.architecture": "controlvector", "controlvector.model_hint": "llama"}


@pytest.mark.parametrize(
    ("whole", "expected"),
    [
        (b"", "no readable GGUF file"),
        (b"GGUF", r"no readable GGUF file \(it ends before it should\); restore it or write anew"),
        (b"PK\3\4" + bytes(100), r"no readable GGUF file \(GGUF magic invalid\)"),
        (
            file_of([], {"general.architecture": "llama"}),
            "general.architecture is 'llama': expected 'controlvector'; it",
        ),
        (file_of([], {}), "general.architecture is None: expected 'controlvector'; it is no control vector"),
        (file_of([], KEYS), "no directions: expected at least one layer's"),
        (
            control_vector((0, 1)),
            "direction.0: expected 1 to 2: llama.cpp refuses it; if repeng wrote the file, load it",
        ),
        (control_vector((1, 3)), "layer 3: expected 1 to 2, as a random llama has"),
        (control_vector((1, 1)), r"no readable GGUF file \(Found duplicated tensor with name direction.1\)"),
        (
            file_of([("direction.x", 0, (32,), ROW)], KEYS),
            "tensor 'direction.x' is F32 with 1 dimensions: expected 'dire",
        ),
        (file_of([("blk.0.attn", 0, (32,), ROW)], KEYS), "tensor 'blk.0.attn' is F32 with 1 dimensions"),
        (
            file_of([("direction.1", 1, (64,), ROW)], KEYS),
            "tensor 'direction.1' is F16 with 1 dimensions: expected 'dir",
        ),
        (file_of([("direction.1", 0, (16, 2), ROW)], KEYS), "tensor 'direction.1' is F32 with 2 dimensions"),
        (
            file_of([("direction.1", 0, (31,), ROW)], KEYS),
            r"layer 1 has shape \(31,\): expected \[32\], the width of a",
        ),
        (file_of([("direction.1", 0, (64,), ROW)], KEYS), r"no readable GGUF file \(it ends before it should\)"),
        (
            control_vector().replace(LAST + struct.pack("<Q", 128), LAST + struct.pack("<Q", 96)),
            r"no readable GGUF file \(direction.2 is at \d+, not at \d+\)",
        ),
        (
            control_vector().replace(struct.pack("<f", 1.25), struct.pack("<f", np.nan)),
            "layer 1 has numbers that are not",
        ),
    ],
)
def test_what_is_no_control_vector_of_the_model_is_refused(path: Path, whole: bytes, expected: str) -> None:
    path.write_bytes(whole)
    with pytest.raises(SteeringError, match=rf"love\.gguf: {expected}") as caught:
        read_gguf(path, LLAMA)
    assert "\n" not in str(caught.value)


def test_files_that_are_not_there_are_refused(path: Path) -> None:
    with pytest.raises(SteeringError, match=r"love\.gguf: no such file; write a vector there with write_gguf"):
        read_gguf(path, LLAMA)
    with pytest.raises(SteeringError, match="no readable GGUF file"):
        read_gguf(path.parent, LLAMA)
    with pytest.raises(SteeringError, match=r"folder .*missing does not exist; make it first"):
        write_gguf(path.parent / "missing" / "v.gguf", vector("llama", (1,)))


def test_a_file_is_written_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path.write_bytes(b"before")

    def full(self: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    with pytest.raises(SteeringError, match=r"cannot be written \(No space left on device\); choose another place"):
        write_gguf(path, vector("llama", (1,)))
    assert path.read_bytes() == b"before"
    assert [each.name for each in path.parent.iterdir()] == ["love.gguf"]


def test_without_the_library_an_error_says_how_to_install_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    remedy = r"love\.gguf: gguf is not installed; pip install 'reprise-steering\[gguf\]' for control vectors"
    with pytest.raises(SteeringError, match=remedy):
        read_gguf(path, LLAMA)
    with pytest.raises(SteeringError, match=remedy):
        write_gguf(path, vector("llama", (1,)))


def test_nothing_but_its_own_error_comes_out_of_damaged_files(path: Path) -> None:
    write_gguf(path, vector("llama", (1, 2)))
    whole, generator, read = path.read_bytes(), random.Random(0), 0
    for _ in range(600):
        damaged = bytearray(whole[: generator.choice([len(whole)] * 3 + [generator.randrange(len(whole) + 1)])])
        for _ in range(generator.choice([0, 1, 1, 2, 8]) if damaged else 0):
            # Half of them in the header, which is the smaller part.
            place = generator.randrange(min(generator.choice([300, len(damaged)]), len(damaged)))
            damaged[place] ^= generator.choice([1 << generator.randrange(8), generator.randrange(1, 256)])
        path.write_bytes(damaged)
        with contextlib.suppress(SteeringError):
            found = read_gguf(path, LLAMA)
            read += 1
            assert set(found.layers) <= {1, 2}
            assert all(x.shape == (D_MODEL,) and x.isfinite().all() for x in found.directions.values())
    assert 50 < read < 400


def test_a_count_that_was_changed_is_not_counted_to(path: Path) -> None:
    """A text that becomes a list, by one bit, asks the library to read on behind the end of the file for ages."""
    whole = control_vector(texts={"controlvector.model_hint": "gpt2"})
    key = text("controlvector.model_hint")
    path.write_bytes(whole.replace(key + struct.pack("<I", 8), key + struct.pack("<I", 9)))
    code = """
        import resource, sys
        from pathlib import Path
        from steering.errors import SteeringError
        from steering.gguf_files import read_gguf
        from steering.vectors import ModelIdentity
        resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
        resource.setrlimit(resource.RLIMIT_AS, (2**33, 2**33))
        try:
            read_gguf(Path(sys.argv[1]), ModelIdentity("m", "llama", 3, 32))
        except SteeringError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip().endswith("no readable GGUF file (it ends before it should); restore it or write anew")
