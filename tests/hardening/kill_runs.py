"""Run `reprise run toys` undisturbed, then killed at random moments and resumed, each time into a folder of its own.

Arguments: the folder for all of these, how many runs to kill, and options of the command. $REPRISE_ROOT names the
workspace. This program runs undisturbed first, so that all is imported, and forks every other run. It prints how many
processes that a killed run had started went on for more than ten seconds.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import psutil

from reprise.cli import main


def run(out: Path, options: list[str]) -> int:
    """Run in this process, with what is said in a file; returns the exit code."""
    sys.argv = ["reprise", "run", "toys", "--out", str(out), *options]
    with out.with_suffix(".log").open("a") as said, redirect_stdout(said), redirect_stderr(said):
        try:
            main()
        except SystemExit as ended:
            return int(ended.code or 0)
    return 0


def fork(out: Path, options: list[str]) -> int:
    """Start a run in a process of its own and return its id."""
    process = os.fork()
    if process == 0:
        os._exit(run(out, options))
    return process


def ended(process: int) -> int:
    """How the process ended: its exit code, or minus the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def program(folder: Path, kills: int, options: list[str]) -> None:
    assert run(folder / "undisturbed", options) == 0
    start = time.monotonic()
    assert ended(fork(folder / "again", options)) == 0
    duration = time.monotonic() - start
    generator, left = random.Random(0), 0
    for number in range(kills):
        out, killed = folder / f"killed_{number}", False
        while not killed:
            process = fork(out, options)
            time.sleep(generator.uniform(0, duration))
            started = psutil.Process(process).children(recursive=True)
            os.kill(process, signal.SIGKILL)
            killed = ended(process) == -signal.SIGKILL
            if not killed:  # it had come to its end before
                shutil.rmtree(out)
        assert ended(fork(out, options)) == 0, out.with_suffix(".log").read_text()
        for one in psutil.wait_procs(started, timeout=10)[1]:
            left += 1
            one.kill()
    sys.stdout.write(str(left))


if __name__ == "__main__":
    program(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
