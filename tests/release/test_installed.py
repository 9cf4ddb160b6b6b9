"""The wheels in an empty environment, outside the checkout: the first example of every README runs, and the commands.

The environment has the versions that requirements.lock pins, and no extras. Each package's first example then runs in
an environment that holds the package and its own requirements alone, in a folder with the models and data of a release.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from tests.release import environments
from tests.release.packages import BY_NAME, PACKAGES, ROOT, Package, ours

each = pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.module)
LOADS_ENTRY_POINTS = """
from importlib.metadata import distribution
for point in distribution({name!r}).entry_points:
    point.load()
"""


@pytest.fixture(scope="module")
def whole(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An environment with the wheels of all packages."""
    folder = tmp_path_factory.mktemp("whole") / "environment"
    into = environments.make(folder)
    went_wrong = environments.install(folder, sorted(dist.glob("*.whl")))
    if "error sending request" in went_wrong or "the network was disabled" in went_wrong:
        pytest.skip(f"no package registry can be reached: {' '.join(went_wrong.split())}")
    assert not went_wrong, went_wrong
    environments.borrow_bytecode(into)
    yield folder
    shutil.rmtree(folder)


def site(folder: Path) -> Path:
    (path,) = folder.glob("lib/python*/site-packages")
    return path


def run(command: list[str | Path], folder: Path) -> subprocess.CompletedProcess[str]:
    """A command that knows neither the checkout nor a hub of models, and leaves the borrowed bytecode alone."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def ran(command: list[str | Path], folder: Path) -> str:
    done = run(command, folder)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def work(tmp_path: Path) -> Path:
    """A folder in which the release's archive of models and data is unpacked."""
    folder = tmp_path / "work"
    folder.mkdir()
    (folder / "shared").symlink_to(ROOT / "shared")
    return folder


def test_the_lock_pins_all_that_is_installed(whole: Path) -> None:
    pins: dict[str, str] = {}
    for line in (ROOT / "requirements.lock").read_text().splitlines():
        pin = Requirement(line)
        if pin.marker is None or pin.marker.evaluate():
            pins[pin.name] = str(pin.specifier).removeprefix("==")
    (of_torch,) = re.findall(r"^TORCH_OWNS :=((?:.*\\\n)*.*)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    apart = {*re.findall(r"[\w-]+", of_torch), *BY_NAME}
    here = {name: one.version.partition("+")[0] for name, one in environments.found(site(whole)).items()}
    here = {name: version for name, version in here.items() if name not in apart}
    assert len(here) > 50
    assert {name: pins.get(name) for name in here} == here


@each
def test_the_first_example_runs_with_the_packages_own_requirements(
    package: Package, whole: Path, work: Path, tmp_path: Path
) -> None:
    (example, *_) = re.findall(r"```python\n(.*?)```", (package.folder / "README.md").read_text(), flags=re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example + LOADS_ENTRY_POINTS.format(name=package.name))
    python = environments.alone(tmp_path / "alone", site(whole), package.name)
    ran([python, "-I", "-B", script], work)


@each
def test_a_readme_says_which_wheels_to_install(package: Package) -> None:
    page = (package.folder / "README.md").read_text()
    (line,) = re.findall(r"`pip install ([^`]*\.whl)`", page)
    assert page.index(line) < page.index("```python")
    wheels = [re.fullmatch(r"build/dist/([a-z_]+)-\*\.whl", word) for word in line.split()]
    assert {match[1].replace("_", "-") for match in wheels if match} == ours(package)
    assert len(wheels) == len(ours(package))


def test_models_are_asked_for_by_name_and_folder(whole: Path, work: Path, tmp_path: Path) -> None:
    python, code = whole / environments.PYTHON, "import zoo; print(zoo.folder('attn-only-1l'))"
    assert ran([python, "-I", "-B", "-c", code], work).strip() == str(work / "shared" / "models" / "attn-only-1l")
    done = run([python, "-I", "-B", "-c", code], tmp_path)
    assert done.stderr.splitlines()[-1] == (
        f"FileNotFoundError: no folder shared/models at or above {tmp_path}; the models are no part of the package: "
        "run in a checkout of the project or where a release's reprise-shared-*.tar is unpacked, or set REPRISE_ROOT "
        "to such a folder"
    )


def test_a_project_of_ones_own(whole: Path, work: Path) -> None:
    reprise = whole / "bin" / "reprise"
    assert "doctor" in ran([reprise, "--help"], work)
    refused = run([reprise, "doctor"], work)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "make that folder to begin a project of your own" in refused.stderr
    (work / "replications").mkdir()
    ran([reprise, "new", "my_paper", "--title", "A paper", "--owner", "@a/team"], work)
    ran([reprise, "run", "my_paper", "--tier", "tiny"], work)
    ran([reprise, "figures", "my_paper", "--tier", "tiny"], work)
    ran([reprise, "report"], work)
    assert "my_paper" in (work / "build" / "report" / "index.html").read_text()
    assert "tiny tier: can run" in ran([reprise, "doctor"], work)
