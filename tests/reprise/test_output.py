"""Tables that commands print."""

from __future__ import annotations

import pytest

from reprise.cli.output import print_table


def test_words_in_tables_stay_whole_where_the_window_is_as_wide(capsys: pytest.CaptureFixture[str]) -> None:
    """A long title must not take the place of what may be copied; cells of 40, 14 each, and many short words."""
    name, title, others = "a_name_that_is_copied_into_commands_____", "many words of a title " * 12, ["x" * 14] * 5
    print_table("", ("name", "title", *"abcde"), [(f"[green]{name}[/]", title, *others)])
    words = capsys.readouterr().out.split()
    assert (words.count(name), words.count("many"), words.count(others[0])) == (1, 12, 5)


def test_a_word_that_is_wider_than_the_window_is_broken_and_not_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("", ("name", "title"), [("x" * 200, "words")])
    assert capsys.readouterr().out.count("x") == 200
