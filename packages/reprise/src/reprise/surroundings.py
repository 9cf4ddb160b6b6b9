"""What an installation stands on beside Python packages: models, a folder to write to, memory, disk, cores, a GPU."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from reprise import models
from reprise.checks import INSTALL, Check
from reprise.errors import UserError
from reprise.paper import Paper

GIB = 2**30
# Several times what was seen: a tiny run took half a GiB of memory, and the results of all of them take 12 MB.
MEMORY, DISK, CORES = 2 * GIB, 1 * GIB, 2


def shipped_models(papers: Iterable[Paper]) -> Iterator[Check]:
    """The models that tiny tiers name, with the hashes that their cards state."""
    named = dict.fromkeys(
        name for paper in papers for tier, of in paper.tiers.items() if tier == "tiny" for name in of.models
    )
    good = []
    for name in named:
        try:
            models.resolve(name)
            good.append(name)
        except UserError as error:
            yield Check(
                what=f"model {name}", needed_for="tiny", state="missing", found=str(error), remedy=_model_remedy(name)
            )
        except Exception as error:  # a catalogue that cannot be imported
            found = f"{type(error).__name__}: {error}"
            yield Check(what=f"model {name}", needed_for="tiny", state="missing", found=found, remedy=INSTALL)
    yield Check(
        what="models of the tiny tier", needed_for="tiny", state="ok", found=f"{len(good)} of {len(named)}, unchanged"
    )


def _model_remedy(name: str) -> str:
    if "/" in name:
        return "restore the folder"
    return f"`git checkout -- shared/models/{name}`, or `reprise train {name}` and put the folder there"


def writing(out: Path) -> Check:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b"0" * 4096)
    except OSError as error:
        return Check(
            what=f"writing to {out}",
            needed_for="tiny",
            state="missing",
            found=str(error.strerror),
            remedy="change its permissions, or give another folder with --out",
        )
    return Check(what=f"writing to {out}", needed_for="tiny", state="ok", found="works")


def machine(out: Path) -> Iterator[Check]:
    free = shutil.disk_usage(next(path for path in (out, *out.resolve().parents) if path.exists())).free
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        import psutil

        memory = psutil.virtual_memory().available
        yield _at_least("memory", memory, MEMORY, f"{memory / GIB:.1f} GiB available", "close other programs")
    except ImportError as error:
        yield Check(what="memory", needed_for="tiny", state="missing", found=str(error), remedy=INSTALL)
    yield _at_least("disk", free, DISK, f"{free / GIB:.1f} GiB free below {out}", "free some space or give --out")
    yield _at_least("cores", cores, CORES, str(cores), "expect twice the stated minutes")


def _at_least(what: str, value: int, least: int, found: str, remedy: str) -> Check:
    low = value < least
    return Check(
        what=what, needed_for="tiny", state="warning" if low else "ok", found=found, remedy=remedy if low else ""
    )


def cuda() -> Iterator[Check]:
    try:
        import torch
    except Exception as error:
        found = f"torch cannot be imported ({type(error).__name__}: {error})"
        yield Check(what="torch", needed_for="tiny", state="missing", found=found, remedy=INSTALL)
        return
    if torch.cuda.is_available():
        found = ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
        yield Check(what="CUDA", needed_for="paper", state="ok", found=found)
    else:
        remedy = "a GPU with CUDA and a torch built for it; without one the paper tier takes hours to days"
        yield Check(
            what="CUDA", needed_for="paper", state="warning", found=f"none, torch {torch.__version__}", remedy=remedy
        )


def paper_models(papers: Iterable[Paper]) -> Iterator[Check]:
    """The models that paper tiers name: a folder, or an id of the hub that is in its cache or not."""
    named: dict[str, list[str]] = {}
    for paper in papers:
        for name in next((of.models for tier, of in paper.tiers.items() if tier == "paper"), ()):
            named.setdefault(name, []).append(paper.slug)
    for name, slugs in named.items():
        what = f"model {name} of {', '.join(slugs)}"
        try:
            reference = models.resolve(name)
        except Exception as error:  # a catalogue that cannot be imported, too
            yield Check(
                what=what, needed_for="paper", state="missing", found=str(error), remedy="give one with --model"
            )
            continue
        where = _cached(name) if reference.kind == "hub" else reference.location
        if where:
            yield Check(what=what, needed_for="paper", state="ok", found=str(where))
        else:
            found = "in no folder and not in the hub's cache"
            remedy = "the run downloads it, with a network; or give a folder with --model PATH"
            yield Check(what=what, needed_for="paper", state="missing", found=found, remedy=remedy)


def _cached(name: str) -> Path | None:
    """The newest snapshot of a hub model in the cache of huggingface_hub, found without importing that."""
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    owner_and_name = name.partition("@")[0].replace("/", "--")
    folders = sorted(
        path.parent
        for ending in ("safetensors", "safetensors.index.json")
        for path in cache.glob(f"models--{owner_and_name}/snapshots/*/*.{ending}")
    )
    return folders[-1] if folders else None
