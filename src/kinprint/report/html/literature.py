"""What enters no verdict: methods of the literature beside their controls, and how two models behave."""

from __future__ import annotations

from collections.abc import Sequence

from kinprint.report.behaviour import AXIS
from kinprint.report.cells import number
from kinprint.report.html.markup import Content, tag
from kinprint.report.html.tables import details_table, facts_list, values_table
from kinprint.report.html.words import short
from kinprint.report.terminal import MEASURED_BESIDE
from kinprint.types import Behaviour, Comparison, ControlPair, MethodResult


def methods(comparison: Comparison) -> Content:
    """Return what each method of the literature measured.

    Args:
        comparison: What was found.
    """
    if not comparison.methods:
        return None
    if comparison.status == "not_comparable":
        return tag("p", f"Not comparable: {comparison.reason or 'no reason given'}")
    return [
        tag("p", MEASURED_BESIDE),
        tag("h3", "Method by method"),
        [_method(result, comparison.control_pairs) for result in comparison.methods],
    ]


def behaviour(found: Behaviour) -> Content:
    """Return what both models do on the same probes.

    Args:
        found: An axis of its own.
    """
    probes = found.probes
    return [
        tag("p", AXIS),
        tag("p", tag("strong", found.summary)),
        tag("p", f"{probes.asked} of {probes.given} probes of {probes.name} ({probes.digest})."),
        tag("h3", "Method by method"),
        [_method(result, found.control_pairs) for result in found.methods],
    ]


def _method(result: MethodResult, pairs: Sequence[ControlPair]) -> Content:
    first = result.values[0] if result.values else None
    told = result.reason or (f"{first.name} {number(first.value)}" if first is not None else "nothing measured")
    thirds = _thirds(result, pairs)
    return tag(
        "details",
        tag("summary", tag("strong", result.method), " ", tag("span", short(told), class_="standing")),
        values_table("Values", result.values, thirds),
        values_table("Controls: what must look negative", result.controls),
        [details_table(held) for held in result.tables if not held.plotted],
        tag("ul", [tag("li", note) for note in result.notes]) if result.notes else None,
        facts_list([("source", result.source), ("method", tag("code", result.id))]),
    )


def _thirds(result: MethodResult, pairs: Sequence[ControlPair]) -> dict[str, dict[str, float | None]]:
    """Return what a method gives against third models: numbers by name of the value, by the pair's name."""
    found: dict[str, dict[str, float | None]] = {}
    for at, pair in enumerate(pairs):
        other = next((one for one in pair.methods if one.id == result.id), None)
        if other is not None:
            name = f"{pair.side} and {short(pair.control)}"
            found[f"{name} ({at})" if name in found else name] = {one.name: one.value for one in other.values}
    return found
