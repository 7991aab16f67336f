"""The page from top to bottom: the verdict first, then what it rests on, then everything that was measured.

One file: pictures are SVG, what unfolds is HTML's own, and the policy in its head lets a browser load nothing at all.
Only its style sheet and its one script apply, both constants that are known by their digests. The script adds sorting,
read-outs and switches to what the document holds; without it nothing is missing.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from importlib import resources

from kinprint.evidence.population import innocents
from kinprint.report.cells import number
from kinprint.report.html.charts import Line, Mark, curves, figure, layer_map, layer_strips, strip
from kinprint.report.html.evidence import controls, evidence, parts, power
from kinprint.report.html.literature import behaviour, methods
from kinprint.report.html.markup import Content, Markup, tag
from kinprint.report.html.opening import models, verdict_card
from kinprint.report.html.reproduction import reproduction
from kinprint.report.html.words import LIMITS, MATCHED, short
from kinprint.report.summary import layer_line
from kinprint.types import Cell, Comparison, MethodResult, Verdict


def page(comparison: Comparison) -> str:
    """Return a comparison as a page of its own.

    Args:
        comparison: What was found.

    Returns:
        HTML in which nothing refers to anything outside.
    """
    style, script = _constant("style.css"), _constant("page.js")
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'; form-action 'none'"
    )
    suspect, base = short(comparison.suspect.name), short(comparison.base.name)
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", f"{suspect} and {base}: kinprint"),
        tag("style", Markup(style)),
    )
    sections = [(name, heading, body) for name, heading, body in _sections(comparison) if body]
    links = [tag("li", tag("a", heading, href=f"#{name}")) for name, heading, _ in sections]
    body = tag(
        "body",
        tag("a", "Skip to the result", href="#content", class_="skip"),
        tag(
            "header",
            tag("p", "kinprint: a comparison of weights", class_="soft"),
            tag("h1", "Was ", tag("bdi", suspect), " derived from ", tag("bdi", base), "?"),
        ),
        tag("nav", tag("ol", links), aria_label="Sections"),
        tag("main", [_section(*one) for one in sections], id="content", tabindex="-1"),
        tag("footer", tag("p", f"Made by kinprint {comparison.kinprint_version}. {_FOOT}")),
        tag("script", Markup(script)),
    )
    return "<!doctype html>\n" + tag("html", head, body, lang="en") + "\n"


_FOOT = (
    "This page is one file. It loads nothing and sends nothing; its one script, the same on every page, sorts tables "
    "and reads out values. Whatever a checkpoint or its maker wrote is shown as text."
)


def _section(name: str, heading: str, content: Content) -> Markup:
    title = f"{name}-title"
    return tag("section", tag("h2", heading, id=title), content, id=name, aria_labelledby=title)


def _constant(name: str) -> str:
    return (resources.files("kinprint.report.html") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _sections(comparison: Comparison) -> Iterator[tuple[str, str, Content]]:
    verdict = comparison.verdict
    if verdict is not None:
        yield "verdict", "Verdict", verdict_card(verdict)
    yield "models", "What was compared", models(comparison)
    if verdict is not None:
        yield "place", "Where this pair falls", _place(verdict)
        yield "layers", "Layer by layer", _layers(comparison, verdict)
        yield "parts", "Parts", parts(verdict)
        yield "evidence", "Evidence", evidence(verdict)
        yield "controls", "Controls", controls(verdict)
        yield "power", "What would have been seen", power(verdict)
    yield "methods", "Methods of the literature", methods(comparison)
    if comparison.behaviour is not None:
        yield "behaviour", "Behaviour", behaviour(comparison.behaviour)
    yield "limits", "Limits and other explanations", _limits(verdict)
    yield "reproduce", "How to reproduce this", reproduction(comparison)


def _limits(verdict: Verdict | None) -> Content:
    told: list[str] = list(verdict.alternatives) if verdict is not None else []
    if verdict is not None and verdict.reading is not None:
        told += verdict.reading.notes
        if verdict.reading.sampled:
            told.append("a sample of each model was read, and the verdict is about what was read")
    return tag("ul", [tag("li", one) for one in (*told, *LIMITS)])


# -- pictures --------------------------------------------------------------------------------------------------------


def _place(verdict: Verdict) -> Content:
    """Return the pair among independent pairs that the margins and their error rate were found on."""
    drawn: list[Content] = []
    for name, words in MATCHED.items():
        own = next((one for one in verdict.evidence if one.id.split("/")[0] == f"matched-{name}"), None)
        if own is None or own.size is None:
            continue
        strangers = innocents().sizes(name, "report")
        if not strangers:
            continue
        thirds = [
            Mark(f"{third.side} and {third.control}", value, "third")
            for third in verdict.third_models
            if (value := third.sizes.get(name)) is not None
        ]
        above = sum(value >= own.size for value in strangers)
        finding = (
            f"By {words} the pair is at {own.size:.3f}; "
            + ("none" if above == 0 else str(above))
            + f" of {len(strangers)} independent pairs reaches that, the largest is at {max(strangers):.3f}."
        )
        caption = (
            " Each dot is a pair of models that were trained apart; the diamond is this pair, triangles are its sides"
            " against third models. 0 is what strangers have, 1 the same weights."
        )
        marks = [*thirds, Mark("this pair", own.size, "pair")]
        drawn.append(figure(finding, strip(strangers, marks, own.margin, f"size of {words}"), caption))
    return drawn


def _layers(comparison: Comparison, verdict: Verdict) -> Content:
    drawn: list[Content] = []
    found = verdict.layer_map
    if found is not None and found.layers:
        derived = sum(one.derived for one in found.layers)
        named = layer_line(found)
        deepest = max((one.base for one in found.layers if one.base is not None), default=-1) + 1
        base_layers = max(comparison.base.geometry.layers or 0, deepest)
        finding = f"{derived} of {len(found.layers)} layers come from layers of the base" + (
            f": {named}." if derived else "; where the nearest ones stand is a guess."
        )
        caption = " A diagonal is the same order, a step a cut or a repeat. The fuller the colour, the more alike."
        drawn.append(figure(finding, layer_map(found, base_layers), caption))
        rows = {
            "attention heads": [one.heads for one in found.layers],
            "MLP units": [one.units for one in found.layers],
            "similarity": [one.similarity for one in found.layers],
        }
        drawn.append(figure("How much of each layer is left, by part.", layer_strips(rows)))
    for method in comparison.methods:
        if method.method == "intrinsic":
            drawn += _sigmas(method)
        elif method.method == "layernorm":
            drawn += _gains(method)
    return drawn


def _sigmas(method: MethodResult) -> list[Content]:
    """Return the sequences of standard deviations of both models (Intrinsic Fingerprint), one picture for each role."""
    table = next((one for one in method.tables if one.title.startswith("standard deviation")), None)
    if table is None:
        return []
    drawn: list[Content] = []
    places = {name: at for at, name in enumerate(table.columns)}
    for name in table.columns:
        role = name.removesuffix(" suspect")
        if role == name or f"{role} base" not in places:
            continue
        lines = [
            Line(side, [_float(row[places[f"{role} {side}"]]) for row in table.rows], side)
            for side in ("suspect", "base")
        ]
        correlation = next((one.value for one in method.values if one.name == f"{role} pearson"), None)
        finding = f"Standard deviation of {role} over layers: correlation {number(correlation)}."
        drawn.append(figure(finding, curves(lines, "layer")))
    if drawn:
        reverse = next((one for one in method.controls if one.name.endswith("reversed")), None)
        said = f" With one model's layers reversed the similarity is {number(reverse.value)}." if reverse else ""
        text = "Intrinsic Fingerprint: models of one recipe have like curves, so these do not enter the verdict."
        return [tag("details", tag("summary", "Curves of the Intrinsic Fingerprint"), tag("p", text, said), drawn)]
    return []


def _gains(method: MethodResult) -> list[Content]:
    """Return cosines of norm gains by layer: raw, what means alone give, centred, and centred after a shuffle."""
    table = next((one for one in method.tables if one.title == "Norm gains by layer"), None)
    if table is None:
        return []
    places = {name: at for at, name in enumerate(table.columns)}
    drawn: list[Content] = []
    for role in dict.fromkeys(str(row[0]) for row in table.rows):
        rows = [row for row in table.rows if row[0] == role]
        if len(rows) < 2:
            continue
        named = (
            ("raw cosine", "raw cosine", "base"),
            ("expected from means alone", "expected raw", "control"),
            ("centred cosine", "centred cosine", "suspect"),
            ("centred, shuffled", "shuffled centred", "control"),
        )
        lines = [Line(told, [_float(row[places[name]]) for row in rows], kind) for told, name, kind in named]
        value = next((one.value for one in method.values if one.name == f"{role} centred cosine"), None)
        drawn.append(figure(f"Gains of {role}: mean centred cosine {number(value)}.", curves(lines, "layer")))
    if not drawn:
        return []
    text = (
        "Gains lie near one mean, so raw cosines are near 1 for any two models: what the means alone give is drawn "
        "beside them. The centred cosine is what is left, and its shuffle is what chance gives."
    )
    return [tag("details", tag("summary", "Norm gains, raw and centred"), tag("p", text), drawn)]


def _float(value: Cell) -> float | None:
    return float(value) if isinstance(value, int | float) else None
