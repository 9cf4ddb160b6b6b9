"""Vectors in files: the same bits in another process, and an error for every kind of damage."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from function_vectors.vector_files import Provenance, VectorFileError, library_versions, load_vector, save_vector
from function_vectors.vectors import FunctionVector

VECTOR = FunctionVector(
    torch.randn(48, generator=torch.Generator().manual_seed(0)), "antonym", ((2, 1), (0, 3)), layer=5
)
PROVENANCE = Provenance("gpt-j-6b", "ab12", "paper", n_prompts=100, shots=10, seed=3, versions={"torch": "2.13.0"})

IN_A_FRESH_PROCESS = """
import json, sys
from pathlib import Path
from function_vectors.vector_files import load_vector
vector, provenance = load_vector(Path(sys.argv[1]))
bits = vector.vector.view(__import__("torch").int16).tolist()
print(json.dumps([bits, str(vector.vector.dtype), vector.task, vector.heads, vector.layer, vars(provenance)]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "antonym.safetensors"
    save_vector(path, VECTOR, PROVENANCE)
    return path


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_fresh_process_reads_the_same_bits(tmp_path: Path, dtype: torch.dtype) -> None:
    path, vector = tmp_path / "v.safetensors", VECTOR.vector.to(dtype)
    vector[3] = -0.0
    save_vector(path, FunctionVector(vector, "antonym", VECTOR.heads, 5), PROVENANCE)
    done = subprocess.run([sys.executable, "-c", IN_A_FRESH_PROCESS, path], capture_output=True, text=True, check=True)
    bits, kind, task, heads, layer, provenance = json.loads(done.stdout)
    assert bits == vector.view(torch.int16).tolist()
    assert (kind, task, heads, layer) == (str(dtype), "antonym", [[2, 1], [0, 3]], 5)
    assert provenance == {
        "model": "gpt-j-6b",
        "model_sha256": "ab12",
        "template": "paper",
        "n_prompts": 100,
        "shots": 10,
        "seed": 3,
        "versions": {"torch": "2.13.0"},
    }


def test_everything_comes_back(path: Path) -> None:
    vector, provenance = load_vector(path)
    assert torch.equal(vector.vector, VECTOR.vector)
    assert (vector.task, vector.heads, vector.layer, vector.k) == ("antonym", ((2, 1), (0, 3)), 5, 2)
    assert provenance == PROVENANCE
    unknown = FunctionVector(VECTOR.vector[::2], "sum")
    save_vector(path, unknown, Provenance("m", None, "t", n_prompts=1, shots=0, seed=0))
    again, provenance = load_vector(path)
    assert (again.heads, again.layer, provenance.model_sha256) == ((), None, None)
    assert torch.equal(again.vector, VECTOR.vector[::2])
    assert provenance.versions == library_versions()
    assert provenance.versions["torch"] == str(torch.__version__)


def test_any_byte_that_changed_is_noticed(path: Path) -> None:
    """Every byte of the file in turn, in the header and in the numbers."""
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        with pytest.raises(VectorFileError, match=r"antonym\.safetensors: .*(restore it|no file of save_vector)"):
            load_vector(path)


@pytest.mark.parametrize("kept", [0, 3, 100, -1])
def test_a_file_that_was_cut_is_an_error(path: Path, kept: int) -> None:
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(VectorFileError, match=r"antonym\.safetensors: no readable safetensors file \(.*\); restore it"):
        load_vector(path)


def test_other_files_are_refused(path: Path) -> None:
    with pytest.raises(VectorFileError, match=r"nowhere: no such file; save a vector there with save_vector"):
        load_vector(path.parent / "nowhere")
    with pytest.raises(VectorFileError, match="no readable safetensors file"):
        load_vector(path.parent)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(VectorFileError, match=r"tensors \['weight'\] and metadata \[\]: expected one tensor 'vector'"):
        load_vector(path)
    save_file({"vector": torch.zeros(3)}, path)
    with pytest.raises(VectorFileError, match=r"tensors \['vector'\] and metadata \[\]: expected one tensor 'vector'"):
        load_vector(path)


def test_what_cannot_be_saved_is_refused(tmp_path: Path) -> None:
    broken = FunctionVector(torch.tensor([1.0, torch.nan]), "antonym")
    with pytest.raises(VectorFileError, match="the vector of antonym has numbers that are not finite"):
        save_vector(tmp_path / "v", broken, PROVENANCE)
    with pytest.raises(VectorFileError, match=r"folder .*missing does not exist; make it first"):
        save_vector(tmp_path / "missing" / "v", VECTOR, PROVENANCE)
    assert not list(tmp_path.iterdir())
