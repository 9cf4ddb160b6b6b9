"""What git knows: the files that differ from a revision, and what a file held there.

A branch is compared with the commit at which it left its base (the merge base), so that what others have done on the
base meanwhile does not count as a change of the branch. The working tree counts as it is, committed or not.
"""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from reprise.errors import UserError


@dataclass(frozen=True)
class Revision:
    """The commit to compare with, in the repository that holds the folder `root`."""

    root: Path
    commit: str

    def changed(self) -> tuple[str, ...]:
        """Files below the root that differ in the working tree, new and removed ones too; relative, with slashes."""
        differing = _git(self.root, "diff", "--name-only", "--no-renames", "--relative", "-z", self.commit, "--")
        untracked = _git(self.root, "ls-files", "--others", "--exclude-standard", "-z")
        return tuple(sorted({*_names(differing), *_names(untracked)}))

    def names(self, *folders: str) -> tuple[str, ...]:
        """The files that the commit holds below these folders, relative to the root."""
        return _names(_git(self.root, "ls-tree", "-r", "-z", "--name-only", self.commit, "--", *folders))

    def read(self, name: str) -> bytes:
        """The content that a file had; raises UserError if the commit holds none of this name."""
        return _git(self.root, "show", f"{self.commit}:./{name}")


def resolve(root: Path, base: str) -> Revision:
    """The commit at which the working tree left `base`; `base` itself where the two have no history in common.

    Raises:
        UserError: if the root lies in no git repository, or git knows no such revision.
    """
    try:
        _git(root, "rev-parse", "--git-dir")
    except UserError as error:
        raise UserError(f"{root}: expected a git repository to compare in ({error})") from error
    try:
        commit = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{base}^{{commit}}")
    except UserError as error:
        raise UserError(
            f"no git revision {base!r}; expected a branch, tag or commit that is here: `git fetch` it first"
        ) from error
    named = commit.decode().strip()
    try:
        return Revision(root, _git(root, "merge-base", named, "HEAD").decode().strip())
    except UserError:
        return Revision(root, named)


def _git(root: Path, *arguments: str) -> bytes:
    try:
        finished = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, check=True)
    except OSError as error:
        raise UserError(f"git cannot be started ({error.strerror}); install it") from error
    except subprocess.CalledProcessError as error:
        lines = error.stderr.decode(errors="replace").strip().splitlines() or ["no message"]
        raise UserError(f"git {arguments[0]} failed: {lines[0]}") from error
    return finished.stdout


def _names(listed: bytes) -> tuple[str, ...]:
    return tuple(name.decode(errors="surrogateescape") for name in listed.split(b"\0") if name)
