"""Lines of marks: what each mark of them means, worked out by hand."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kinprint.report.strips import ASCII, BLOCKS, Marks, heat, marks_for, place


def on(encoding: str) -> Console:
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding=encoding))


@pytest.mark.parametrize(("encoding", "marks"), [("utf-8", BLOCKS), ("ascii", ASCII), ("latin-1", ASCII)])
def test_marks_are_those_that_the_encoding_has(encoding: str, marks: Marks) -> None:
    assert marks_for(on(encoding)) is marks


@pytest.mark.parametrize("marks", [ASCII, BLOCKS])
def test_no_two_marks_look_the_same(marks: Marks) -> None:
    every = (*marks.heights, marks.ground, marks.margin, marks.third, marks.pair)
    assert len(set(every)) == len(every) == 12


def test_a_pair_stands_at_the_root_of_its_size() -> None:
    assert place([], 0.25, [], None, 10, ASCII) == "_____@____"
    assert place([], 1.0, [], None, 10, ASCII) == "_________@"
    assert place([], -0.4, [], None, 10, ASCII) == "@_________"


def test_heights_are_shares_of_the_fullest_mark_and_one_pair_is_never_hidden_by_many() -> None:
    line = place([0.0] * 800 + [0.02] + [0.05] * 400, 1.0, [], None, 10, ASCII)
    assert line == "#.=______@"


def test_the_pair_covers_third_models_and_those_cover_the_margin() -> None:
    assert place([0.25], 0.25, [0.25], 0.25, 4, ASCII) == "__@_"
    assert place([0.25], 1.0, [0.25], 0.25, 4, ASCII) == "__^@"
    assert place([0.25], 1.0, [], 0.25, 4, ASCII) == "__|@"


def test_heat_is_one_mark_a_layer_from_nothing_to_all() -> None:
    values = [-0.1, 0.0, 0.13, 0.26, 0.38, 0.51, 0.63, 0.76, 0.88, 1.0, None]
    assert heat(values, 20, BLOCKS) == ("▁▁▂▃▄▅▆▇██·", 1)


def test_where_layers_share_a_mark_it_shows_the_least_of_them() -> None:
    layers = [1.0] * 100
    layers[57] = 0.0
    line, each = heat(layers, 40, ASCII)
    assert (each, len(line)) == (3, 34)
    assert line.index(".") == 57 // 3
    assert line.count("#") == 33
