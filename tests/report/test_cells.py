"""Tables that fit, lists where none would, paragraphs with a label, and text without tricks."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from kinprint.report.cells import clean, details_table, hang, new_table, show
from kinprint.types import Table

WORDS = ("norm.attn raw cosine", "a size, for the reader", "0.9952", "-", "10^-506.9", "")


def on(width: int, *, terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(), width=width, force_terminal=terminal, color_system=None, highlight=False, markup=False
    )


def said(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def printed(table: Table, width: int) -> str:
    console = on(width)
    show(details_table(table), console)
    return said(console)


@pytest.mark.parametrize(
    "character", ["\x1b", "\n", "\x00", "\x9b", "\u202e", "\u2066", "\u200f", "\u2028", "\u061c", "\ufeff", "\udc80"]
)
def test_nothing_that_moves_colours_turns_or_cannot_be_written_is_left(character: str) -> None:
    assert clean(f"a{character}b") == "a?b"


def test_letters_of_any_script_are_left_alone() -> None:
    assert clean("한국어 אבג 🦙") == "한국어 אבג 🦙"


@given(
    rows=st.lists(st.tuples(*[st.sampled_from(WORDS)] * 5), min_size=1, max_size=5),
    width=st.integers(min_value=40, max_value=140),
)
def test_no_word_is_broken_and_no_line_is_too_long_at_any_width(rows: list[tuple[str, ...]], width: int) -> None:
    columns = ("evidence", "what could defeat it", "size", "suspect vs base", "how to read it")
    text = printed(Table(title="A title", columns=columns, rows=tuple(rows)), width)
    assert max(map(cell_len, text.splitlines())) <= width
    found = set(re.split(r"[\s;,]+", text))
    # A list names a column only beside what stands in it.
    for cell in (*(columns if "─" in text else ()), *(cell for row in rows for cell in row)):
        for word in cell.split():
            assert word.rstrip(",") in found, (word, text)


def test_what_is_too_wide_becomes_a_list_with_the_names_of_columns() -> None:
    rows = tuple((layer, *[0.5] * 9) for layer in range(2))
    table = Table(title="by layer", columns=("layer", *(f"measure{at}" for at in range(9))), rows=rows)
    wide, narrow = printed(table, 140), printed(table, 60)
    assert "─" in wide
    assert "─" not in narrow
    assert narrow.splitlines()[:2] == ["by layer", "layer 0"]
    assert "  measure0 0.5000; measure1 0.5000; " in narrow


def test_rows_of_one_thing_stand_under_its_name_once() -> None:
    table = new_table("", ("evidence", "control", "value"))
    for control in ("a shuffle of every layer there is", "another layer of the base model"):
        table.add_row("units in stored order", control, "0.1")
    console = on(36)
    show(table, console, told=lambda row: f"{row[1]}: {row[2]}")
    assert said(console).splitlines() == [
        "units in stored order",
        "  a shuffle of every layer there is:",
        "  0.1",
        "  another layer of the base model:",
        "  0.1",
    ]


def test_a_pipe_gets_markdown_whatever_its_width() -> None:
    console = on(1000, terminal=False)
    show(details_table(Table(title="", columns=("a", "b"), rows=(("x", 1.0),))), console)
    assert "| x | 1.0000 |" in said(console)


def test_a_paragraph_hangs_beside_its_label() -> None:
    console = on(24)
    hang("because", "one two three four five", console)
    assert said(console) == "because  one two three\n         four five\n"


def test_a_long_label_pushes_the_first_line_only() -> None:
    console = on(30)
    hang("INDEPENDENT", "one two three four five six seven", console)
    assert said(console) == "INDEPENDENT  one two three\n         four five six seven\n"


def test_a_pipe_gets_a_paragraph_on_one_line() -> None:
    console = on(1000, terminal=False)
    hang("because", "word " * 300, console)
    assert said(console).count("\n") == 1


def test_wide_letters_and_long_names_are_folded_and_kept() -> None:
    console = on(40)
    hang("suspect", "한국어" * 10 + "x" * 50, console)
    lines = said(console).splitlines()
    assert max(map(cell_len, lines)) <= 40
    assert "".join(line[9:] for line in lines) == "한국어" * 10 + "x" * 50


def test_only_the_label_of_a_paragraph_is_bold() -> None:
    console = Console(file=io.StringIO(), width=20, force_terminal=True, color_system="standard")
    hang("because", "one two three", console)
    assert said(console) == "\x1b[1mbecause  \x1b[0mone two\n         three\n"
