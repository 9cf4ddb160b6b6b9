"""Tables that commands print."""

from __future__ import annotations

import pytest

from reprise.cli.output import print_table


def test_words_in_tables_stay_whole_where_the_window_is_as_wide(capsys: pytest.CaptureFixture[str]) -> None:
    """A long title must not take the place of what may be copied."""
    name, title = "a_name_that_is_copied_into_commands", "many words of a title " * 12
    print_table("", ("name", "title"), [(f"[green]{name}[/]", title), ("other", "short")])
    words = capsys.readouterr().out.split()
    assert words.count(name) == 1
    assert words.count("many") == 12
    print_table("", ("name", "title"), [("x" * 200, title)])
    assert capsys.readouterr().out.count("x") == 200
