"""The command line in this process, and toy workspaces under git."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from reprise.cli import main

IDENTITY = ("-c", "user.name=A. Tester", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")


@dataclass(frozen=True)
class Answer:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Cli:
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    def __call__(self, *arguments: str) -> Answer:
        self.monkeypatch.setattr(sys, "argv", ["reprise", *arguments])
        self.capfd.readouterr()
        with pytest.raises(SystemExit) as exit_:
            main()
        captured = self.capfd.readouterr()
        return Answer(int(exit_.value.code or 0), captured.out, captured.err)


def git(root: Path, *arguments: str) -> str:
    finished = subprocess.run(
        ["git", "-C", str(root), *IDENTITY, *arguments], capture_output=True, text=True, check=True
    )
    return finished.stdout.strip()


def commit(root: Path, message: str = "A state") -> str:
    """Commit everything below the root, in a repository that is made when there is none; returns the commit."""
    if not (root / ".git").exists():
        git(root, "init", "--quiet", "--initial-branch", "main")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--allow-empty", "--message", message)
    return git(root, "rev-parse", "HEAD")


def one_line(answer: Answer, *parts: str) -> bool:
    """Whether a command failed with one line that holds these parts."""
    whole = (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    return whole and answer.err.startswith("error: ") and all(part in answer.err for part in parts)
