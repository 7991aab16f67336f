"""What a reader sees first: the verdict with its error rate, what it means, and what was compared."""

from __future__ import annotations

from kinprint.report.html.markup import Content, Markup, tag
from kinprint.report.html.tables import MOST_ROWS, facts_list
from kinprint.report.html.words import MEANING, error_rate, short
from kinprint.report.summary import layer_line
from kinprint.types import Comparison, ModelInfo, ReadingSide, Verdict

_LONG = 400
"""Characters from which a text folds."""


def verdict_card(verdict: Verdict) -> Content:
    """Return the verdict in a sentence with its error rate, then in plain words, then why, why not and what else.

    Args:
        verdict: What was decided.
    """
    word = verdict.conclusion.replace("_", " ")
    told: list[Content] = [
        tag("p", tag("span", word.upper(), class_="word")),
        tag("p", verdict.headline, class_="headline"),
        facts_list([("error rate", error_rate(verdict)), *_found(verdict)]),
        tag("p", MEANING[verdict.conclusion], class_="plain"),
    ]
    if verdict.reasons:
        told += [tag("h3", "Because"), tag("ul", [tag("li", reason) for reason in verdict.reasons])]
    if verdict.contrary:
        told += [tag("h3", "What speaks against it"), tag("p", verdict.contrary)]
    if verdict.alternatives:
        told += [tag("h3", "What else it may be"), tag("ul", [tag("li", one) for one in verdict.alternatives])]
    return tag("div", told, class_=f"verdict {verdict.conclusion}")


def _found(verdict: Verdict) -> list[tuple[str, Content]]:
    """Return which layers come from which, and how much was read, where that is known."""
    facts: list[tuple[str, Content]] = []
    if verdict.conclusion == "derived" and verdict.layer_map is not None:
        facts.append(("layers", layer_line(verdict.layer_map)))
    if verdict.reading is not None:
        sides = (("suspect", verdict.reading.suspect), ("base", verdict.reading.base))
        facts.append(("read", ", ".join(f"{_share(side)} of the {name}" for name, side in sides)))
    return facts


def models(comparison: Comparison) -> Content:
    """Return what was compared, one card for each model.

    Args:
        comparison: What was found.
    """
    reading = comparison.verdict.reading if comparison.verdict is not None else None
    read = {"suspect": reading.suspect, "base": reading.base} if reading is not None else {}
    labelled = [("suspect", comparison.suspect), ("base", comparison.base)]
    labelled += [(f"control {at}", model) for at, model in enumerate(comparison.controls, start=1)]
    text = (
        "The question is whether the suspect was derived from the base. Controls are third models. Names and places "
        "are as given and count for nothing; digests tell whether other files are the same."
    )
    cards = [_card(label, model, read.get(label)) for label, model in labelled]
    return [tag("p", text), tag("div", cards, class_="cards")]


def _card(label: str, model: ModelInfo, read: ReadingSide | None) -> Markup:
    notes = (*model.notes, *model.inferred)
    facts: list[tuple[str, Content]] = [
        ("where", _folded(model.location)),
        ("revision", read.revision if read is not None else None),
        ("format", model.format),
        ("family", short(model.family)),
        ("size", _size(model)),
        ("read", f"{read.bytes_read:,} bytes, {_share(read)} of all" if read is not None else None),
        ("understood", f"{model.coverage:.1%} of the parameters have a role"),
        ("without a role", _unmapped(model.unmapped)),
        ("content digest", tag("code", model.content_digest) if model.content_digest else "not all bytes were read"),
        ("header digest", tag("code", model.header_digest)),
        *(("beside it", f"{one.name}, {one.parameters:,} parameters") for one in model.components),
        *(("note", _folded(note)) for note in notes),
    ]
    name = [tag("span", label, class_="label"), " ", tag("bdi", short(model.name))]
    whole = [("full name", _folded(model.name))] if short(model.name) != model.name else []
    return tag("article", tag("h3", name), facts_list([*whole, *facts]), class_="card")


def _unmapped(names: tuple[str, ...]) -> Content:
    if not names:
        return None
    shown = [tag("li", tag("code", short(name))) for name in names[:MOST_ROWS]]
    more = len(names) - len(shown)
    return tag(
        "details",
        tag("summary", f"{len(names):,} tensor{'s' if len(names) > 1 else ''}"),
        tag("ul", shown, tag("li", f"{more:,} more are in the JSON") if more else None),
    )


def _folded(text: str) -> Content:
    """Return a text, folded where it is longer than anybody would read."""
    return text if len(text) <= _LONG else tag("details", tag("summary", short(text)), tag("p", text))


def _size(model: ModelInfo) -> str:
    sizes = model.geometry
    named = (("layers", sizes.layers), ("wide", sizes.hidden), ("heads", sizes.heads), ("experts", sizes.experts))
    return ", ".join([f"{model.parameters:,} parameters", *(f"{value:,} {name}" for name, value in named if value)])


def _share(side: ReadingSide) -> str:
    share = min(1.0, side.bytes_read / side.bytes_total) if side.bytes_total else 0.0
    return f"{share:.0%}" if share in (0.0, 1.0) else f"{share:.2%}"
