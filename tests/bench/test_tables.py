"""What people and programs read: every number in its place, and nothing that a name could break."""

from __future__ import annotations

import csv
import io

import pytest

from bench.made import column, pair, pairs, result
from kinprint.bench.records import BenchResult, Cost
from kinprint.bench.tables import blocks, csv_rows, markdown

FIRST, SECOND, DISTANCE = column("m: s"), column("m: t", headline=False), column("n: d", kind="distance", identical=0.0)


def small() -> BenchResult:
    rows = [
        pair("derived", {"m: s": 0.9, "m: t": 0.5, "n: d": 0.1}, suspect="tuned"),
        pair("derived", {"m: s": 0.2, "m: t": 0.5, "n: d": "widths 8 and 16 differ"}, suspect="cut", base="b"),
        pair("unrelated", {"m: s": 0.5, "m: t": 0.5, "n: d": 0.7}, suspect="stranger"),
        pair("unrelated", {"m: s": 0.1, "m: t": 0.5, "n: d": 0.9}, suspect="twin", category="hard negatives"),
        pair("shown", {"m: s": 0.8, "m: t": 0.5, "n: d": 0.2}, suspect="sibling"),
    ]
    # The column that is not a headline comes first: tables must put it last.
    return result([SECOND, FIRST, DISTANCE], rows, notes=("Read *this*.",))


def tables(text: str) -> list[list[list[str]]]:
    """Every table of a Markdown text as rows of cells; an escaped bar is part of a cell."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            held = line.replace(r"\|", "\0").strip("|").split("|")
            found[-1].append([cell.strip().replace("\0", "|") for cell in held])
        elif found[-1]:
            found.append([])
    return [table for table in found if table]


def test_headline_columns_come_first_with_every_rate() -> None:
    every, hard = tables(markdown(small()))[:2]
    assert [row[0] for row in every[2:]] == ["m: s", "n: d"]
    assert [row[0] for row in tables(markdown(small()))[-2][2:]] == ["m: s", "n: d", "m: t"]
    first = dict(zip(every[0], every[2], strict=True))
    assert (first["derived"], first["unrelated"], first["measured"]) == ("2", "2", "100%")
    # 0.9 beats both, 0.2 beats one: 3/4. From 0.2 on: 2 found, 1 accused: 4/5.
    assert first["AUC"].startswith("0.750")
    assert first["max F1, in-sample"].startswith("0.800")
    assert first["threshold"] == "at least 0.15"
    distance = dict(zip(every[0], every[3], strict=True))
    assert distance["measured"] == "75%"
    assert distance["threshold"] == "at most 0.4"
    assert dict(zip(hard[0], hard[2], strict=True))["AUC"].startswith("1.000")


def test_each_base_has_its_own_area_and_none_without_both_labels() -> None:
    (bases,) = tables(blocks(small())["bases"])
    # Base a: 0.9 beats 0.5 and 0.1. Base b has a derived pair only.
    assert bases[2:] == [["a", "1.000 (1 + 2)", "1.000 (1 + 2)"], ["b", "-", "-"]]


def test_categories_come_in_their_order_with_means_ranges_and_errors() -> None:
    (by_category,) = tables(blocks(small())["categories"])
    assert by_category[0] == ["category", "pairs", "m: s", "n: d"]
    rows = {row[0]: row[1:] for row in by_category[2:]}
    assert list(rows) == [
        "model fine-tuning", "unrelated", "hard negatives", "shared initialisation", "threshold, in-sample",
    ]  # fmt: skip
    assert rows["model fine-tuning"] == [
        "2 derived",
        "0.5500 (0.2000 to 0.9000); 0/2 wrong",
        # The pair that could not be measured is missed.
        "0.1000 (0.1000 to 0.1000); 1/2 wrong",
    ]
    assert rows["unrelated"] == [
        "1 unrelated", "0.5000 (0.5000 to 0.5000); 1/1 wrong", "0.7000 (0.7000 to 0.7000); 0/1 wrong",
    ]  # fmt: skip
    assert rows["shared initialisation"][1] == "0.8000 (0.8000 to 0.8000); 1/1 called derived"


def test_cases_are_reported_by_base_and_blanks_have_their_reason() -> None:
    text = markdown(small())
    assert text.index("### Base a") < text.index("### Base b")
    base_a, base_b = tables(blocks(small())["cases"])
    assert [row[0] for row in base_a[2:]] == ["tuned", "stranger", "twin", "sibling"]
    assert base_b[2] == ["cut", "b", "model fine-tuning", "derived", "0.2000", "(1)"]
    assert "\n1. widths 8 and 16 differ\n" in text


def test_one_reason_has_one_number() -> None:
    rows = [pair("derived", "too deep"), pair("derived", "too wide"), pair("unrelated", "too deep")]
    cells = [row[-1] for row in tables(blocks(result([FIRST], rows))["cases"])[0][2:]]
    assert cells == ["(1)", "(2)", "(1)"]


def test_costs_are_median_and_highest_by_method() -> None:
    rows = [
        row.model_copy(update={"costs": {"m": Cost(seconds=seconds, peak_mb=peak)}})
        for row, seconds, peak in zip(pairs([0.9, 0.8], [0.1]), (1.0, 2.0, 9.0), (None, 10.0, 30.0), strict=True)
    ]
    (cost,) = tables(blocks(result([FIRST], rows))["costs"])
    assert cost[2] == ["m", "3", "2", "9", "20", "30"]


def test_notes_count_the_pairs() -> None:
    text = markdown(small())
    assert "F1 = 2P/(2P+N) = 0.667 with P = 2, N = 2." in text
    assert "2 unrelated pairs bound the false-positive rate only to min(1, 3/2) = 100.0%" in text
    assert "1 hard negatives bound" in text
    assert r"- Read \*this\*." in text
    assert "- commit: abc123\n" in text


def test_uncommitted_changes_are_said() -> None:
    held = small()
    dirty = held.model_copy(update={"run": held.run.model_copy(update={"dirty": True})})
    assert "- commit: abc123, with changes that are not committed\n" in markdown(dirty)


@pytest.mark.parametrize("name", ["a|b", "a\nb", "|", "`x`|*y*", "\\|", "<b>", "[a](b)"])
def test_no_name_breaks_a_table(name: str) -> None:
    awkward = column(f"{name}: s")
    rows = [
        pair("derived", {awkward.name: 0.9}, suspect=name, base=name),
        pair("unrelated", {awkward.name: f"reason {name}"}, suspect=name, base=name),
    ]
    held = tables(markdown(result([awkward], rows)))
    for table in held:
        assert len({len(row) for row in table}) == 1
    assert "<b>" not in markdown(result([awkward], rows)).replace(r"\<b>", "")


def test_empty_result_is_a_document() -> None:
    assert "0 pairs (0 derived, 0 unrelated, 0 shown)" in markdown(result([FIRST], []))


def test_csv_has_one_line_per_case_and_column() -> None:
    lines = list(csv.DictReader(io.StringIO(csv_rows(small()))))
    assert len(lines) == 5 * 3
    assert lines[1] == {
        "suspect": "tuned",
        "base": "a",
        "category": "model fine-tuning",
        "label": "derived",
        "column": "m: s",
        "value": "0.9",
        "reason": "",
        "seconds": "2.0",
    }
    blank = next(line for line in lines if line["suspect"] == "cut" and line["column"] == "n: d")
    assert (blank["value"], blank["reason"]) == ("", "widths 8 and 16 differ")


def test_csv_keeps_every_digit() -> None:
    value = 0.1 + 0.2
    lines = list(csv.DictReader(io.StringIO(csv_rows(result([FIRST], pairs([value], []))))))
    assert float(lines[0]["value"]) == value


def test_column_that_was_not_run_on_a_pair_says_so() -> None:
    rows = [pair("derived", {"n: d": 0.5}), pair("unrelated", {"m: s": 0.5, "n: d": 0.5})]
    held = result([FIRST, DISTANCE], rows)
    assert "1. not run" in markdown(held)
    first = next(csv.DictReader(io.StringIO(csv_rows(held))))
    assert (first["reason"], first["seconds"]) == ("not run", "")


def behaving() -> BenchResult:
    reef, logits, weights = column("reef: similarity"), column("logits: similarity"), column("m: s")
    held = {"m: s": 0.1, "reef: similarity": 0.9, "logits: similarity": 0.3}
    rows = [
        pair("derived", {**held, "m: s": 0.9}, suspect="tuned"),
        pair("unrelated", {**held, "reef: similarity": 0.8}, suspect="student", category="distillation"),
        pair("unrelated", {**held, "reef: similarity": 0.7}, suspect="twin", category="hard negatives"),
        pair("unrelated", {**held, "reef: similarity": 0.5}, suspect="other", category="hard negatives"),
        # What was made of another model is no innocent of its own random start, and other bases are other teachers.
        pair("unrelated", {**held, "reef: similarity": 0.95}, suspect="twin.tuned", category="hard negatives"),
        pair("unrelated", {**held, "reef: similarity": 0.99}, suspect="near", category="hard negatives", base="b"),
    ]
    return result([weights, reef, logits], rows)


def test_behaviour_has_tables_of_its_own_and_no_column_among_weights() -> None:
    found = blocks(behaving())
    assert [row[0] for row in tables(found["rates"])[0][2:]] == ["m: s"]
    assert [row[0] for row in tables(found["behaviour-hard"])[0][2:]] == ["reef: similarity", "logits: similarity"]
    assert [row[0] for row in tables(found["behaviour-costs"])[0][2:]] == ["reef", "logits"]
    assert [row[0] for row in tables(found["costs"])[0][2:]] == ["m", "reef", "logits"]
    assert not [name for name in blocks(small()) if name.startswith("behaviour")]
    assert "## Behaviour" in markdown(behaving())
    assert "## Behaviour" not in markdown(small())


def test_a_student_stands_beside_the_innocents_of_its_teacher() -> None:
    lines = {row[2]: row[3:] for row in tables(blocks(behaving())["behaviour-students"])[0][2:]}
    assert lines["reef: similarity"] == ["0.8000", "0.7000 (twin, of 2)", "yes"]
    assert lines["logits: similarity"][2] == "no"  # as near is not nearer
