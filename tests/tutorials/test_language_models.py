"""The tutorials on what goes on in language models run, and find what they say that they find."""

from __future__ import annotations

from tests.tutorials.conftest import Execute
from tests.tutorials.outputs import found, printed, shown

NUMBER = r"([-+]?[0-9.]+)"


def test_circuits(execute: Execute) -> None:
    notebook = execute("circuits")
    (score,) = found(rf"strongest induction head: \(1, \d+\), score {NUMBER}", notebook)
    assert score > 0.5
    as_it_is, q, k, v = found(
        rf"as it is {NUMBER}; cut out of q {NUMBER}, cut out of k {NUMBER}, .* v {NUMBER}", notebook
    )
    assert k < 0.3 * as_it_is
    assert min(q, v) > 2 * k
    k_score, random = found(rf"K-composition .*: {NUMBER}; random matrices {NUMBER}", notebook)
    assert k_score > 2 * random
    (of_one_layer,) = found(rf"best induction score {NUMBER}; loss", notebook)
    assert of_one_layer < 0.1
    composition, attribution = shown(notebook, "text/html")
    assert "Composition scores" in composition
    assert "<caption" in attribution
    assert "L1H" in attribution
    assert len(shown(notebook, "image/png")) == 4


def test_interventions(execute: Execute) -> None:
    notebook = execute("interventions")
    clean, corrupted, by_hand = found(
        rf"clean: .* = {NUMBER}\n(?s:.*)corrupted: .* = {NUMBER}\n(?s:.*)head 1.2 exchanged: {NUMBER}", notebook
    )
    assert clean > 0 > corrupted
    assert by_hand < 0
    (difference,) = found(r"largest difference ([0-9.e-]+) logits", notebook)
    assert difference < 1e-4
    query, value = found(rf"into q of .*: {NUMBER} over(?s:.*)into v of .*: {NUMBER} over", notebook)
    assert abs(query) < 0.1 * abs(value)
    pattern, z, attention = found(rf"pattern exchanged {NUMBER}, z {NUMBER}\n.* pays {NUMBER} .* position -5", notebook)
    assert abs(pattern) < 0.1 * abs(z)
    assert attention > 0.9
    maps = shown(notebook, "text/html")
    assert len(maps) == 2
    assert all("layer / head" in each and "rgba(" in each for each in maps)
    assert len(shown(notebook, "image/png")) == 3


def test_function_vectors(execute: Execute) -> None:
    notebook = execute("function_vectors")
    without, with_vector = found(rf"chosen by: {NUMBER} without, {NUMBER} with", notebook)
    assert without < 0.3
    assert with_vector > 0.8
    before, after = found(rf"teacher_of: {NUMBER} without, {NUMBER} with", notebook)
    assert after > before + 0.5
    by_k, vector, gate = shown(notebook, "text/html")
    assert "k / layer" in by_k
    assert "friend_of" in vector
    assert gate.count("passed") == 5
    assert "FAILED" not in gate
    assert len(shown(notebook, "image/png")) == 2


def test_steering(execute: Execute) -> None:
    notebook = execute("steering")
    vector, sweep, controls = shown(notebook, "text/html")
    assert "norm" in vector
    assert sweep.count("<table") == 2
    assert "logit bias, mean effect" in controls
    text = next(text for text in shown(notebook, "text/plain") if text.startswith("<Controls"))
    shares = {name: float(text.split(f"{name} ")[1].split()[0]) for name in ("unsteered", ", vector", "random vectors")}
    assert shares[", vector"] > shares["random vectors"] + 0.2
    assert shares[", vector"] > shares["unsteered"] + 0.3
    assert len(shown(notebook, "image/png")) == 1
    plain, away = found(rf"without the vector: {NUMBER} .*\n-4: {NUMBER} ", notebook)
    assert away < plain - 0.2
    assert "without:" in printed(notebook)
