"""Train a pilot, measure it, write one JSON and print a table.

python -m replications.contrastive_activation_addition.pilots --seed 0
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from replications.contrastive_activation_addition.pilots.grammar import Grammar
from replications.contrastive_activation_addition.pilots.learning import Say, learn
from replications.contrastive_activation_addition.pilots.measurement import Measured, cosines, measure
from replications.contrastive_activation_addition.pilots.network import Network
from replications.contrastive_activation_addition.pilots.routes import routes
from replications.contrastive_activation_addition.pilots.settings import Settings, with_adamw, with_muon

from reprise import bootstrap

OUT = Path("build/pilots")


def rows_of(measured: Measured) -> list[dict[str, object]]:
    """A row for each condition and layer: the mean effect, its interval over values, orders apart, and each value."""
    rows: list[dict[str, object]] = []
    for name, effects in measured.effects.items():
        for layer, by_value in enumerate(effects):
            of = bootstrap(np.mean, by_value.mean(axis=1), over="values", seed=0)
            row = {"condition": name, "layer": layer, "effect": of.estimate, "low": of.low, "high": of.high}
            rows.append({**row, "orders": by_value.mean(axis=0).tolist(), "values": by_value.mean(axis=1).tolist()})
    return rows


def report(settings: Settings, network: Network, log: list[dict[str, object]]) -> dict[str, object]:
    """All that is measured of a trained pilot."""
    grammar = Grammar(settings)
    measured = measure(network, grammar)
    norms = {"letter": measured.vectors.letter_norm.tolist(), "place": measured.vectors.place_norm.tolist()}
    return {
        "settings": asdict(settings),
        "log": log,
        "plain": measured.plain.tolist(),
        "norms": norms,
        "cosines": cosines(measured.vectors),
        "effects": rows_of(measured),
        "routes": routes(network, grammar),
    }


def table(found: dict[str, object]) -> str:
    """What is said in a terminal."""
    lines = [f"{'condition':24}{'layer':>6}{'effect':>8}  95 % interval    in each order     least of a value"]
    effects = found["effects"]
    assert isinstance(effects, list)
    for row in effects:
        first, second = row["orders"]
        interval = f"[{row['low']:+.3f}, {row['high']:+.3f}]"
        lines.append(
            f"{row['condition']:24}{row['layer'] + 1:6}{row['effect']:+8.3f}  {interval}"
            f"  {first:+.3f} {second:+.3f}     {min(row['values']):+.3f}"
        )
    return "\n".join([*lines, *(f"{name}: {json.dumps(found[name])}" for name in ("norms", "cosines", "routes")), ""])


def main(arguments: Sequence[str], say: Say) -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="pilots", description="Train one pilot and measure what steers it.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--adamw", action="store_true", help="AdamW alone, for 2,200 steps, instead of Muon for 1,500")
    parser.add_argument("--out", type=Path, help="the JSON; build/pilots/KIND-SEED.json unless given")
    options = parser.parse_args(arguments)
    kind, name = (with_adamw, "adamw") if options.adamw else (with_muon, "muon")
    settings = kind(options.seed)
    network, log = learn(settings, say)
    found = report(settings, network, log)
    out = options.out or OUT / f"{name}-{options.seed}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    say(f"{table(found)}written: {out}\n")


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdout.write)
