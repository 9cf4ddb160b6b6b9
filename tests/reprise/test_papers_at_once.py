"""`reprise run A B --jobs 2` and `reprise figures A B --jobs 2`: papers share the processes."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import psutil
import pytest
from tests.reprise.test_seeds import files
from tests.reprise.test_units import invoke

if TYPE_CHECKING:
    from pathlib import Path

    from tests.reprise.conftest import Toys

FAIL = '    ran("summary")\n    raise UserError("{}: as asked")'


@pytest.fixture
def others(toys: Toys) -> Path:
    """A second paper, "others", in the workspace of the first."""
    return shutil.copytree(toys.folder, toys.folder.with_name("others"))


def drawn(root: Path, out: str) -> dict[str, bytes]:
    return {path.relative_to(root / out).as_posix(): path.read_bytes() for path in (root / out).rglob("figures/*")}


def test_at_once_gives_what_one_after_another_gives(toys: Toys, others: Path) -> None:
    rows = {}
    for out, jobs in (("alone", ()), ("together", ("--jobs", "2"))):
        code, said = invoke("run", "toys", others.name, "--out", out, "--json", *jobs)
        assert code == 0, said
        rows[out] = json.loads(said[said.index("[\n") :])
        code, said = invoke("figures", "toys", others.name, "--out", out, *jobs)
        assert code == 0, said
        assert [line.split(":")[0] for line in said.splitlines()] == ["toys", "others"]
    assert [row["paper"] for row in rows["alone"]] == ["toys", "toys", "others", "others"]
    assert rows["together"] == rows["alone"]
    assert files(toys.root, "together") == files(toys.root, "alone")
    assert len(files(toys.root, "alone")) == 8
    assert drawn(toys.root, "together") == drawn(toys.root, "alone")
    assert len(drawn(toys.root, "alone")) == 6


def test_a_paper_that_fails_hides_no_other(toys: Toys, others: Path) -> None:
    toys.edit("from reprise import Measurement", "from reprise import UserError, Measurement")
    plain = toys.folder / "experiment.py"
    for name in ("first", "second"):
        folder = shutil.copytree(toys.folder, toys.folder.with_name(name))
        (folder / "experiment.py").write_text(plain.read_text().replace('    ran("summary")', FAIL.format(name)))
    code, said = invoke("run", "first", "second", others.name, "--jobs", "2")
    assert (code, said.splitlines()[-1]) == (2, "error: first: as asked")
    assert "\nfirst: failed: first: as asked\n" in said
    assert "\nsecond: failed: second: as asked\n" in said
    assert (toys.out / "results" / "others" / "tiny" / "claims.json").exists()
    assert not (toys.out / "results" / "first" / "tiny" / "claims.json").exists()


def test_an_interruption_ends_all(toys: Toys, others: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOYS_SLEEP", "60")
    command = "from reprise.cli import main; main()"
    with subprocess.Popen(
        [sys.executable, "-c", command, "run", "toys", others.name, "--jobs", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        deadline = time.monotonic() + 60
        while not (toys.log.exists() and len(toys.log.read_text().splitlines()) == 2) and time.monotonic() < deadline:
            time.sleep(0.02)
        started = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert "failed" not in said
    assert len(started) >= 2
    assert psutil.wait_procs(started, timeout=10)[1] == []
