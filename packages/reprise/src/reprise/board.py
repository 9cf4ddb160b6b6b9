"""reprise board: the work that is left, so that people can split it beforehand.

Left is every claim that was not run or is inconclusive, by what is committed and the ranges that paper.toml has now.
One run measures all claims of a paper in a tier, so those not run are one task: somebody takes it, says so in the
paper's channel, runs the command, and opens a pull request with what `reprise accept` wrote. The inconclusive ones are
another: its command takes a first look with another seed, and more prompts or seeds in the experiment settle it.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

from reprise import claims, standing, workspace
from reprise.claim_changes_text import escape
from reprise.claims import ClaimResult
from reprise.paper import Channel, Paper
from reprise.tables import counted, number

LEFT = ("not run", "inconclusive")


class Open(msgspec.Struct, frozen=True, kw_only=True):
    """One claim that is left, and why."""

    claim: str
    statement: str
    verdict: str
    why: str


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What one run of a paper would settle. `needs` is what there has to be beside this project."""

    paper: str
    title: str
    owner: str
    channel: Channel | None
    tier: str
    minutes: float | None
    needs: tuple[str, ...]
    command: str
    claims: tuple[Open, ...]


def tasks(root: Path, papers: Iterable[Paper], tiers: Sequence[str] | None = None) -> tuple[Task, ...]:
    """The tasks of these papers, the tiny tier before the paper tier, in the order of papers.

    Raises:
        UserError: if a claims.json is malformed.
    """
    found = [
        _task(root, paper, tier, kind)
        for paper in papers
        for tier in paper.tiers
        if tiers is None or tier in tiers
        for kind in LEFT
    ]
    return tuple(sorted((task for task in found if task.claims), key=lambda task: task.tier != "tiny"))


def _task(root: Path, paper: Paper, tier: str, kind: str) -> Task:
    folder = claims.results_folder(root, paper, tier)
    ran = (folder / claims.FILE).exists()
    rows = standing.rows(paper, tier, claims.load(folder), str(folder / claims.FILE))
    return Task(
        paper=paper.slug,
        title=paper.title,
        owner=paper.owner,
        channel=paper.channel,
        tier=tier,
        minutes=paper.tier(tier).minutes,
        needs=_needs(root, paper, tier),
        command=_command(paper, tier, again=kind == "inconclusive"),
        claims=tuple(_open(paper, row, ran) for row in rows if row.verdict == kind),
    )


def _open(paper: Paper, row: ClaimResult, ran: bool) -> Open:
    claim = paper.claim(row.claim)
    if row.verdict == "inconclusive":
        measured = f"{number(row.estimate)} [{number(row.low)}, {number(row.high)}]"
        why = f"{measured}, accepted: {standing.accepted(claim, row.tier)}"
    elif ran:
        why = "the last run did not measure it"
    else:
        why = "the tier has no committed results"
    return Open(claim=claim.id, statement=claim.statement, verdict=row.verdict, why=why)


def _needs(root: Path, paper: Paper, tier: str) -> tuple[str, ...]:
    described = paper.tier(tier)
    needs = [f"the model {name}" for name in described.models if tier != "tiny"]
    if not described.models and not described.trains:
        needs.append("a model, named with --model")
    if tier != "tiny" and _takes_data(workspace.folder_of(root, paper) / "experiment.py"):
        needs.append("perhaps a folder of data, named with --data (the paper's README says which)")
    return tuple(needs)


def _takes_data(path: Path) -> bool:
    """Whether an experiment says TAKES_DATA = True, read without importing it; that would take seconds a paper."""
    try:
        body = ast.parse(path.read_bytes()).body
    except (OSError, SyntaxError, ValueError, RecursionError):
        return False
    return any(
        isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "TAKES_DATA" for target in node.targets)
        and isinstance(node.value, ast.Constant)
        and bool(node.value.value)
        for node in body
    )


def _command(paper: Paper, tier: str, again: bool) -> str:
    described = paper.tier(tier)
    words = [".venv/bin/reprise", "run", paper.slug, "--tier", tier]
    if not described.models and not described.trains:
        words += ["--model", "NAME_OR_PATH_OR_ID"]
    # The same seed gives the same interval again.
    return shlex.join([*words, "--seed", "1"] if again else words)


def records(found: Iterable[Task]) -> list[dict[str, object]]:
    """One record a claim, for programs."""
    return [
        {
            "paper": task.paper,
            "owner": task.owner,
            "channel": task.channel,
            "tier": task.tier,
            "claim": left.claim,
            "statement": left.statement,
            "verdict": left.verdict,
            "why": left.why,
            "minutes": task.minutes,
            "needs": task.needs,
            "command": task.command,
        }
        for task in found
        for left in task.claims
    ]


def text(found: Sequence[Task]) -> str:
    """Task by task, for a terminal."""
    lines = [_headline(found), ""]
    for task in found:
        lines += [f"{task.paper}, {task.tier} tier: {_count(task)}; {_minutes(task)}; owner {task.owner}"]
        lines += [f"  channel: {task.channel}"] if task.channel else []
        lines += [f"  needs: {need}" for need in task.needs]
        lines += [f"  {task.command}"]
        width = max(len(left.claim) for left in task.claims)
        lines += [f"    {left.claim:<{width}}  {left.verdict}: {left.why}" for left in task.claims]
        lines += [""]
    return "\n".join(lines)


def markdown(found: Sequence[Task]) -> str:
    """A list to tick off, for an issue or a wiki page."""
    lines = ["# Unclaimed work", "", _headline(found), ""]
    for task in found:
        lines += [f"## {escape(task.title)}, {task.tier} tier: {_count(task)}", ""]
        # The owner is not escaped: who reads it may want to be called.
        lines += [f"{_minutes(task).capitalize()}; owner {task.owner}{_channel(task.channel)}.", ""]
        lines += [f"Needs {escape('; '.join(task.needs))}.", ""] if task.needs else []
        lines += ["```sh", task.command, "```", ""]
        lines += [f"- [ ] `{left.claim}`: {escape(left.statement)} ({escape(left.why)})" for left in task.claims]
        lines += [""]
    return "\n".join(lines)


def _headline(found: Sequence[Task]) -> str:
    left = sum(len(task.claims) for task in found)
    if not left:
        return "No claim is left: all were run, with a verdict."
    return f"{counted(left, 'claim')} left, in {counted(len(found), 'task')}."


def _count(task: Task) -> str:
    n, verdict = len(task.claims), task.claims[0].verdict
    return f"{counted(n, 'claim')} {verdict}"


def _minutes(task: Task) -> str:
    if task.minutes is None:
        return "time not stated"
    return f"about {task.minutes:g} minute{'s' if task.minutes != 1 else ''}"


def _channel(channel: Channel | None) -> str:
    if channel is None:
        return ""
    label = f"; label {escape(channel.label)}" if channel.label else ""
    return label + (f"; <{channel.discussion}>" if channel.discussion else "")
