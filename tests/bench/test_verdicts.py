"""Verdicts in a benchmark: kept and found again, counted by hand, printed where people and programs look."""

from __future__ import annotations

import csv
import io
from typing import Any

import pytest
from rich.console import Console

from bench.made import column, pair, result
from bench.test_tables import tables
from kinprint.bench.records import BenchResult, PairVerdict, Row
from kinprint.bench.tables import blocks, csv_rows, markdown
from kinprint.bench.terminal import print_rates
from kinprint.bench.verdicts import similarity, summary, verdict_id
from kinprint.bench.verdicts_rates import (
    accusations,
    acquittals,
    counts,
    layer_scores,
    misses,
    share_right,
)
from kinprint.types import Evidence, LayerMapInfo, LayerMatch, Planting, Power, Verdict

SIZE = column("kinprint verdict: size")


def said(label: str, conclusion: str, *, true: Any = None, **facts: Any) -> Row:
    """A pair with a verdict; of ``facts``, those of a verdict go there, the others to the pair."""
    told = {name: facts.pop(name) for name in list(facts) if name in PairVerdict.model_fields}
    verdict = PairVerdict.model_validate({"conclusion": conclusion, "headline": f"It is {conclusion}.", **told})
    row = pair(label, {SIZE.name: similarity(verdict)}, **facts)
    return row.model_copy(update={"verdict": verdict, "true_layers": true})


ROWS = [
    said("derived", "identical", suspect="saved"),
    said("derived", "derived", suspect="tuned", heads=0.9, units=0.7, log10_p=-40.25, decided_by="units"),
    said(
        "derived", "inconclusive", suspect="worn", heads=0.04, units=0.06, contrary="size .06 of .1",
        seen=280, plantings=300,
    ),
    said("derived", "independent", suspect="lost", heads=0.01),
    said("derived", "not_comparable", suspect="odd", contrary="no family table fits"),
    said("unrelated", "independent", suspect="stranger", heads=0.02, seen=300, plantings=300, log10_p=-0.5),
    said("unrelated", "derived", suspect="framed", heads=0.2, category="hard negatives"),
    said("unrelated", "inconclusive", suspect="twin", heads=0.07, category="hard negatives"),
    said("unrelated", "independent", suspect="other twin", heads=0.01, category="hard negatives"),
    said("shown", "derived", suspect="sibling", heads=0.3),
]  # fmt: skip


def held(rows: list[Row]) -> BenchResult:
    return result([SIZE], rows)


# -- what is kept of a verdict -------------------------------------------------------------------------------------


def evidence(name: str, **facts: Any) -> Evidence:
    return Evidence.model_validate(
        {"name": name, "id": f"{name}/v1", "rung": 2, "status": "measured", "null": "", "defeats": "", **facts}
    )


def test_what_tables_need_is_kept() -> None:
    layers = tuple(
        LayerMatch(suspect=at, base=base, similarity=0.9, heads=0.9, units=0.8, derived=True)
        for at, base in enumerate((0, 2, None))
    )
    verdict = Verdict(
        conclusion="independent",
        headline="Independent.",
        contrary="heads: size 0.02",
        alpha=1e-6,
        planned=8,
        log10_p=-1.5,
        evidence=(
            evidence("matched-heads", size=0.02),
            evidence("matched-units", size=0.01),
            evidence("cka", size=0.9),
        ),
        layer_map=LayerMapInfo(kind="ordered", basis="tokens", layers=layers),
        power=Power(
            plantings=(Planting(change="half", plantings=300, seen=299, lower_bound=0.98),),
            sufficient=True,
            not_excluded=(),
        ),
    )
    assert summary(verdict) == PairVerdict(
        conclusion="independent",
        headline="Independent.",
        contrary="heads: size 0.02",
        log10_p=-1.5,
        heads=0.02,
        units=0.01,
        seen=299,
        plantings=300,
        layers=(0, 2, None),
    )


def test_what_could_not_be_compared_says_why() -> None:
    verdict = Verdict(
        conclusion="not_comparable",
        headline="The models cannot be compared.",
        alpha=1e-6,
        planned=8,
        reasons=("no family table fits the suspect", "more"),
        power=Power(plantings=(), sufficient=False, not_excluded=()),
    )
    found = summary(verdict)
    assert (found.contrary, found.plantings, found.layers) == ("no family table fits the suspect", None, None)
    assert similarity(found) is None


@pytest.mark.parametrize(
    ("conclusion", "heads", "units", "size"),
    [
        ("identical", None, None, 1.0),
        ("derived", 0.2, 0.7, 0.7),
        ("derived", -0.1, None, -0.1),
        ("independent", None, 0.0, 0.0),
        ("inconclusive", None, None, None),
    ],
)
def test_the_size_is_the_larger_of_the_trunks(
    conclusion: str, heads: float | None, units: float | None, size: float | None
) -> None:
    facts = {"conclusion": conclusion, "headline": "", "heads": heads, "units": units}
    assert similarity(PairVerdict.model_validate(facts)) == size


def test_the_id_changes_with_margins_and_calibration(monkeypatch: pytest.MonkeyPatch) -> None:
    from kinprint.bench import verdicts

    before = verdict_id()
    for name, changed in (("PROCEDURE", "matched/v2"), ("ALPHA", 0.01), ("VERSION", 99), ("MODE", "thorough")):
        with monkeypatch.context() as patch:
            patch.setattr(verdicts, name, changed)
            verdict_id.cache_clear()
            assert verdict_id() != before
    real = verdicts.shipped_digest
    for file in ("innocents.json", "calibration.json"):

        def changed_one(name: str, file: str = file) -> str:
            return "0" if name == file else real(name)

        with monkeypatch.context() as patch:
            patch.setattr(verdicts, "shipped_digest", changed_one)
            verdict_id.cache_clear()
            assert verdict_id() != before
    verdict_id.cache_clear()
    assert verdict_id() == before


# -- counts --------------------------------------------------------------------------------------------------------


def test_pairs_are_counted_by_conclusion() -> None:
    # identical, derived, independent, inconclusive, not comparable
    assert counts(ROWS) == (1, 3, 3, 2, 1)
    assert counts([pair("derived", 0.5)]) == (0, 0, 0, 0, 0)


def names(rows: list[Row]) -> list[str]:
    return [row.case.suspect for row in rows]


def test_misses_accusations_and_acquittals_are_the_errors_and_the_rights_of_their_label() -> None:
    assert names(misses(ROWS)) == ["worn", "lost", "odd"]
    assert names(accusations(ROWS)) == ["framed"]
    assert names(acquittals(ROWS)) == ["stranger", "other twin"]


def test_an_unrelated_pair_called_identical_is_accused() -> None:
    assert names(accusations([said("unrelated", "identical", suspect="framed")])) == ["framed"]


def test_a_pair_without_a_verdict_is_no_error() -> None:
    rows = [pair("derived", None), pair("unrelated", 0.9)]
    assert (misses(rows), accusations(rows), acquittals(rows), layer_scores(rows)) == ([], [], [], [])


# -- layers --------------------------------------------------------------------------------------------------------

CUT = ((0,), (2,), (3,))
AS_IS = ((0,), (1,), (2,))


def test_layers_are_right_where_their_partner_is_one_they_come_from() -> None:
    rows = [
        said("derived", "derived", true=CUT, layers=(0, 2, None)),
        said("derived", "derived", true=((0, 2), (1,)), layers=(2, 0)),
        said("derived", "derived", true=AS_IS, layers=(0, 1, 1)),
    ]
    assert [(score.right, score.layers, score.moved) for score in layer_scores(rows)] == [
        (2, 3, True), (1, 2, False), (2, 3, False),
    ]  # fmt: skip
    assert share_right(layer_scores(rows)) == pytest.approx(2 / 3)


def test_a_pair_without_a_layer_map_has_no_layer_right() -> None:
    (score,) = layer_scores([said("derived", "not_comparable", true=CUT)])
    assert (score.right, score.layers) == (0, 3)


def test_a_layer_that_the_base_lacks_has_no_right_partner_and_does_not_count() -> None:
    (score,) = layer_scores([said("derived", "derived", true=((0,), (), (1,)), layers=(0, 0, 1))])
    assert (score.right, score.layers) == (2, 2)


def test_identical_models_have_their_layers_right_without_a_map() -> None:
    (score,) = layer_scores([said("derived", "identical", true=AS_IS)])
    assert (score.right, score.moved) == (3, False)


def test_only_derived_pairs_with_a_known_order_are_judged() -> None:
    rows = [
        said("unrelated", "derived", true=CUT, layers=(0, 2, 3)),
        said("shown", "derived", true=CUT, layers=(0, 2, 3)),
        said("derived", "derived", layers=(0, 2, 3)),
    ]
    assert layer_scores(rows) == []
    assert share_right([]) is None


# -- tables --------------------------------------------------------------------------------------------------------


def test_every_error_is_named_with_its_numbers() -> None:
    text = blocks(held(ROWS))["verdicts"]
    by_category, missed, accused, undecided, shown = tables(text)
    assert by_category[0] == [
        "category", "pairs", "identical", "derived", "independent", "inconclusive", "not comparable",
    ]  # fmt: skip
    assert by_category[2:] == [
        ["model fine-tuning", "5 derived", "1", "1", "1", "1", "1"],
        ["unrelated", "1 unrelated", "0", "0", "1", "0", "0"],
        ["hard negatives", "3 unrelated", "0", "1", "1", "1", "0"],
        ["shared initialisation", "1 shown", "0", "1", "0", "0", "0"],
    ]
    assert "Misses, derived pairs called neither derived nor identical: 3 of 5 (60.0%)." in text
    assert missed[2] == [
        "worn", "a", "model fine-tuning", "inconclusive", "0.0400", "0.0600", "-", "280 of 300", "size .06 of .1",
    ]  # fmt: skip
    assert missed[3][-1] == "It is independent."
    assert missed[4][-1] == "no family table fits"
    assert "Accusations, unrelated pairs called derived or identical: 1 of 4 (25.0%)." in text
    assert [row[0] for row in accused[2:]] == ["framed"]
    assert "called independent: 2 of 4 (50.0%); of the hard negatives 1 of 3 (33.3%)." in text
    assert [row[0] for row in undecided[2:]] == ["twin"]
    assert [row[0] for row in shown[2:]] == ["sibling"]


def test_without_errors_there_are_no_tables_of_them() -> None:
    text = blocks(held([ROWS[0], ROWS[5]]))["verdicts"]
    assert len(tables(text)) == 1
    assert "0 of 1 (0.0%)" in text


def test_layer_maps_are_shown_where_layers_were_moved_with_the_bar() -> None:
    rows = [
        said("derived", "derived", suspect="cut", true=CUT, layers=(0, 2, 3)),
        said("derived", "derived", suspect="upscaled", true=((0,), (1,), (0,), (1,)), layers=(0, 1, 0, None)),
        said("derived", "derived", suspect="tuned", true=AS_IS, layers=(0, 1, 2)),
    ]
    text = blocks(held(rows))["layers"]
    (table,) = tables(text)
    assert table[2:] == [
        ["cut", "a", "derived", "0, 2-3", "0, 2-3", "3 of 3"],
        ["upscaled", "a", "derived", "0-1, 0-1", "0-1, 0, none", "3 of 4"],
    ]
    assert "6 of 7 (85.7%); at least 95% are asked for, which is not met." in text
    assert "In 1 pairs whose layers stand where they stood: 3 of 3 (100.0%)." in text
    assert "which is met" in blocks(held(rows[:1]))["layers"]
    assert "No pair" in blocks(held(rows[2:]))["layers"]


def test_the_conclusion_stands_in_the_table_of_cases_and_among_the_published_levels() -> None:
    text = blocks(held(ROWS))
    cases = tables(text["cases"])[0]
    assert cases[0][4] == "kinprint verdict"
    assert [row[4] for row in cases[2:6]] == ["identical", "derived", "inconclusive", "independent"]
    claim = tables(text["claims"])[0][-1]
    assert (claim[0], claim[-3:]) == ("kinprint verdict", ["2/5", "0/1", "1/3"])


def test_a_result_without_verdicts_says_nothing_of_them() -> None:
    bare = result([column()], [pair("derived", 0.5), pair("unrelated", 0.1)])
    assert not {"verdicts", "layers"} & blocks(bare).keys()
    assert "erdict" not in markdown(bare)
    assert "erdict" not in csv_rows(bare)


def test_the_size_is_judged_as_any_number() -> None:
    # 1.0, 0.9, 0.06, 0.01 and nothing against 0.02, 0.2, 0.07, 0.01: 4 + 4 + 2 + 0.5 + 0 of 20.
    assert held(ROWS).rates[0].auc.value == pytest.approx(10.5 / 20)


def test_programs_find_the_conclusion_and_the_p_value_in_lines_of_their_own() -> None:
    lines = [line for line in csv.DictReader(io.StringIO(csv_rows(held(ROWS)))) if line["suspect"] in ("tuned", "worn")]
    found = {(line["suspect"], line["column"]): (line["value"], line["reason"]) for line in lines}
    assert found == {
        ("tuned", "kinprint verdict: size"): ("0.9", ""),
        ("tuned", "kinprint verdict: conclusion"): ("derived", "units"),
        ("tuned", "kinprint verdict: log10 p"): ("-40.25", ""),
        ("worn", "kinprint verdict: size"): ("0.06", ""),
        ("worn", "kinprint verdict: conclusion"): ("inconclusive", "size .06 of .1"),
        ("worn", "kinprint verdict: log10 p"): ("", "no exact test ran"),
    }


def test_the_terminal_shows_conclusions_and_names_every_error() -> None:
    out = io.StringIO()
    print_rates(held(ROWS), Console(file=out, width=160))
    text = out.getvalue()
    rows = tables(text)[0]
    assert rows[2:] == [
        ["5 derived", "1", "1", "1", "1", "1"],
        ["4 unrelated", "0", "1", "2", "1", "0"],
        ["1 shown", "0", "1", "0", "0", "0"],
    ]
    assert "missed: worn / a: inconclusive\n" in text
    assert "accused: framed / a: derived\n" in text
    assert text.count("missed: ") == 3
