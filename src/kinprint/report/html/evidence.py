"""Everything that was tested: parts, one row a test, each test with its null and what defeats it, controls, power."""

from __future__ import annotations

from collections.abc import Iterator

from kinprint.report.cells import number
from kinprint.report.html.markup import Content, Markup, tag
from kinprint.report.html.tables import details_table, facts_list, reading, table, values_table, whole
from kinprint.report.html.words import MATCHED, RUNG_MEANING, short
from kinprint.report.verdict import RUNGS, standing
from kinprint.types import Cell, Evidence, Population, Verdict
from kinprint.verdict.words import probability

_READ = (
    "“Beyond” speaks for derivation; “below” and “not beyond” do not. “Shown only” enters no verdict. An exact test "
    "has a p-value; a matched test has a size and a margin, and no p-value."
)


def parts(verdict: Verdict) -> Content:
    """Return the verdict on each part of the suspect.

    Args:
        verdict: What was decided.
    """
    if not verdict.components:
        return None
    rows = [
        (short(one.component), tag("strong", one.conclusion.replace("_", " ")), one.reason)
        for one in verdict.components
    ]
    return table(("part", "conclusion", "why"), rows, "Verdicts on parts")


def evidence(verdict: Verdict) -> Content:
    """Return all tests: one row each to look over and sort, then each with everything that it rests on.

    Args:
        verdict: What was decided.
    """
    lead = (
        f"{verdict.planned} exact tests were planned; together they call independent models derived with a probability "
        f"of at most {verdict.alpha:g}. {_READ}"
    )
    if not verdict.evidence:
        return tag("p", "No test ran on this pair.")
    return [
        tag("p", lead),
        _overview(verdict),
        tag("h3", "Test by test"),
        [_piece(verdict, one, at) for at, one in enumerate(verdict.evidence)],
    ]


def _overview(verdict: Verdict) -> Markup:
    columns = (("test", None), ("kind", None), ("p", "number"), ("size", "number"), ("margin", "number"),
               ("what it says", None))  # fmt: skip
    head = tag("tr", [tag("th", name, scope="col", class_=kind) for name, kind in columns])
    body = [_row(verdict, one, at) for at, one in enumerate(verdict.evidence)]
    kind = "overview sortable" if len(body) > 1 else "overview"
    held = tag("table", tag("thead", head), tag("tbody", body), class_=kind)
    return tag("div", held, class_="wide", tabindex="0", role="group", aria_label="All tests, one row each")


def _row(verdict: Verdict, one: Evidence, at: int) -> Markup:
    p = "" if one.log10_p is None else probability(one.log10_p)
    size, margin = (("" if value is None else f"{value:z.3f}") for value in (one.size, one.margin))
    return tag(
        "tr",
        tag("th", tag("a", one.name, href=f"#test-{at}"), scope="row"),
        tag("td", RUNGS[one.rung], data_value=str(one.rung)),
        _number(p, one.log10_p),
        _number(size, one.size),
        _number(margin, one.margin),
        tag("td", short(standing(verdict, one))),
        class_="decides" if one.name == verdict.decided_by else "silent" if one.status == "not_applicable" else None,
    )


def _number(shown: str, value: float | None) -> Markup:
    return tag("td", shown, class_="number", data_value="" if value is None else repr(value))


def _piece(verdict: Verdict, one: Evidence, at: int) -> Content:
    numbers = [
        f"p = {probability(one.log10_p)}" if one.log10_p is not None else None,
        f"size {one.size:z.3f}" if one.size is not None else None,
    ]
    told = "; ".join(filter(None, [*numbers, short(standing(verdict, one))]))
    # The id is inside what folds: a browser unfolds what a link leads into.
    return tag(
        "details",
        tag("summary", tag("strong", one.name), " ", tag("span", told, class_="standing")),
        tag("div", facts_list(_facts(one)), id=f"test-{at}", class_="target"),
        values_table("Controls", one.controls),
        [details_table(held) for held in one.tables],
        open="" if one.name == verdict.decided_by else None,
    )


def _facts(one: Evidence) -> Iterator[tuple[str, Content]]:
    yield "kind", f"rung {one.rung}, {RUNGS[one.rung]}: {RUNG_MEANING[one.rung]}"
    yield "null hypothesis", one.null
    yield "p-value", probability(one.log10_p) if one.log10_p is not None else None
    yield "smallest possible p", probability(one.log10_floor) if one.log10_floor is not None else None
    yield "effect (size)", f"{number(one.size)}; 0 for strangers, 1 for the same" if one.size is not None else None
    yield "margin", f"{one.margin:.2f}" if one.margin is not None else None
    yield "what could defeat it", one.defeats
    yield "why it did not run", one.reason
    yield "independent pairs", _people(one.population) if one.population is not None else None
    for note in one.notes:
        yield "note", note
    yield "method", tag("code", one.id)


def _people(people: Population) -> str:
    return (
        f"{people.pairs} pairs of {people.models} models, the largest at {people.largest:.3f}, "
        f"{people.passed} beyond the margin: an error rate of at most {people.bound:.2g} if pairs count as "
        f"independent draws, {people.bound_disjoint:.2g} if only those that share no model do"
        + (f"; {people.outside}" if people.outside else "")
    )


def controls(verdict: Verdict) -> Content:
    """Return what must look negative if the tests that count are to mean anything, and sizes against third models.

    Args:
        verdict: What was decided.
    """
    counting = [one for one in verdict.evidence if one.carries or one.name == verdict.decided_by]
    rows = [(one.name, value.name, whole(value), reading(value)) for one in counting for value in one.controls]
    told: list[Content] = []
    if rows:
        text = (
            "Shuffles, layers that do not correspond, and parts of one model against itself: what chance gives. Here "
            "are those of tests that may carry a verdict; every test has its own above."
        )
        columns = ("test", "control", "value", "how to read it")
        told += [tag("p", text), table(columns, rows, "Controls of the tests")]
    if verdict.third_models:
        told += [tag("h3", "Against third models"), _third_models(verdict)]
    return told


def _third_models(verdict: Verdict) -> Content:
    names = list(dict.fromkeys(name for third in verdict.third_models for name in third.sizes))
    # The record keys third models by a short name, which the id of the evidence on the pair itself ends in.
    own: dict[str, float | None] = {}
    for one in verdict.evidence:
        kind, _, name = one.id.split("/")[0].partition("-")
        if kind == "matched" or name not in own:
            own[name] = one.size
    rows: list[list[Cell | Markup]] = [[tag("strong", "suspect and base"), *(own.get(name) for name in names)]]
    rows += [
        [f"{third.side} and {short(third.control)}", *(third.sizes.get(name) for name in names)]
        for third in verdict.third_models
    ]
    text = "The same sizes with a third model in the place of one side: what architecture and chance give."
    columns = ("pair", *(short(f"matched {name}" if name in MATCHED else name) for name in names))
    return [tag("p", text), table(columns, rows, "Sizes against third models")]


def power(verdict: Verdict) -> Content:
    """Return what would have been seen had one model come from the other, and what is not excluded.

    Args:
        verdict: What was decided.
    """
    if verdict.power is None:
        return None
    rows = [
        (one.change, f"{one.seen} of {one.plantings}", f"at least {one.lower_bound:.1%}")
        for one in verdict.power.plantings
    ]
    text = "Copies were planted in the suspect's own weights, and looked for as the base was:"
    return [
        tag("p", text if rows else "No copies were planted to see whether they would be found."),
        table(("planted change", "seen", "share seen (95 %)"), rows, "Planted copies") if rows else None,
        tag("h3", "Not excluded"),
        tag("ul", [tag("li", one) for one in verdict.power.not_excluded]),
    ]
