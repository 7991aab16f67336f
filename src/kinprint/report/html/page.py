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

from kinprint.report import figures
from kinprint.report.html.charts import draw
from kinprint.report.html.evidence import controls, evidence, parts, power
from kinprint.report.html.literature import behaviour, methods
from kinprint.report.html.markup import Content, Markup, tag
from kinprint.report.html.opening import models, verdict_card
from kinprint.report.html.reproduction import reproduction
from kinprint.report.html.words import LIMITS, short
from kinprint.types import Comparison, Verdict


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
        yield "place", "Where this pair falls", _figures(comparison, "place")
        yield "layers", "Layer by layer", _figures(comparison, *LAYERED)
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

LAYERED = ("layers", "parts", "sigmas", "spectra", "gains")
"""Figures of the section on layers."""


def _figures(comparison: Comparison, *kinds: str) -> Content:
    return [draw(one) for one in figures.found(comparison, *kinds)]
