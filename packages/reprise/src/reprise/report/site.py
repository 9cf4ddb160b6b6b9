"""Writing the site: pages from templates, figures beside them, the whole folder swapped in when it is complete.

    report/index.html                                  papers x claims
    report/papers/<paper>.html                         one page a paper
    report/papers/<paper>/<run>/<figure>.svg|png|html  its figures

Everything is text and relative links. A page runs our one script (script.js: sorting, filtering) and no other, by the
hash in its policy; an interactive figure stands in a frame that may run its script and nothing else.
Equal inputs give equal bytes, so no page says when it was built.
"""

from __future__ import annotations

import base64
import hashlib
import math
import shlex
import shutil
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from filelock import FileLock
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from reprise import backends, tables
from reprise.errors import UserError
from reprise.paper import Paper
from reprise.report.gather import VERDICTS, PaperRuns, Run, gather
from reprise.report.intervals import WIDTH, plot

HERE = Path(__file__).parent
GENERATOR = "reprise report"
SYMBOLS = {"supported": "\u2713", "refuted": "\u2715", "inconclusive": "~", "not run": "\u2013"}
KNOWN = {"read": "read in the paper", "second-hand": "second-hand", "memory": "from memory"}
MEANING = {
    "tiny": "Models that this project trained. Shows the mechanism, does not reproduce the paper's number.",
    "paper": "The paper's own model, where it is public, and its trial counts. Compared with the paper's number.",
}
JUDGES = {"tiny": "mechanism only, not the paper's number", "paper": "compared with the paper"}


def build(root: Path, papers: tuple[Paper, ...], out: Path) -> Path:
    """Write the report of these papers to `<out>/report`; returns its index.html.

    A build that fails or is killed leaves the report that was there before.

    Raises:
        UserError: if stored results are malformed, the folder cannot be written, or it holds something else.
    """
    gathered = tuple(gather(root, paper, out) for paper in papers)
    target, new, old = out / "report", out / ".report.new", out / ".report.old"
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".report.lock"):
            _recover(target, new, old)
            _check_ours(target)
            try:
                _write(gathered, new)
                _swap(target, new, old)
            except OSError:
                shutil.rmtree(new, ignore_errors=True)
                raise
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror}); choose another folder with --out") from error
    return target / "index.html"


def _recover(target: Path, new: Path, old: Path) -> None:
    """Clear away what a killed build left."""
    if old.exists() and not target.exists():
        old.rename(target)
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)


def _check_ours(target: Path) -> None:
    """Refuse to replace a folder that is no report."""
    index = target / "index.html"
    ours = index.is_file() and GENERATOR in index.read_text(encoding="utf-8", errors="replace")
    if target.exists() and not ours and (target.is_file() or any(target.iterdir())):
        raise UserError(f"{target}: exists and is no report; move it away or choose another folder with --out")


def _swap(target: Path, new: Path, old: Path) -> None:
    if target.exists():
        target.rename(old)
    try:
        new.rename(target)
    except OSError:
        if old.exists():
            old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _write(gathered: tuple[PaperRuns, ...], folder: Path) -> None:
    templates = _environment()
    (folder / "papers").mkdir(parents=True)
    index = templates.get_template("index.html").render(papers=gathered, top="")
    (folder / "index.html").write_text(index, encoding="utf-8")
    for one in gathered:
        files = {run.name: _copy_figures(run, folder / "papers" / one.paper.slug / run.name) for run in _runs(one)}
        page = templates.get_template("paper.html").render(one=one, files=files, runs=_runs(one), top="../")
        (folder / "papers" / f"{one.paper.slug}.html").write_text(page, encoding="utf-8")


def _copy_figures(run: Run, folder: Path) -> Mapping[str, tuple[str, ...]]:
    """Copy a run's figures; returns the formats found of each, by name."""
    found = {}
    for figure in run.figures:
        kinds = tuple(kind for kind in figure.kinds if (run.folder / "figures" / f"{figure.name}.{kind}").is_file())
        for kind in kinds:
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run.folder / "figures" / f"{figure.name}.{kind}", folder / f"{figure.name}.{kind}")
        found[figure.name] = kinds
    return found


def _runs(one: PaperRuns) -> tuple[Run, ...]:
    return (*one.tiers, *one.others)


def commands(paper: Paper, run: Run) -> tuple[str, ...]:
    """What to type, in the project's folder, to get this run again."""
    options = ["--tier", run.tier]
    if run.name != run.tier:
        options += [word for name in run.models for word in ("--model", name)]
    elif not (paper.tier(run.tier).models or paper.tier(run.tier).trains):
        options += ["--model", "NAME_OR_PATH_OR_ID"]
    first = run.provenances[0] if run.provenances else None
    if first is not None and first.seed:
        options += ["--seed", str(first.seed)]
    machine: list[str] = []
    if first is not None and first.backend != backends.ENGINE:
        options += ["--backend", first.backend]
    if first is not None and first.device not in ("cpu", backends.AS_SERVED):
        machine += ["--device", first.device]
    if first is not None and first.dtype not in ("float32", backends.AS_SERVED):
        machine += ["--dtype", first.dtype]
    return (
        shlex.join([".venv/bin/reprise", "run", paper.slug, *options, *machine]),
        shlex.join([".venv/bin/reprise", "figures", paper.slug, *options]),
        ".venv/bin/reprise report",
    )


@cache  # compiling the templates takes longer than filling them in
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    script = (HERE / "script.js").read_text(encoding="utf-8")
    values: dict[str, Any] = {
        "commands": commands,
        "generator": GENERATOR,
        "infinity": math.inf,
        "interval": tables.interval,
        "judges": JUDGES,
        "known": KNOWN,
        "meaning": MEANING,
        "number": tables.number,
        "plot": plot,
        "plot_width": WIDTH,
        "script": Markup(script),
        "script_hash": f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}",
        "style": Markup((HERE / "style.css").read_text(encoding="utf-8")),
        "symbols": SYMBOLS,
        "verdicts": VERDICTS,
    }
    environment.globals.update(values)
    return environment
