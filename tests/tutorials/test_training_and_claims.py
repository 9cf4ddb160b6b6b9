"""The tutorials on training, on the shipped models and on claims run, and find what they say that they find."""

from __future__ import annotations

import re

from tests.tutorials.conftest import TUTORIALS, Execute
from tests.tutorials.outputs import found, printed, shown

NUMBER = r"([-+]?[0-9.]+)"


def test_training(execute: Execute) -> None:
    notebook = execute("training")
    digits, agent = (text for text in shown(notebook, "text/plain") if text.startswith("<Run"))
    assert float(re.findall(rf"test_error {NUMBER}", digits)[0]) < 0.2
    assert float(re.findall(rf"mean_return {NUMBER}", agent)[0]) > 60
    assert "the same weights as in one go: True" in printed(notebook)
    assert float(re.findall(rf"<Run: step \d+ of 600, loss {NUMBER}", printed(notebook))[0]) < 0.02
    runs = shown(notebook, "text/html")
    assert ["optimisers" in each for each in runs] == [True, True]
    assert "value" in runs[1]
    assert len(shown(notebook, "image/png")) == 2


def test_zoo(execute: Execute) -> None:
    notebook = execute("zoo")
    loss, error, card = found(rf"windows {NUMBER} ± {NUMBER} nats a token; card: {NUMBER}", notebook)
    assert abs(loss - card) < 4 * error
    steps = re.findall(rf"step +(\d+): .* layer 0 {NUMBER}, .* layer 1 {NUMBER}", printed(notebook))
    first, last = steps[0], steps[-1]
    assert float(first[2]) < 0.1
    assert float(last[2]) > 0.5
    assert float(last[1]) > 0.9
    (tables,) = shown(notebook, "text/html")
    assert "SHA-256" in tables
    assert "attn-only-2l" in tables
    assert len(shown(notebook, "image/png")) == 2


def test_reprise(execute: Execute) -> None:
    notebook = execute("reprise")
    before, verdicts = shown(notebook, "text/html")
    assert "3 claims" in before
    for verdict in ("supported", "refuted", "inconclusive"):
        assert verdicts.count(f">{verdict}<") == 1
    assert "repeated [attn-only-2l]: stored" in printed(notebook)
    assert "build/report/index.html" in printed(notebook)
    assert printed(notebook).count("(tiny):") == 3
    assert len(shown(notebook, "image/png")) == 1


def test_each_package_has_a_tutorial_with_an_exercise_and_its_hidden_solution() -> None:
    packages = {path.name for path in (TUTORIALS.parents[1] / "packages").iterdir() if (path / "src").is_dir()}
    texts = {path.stem: path.read_text() for path in TUTORIALS.glob("*.md") if path.stem != "index"}
    assert texts.keys() == packages
    for name, text in texts.items():
        assert "## Exercise" in text, name
        assert "tags: [hide-cell]" in text.split("## Exercise")[1], name
        assert "## What this shows, and what not" in text, name
