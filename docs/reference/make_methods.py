"""Fill what the pages of methods show: what each method declares, its numbers on the shipped models, and its picture.

Usage: python docs/reference/make_methods.py

Every page ``docs/methods/NAME.md`` has a block ``declared``, from the method's declaration, and a block ``numbers``:
what the method says of the shipped models ``child``, ``laundered`` (derived) and ``twin`` (innocent) against ``base``.
The picture beside it, ``docs/images/method-NAME.svg``, is drawn from the same comparison and carries what it shows as
JSON in its description, so that a test can hold it to the program.

``router`` needs mixtures of experts: one is upcycled from the base, a copy of it with noise is the child, the child
with its experts renumbered is the laundered one, and another upcycling of the same base has a router of its own.

Behavioural methods run the models; they take minutes, and ``--weights`` leaves them and their pages alone.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinprint import api
from kinprint.architecture import ModelView
from kinprint.fingerprints import FingerprintMethod
from kinprint.registry import METHODS
from kinprint.report.plots import BLUE, GREY, ORANGE, SHARED_STYLE, VERMILION
from kinprint.transform import PRESERVING
from kinprint.types import MethodResult

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PAGES = ROOT / "docs" / "methods"
IMAGES = ROOT / "docs" / "images"
MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
SUSPECTS = ("child", "laundered", "twin")
COLOURS = {"child": BLUE, "laundered": ORANGE, "twin": VERMILION, "base": GREY}
MARKS = {"child": "o", "laundered": "s", "twin": "^", "base": "x"}
DIGITS = 3
"""Digits of what pictures show: enough to see, few enough that processors agree."""

FEW = 4
"""Places that have room for their names side by side."""

Results = Mapping[str, MethodResult]
"""What one method says of each suspect."""


@dataclass(frozen=True, slots=True)
class Picture:
    """What a method's picture shows on its left side; on the right stand the numbers of :data:`SHOWN`.

    Attributes:
        table: How the title of the method's table begins.
        across: Column that names the places along the axis.
        up: Column with the numbers, by suspect; ``{}`` of a ``both`` picture is "suspect" or "base".
        title: What is seen, as a finding.
        label: Of the upright axis.
        both: Whether the table has a column for each side, so that the base has a line of its own.
        log: Whether the upright axis is logarithmic.
        only: Rows to show: a column and its value.
    """

    table: str
    across: str
    up: str
    title: str
    label: str
    both: bool = False
    log: bool = False
    only: tuple[str, str] | None = None


PICTURES: Mapping[str, Picture] = {
    "layernorm": Picture(
        "Norm gains by layer", "layer", "centred cosine", "Centred, the stranger falls to 0", "centred cosine of gains",
        only=("norm", "norm.attn"),
    ),
    "tensor-cosine": Picture(
        "Cosine by role", "role", "cosine", "Only gains make strangers look alike", "cosine of facing tensors"
    ),
    "intrinsic": Picture(
        "standard deviation of all entries", "layer", "attn.o {}", "Deviations rise with depth in strangers too",
        "standard deviation of O", both=True,
    ),
    "ghostspec-mse": Picture(
        "layer map by attention spectra", "suspect layer", "distance", "Spectra outlast laundering",
        "distance of spectra", log=True,
    ),
    "ghostspec-corr": Picture(
        "mean of the scaled singular values", "suspect layer", "vo level, {}", "Laundering leaves levels alone",
        "mean scaled singular value of VO", both=True,
    ),
    "ghostspec-mlp": Picture(
        "layer map by spectra of down", "suspect layer", "distance", "Spectra of the MLP, layer by layer",
        "distance of down spectra", log=True,
    ),
    "pcs": Picture(
        "Parameters compared", "variant", "cosine", "Gains alone hold strangers up", "cosine of all parameters"
    ),
    "ics": Picture(
        "Correlation of the invariant terms", "matrix", "correlation", "New gains and a rotation take it",
        "correlation of token forms",
    ),
    "phi-u": Picture(
        "Matching of the up rows", "layer", "spearman", "Units stay in place in a child", "Spearman with the identity"
    ),
    "phi-match": Picture(
        "Matching of the gate rows", "layer", "spearman", "Two matchings agree in a child", "Spearman of two matchings"
    ),
    "router": Picture(
        "routers by pair of layers", "suspect layer", "similarity", "Renumbered experts are found again",
        "correlation of Gram entries",
    ),
}  # fmt: skip

SHOWN: Mapping[str, tuple[str, ...]] = {
    "layernorm": (
        "norm.attn raw cosine", "norm.attn shuffled raw cosine", "norm.attn centred cosine",
        "norm.attn bit-equal fraction",
    ),
    "tensor-cosine": ("attn.k cosine", "attn.k cosine, next layer", "embed.token cosine", "norm.attn cosine"),
    "intrinsic": ("similarity", "similarity, layers reversed", "similarity, layers shuffled: q95 of |r|"),
    "ghostspec-mse": ("similarity", "distance", "distance, mismatched layers", "similarity, layers reversed"),
    "ghostspec-corr": ("similarity", "similarity, layers shuffled: mean", "similarity, all levels shuffled: mean"),
    "ghostspec-mlp": ("similarity", "up: similarity", "down: similarity", "down: similarity, layers reversed"),
    "pcs": ("by name", "by name, rows shuffled", "by name, without embeddings"),
    "ics": ("similarity", "similarity, tokens shuffled"),
    "phi-u": ("similarity", "log10 p", "similarity, mismatched layers"),
    "phi-match": ("similarity", "log10 p", "similarity, mismatched layers"),
    "router": ("similarity", "similarity, entries shuffled and matched: mean", "similarity, mismatched layers"),
    "reef": ("similarity", "centred", "unbiased", "shuffled probes", "first blocks"),
    "logits": ("similarity", "mean explained", "random span"),
    "next-token": ("similarity", "agreement", "other probes"),
    "quere": ("similarity", "shuffled probes"),
    "attndiff": ("similarity", "unbiased", "maps without corruption"),
    "seedprint": ("similarity", "log10 p", "log10 floor"),
    "gradient": ("similarity", "kinds of matrices moved"),
}  # fmt: skip
"""Values and controls that a page shows, in its order; the first is what the method is known by."""

BEHAVIOURAL = ("reef", "logits", "next-token", "quere", "attndiff", "seedprint", "gradient")


# -- numbers -------------------------------------------------------------------------------------------------------


def measured() -> dict[str, Results]:
    """Return what every method on weights says of each suspect."""
    found: dict[str, dict[str, MethodResult]] = {name: {} for name in PICTURES}
    for suspect in SUSPECTS:
        for name in PICTURES:
            if name != "router":
                found[name][suspect] = _result(name, EXAMPLES / suspect, EXAMPLES / "base")
    found["router"] = dict(_mixtures())
    return dict(found)


def _result(name: str, suspect: Path, base: Path) -> MethodResult:
    """Return what one method says of one pair; no verdict is asked for."""
    method = METHODS[name]
    models = [model for path in (suspect, base) if isinstance(model := api.open_model(path), ModelView)]
    if isinstance(method, FingerprintMethod):
        return method.compare(*(method.extractor.run(model) for model in models))
    return method.compare(*models)


def _mixtures() -> Iterator[tuple[str, MethodResult]]:
    from kinprint.zoo.single import derive_folder

    made = (
        ("base", EXAMPLES / "base", ["upcycle:experts=8,noise=0.01"], 0),
        ("child", "base", ["noise:share=0.1"], 1),
        ("laundered", "child", ["residual-rotation", "expert-permutation"], 2),
        ("twin", EXAMPLES / "base", ["upcycle:experts=8,noise=0.01"], 3),
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, parent, kinds, seed in made:
            derive_folder(Path(folder) / parent, Path(folder) / name, kinds, seed=seed)
        for suspect in SUSPECTS:
            yield suspect, _result("router", Path(folder) / suspect, Path(folder) / "base")


def behaved() -> dict[str, Results]:
    """Return what every behavioural method says of each suspect."""
    from kinprint.behaviour.entry import behave

    found: dict[str, dict[str, MethodResult]] = {name: {} for name in BEHAVIOURAL}
    for suspect in SUSPECTS:
        for result in behave(str(EXAMPLES / suspect), str(EXAMPLES / "base")).methods:
            found[result.method][suspect] = result
    return dict(found)


def number(result: MethodResult, name: str) -> float | None:
    """Return a value or a control by name."""
    return next((one.value for one in (*result.values, *result.controls) if one.name == name), None)


# -- blocks of text --------------------------------------------------------------------------------------------------


def declared(name: str) -> str:
    """Return what a method promises to ignore and to notice."""
    method = METHODS[name]
    kinds = {
        "ignores": [change for change in PRESERVING if change in method.ignores],
        "notices": [change for change in PRESERVING if change in method.notices],
        "neither is promised": [change for change in PRESERVING if change not in method.ignores | method.notices],
    }
    rows = [f"| {what} | {', '.join(changes)} |" for what, changes in kinds.items() if changes]
    return "\n".join(["| | changes that keep the model's function |", "|---|---|", *rows])


def numbers(name: str, results: Results) -> str:
    """Return the table of a method's numbers."""
    head = f"| {name} | {' | '.join(results)} |\n|---{'|---' * len(results)}|"
    rows = [
        f"| {value.replace('|', chr(92) + '|')} | {' | '.join(_cell(number(one, value)) for one in results.values())} |"
        for value in SHOWN[name]
    ]
    return "\n".join([head, *rows])


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def filled(page: str, blocks: Mapping[str, str]) -> str:
    """Return a page with its blocks replaced.

    Raises:
        ValueError: The page has other blocks than these.
    """
    if (places := {name for _, name, _ in MARKED.findall(page)}) != set(blocks):
        raise ValueError(f"the page has blocks {sorted(places)}, and there are {sorted(blocks)}")
    return MARKED.sub(lambda found: f"{found[1]}\n{blocks[found[2]]}\n\n{found[3]}", page)


# -- pictures ------------------------------------------------------------------------------------------------------


def shown(name: str, results: Results) -> dict[str, Any]:
    """Return what a method's picture shows, rounded."""
    data: dict[str, Any] = {
        "numbers": {
            suspect: [_rounded(number(result, value)) for value in SHOWN[name]] for suspect, result in results.items()
        }
    }
    if name in PICTURES:
        data["lines"] = dict(_lines(PICTURES[name], results))
    return data


def _lines(picture: Picture, results: Results) -> Iterator[tuple[str, list[tuple[str, float | None]]]]:
    for suspect, result in results.items():
        yield suspect, _line(picture, result, "suspect")
    if picture.both:
        yield "base", _line(picture, next(iter(results.values())), "base")


def _line(picture: Picture, result: MethodResult, side: str) -> list[tuple[str, float | None]]:
    table = next(table for table in result.tables if table.title.startswith(picture.table))
    across, up = table.columns.index(picture.across), table.columns.index(picture.up.format(side))
    rows = table.rows
    if picture.only is not None:
        column, wanted = picture.only
        rows = tuple(row for row in rows if row[table.columns.index(column)] == wanted)
    places = [str(row[across]) for row in rows]
    if len(set(places)) < len(places):  # the same matrix of several layers
        places = [f"{place}, layer {row[1]}" for place, row in zip(places, rows, strict=True)]
    return [(place, _rounded(row[up])) for place, row in zip(places, rows, strict=True)]


def _rounded(value: object) -> float | None:
    return float(f"{value:.{DIGITS}g}") if isinstance(value, int | float) else None


def draw(name: str, data: Mapping[str, Any], path: Path) -> None:
    """Draw a method's picture."""
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(SHARED_STYLE, after_reset=True):
        two = "lines" in data
        rows = sum(_on_the_axis(value) for value in SHOWN[name])
        figure = Figure(figsize=(7.2, 2.8) if two else (5.6, 1.0 + 0.3 * rows), layout="constrained")
        axes = figure.subplots(1, 2 if two else 1, squeeze=False, width_ratios=(1.35, 1) if two else None)[0]
        if two:
            _draw_lines(axes[0], PICTURES[name], data["lines"])
        _draw_numbers(axes[-1], SHOWN[name], data["numbers"])
        figure.legend(
            *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False, fontsize=7
        )
        figure.savefig(
            path,
            format="svg",
            facecolor="white",
            metadata={"Date": None, "Description": json.dumps(data, sort_keys=True)},
        )


def _draw_lines(axes: Any, picture: Picture, lines: Mapping[str, list[tuple[str, float | None]]]) -> None:  # noqa: ANN401
    places = [place for place, _ in next(iter(lines.values()))]
    ordered = all(place.isdigit() for place in places)
    for model, line in lines.items():
        at = [place for place, (_, value) in enumerate(line) if value is not None]
        values = [value for _, value in line if value is not None]
        axes.plot(
            at, values, marker=MARKS[model], color=COLOURS[model], label=model, markersize=4,
            linewidth=1 if ordered else 0,
        )  # fmt: skip
    if picture.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    if ordered or len(places) <= FEW:
        axes.set_xticks(range(len(places)), [place.replace(" ", "\n") for place in places])
    else:
        axes.set_xticks(range(len(places)), places, rotation=35, ha="right")
    axes.set_xlabel("layer" if ordered else "")
    axes.set_ylabel(picture.label)
    axes.set_title(picture.title)


def _draw_numbers(axes: Any, names: tuple[str, ...], numbers: Mapping[str, list[float | None]]) -> None:  # noqa: ANN401
    kept = [at for at, name in enumerate(names) if _on_the_axis(name)]
    for place, (suspect, values) in enumerate(numbers.items()):
        # One above the other, so that equal numbers do not hide each other.
        rows = [(row + 0.16 * (place - 1), values[at]) for row, at in enumerate(kept) if values[at] is not None]
        axes.plot(
            [value for _, value in rows], [row for row, _ in rows], MARKS[suspect], color=COLOURS[suspect],
            label=suspect, markersize=4.5,
        )  # fmt: skip
    axes.set_yticks(range(len(kept)), [_wrapped(names[at]) for at in kept])
    axes.set_ylim(len(kept) - 0.5, -0.5)
    axes.axvline(0, color=GREY, linewidth=0.5)
    axes.grid(axis="y", linewidth=0.3)
    axes.set_title("Against the base, and controls")


def _on_the_axis(name: str) -> bool:
    """Return whether a number has a place on an axis up to 1: logarithms and distances stand in the table alone."""
    return not name.startswith(("log10", "distance"))


def _wrapped(name: str) -> str:
    return name.replace(", ", ",\n", 1) if len(name) > 24 else name


# -- all of it -----------------------------------------------------------------------------------------------------


def main(*, weights_only: bool) -> None:
    """Fill pages and draw pictures."""
    found: dict[str, Results] = measured()
    blocks: dict[str, Callable[[], dict[str, str]]] = {
        name: lambda name=name: {"declared": declared(name)} for name in found
    }
    if not weights_only:
        found |= behaved()
    for name, results in found.items():
        page = PAGES / f"{name}.md"
        more = blocks.get(name, dict)()
        text = filled(page.read_text(encoding="utf-8"), {"numbers": numbers(name, results), **more})
        page.write_text(text, encoding="utf-8")
        draw(name, shown(name, results), IMAGES / f"method-{name}.svg")


if __name__ == "__main__":
    if set(sys.argv[1:]) - {"--weights"}:
        sys.exit(__doc__)
    main(weights_only="--weights" in sys.argv)
