"""What the cells of an executed notebook put out."""

from __future__ import annotations

import re
from typing import Any


def printed(notebook: Any) -> str:
    """All that cells printed."""
    return "".join(output["text"] for output in _outputs(notebook, "stream") if output["name"] == "stdout")


def shown(notebook: Any, kind: str) -> list[str]:
    """What cells showed as their last value, of one kind: "text/html", "image/png", "text/plain"."""
    results = _outputs(notebook, "execute_result") + _outputs(notebook, "display_data")
    return [output["data"][kind] for output in results if kind in output["data"]]


def found(pattern: str, notebook: Any) -> list[float]:
    """The numbers that the groups of a pattern match in what was printed.

    Raises:
        AssertionError: it is not there.
    """
    match = re.search(pattern, printed(notebook))
    assert match, f"{pattern!r} is not in: {printed(notebook)}"
    return [float(number) for number in match.groups()]


def _outputs(notebook: Any, kind: str) -> list[Any]:
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    return [output for cell in code for output in cell.outputs if output.output_type == kind]
