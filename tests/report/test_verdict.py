"""What a person reads of a verdict: first in ten lines, then the evidence."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from kinprint.report.summary import LINES, layer_line, summary
from kinprint.report.verdict import print_limits, print_verdict, standing
from kinprint.types import (
    ComponentVerdict,
    Conclusion,
    Evidence,
    LayerMapInfo,
    LayerMatch,
    Planting,
    Population,
    Power,
    Table,
    ThirdModel,
    Value,
    Verdict,
)
from kinprint.verdict import words

POPULATION = Population(
    pairs=153, models=18, largest=0.024, passed=0, bound=0.0196, bound_disjoint=1 / 3, widths=(32, 256)
)


def evidence(**changed: object) -> Evidence:
    facts = {
        "name": "units in stored order",
        "id": "exact-units/v1[draws=999]",
        "rung": 1,
        "status": "measured",
        "null": "the numbering is exchangeable",
        "defeats": "units in another order",
        "log10_p": -506.93,
        "log10_floor": -506.93,
        "size": 0.994,
        "carries": True,
        "beyond": True,
        "controls": (Value(name="relabellings that reached it", value=0.0, kind="statistic", note="of 999 drawn"),),
    }
    return Evidence.model_validate({**facts, **changed})


def matched(size: float, /, **changed: object) -> Evidence:
    facts = {
        "name": "heads matched on QK",
        "id": "matched-heads/v1",
        "rung": 2,
        "log10_p": None,
        "log10_floor": None,
        "size": size,
        "margin": 0.15,
        "population": POPULATION,
        "beyond": size > 0.15,
        "controls": (Value(name="mismatched layers", value=0.017, kind="similarity"),),
    }
    return evidence(**{**facts, **changed})


def layers(*rows: tuple[int, int | None, bool]) -> LayerMapInfo:
    found = [
        LayerMatch(suspect=suspect, base=base, similarity=0.9, heads=0.875, units=0.75, derived=derived)
        for suspect, base, derived in rows
    ]
    return LayerMapInfo(kind="ordered", basis="tokens", layers=tuple(found))


SEEN = Power(
    plantings=(Planting(change="half of each matrix set to zero", plantings=300, seen=300, lower_bound=0.99),),
    sufficient=True,
    not_excluded=("distillation", "a rotated embedding"),
)


def verdict(conclusion: Conclusion = "derived", *found: Evidence, **changed: object) -> Verdict:
    """A verdict with the program's own sentences."""
    facts = {
        "evidence": found or (evidence(), matched(0.993)),
        "alpha": 1e-6,
        "planned": 8,
        "log10_p": -506.0,
        "layer_map": layers((0, 0, True), (1, 1, True), (2, 5, True)),
        "power": SEEN if conclusion in ("independent", "inconclusive") else None,
        "components": (
            ComponentVerdict(component="trunk", conclusion=conclusion, reason="said elsewhere"),
            ComponentVerdict(component="embedding", conclusion="not_comparable", reason="no shared tokens"),
        ),
        "third_models": (),
        "grey": 0.5,
        **changed,
    }
    return words.verdict(conclusion, **facts)  # pyright: ignore[reportArgumentType]


def shown(
    found: Verdict, *, width: int = 200, terminal: bool = False, details: bool = False, colour: bool = False
) -> str:
    out = io.StringIO()
    console = Console(
        file=out,
        width=width,
        force_terminal=terminal,
        color_system="standard" if colour else None,
        no_color=not colour,
        highlight=False,
        markup=False,
    )
    print_verdict(found, console, details=details)
    return out.getvalue()


def limits(found: Verdict) -> str:
    out = io.StringIO()
    print_limits(found, Console(file=out, width=1000, highlight=False, markup=False))
    return out.getvalue()


def row(text: str, name: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.startswith(f"| {name}"))
    return [cell.strip() for cell in line.strip(" |").split("|")]


# -- the summary -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("conclusion", ["derived", "independent", "inconclusive"])
def test_the_summary_has_at_most_ten_lines_and_begins_with_the_word(conclusion: Conclusion) -> None:
    many = [matched(0.1, id=f"matched-{i}/v1", name=f"test {i}") for i in range(9)]
    found = verdict(conclusion, evidence(), *many)
    assert len(found.reasons) > 5
    lines = shown(found).splitlines()
    lines = lines[: next(at for at, line in enumerate(lines) if line.startswith(("place", "layers")))]
    assert len(lines) <= LINES
    assert lines[0].startswith(conclusion.upper())
    assert sum(line.startswith(("because", " ")) for line in lines[1:]) == 5


def test_derived_says_why_what_else_it_may_be_and_which_layers() -> None:
    text = shown(verdict())
    assert "p = 10^-506.9" in text
    assert "Matched attention heads agree to 0.993 of 1, beyond the margin of 0.15" in text
    assert "or else  a common ancestor; a shared random start\n" in text
    assert "embedding not comparable: no shared tokens\n" in text
    assert "layers   0-1 from 0-1, 2 from 5\n" in text
    assert "distillation" not in text
    said = limits(verdict())
    assert "- It may also be a common ancestor: both models may come from a third one" in said
    assert "who copied from whom" in said
    assert "Not excluded" not in said


def test_the_null_of_a_test_is_named_by_its_first_words() -> None:
    found = verdict("derived", evidence(null="independent initialisation: the numbering is exchangeable"))
    assert row(shown(found), "units in stored order")[1] == "independent initialisation"


def test_independent_says_what_it_does_not_exclude_and_names_no_layers() -> None:
    silent = evidence(log10_p=-0.3, beyond=False)
    found = verdict("independent", silent, matched(0.02))
    text = shown(found)
    assert "against  nearest to their margin of 0.15 are matched attention heads, at 0.020\n" in text
    for missed in ("distillation", "a rotated embedding"):
        assert f"- Not excluded: {missed}.\n" in limits(found)
    assert "Of 300 copies planted in the suspect's own weights" in text
    assert "0-1 from 0-1" not in text


def test_a_copied_part_stands_in_the_headline_of_an_independent_trunk() -> None:
    copied = ComponentVerdict(component="embedding", conclusion="derived", reason="size 0.99")
    trunk = ComponentVerdict(component="trunk", conclusion="independent", reason="")
    found = verdict("independent", matched(0.02), components=(trunk, copied))
    assert "But its embedding is derived" in found.headline


def test_what_cannot_be_compared_says_why_once() -> None:
    found = Verdict(
        conclusion="not_comparable",
        headline="The models cannot be compared: no layers.",
        alpha=1e-6,
        planned=8,
        reasons=("no layers",),
    )
    assert shown(found) == "NOT COMPARABLE  The models cannot be compared: no layers.\n"


@pytest.mark.parametrize(
    ("conclusion", "colour"), [("derived", "31"), ("identical", "31"), ("independent", "32"), ("inconclusive", "33")]
)
def test_the_word_is_coloured_where_a_terminal_shows_colours(conclusion: Conclusion, colour: str) -> None:
    found = verdict().model_copy(update={"conclusion": conclusion})
    assert f"\x1b[1;{colour}m{conclusion.upper()}" in shown(found, terminal=True, colour=True)
    assert "\x1b" not in shown(found)


@pytest.mark.parametrize(
    ("rows", "line"),
    [
        ([(0, 0, True), (1, 1, True), (2, 2, True), (3, 5, True)], "0-2 from 0-2, 3 from 5"),
        ([(0, 0, True), (1, 1, True), (2, 0, True), (3, 1, True)], "0-1 from 0-1, 2-3 from 0-1"),
        ([(0, 4, True), (1, 4, True), (2, 5, True)], "0-1 from 4, 2 from 5"),
        ([(0, 0, True), (1, None, False), (2, 1, False), (3, 3, True)], "0 from 0, 3 from 3; not derived: 1-2"),
        ([(0, 0, False)], "not derived: 0"),
    ],
)
def test_ranges_of_layers_are_collapsed(rows: list[tuple[int, int | None, bool]], line: str) -> None:
    assert layer_line(layers(*rows)) == line


# -- contrary evidence -------------------------------------------------------------------------------------------------


def test_silence_of_a_test_that_could_say_no_more_is_not_held_against_a_derivation() -> None:
    few = evidence(name="groups", log10_p=-0.6, log10_floor=-0.6, beyond=False)
    assert verdict("derived", evidence(), few).contrary is None
    assert standing(verdict(), few) == "not beyond: as extreme as it can be"


def test_silence_of_a_test_that_could_have_spoken_is_held_against_a_derivation() -> None:
    silent = evidence(name="groups", log10_p=0.0, log10_floor=-150.0, beyond=False)
    contrary = verdict("derived", evidence(), silent).contrary
    assert contrary is not None
    assert contrary.startswith("groups: p = 1, as between strangers")
    assert "units in another order" in contrary


def test_a_size_below_its_margin_is_the_strongest_contrary_of_a_derivation() -> None:
    silent = evidence(name="groups", log10_p=0.0, log10_floor=-150.0, beyond=False)
    contrary = verdict("derived", evidence(), silent, matched(0.08)).contrary
    assert contrary == "matched attention heads agree to 0.080 only, below their margin of 0.15"


def test_a_small_p_value_that_does_not_decide_is_held_against_independence() -> None:
    nearly = evidence(log10_p=-4.25, beyond=False)
    contrary = verdict("independent", nearly, matched(0.02)).contrary
    assert contrary == "units in stored order: p = 10^-4.2, not beyond its share of alpha"


# -- the evidence ------------------------------------------------------------------------------------------------------


def test_evidence_is_a_table_with_p_values_that_are_never_zero() -> None:
    text = shown(verdict())
    assert row(text, "units in stored order") == [
        "units in stored order", "the numbering is exchangeable", "10^-506.9", "0.994", "", "beyond; decides",
        "units in another order",
    ]  # fmt: skip
    assert row(text, "heads matched") == [
        "heads matched on QK", "the numbering is exchangeable", "", "0.993", "0.150", "beyond",
        "units in another order",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"size": 0.02, "beyond": False}, "below"),
        ({"carries": False, "beyond": False}, "shown only"),
        ({"carries": False, "notes": ("not calibrated on independent models",)}, "shown only: not calibrated"),
        ({"id": "embedding/v1", "carries": False}, "beyond; for the embedding only"),
        ({"status": "not_applicable", "reason": "no heads"}, "not applicable: no heads"),
    ],
)
def test_every_piece_of_evidence_says_where_it_stands(changed: dict[str, object], says: str) -> None:
    assert row(shown(verdict("derived", evidence(), matched(0.9, **changed))), "heads matched")[5] == says


def test_controls_and_third_models_stand_below_the_evidence() -> None:
    thirds = (
        ThirdModel(side="suspect", control="other", sizes={"heads": 0.011, "units": None}),
        ThirdModel(side="base", control="other", sizes={"heads": 0.012, "units": None}),
    )
    text = shown(verdict(third_models=thirds))
    assert "| relabellings that reached it |      0 | of 999 drawn" in text
    assert "| mismatched layers            | 0.0170 | similarity" in text
    assert row(text, "suspect vs base")[1] == "0.993"
    assert row(text, "suspect vs other") == ["suspect vs other", "0.011", "-"]
    assert row(text, "base vs other")[1] == "0.012"


def test_details_add_the_map_and_what_evidence_rests_on() -> None:
    table = Table(title="by layer", columns=("layer", "size"), rows=((0, 0.125),))
    noted = matched(0.993, tables=(table,), notes=("three layers",))
    found = verdict("derived", evidence(), noted, power=SEEN)
    brief, full = shown(found), shown(found, details=True)
    for text in (
        "0.8750",
        "null: the numbering",
        "rung: 2 matched",
        "smallest possible p: 10^-506.9",
        "defeated by: units",
        "by layer",
        "0.1250",
        "three layers",
        "32 to 256",
    ):
        assert text not in brief, text
        assert text in full, text
    assert "distillation" in full


# -- hard cases --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [40, 60, 99, 100, 140])
def test_no_line_is_wider_than_the_terminal_and_nothing_is_lost(width: int) -> None:
    absent = evidence(name="experts", status="not_applicable", reason="one of the models has no routed experts")
    text = shown(verdict("derived", evidence(), matched(0.993), absent), width=width, terminal=True, details=True)
    assert max(map(len, text.splitlines())) <= width
    joined = "".join(text.split())
    for said in ("DERIVED", "10^-506.9", "norouted", "relabellings"):
        assert said in joined, said


@pytest.mark.parametrize(("width", "terminal"), [(60, True), (160, True), (1000, False)])
def test_hostile_names_reach_the_terminal_as_text(width: int, terminal: bool) -> None:
    name = "[red]\x1b[31m\u202e\nname"
    thirds = (ThirdModel(side="suspect", control=name, sizes={"heads": 0.1}),)
    control = Value(name=name, value=None, kind="statistic", reason=name)
    table = Table(title=name, columns=(name,), rows=((name,),))
    bad = evidence(name=name, notes=(name,), controls=(control,), tables=(table,), null=name)
    absent = matched(0.2, status="not_applicable", reason=name)
    parts = (
        ComponentVerdict(component="trunk", conclusion="derived", reason=name),
        ComponentVerdict(component="embedding", conclusion="derived", reason=name),
    )
    text = shown(
        verdict("derived", bad, absent, third_models=thirds, components=parts),
        width=width, terminal=terminal, details=True,
    )  # fmt: skip
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "\nname" not in text
    assert "[red]" in text


def test_a_verdict_without_evidence_prints_a_summary_only() -> None:
    found = Verdict(conclusion="inconclusive", headline="Nothing ran.", alpha=1e-6, planned=8)
    assert summary(found) == []
    assert shown(found, details=True) == "INCONCLUSIVE  Nothing ran.\n"
