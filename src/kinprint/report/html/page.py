"""The page from top to bottom: the verdict first, then what it rests on, then everything that was measured.

One file without a script: pictures are SVG, what unfolds is HTML's own, and the policy in its head lets a browser load
nothing at all. Only its style sheet, known by its digest, applies.
"""

from __future__ import annotations

import base64
import hashlib
import shlex
from collections.abc import Iterable, Iterator, Sequence
from importlib import resources

from kinprint.report import figures
from kinprint.report.behaviour import AXIS
from kinprint.report.cells import number
from kinprint.report.html.charts import draw
from kinprint.report.html.markup import Content, Markup, tag
from kinprint.report.html.words import LIMITS, MEANING, RUNG_MEANING
from kinprint.report.terminal import MEASURED_BESIDE
from kinprint.report.verdict import RUNGS, standing
from kinprint.types import (
    Behaviour,
    Cell,
    Comparison,
    ControlPair,
    Evidence,
    MethodResult,
    ModelInfo,
    Table,
    Value,
    Verdict,
)
from kinprint.verdict.words import probability

MOST_ROWS = 240
"""Rows of one table; a page of a hundred layers and as many experts stays small, and the JSON holds the rest."""

LAYERED = ("layers", "parts", "sigmas", "spectra", "gains")
"""Figures of the section on layers."""


def page(comparison: Comparison) -> str:
    """Return a comparison as a page of its own.

    Args:
        comparison: What was found.

    Returns:
        HTML in which nothing refers to anything outside.
    """
    style = (resources.files("kinprint.report.html") / "style.css").read_text(encoding="utf-8")
    known = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{known}'; base-uri 'none'; form-action 'none'"
    title = f"{comparison.suspect.name} and {comparison.base.name}: kinprint"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Markup(style)),
    )
    sections = [(name, heading, body) for name, heading, body in _sections(comparison) if body]
    links = tag("nav", [tag("a", heading, href=f"#{name}") for name, heading, _ in sections], aria_label="Sections")
    body = tag(
        "body",
        tag("header", tag("h1", f"Was {comparison.suspect.name} derived from {comparison.base.name}?"), links),
        tag(
            "main",
            [
                tag(
                    "section", tag("h2", heading, id=f"{name}-title"), content, id=name, aria_labelledby=f"{name}-title"
                )
                for name, heading, content in sections
            ],
        ),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


def _sections(comparison: Comparison) -> Iterator[tuple[str, str, Content]]:
    verdict = comparison.verdict
    if verdict is not None:
        yield "verdict", "Verdict", _verdict(verdict)
    yield "models", "What was compared", _models(comparison)
    if verdict is not None:
        yield "place", "Where this pair falls", _figures(comparison, "place")
        yield "layers", "Layer by layer", _figures(comparison, *LAYERED)
        yield "parts", "Parts", _parts(verdict)
        yield "evidence", "Evidence", _evidence(verdict)
        yield "power", "What would have been seen", _power(verdict)
    yield "methods", "Methods of the literature", _methods(comparison)
    if comparison.behaviour is not None:
        yield "behaviour", "Behaviour", _behaviour(comparison.behaviour)
    yield "limits", "Limits and other explanations", _limits(verdict)
    yield "reproduce", "How to reproduce this", _reproduce(comparison)


# -- the verdict and what it is about --------------------------------------------------------------------------------


def _verdict(verdict: Verdict) -> Content:
    word = verdict.conclusion.replace("_", " ")
    told: list[Content] = [
        tag("p", tag("span", word.upper(), class_="word"), " ", tag("strong", verdict.headline)),
        tag("p", MEANING[verdict.conclusion]),
        tag("ul", [tag("li", reason) for reason in verdict.reasons]) if verdict.reasons else None,
    ]
    if verdict.contrary:
        told.append(tag("p", tag("strong", "Against it: "), verdict.contrary))
    if verdict.alternatives:
        told.append(tag("p", tag("strong", "It may also be: "), "; ".join(verdict.alternatives), "."))
    return tag("div", told, class_=f"verdict {verdict.conclusion}")


def _models(comparison: Comparison) -> Content:
    labelled = [("suspect", comparison.suspect), ("base", comparison.base)]
    labelled += [(f"control {at}", model) for at, model in enumerate(comparison.controls, start=1)]
    reading = comparison.verdict.reading if comparison.verdict is not None else None
    read = {"suspect": reading.suspect, "base": reading.base} if reading is not None else {}
    return [
        [
            tag("h3", f"{label}: {model.name}"),
            _list(
                [
                    ("where", model.location),
                    ("format, family", f"{model.format}, {model.family}"),
                    ("size", _size(model)),
                    ("understood", f"{model.coverage:.1%} of the parameters have a role"),
                    ("read", _read(read[label].bytes_read, read[label].bytes_total) if label in read else None),
                    ("revision", read[label].revision if label in read else None),
                    ("content digest", model.content_digest or "not all bytes were read"),
                    ("header digest", model.header_digest),
                    *(("note", note) for note in (*model.notes, *model.inferred)),
                ]
            ),
        ]
        for label, model in labelled
    ]


def _size(model: ModelInfo) -> str:
    sizes = model.geometry
    named = (("layers", sizes.layers), ("wide", sizes.hidden), ("heads", sizes.heads), ("experts", sizes.experts))
    return ", ".join([f"{model.parameters:,} parameters", *(f"{value:,} {name}" for name, value in named if value)])


def _read(count: int, total: int) -> str:
    return f"{count:,} bytes, {min(1.0, count / total) if total else 0.0:.2%} of all"


# -- pictures --------------------------------------------------------------------------------------------------------


def _figures(comparison: Comparison, *kinds: str) -> Content:
    return [draw(one) for one in figures.found(comparison, *kinds)]


# -- evidence --------------------------------------------------------------------------------------------------------


def _parts(verdict: Verdict) -> Content:
    if not verdict.components:
        return None
    rows = [(one.component, one.conclusion.replace("_", " "), one.reason) for one in verdict.components]
    return _table(("part", "conclusion", "why"), rows)


def _evidence(verdict: Verdict) -> Content:
    lead = (
        f"{verdict.planned} exact tests were planned; together they call independent models derived with a probability "
        f"of at most {verdict.alpha:g}. A matched test has a size and no p-value. What decides is open below."
    )
    return [tag("p", lead), [_piece(verdict, one) for one in verdict.evidence]]


def _piece(verdict: Verdict, one: Evidence) -> Content:
    numbers = [
        f"p = {probability(one.log10_p)}" if one.log10_p is not None else None,
        f"size {one.size:.3f}" if one.size is not None else None,
    ]
    told = "; ".join(filter(None, [*numbers, standing(verdict, one)]))
    people = one.population
    facts: list[tuple[str, Content]] = [
        ("kind", f"rung {one.rung}, {RUNGS[one.rung]}: {RUNG_MEANING[one.rung]}"),
        ("null hypothesis", one.null),
        ("smallest possible p", probability(one.log10_floor) if one.log10_floor is not None else None),
        ("margin", f"{one.margin:.2f}" if one.margin is not None else None),
        ("what could defeat it", one.defeats),
        ("why it did not run", one.reason),
    ]
    if people is not None:
        facts.append(
            (
                "independent pairs",
                f"{people.pairs} pairs of {people.models} models, the largest at {people.largest:.3f}, "
                f"{people.passed} beyond the margin: an error rate of at most {people.bound:.2g} if pairs count as "
                f"independent draws, {people.bound_disjoint:.2g} if only those that share no model do"
                + (f"; {people.outside}" if people.outside else ""),
            )
        )
    facts += [("note", note) for note in one.notes]
    facts.append(("method", tag("code", one.id)))
    controls = _values("Controls", one.controls)
    opened = "" if one.name == verdict.decided_by else None
    return tag(
        "details",
        tag("summary", tag("strong", one.name), " ", tag("span", told, class_="standing")),
        _list(facts),
        controls,
        [_details(table) for table in one.tables],
        open=opened,
    )


def _power(verdict: Verdict) -> Content:
    if verdict.power is None:
        return None
    rows = [
        (one.change, f"{one.seen} of {one.plantings}", f"at least {one.lower_bound:.1%}")
        for one in verdict.power.plantings
    ]
    return [
        tag("p", "Copies were planted in the suspect's own weights, and looked for as the base was:"),
        _table(("planted change", "seen", "share seen (95 %)"), rows),
        tag("p", "Not excluded:"),
        tag("ul", [tag("li", one) for one in verdict.power.not_excluded]),
    ]


# -- methods and behaviour -------------------------------------------------------------------------------------------


def _methods(comparison: Comparison) -> Content:
    if not comparison.methods:
        return None
    if comparison.status == "not_comparable":
        return tag("p", f"Not comparable: {comparison.reason or 'no reason given'}")
    return [tag("p", MEASURED_BESIDE), [_method(result, comparison.control_pairs) for result in comparison.methods]]


def _method(result: MethodResult, pairs: Sequence[ControlPair]) -> Content:
    first = result.values[0] if result.values else None
    told = result.reason or (f"{first.name} {number(first.value)}" if first is not None else "nothing measured")
    thirds = _thirds(result, pairs)
    return tag(
        "details",
        tag("summary", tag("strong", result.method), " ", tag("span", told, class_="standing")),
        _values("Values", result.values, thirds),
        _values("Controls: what must look negative", result.controls),
        [_details(table) for table in result.tables if not table.plotted],
        tag("ul", [tag("li", note) for note in result.notes]) if result.notes else None,
        _list([("source", result.source), ("method", tag("code", result.id))]),
    )


def _thirds(result: MethodResult, pairs: Sequence[ControlPair]) -> dict[str, dict[str, float | None]]:
    """Return what a method gives against third models: numbers by name of the value, by the pair's name."""
    found: dict[str, dict[str, float | None]] = {}
    for pair in pairs:
        other = next((one for one in pair.methods if one.id == result.id), None)
        if other is not None:
            found[f"{pair.side} and {pair.control}"] = {one.name: one.value for one in other.values}
    return found


def _behaviour(found: Behaviour) -> Content:
    probes = found.probes
    return [
        tag("p", AXIS),
        tag("p", tag("strong", found.summary)),
        tag("p", f"{probes.asked} of {probes.given} probes of {probes.name} ({probes.digest})."),
        [_method(result, found.control_pairs) for result in found.methods],
    ]


# -- limits and reproduction -----------------------------------------------------------------------------------------


def _limits(verdict: Verdict | None) -> Content:
    told: list[str] = list(verdict.alternatives) if verdict is not None else []
    if verdict is not None and verdict.reading is not None:
        told += verdict.reading.notes
        if verdict.reading.sampled:
            told.append("a sample of each model was read, and the verdict is about what was read")
    return tag("ul", [tag("li", one) for one in (*told, *LIMITS)])


def _reproduce(comparison: Comparison) -> Content:
    verdict = comparison.verdict
    reading = verdict.reading if verdict is not None else None
    revisions = (reading.suspect.revision, reading.base.revision) if reading is not None else (None, None)
    pair = zip((comparison.suspect, comparison.base), revisions, strict=True)
    words = ["kinprint", "compare", *(_pinned(model.location, revision) for model, revision in pair)]
    for model in comparison.controls:
        words += ["--control", model.location]
    if verdict is not None:
        words += ["--alpha", f"{verdict.alpha:g}"]
    ids = [one.id for one in (verdict.evidence if verdict is not None else ())] + [one.id for one in comparison.methods]
    return [
        tag("pre", shlex.join(words)),
        tag(
            "p",
            "Options that choose what is read (--quick, --thorough, --budget, --component, ...) are not in the record.",
        ),
        tag("p", "Seeds and every setting that changes a number are in the ids of the tests and methods:"),
        _list([("kinprint", comparison.kinprint_version), *(("id", tag("code", one)) for one in dict.fromkeys(ids))]),
    ]


def _pinned(location: str, revision: str | None) -> str:
    """Return a place with the commit that was read, where it is a repository's: what it was named by may move."""
    return location if revision is None else f"{location.partition('@')[0]}@{revision}"


# -- lists and tables ------------------------------------------------------------------------------------------------


def _list(facts: Iterable[tuple[str, Content]]) -> Markup:
    return tag("dl", [[tag("dt", name), tag("dd", fact)] for name, fact in facts if fact is not None and fact != ""])


def _values(title: str, values: Sequence[Value], thirds: dict[str, dict[str, float | None]] | None = None) -> Content:
    if not values:
        return None
    others = thirds or {}
    header = ("", "suspect and base", "same model", *others, "how to read it")
    rows = [
        (
            *(one.name, one.value, one.identical, *(held.get(one.name) for held in others.values())),
            one.reason or one.note or ("" if one.kind == "statistic" else one.kind),
        )
        for one in values
    ]
    return [tag("h3", title), _table(header, rows)]


def _details(table: Table) -> Content:
    left = len(table.rows) - MOST_ROWS
    more = tag("p", f"{left} more rows are in the JSON.", class_="soft") if left > 0 else None
    return [tag("h3", table.title), _table(table.columns, table.rows[:MOST_ROWS]), more]


def _table(columns: Sequence[str], rows: Iterable[Sequence[Cell]]) -> Markup:
    head = tag("tr", [tag("th", column, scope="col") for column in columns])
    body = [tag("tr", [_cell(cell) for cell in row]) for row in rows]
    # Reached by keys, since it may have to be scrolled.
    return tag("div", tag("table", tag("thead", head), tag("tbody", body)), class_="wide", tabindex="0")


def _cell(cell: Cell) -> Markup:
    return tag("td", cell) if isinstance(cell, str) else tag("td", number(cell), class_="number")
