"""reprise doctor: each thing that may be missing, one at a time, and what it keeps from running."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from tests.reprise.team import Cli, one_line

from reprise import installation

if TYPE_CHECKING:
    from tests.reprise.conftest import Toys

PROJECT = Path(__file__).parents[2]


def torch_with(*devices: str) -> SimpleNamespace:
    cuda = SimpleNamespace(
        is_available=lambda: bool(devices), device_count=lambda: len(devices), get_device_name=devices.__getitem__
    )
    return SimpleNamespace(cuda=cuda, __version__="0.test")


@pytest.fixture
def cli(toys: Toys, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Cli:
    monkeypatch.setitem(sys.modules, "torch", torch_with())  # its import takes seconds
    monkeypatch.setenv("HF_HOME", str(toys.root / "hub"))
    (toys.root / "requirements.lock").write_text("")
    return Cli(monkeypatch, capfd)


def examined(cli: Cli, code: int = 0) -> dict[str, dict[str, Any]]:
    answer = cli("doctor", "--json")
    assert answer.code == code, answer.err
    assert answer.json["tiny"] == (code == 0)
    return {check["what"]: check for check in answer.json["checks"]}


def write_package(toys: Toys, text: str, name: str = "reprise") -> None:
    """A package, of a distribution that is installed unless it is named otherwise."""
    folder = toys.root / "packages" / "toy"
    (folder / "src" / "toy").mkdir(parents=True, exist_ok=True)
    (folder / "pyproject.toml").write_text(f'[project]\nname = "{name}"\n{text}')


def test_all_is_well_in_the_toy_workspace(cli: Cli, toys: Toys) -> None:
    checks = examined(cli)
    assert {check["what"] for check in checks.values() if check["state"] == "missing"} == set()
    assert checks["models of the tiny tier"]["found"] == "2 of 2, unchanged"
    assert checks["Python"]["found"].endswith(f"at {sys.executable}")
    assert all(check["remedy"] for check in checks.values() if check["state"] != "ok")
    assert "tiny tier: can run\npaper tier: can run\n" in cli("doctor").out


def test_this_installation_can_run_the_tiny_tier(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setenv("REPRISE_ROOT", str(PROJECT))
    monkeypatch.chdir(tmp_path)
    checks = examined(Cli(monkeypatch, capfd))
    assert checks["our packages"]["state"] == "ok"
    assert int(checks["packages that they need"]["found"].split()[0]) > 50
    assert "training.rl" in checks["extra reprise-training[rl]"]["found"]
    assert "model EleutherAI/gpt-j-6b of function_vectors, task_vectors" in checks


def test_a_model_that_is_gone_or_damaged(cli: Cli, toys: Toys) -> None:
    (toys.models[0] / "card.json").write_text('{"sha256": {"model.safetensors": "0123456789abcdef"}}')
    check = examined(cli, 1)[f"model {toys.models[0]}"]
    assert (check["needed_for"], check["state"]) == ("tiny", "missing")
    assert "card.json says 0123456789ab" in check["found"]
    (toys.models[0] / "config.json").unlink()
    assert "no config.json" in examined(cli, 1)[f"model {toys.models[0]}"]["found"]
    out = cli("doctor")
    assert (out.code, "tiny tier: cannot run" in out.out) == (1, True)


def test_an_old_python(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 10, 4))
    check = examined(cli, 1)["Python"]
    assert check["state"] == "missing"
    assert "3.11" in check["remedy"]


def test_packages_that_are_missing(cli: Cli, toys: Toys) -> None:
    write_package(toys, 'dependencies = ["no-such-thing>=1 ; sys_platform == \'win32\'", "numpy>=1"]')
    assert examined(cli)["packages that they need"]["found"] == "1 installed"
    write_package(toys, 'dependencies = ["No_Such.Thing[extra]>=1"]')
    check = examined(cli, 1)["packages that they need"]
    assert check["found"] == "lacks no-such-thing"
    assert "make .venv/installed" in check["remedy"]
    write_package(toys, "", name="no-such-package")
    assert examined(cli, 1)["our packages"]["found"] == "lacks no-such-package"


def test_versions_other_than_the_pinned_ones_warn(cli: Cli, toys: Toys) -> None:
    numpy = installation.installed("numpy")
    (toys.root / "requirements.lock").write_text("numpy==0.0.1\nno-such-thing==1 ; sys_platform == 'win32'\n")
    check = examined(cli)["pinned versions"]
    assert (check["state"], check["found"]) == ("warning", f"1 differ: numpy {numpy} (pinned 0.0.1)")
    (toys.root / "requirements.lock").write_text(f"numpy=={numpy}\n")
    assert examined(cli)["pinned versions"]["state"] == "ok"
    write_package(toys, "")
    (toys.root / "requirements.lock").unlink()
    assert examined(cli)["pinned versions"]["state"] == "warning"


def test_extras_are_optional_and_say_what_needs_them(cli: Cli, toys: Toys) -> None:
    write_package(toys, '[project.optional-dependencies]\nmore = ["no-such-thing>=1"]\nold = ["numpy"]\n')
    (toys.root / "packages/toy/src/toy/user.py").write_text("def use():\n    import no_such_thing\n")
    checks = examined(cli)
    assert checks["extra reprise[more]"] == {
        "what": "extra reprise[more]",
        "needed_for": "optional",
        "state": "missing",
        "found": "lacks no-such-thing; for toy.user",
        "remedy": "`.venv/bin/uv pip install no-such-thing`",
    }
    assert checks["extra reprise[old]"]["state"] == "ok"


def test_a_paper_whose_code_imports_what_is_not_there(cli: Cli, toys: Toys) -> None:
    toys.edit("import time", "import time\nif time:\n    import no_such_thing")
    check = examined(cli, 1)["imports of toys"]
    assert check["found"] == "no_such_thing (for replications.toys.experiment)"
    toys.edit("    import no_such_thing", "    def use():\n        import no_such_thing")
    assert "imports of toys" not in examined(cli)


def test_a_folder_that_cannot_be_written(cli: Cli, toys: Toys) -> None:
    toys.out.touch()
    check = examined(cli, 1)["writing to build"]
    assert (check["state"], "--out" in check["remedy"]) == ("missing", True)


def test_little_memory_warns(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: SimpleNamespace(available=2**30))
    check = examined(cli)["memory"]
    assert (check["state"], check["found"]) == ("warning", "1.0 GiB available")


def test_cuda_and_torch(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert examined(cli)["CUDA"]["state"] == "warning"
    monkeypatch.setitem(sys.modules, "torch", torch_with("A card", "Another"))
    assert examined(cli)["CUDA"]["found"] == "A card, Another"
    monkeypatch.setitem(sys.modules, "torch", None)
    assert examined(cli, 1)["torch"]["state"] == "missing"


def test_models_of_the_paper_tier(cli: Cli, toys: Toys) -> None:
    toys.edit('about = "The paper\'s model."', 'about = "x"\nmodels = ["owner/model"]', "paper.toml")
    check = examined(cli)["model owner/model of toys"]
    assert (check["needed_for"], check["state"]) == ("paper", "missing")
    assert "--model PATH" in check["remedy"]
    assert "paper tier: something is missing" in cli("doctor").out
    snapshot = toys.root / "hub" / "hub" / "models--owner--model" / "snapshots" / "0"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    assert examined(cli)["model owner/model of toys"]["found"] == str(snapshot)
    toys.edit('["owner/model"]', f'["{toys.models[0]}"]', "paper.toml")
    assert examined(cli)[f"model {toys.models[0]} of toys"]["state"] == "ok"


def test_malformed_files_get_one_line(cli: Cli, toys: Toys) -> None:
    write_package(toys, "dependencies = 3")
    assert one_line(cli("doctor"), "pyproject.toml")
    write_package(toys, "[")
    assert one_line(cli("doctor"), "pyproject.toml")


def test_a_project_of_ones_own_has_nothing_pinned_that_could_be_restored(cli: Cli, toys: Toys) -> None:
    (toys.root / "requirements.lock").unlink()
    found = examined(cli)
    assert "pinned versions" not in found
    assert found["our packages"]["state"] == "ok"
    assert "reprise, reprise-circuits" in str(found["our packages"]["found"])
