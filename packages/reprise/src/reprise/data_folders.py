"""The folder given with `--data`: what a paper that takes one reads instead of the data that the project ships.

A stage sees the folder as `Job.data`, and the names and bytes of all files below it count as its input: a run on the
same content finds its stored results, wherever the folder lies, and one on other content computes.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from reprise import models
from reprise.errors import UserError


@dataclass(frozen=True)
class DataFolder:
    """A folder, by its absolute path, and a hash over the names and the content of all files below it."""

    path: Path
    sha256: str

    @property
    def slug(self) -> str:
        """The folder's name as part of a file name."""
        return re.sub(r"[^\w.-]+", "--", self.path.name).strip("-.") or "folder"


def resolve(folder: Path) -> DataFolder:
    """The folder that is meant, relative ones from where the command runs.

    Raises:
        UserError: it does not exist, is a file, holds no file, or holds one that cannot be read.
    """
    path = folder.expanduser().resolve()
    if not path.is_dir():
        kind = "a file" if path.exists() else "no such folder"
        raise UserError(f"{path}: {kind}; --data expects a folder of data files")
    digest = hashlib.sha256()
    try:
        files = sorted(found for found in path.rglob("*") if found.is_file())
        for file in files:
            name = file.relative_to(path).as_posix()
            digest.update(f"{name}\0{models.file_sha256(file)}\0".encode())
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}); --data reads every file below"
        ) from error
    if not files:
        raise UserError(f"{path}: holds no files; --data expects a folder of data files")
    return DataFolder(path, digest.hexdigest())
