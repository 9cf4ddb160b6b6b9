"""What stands behind the site: docstrings translated, sections taken from other files, public names found."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.docs.pages import ROOT, pages


@pytest.fixture
def extension(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of docs/_ext by its name."""
    monkeypatch.syspath_prepend(str(ROOT / "docs" / "_ext"))
    return importlib.import_module


def html(rst: list[str]) -> str:
    """What Docutils makes of it, any complaint being an error."""
    from docutils.core import publish_parts

    settings = {"halt_level": 2, "report_level": 5, "syntax_highlight": "none"}
    return str(publish_parts("\n".join(rst), writer="html5", settings_overrides=settings)["body"])


def test_a_docstring_is_shown_as_it_reads(extension: Any) -> None:
    docstring = """Directions `v`, one a layer_; `donors`[i] of *args or |x|, L0_ and \\alpha: `x`s.

    v_l = mean of  h_l * 2        `not` a name
      (indented further)

    second block

What follows a block. A list:

- `one`, of
  two lines
- two

| name | what |
|---|---|
| `a` | 1 * 2 |
| `b` | the other |"""
    shown = html(extension("docstrings").to_rst(docstring.split("\n")))
    for part in (
        '<span class="docutils literal">donors</span>[i] of *args or |x|, L0_ and \\alpha: ',
        '<span class="docutils literal">x</span>s.',
        "v_l = mean of  h_l * 2        `not` a name\n  (indented further)\n\nsecond block</",
        '<li><p><span class="docutils literal">one</span>, of\ntwo lines</p></li>',
        '<td><p><span class="docutils literal">a</span></p></td>\n<td><p>1 * 2</p></td>',
    ):
        assert part in shown
    assert shown.count("<tr>") == 3


def test_sections_of_google_are_left_to_napoleon(extension: Any) -> None:
    lines = [
        "What it does.",
        "",
        "Args:",
        "    x: of `d` numbers,",
        "        or none.",
        "",
        "Raises:",
        "    ValueError: no.",
    ]
    assert extension("docstrings").to_rst(lines) == [
        *(
            "What it does.",
            "",
            "Args:",
            "    x: of ``d`` numbers,",
            "        or none.",
            "",
            "Raises:",
            "    ValueError: no.",
        ),
    ]


def test_a_section_ends_at_the_next_heading_of_its_level(extension: Any) -> None:
    text = "# A\n\n## Speed\n\nFast.\n\n### How\n\n```sh\n# no heading\n## none either\n```\n\n## Next\n\nNo.\n"
    section = extension("sections").section
    assert section(text, "Speed", Path("a.md")) == "Fast.\n\n### How\n\n```sh\n# no heading\n## none either\n```"
    assert section(text, "Next", Path("a.md")) == "No."
    with pytest.raises(LookupError, match=r"a\.md: no heading 'Sped', which a page of the documentation shows"):
        section(text, "Sped", Path("a.md"))


def test_links_of_a_section_hold_from_the_page(extension: Any, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "packages" / "a").mkdir(parents=True)
    (tmp_path / "packages" / "a" / "README.md").write_text(
        "## S\n\n[b](../b/README.md#how) ![c](c.png) [d](https://d.org/e) [f](#g)\n"
    )
    page = tmp_path / "docs" / "page.md"
    expanded = extension("sections").expanded
    text = "Before.\n\n```{section} ../packages/a/README.md\nS\n```\n\nAfter.\n"
    links = "[b](../packages/b/README.md#how) ![c](../packages/a/c.png) [d](https://d.org/e) [f](#g)"
    assert expanded(text, page) == f"Before.\n\n{links}\n\nAfter.\n"
    with pytest.raises(LookupError, match=r"gone\.md: no such file; a section is named by a path from the page"):
        expanded("```{section} gone.md\nS\n```", page)


def test_every_section_that_a_page_shows_is_there(extension: Any) -> None:
    shown = [page for page in pages() if page.parts[0] == "docs" and "{section}" in (ROOT / page).read_text()]
    for page in shown:
        assert "{section}" not in extension("sections").expanded((ROOT / page).read_text(), ROOT / page)
    assert len(shown) >= 5


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    (tmp_path / "toy_package").mkdir()
    (tmp_path / "toy_package" / "__init__.py").write_text(
        '"""A toy."""\nfrom typing import TYPE_CHECKING\nfrom toy_package.parts import SIZE, Part, made\n'
        "if TYPE_CHECKING:\n    from toy_package.late import later\n"
        '__all__ = ["SIZE", "Part", "later", "made"]\n'
        "def __getattr__(name):\n    from importlib import import_module\n"
        '    return getattr(import_module("toy_package.late"), name)\n'
    )
    (tmp_path / "toy_package" / "parts.py").write_text(
        '"""Parts."""\nfrom __future__ import annotations\nfrom typing import TYPE_CHECKING\n'
        "if TYPE_CHECKING:\n    from decimal import Decimal as D\n"
        'SIZE: int = 3\n"""Of a `Part`, *not* of its box."""\n\n'
        'class Part:\n    """One."""\n\ndef made(size: D = SIZE) -> Part:\n    """A part."""\n'
    )
    (tmp_path / "toy_package" / "late.py").write_text('"""Late."""\ndef later() -> None:\n    """Later."""\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield importlib.import_module("toy_package")
    for name in [name for name in sys.modules if name.startswith("toy_package")]:
        del sys.modules[name]


def test_public_names_stand_below_their_modules(extension: Any, package: ModuleType) -> None:
    api = extension("package_api")
    assert api.public_names(package) == {"toy_package.parts": ["SIZE", "Part", "made"], "toy_package.late": ["later"]}
    text = api.reference(package)
    wanted = (".. automodule:: toy_package.parts", ".. py:data:: SIZE", "   :value: 3", "Of a ``Part``, \\*not\\* of")
    places = [
        text.index(part) for part in (*wanted, ".. autoclass:: toy_package.Part", "autofunction:: toy_package.later")
    ]
    assert places == sorted(places)
    import decimal

    assert vars(sys.modules["toy_package.parts"])["D"] is decimal.Decimal  # so that signatures can be evaluated


def test_a_public_name_that_comes_from_nowhere_stops_the_build(extension: Any, package: ModuleType) -> None:
    package.__all__.append("gone")
    with pytest.raises(LookupError, match=r"toy_package\.__all__: gone: neither imported nor defined there"):
        extension("package_api").public_names(package)


def test_mathematics_that_is_not_known_is_a_warning_and_stays_readable(
    extension: Any, caplog: pytest.LogCaptureFixture
) -> None:
    from docutils import nodes

    mathml = extension("mathml")
    assert "<msub>" in mathml.translated(nodes.math("", "x_l"), as_block=False)
    accented = mathml.translated(nodes.math("", r"\hat A_t = \sum_{i=1}^n \tilde x_{l,h}"), as_block=False)
    assert (accented.count("<munderover>"), accented.count("<msub><mover")) == (1, 2)  # the sum's, and the letters'
    with caplog.at_level("WARNING", logger="sphinx"):
        assert mathml.translated(nodes.math("", r"\nosuch{a<b}"), as_block=True) == r"<code>\nosuch{a&lt;b}</code>"
    assert "nosuch" in caplog.text
