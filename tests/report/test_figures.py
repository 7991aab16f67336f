"""What figures say and hold, before anything draws them; and the page's drawing of them."""

from __future__ import annotations

import itertools
import json
import re
from typing import Any

import pytest
from figured import comparison, deep, intrinsic, layer_map, layernorm, match, matched, verdict, whole

from kinprint.errors import UsageError
from kinprint.evidence.related import GROUPS, related
from kinprint.report.figures import KINDS, figure, found
from kinprint.report.figures.records import Axis, Chart, Figure, Grid, Missing, Rule, Series
from kinprint.report.figures.scales import ends, ticks
from kinprint.report.html.charts import draw
from kinprint.types import Comparison, LayerMatch
from support.parsed import Parsed

HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m\"'&$x^2$"


def grid(made: Figure) -> Grid:
    (panel,) = made.panels
    assert isinstance(panel, Grid)
    return panel


def charts(made: Figure) -> list[Chart]:
    return [panel for panel in made.panels if isinstance(panel, Chart)]


# -- layers ------------------------------------------------------------------------------------------------------------


def test_a_cut_is_a_step_in_the_map_that_is_drawn_on_the_whole_table() -> None:
    made = figure("layers", whole())
    held = grid(made)
    assert [(one.column, one.row, one.sure) for one in held.outlines] == [(0, 0, True), (1, 2, True), (2, 2, False)]
    # Rows are the base's layers: the record's table on its side.
    assert held.cells == ((0.9, 0.1, 0.0), (0.1, 0.0, None), (0.0, 0.8, 0.1))
    assert made.title == (
        "2 of 3 layers come from layers of the base, in order, with cuts or repeats: "
        "0 from 0, 1 from 2; not derived: 2."
    )


@pytest.mark.parametrize("table", [[], [[0.1, 0.2]], [[0.1], [0.2]]])
def test_without_a_table_that_fits_only_the_map_is_drawn(table: list[list[float]]) -> None:
    found = layer_map(match(0, 0), match(1, 2, 0.8), table=table)
    held = grid(figure("layers", comparison(verdict(found))))
    assert held.cells == ((0.9, None), (None, None), (None, 0.8))


def test_layers_that_face_none_and_sizes_that_are_none_are_empty() -> None:
    layers = (match(0, None, derived=False), match(1, 0, None, derived=False))
    made = figure("layers", comparison(verdict(layer_map(*layers))))
    assert [(one.column, one.row) for one in grid(made).outlines] == [(1, 0)]
    assert {cell for row in grid(made).cells for cell in row} == {None}
    assert made.title.endswith("where the nearest ones stand is a guess.")


def test_a_model_of_one_layer_has_a_map_of_one_cell() -> None:
    held = grid(figure("layers", comparison(verdict(layer_map(match(0, 0), table=[[0.5]], columns=1)))))
    assert held.cells == ((0.5,),)


def test_a_record_that_claims_endless_layers_draws_few() -> None:
    far = LayerMatch(suspect=0, base=10**9, similarity=0.5, heads=None, units=None, derived=True)
    held = grid(figure("layers", comparison(verdict(layer_map(far)))))
    assert len(held.rows) == 256
    assert held.outlines == ()


# -- place -------------------------------------------------------------------------------------------------------------


def test_the_pair_stands_among_unrelated_and_related_pairs() -> None:
    made = figure("place", comparison(verdict(None, matched("heads", 0.9), matched("units", 0.02))))
    heads, units = charts(made)
    assert "By matched attention heads the pair is at 0.900; none of 300 independent pairs reaches that" in made.title
    number = re.search(r"By matched MLP units the pair is at 0.020; (\d+) of 300 independent pairs reach", made.title)
    assert number is not None
    unrelated = [one for one in units.series if one.role == "innocent"]
    assert int(number[1]) == sum(value >= 0.02 for value in unrelated[0].x)
    assert [len(one.x) for one in heads.series if one.role == "innocent"] == [300]
    assert sum(len(one.x) for one in heads.series if one.role == "related") == len(related().pairs)
    assert [one.x for one in heads.series if one.role == "pair"] == [(0.9,)]
    assert [one.x for one in heads.series if one.role == "third"] == [(0.01,)]
    assert [one.role for one in units.series].count("third") == 0
    assert heads.rules == (Rule("margin 0.10", 0.1, "control"),)


def test_the_related_pairs_that_ship_are_a_few_dozen_of_every_group() -> None:
    pairs = related().pairs
    assert 20 <= len(pairs) <= 40
    assert {pair.group for pair in pairs} == set(GROUPS)
    assert all(-1 <= size <= 1.001 for pair in pairs for size in pair.sizes.values())
    # A rewriting keeps everything that is matched.
    assert min(pair.sizes["units"] for pair in pairs if pair.group == GROUPS[0]) > 0.5


# -- parts -------------------------------------------------------------------------------------------------------------


def test_each_part_has_a_strip_over_the_suspects_layers() -> None:
    made = figure("parts", whole())
    strips = dict(zip(grid(made).rows, grid(made).cells, strict=True))
    assert list(strips) == [
        "heads, matched", "Q with K", "V with O", "units, matched", "expert 0", "expert 5", "norm.attn gains, centred",
    ]  # fmt: skip
    assert strips["V with O"] == (0.45, 0.4, 0.05)
    assert strips["expert 5"] == (0.4, None, None)
    assert strips["norm.attn gains, centred"] == (0.0, 0.1, 0.2)
    assert made.title == ("Most alike over all layers: expert 0 (0.65 of 1); least: norm.attn gains, centred (0.10).")


def test_norms_alone_have_strips_where_no_layer_was_matched() -> None:
    held = grid(figure("parts", comparison(None, layernorm())))
    assert (held.columns, held.rows) == (("0", "1", "2"), ("norm.attn gains, centred",))


# -- sigmas, spectra, gains --------------------------------------------------------------------------------------------


def test_sigma_curves_lie_over_each_other_and_leave_gaps() -> None:
    made = figure("sigmas", comparison(None, intrinsic([(0, 1.0, 2.0), (4, None, 2.5)])))
    (chart,) = charts(made)
    assert [(one.label, one.x, one.y) for one in chart.series] == [
        ("suspect", (0.0, 4.0), (1.0, None)),
        ("base", (0.0, 4.0), (2.0, 2.5)),
    ]
    assert "correlate at 0.7500" in made.title
    assert "with one model's layers reversed it is -0.2500" in made.title


def test_spikes_are_the_values_above_the_edge_of_their_own_model() -> None:
    made = figure("spectra", whole())
    (chart,) = charts(made)  # no bulk of the base's last layer is in the record
    lines = [one for one in chart.series if one.joined]
    dots = [one for one in chart.series if not one.joined]
    assert [one.y for one in lines] == [(9.0, 5.0, 1.0), (8.0, 2.0)]
    assert [one.y for one in dots] == [(9.0, 5.0), (8.0,)]
    assert [(rule.at, rule.upright) for rule in chart.rules] == [(4.0, False), (3.0, False)]
    assert chart.title == "layers 0 and 1: 2 and 1 spikes"
    assert "2 in the suspect and 1 in the base" in made.title


def test_gains_are_drawn_raw_and_about_their_means_beside_another_coordinate() -> None:
    made = figure("gains", whole())
    raw, centred, over_layers = charts(made)
    assert [(one.role, one.x, one.y) for one in raw.series] == [
        ("control", (4.0, 2.0), (1.0, 3.0)),
        ("suspect", (2.0, 4.0), (1.0, 3.0)),
    ]
    assert [(one.x, one.y) for one in centred.series] == [((1.0, -1.0), (-1.0, 1.0)), ((-1.0, 1.0), (-1.0, 1.0))]
    # Raw gains are seen from 0, which is why their cosine is near 1.
    assert (raw.x.low or 0) <= 0
    assert raw.title == "layer 2: 0.99, shuffled 0.97"
    assert centred.title == "layer 2: 0.20, shuffled 0.01"
    assert [one.label for one in over_layers.series][2] == "centred cosine"


def test_a_record_of_an_older_release_still_has_its_curves() -> None:
    made = figure("gains", comparison(None, layernorm(sample=False)))
    assert [one.title for one in charts(made)] == ["norm.attn: cosines of gains"]


# -- what is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KINDS))
def test_models_that_cannot_be_compared_have_no_figures_and_no_fault(kind: str) -> None:
    for empty in (comparison(None), comparison(verdict(None)), comparison(verdict(layer_map()))):
        missing = KINDS[kind](empty.model_copy(update={"suspect": empty.suspect, "status": "not_comparable"}))
        assert isinstance(missing, Missing)
        assert missing.kind == kind
        with pytest.raises(UsageError, match=f"nothing to draw for {kind}: .+"):
            figure(kind, empty)
    assert found(comparison(None), *KINDS) == []


def test_an_unknown_kind_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="unknown figure 'map': choose from place, layers, parts"):
        figure("map", whole())


def test_tables_with_the_wrong_columns_draw_nothing_false() -> None:
    held: dict[str, Any] = json.loads(whole().model_dump_json())
    for one in (*held["verdict"]["evidence"], *held["methods"]):
        for table in one["tables"]:
            table["columns"] = ["x" for _ in table["columns"]]
    broken = Comparison.model_validate(held)
    assert {one.kind for one in found(broken, *KINDS)} == {"place", "layers", "parts"}
    for kept in ("suspect", "expert", "layer", "rank", "norm", "place"):
        held = json.loads(whole().model_dump_json())
        for one in (*held["verdict"]["evidence"], *held["methods"]):
            for table in one["tables"]:
                table["columns"] = [name if name == kept else "x" for name in table["columns"]]
        kinds = {one.kind for one in found(Comparison.model_validate(held), *KINDS)}
        assert kinds == {"place", "layers", "parts"}, kept
    short = json.loads(whole().model_dump_json())
    for one in short["methods"]:
        for table in one["tables"]:
            table["rows"] = [row[:1] for row in table["rows"]]
    assert isinstance(KINDS["sigmas"](Comparison.model_validate(short)), Missing)


# -- axes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "axis", "expected"),
    [
        ((2.0, 4.0), Axis(""), (1.9, 4.1)),
        ((2.0, 4.0), Axis("", low=0.0), (0.0, 4.1)),
        ((3.0, 3.0), Axis("", whole=True), (2.5, 3.5)),
        ((1.0, 100.0), Axis("", logarithmic=True), (1.0, 100.0)),
        ((0.0, 0.0), Axis("", low=0.0, high=0.0), (-0.5, 0.5)),
    ],
)
def test_axes_begin_and_end_where_there_is_something_to_see(
    values: tuple[float, ...], axis: Axis, expected: tuple[float, float]
) -> None:
    chart = Chart("", axis, axis, (Series("", "base", values, values),))
    assert ends(chart, "x") == pytest.approx(expected)
    assert ends(chart, "y") == pytest.approx(expected)


def test_ticks_are_round_numbers() -> None:
    assert ticks(Axis(""), (-0.05, 1.03), most=6) == [(0.0, "0")] + [
        (pytest.approx(at / 5), f"{at / 5:g}") for at in range(1, 6)
    ]
    assert ticks(Axis("", named=((1.0, "a"),)), (0.0, 9.0), most=5) == [(1.0, "a")]


# -- as SVG ------------------------------------------------------------------------------------------------------------


def test_a_cell_stands_in_its_row_and_column_with_its_number_and_its_shade() -> None:
    parsed = Parsed(draw(figure("layers", whole())))
    cells = [one for one in parsed.of("heat") if one["height"] != "10"]  # those of the key are 10 high
    assert len(cells) == 8
    first, second = cells[0], cells[1]
    assert first["y"] == second["y"]
    assert float(second["x"] or 0) - float(first["x"] or 0) == pytest.approx(30)
    assert first["fill-opacity"] == "0.9"
    assert "0, 0: 0.9000" in parsed.text
    frames = [(float(one["x"] or 0), float(one["y"] or 0)) for one in parsed.of("framed")]
    assert [len(parsed.of(kind)) for kind in ("sure", "guess")] == [2, 1]
    # The cut: one layer on, two layers down.
    assert frames[1][0] - frames[0][0] == pytest.approx(30)
    assert frames[1][1] - frames[0][1] == pytest.approx(60)


def test_a_line_is_broken_where_a_number_is_missing() -> None:
    parsed = Parsed(draw(figure("sigmas", whole())))
    lines = [one["d"] or "" for one in parsed.of("curve") if (one["d"] or "") != "M0 12 h18"]
    assert [line.count("M") for line in lines] == [2, 1]
    assert len(parsed.of("point")) == 5


def test_marks_that_belong_together_are_one_series_with_the_name_of_its_key() -> None:
    parsed = Parsed(draw(figure("spectra", whole())))
    assert [one["data-label"] for one in parsed.of("series")] == ["suspect", "base"]
    assert len(parsed.of("key")) == 4  # both lines and both edges
    frames = Parsed(draw(figure("layers", whole()))).of("series")
    assert [one["data-label"] for one in frames] == ["map: beyond the margin", "map: nearest layer"]


def test_marks_tell_their_numbers_and_names_of_others_are_text() -> None:
    text = draw(figure("place", whole(HOSTILE)))
    parsed = Parsed(text)
    assert {name for name, _ in parsed.elements} <= {
        "figure", "figcaption", "strong", "div", "svg", "g", "line", "path", "rect", "text", "title",
    }  # fmt: skip
    told = [one for one in parsed.text if one.startswith("base and ")]
    assert len(told) == 1
    assert "<img src=x onerror=alert(1)>" in told[0]
    assert "$x^2$: 0.010" in told[0]
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_a_hundred_layers_stay_small_and_readable() -> None:
    made = deep(100)
    drawn = {kind: draw(figure(kind, made)) for kind in ("layers", "parts", "gains", "spectra", "place")}
    assert all(len(text) < 400_000 for text in drawn.values())
    parsed = Parsed(drawn["layers"])
    assert len(parsed.of("framed")) == 100
    names = [one for one in parsed.elements if one[0] == "text"]
    assert len(names) < 100  # not every layer is named: they would lie over each other
    rows = [float(one["y"] or 0) for _, one in names if one.get("class") == "small end"]
    assert min(b - a for a, b in itertools.pairwise(rows)) >= 12


def test_the_page_shows_a_figure_and_not_the_rows_that_it_was_drawn_from() -> None:
    from kinprint.report.html import page

    held = whole()
    plotted = [
        one.model_copy(update={"tables": tuple(table.model_copy(update={"plotted": True}) for table in one.tables)})
        for one in held.methods
    ]
    before, after = page(held), page(held.model_copy(update={"methods": tuple(plotted)}))
    title = "Singular values of mlp.gate by rank"
    assert title in before
    assert title not in after
    assert "Singular values of mlp.gate above the edge" in after
