"""Fill docs/case-studies/upcycling.md from a built zoo: a mixture made from a dense model beside innocent ones.

Usage: python docs/reference/make_upcycling.py ZOO

ZOO is the built suite ``tiny``. One more suspect is made on the spot: the upcycled mixture with every weight
changed and its function kept.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from kinprint import api
from kinprint.report.plots import BLUE, GREY, ORANGE, SHARED_STYLE, VERMILION
from kinprint.types import Comparison
from kinprint.version import __version__
from kinprint.zoo.recipes import Derived
from kinprint.zoo.single import derive_folder
from kinprint.zoo.suites import SUITES

DOCS = Path(__file__).parents[1]
PAGE = DOCS / "case-studies" / "upcycling.md"
PICTURE = DOCS / "images" / "upcycling-sigma.svg"
MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
BASE = "base"
LAUNDERED = "base.upcycled, laundered"
SUSPECTS: Mapping[str, str] = {
    "base.upcycled-raw": "yes",
    "base.upcycled": "yes",
    LAUNDERED: "yes",
    "moe": "no",
    "moe-twin": "no",
    "twin-1": "no",
    "wide": "no",
}
"""Whether each was made from the base."""
METHODS = ("intrinsic", "layernorm", "ghostspec-mlp")
CORRELATIONS = (
    "similarity",
    "attn.q pearson",
    "attn.k pearson",
    "attn.v pearson",
    "attn.o pearson",
    "mlp.gate pearson",
)
SPREAD = "similarity, layers shuffled: q95 of |r|"

Found = Mapping[str, Comparison]


def measured(zoo: Path, suspects: Iterable[str] = SUSPECTS) -> Found:
    """Return the comparison of suspects with the base."""
    with tempfile.TemporaryDirectory() as folder:
        places = {name: zoo / name for name in SUSPECTS if name != LAUNDERED}
        places[LAUNDERED] = Path(folder) / "laundered"
        derived = (one for one in SUITES["tiny"].recipes if isinstance(one, Derived))
        laundry = next(one for one in derived if one.name == "base.laundered")
        derive_folder(zoo / "base.upcycled", places[LAUNDERED], (*laundry.kinds, "expert-permutation"), seed=40)
        return {name: api.compare(places[name], zoo / BASE, methods=METHODS) for name in suspects}


# -- tables --------------------------------------------------------------------------------------------------------


def _number(comparison: Comparison, method: str, name: str) -> str:
    result = next(one for one in comparison.methods if one.method == method)
    value = next((one.value for one in (*result.values, *result.controls) if one.name == name), None)
    return "-" if value is None else f"{value:z.3f}"


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |".replace("|r|", r"\|r\|") for line in lines)


def correlations(found: Found) -> str:
    """Return the Intrinsic Fingerprint of every suspect."""
    names = (*CORRELATIONS, SPREAD)
    return _table(
        ("suspect", "from the base", *(name.removesuffix(" pearson") for name in CORRELATIONS), "95 % of shuffles"),
        [
            (f"`{name}`", SUSPECTS[name], *(_number(one, "intrinsic", value) for value in names))
            for name, one in found.items()
        ],
    )


def others(found: Found) -> str:
    """Return other numbers of the debate on the same pairs."""
    numbers = (
        ("layernorm", "norm.attn raw cosine"),
        ("layernorm", "norm.attn centred cosine"),
        ("ghostspec-mlp", "similarity"),
        ("ghostspec-mlp", "experts pooled: similarity"),
    )
    return _table(
        ("suspect", *(f"{method}: {name}" for method, name in numbers)),
        [(f"`{suspect}`", *(_number(one, *which) for which in numbers)) for suspect, one in found.items()],
    )


def verdicts(found: Found) -> str:
    """Return what kinprint concludes."""
    rows: list[tuple[str, ...]] = []
    for suspect, one in found.items():
        verdict = one.verdict
        assert verdict is not None
        sizes = {each.id.split("/")[0]: each.size or 0.0 for each in verdict.evidence if each.rung == 2}
        exact = [each.beyond for each in verdict.evidence if each.carries and each.log10_p is not None]
        parts = {part.component: part.conclusion for part in verdict.components}
        rows.append(
            (
                f"`{suspect}`",
                f"**{verdict.conclusion}**",
                f"{sizes['matched-heads']:z.3f}",
                f"{sizes['matched-units']:z.3f}",
                f"{sum(exact)} of {len(exact)}",
                parts.get("embedding", "-"),
                parts.get("experts", "-"),
            )
        )
    head = ("suspect", "verdict", "matched heads", "matched units", "exact tests beyond alpha", "embedding", "experts")
    return _table(head, rows)


def run(found: Found) -> str:
    """Return what was measured, so that it can be found again."""
    models = [one.suspect for one in found.values()] + [next(iter(found.values())).base]
    digests = ", ".join(f"{info.name} {(info.content_digest or '-')[:19]}" for info in models)
    return f"kinprint {__version__}; content digests: {digests}"


# -- the picture ---------------------------------------------------------------------------------------------------


def curves(found: Found) -> dict[str, list[float]]:
    """Return the standard deviation of O by layer, relative to its mean, of the base and the suspects of its depth."""
    made: dict[str, list[float]] = {}
    for suspect in ("base.upcycled", LAUNDERED, "moe", "moe-twin"):
        if suspect not in found:
            continue
        result = next(one for one in found[suspect].methods if one.method == "intrinsic")
        table = next(one for one in result.tables if one.title.startswith("standard deviation of all entries"))
        for name, side in ((BASE, "base"), (suspect, "suspect")):
            values = [float(row[table.columns.index(f"attn.o {side}")] or 0.0) for row in table.rows]
            made[name] = [round(value / (sum(values) / len(values)), 3) for value in values]
    return made


def draw(data: Mapping[str, list[float]], path: Path) -> None:
    """Draw the curves."""
    from matplotlib import style
    from matplotlib.figure import Figure

    looks: Mapping[str, dict[str, Any]] = {
        BASE: {"color": GREY, "marker": "x", "linewidth": 3, "alpha": 0.6},
        "base.upcycled": {"color": BLUE, "marker": "o"},
        LAUNDERED: {"color": ORANGE, "marker": "s"},
        "moe": {"color": VERMILION, "marker": "^"},
        "moe-twin": {"color": VERMILION, "marker": "v", "linestyle": "--"},
    }
    with style.context(SHARED_STYLE, after_reset=True):
        figure = Figure(figsize=(6.4, 2.8), layout="constrained")
        axes = figure.subplots()
        for name, values in data.items():
            axes.plot(range(len(values)), values, label=name, markersize=5, **looks[name])
        axes.set_xticks(range(len(data[BASE])))
        axes.set_xlabel("layer")
        axes.set_ylabel("standard deviation of O / its mean")
        axes.set_title("Innocent mixtures follow the base's curve; the laundered copy need not")
        axes.legend(frameon=False, fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5))
        metadata = {"Date": None, "Description": json.dumps(dict(data), sort_keys=True)}
        figure.savefig(path, format="svg", facecolor="white", metadata=metadata)


def filled(page: str, found: Found) -> str:
    """Return the page with its blocks replaced."""
    blocks = {"correlations": correlations, "others": others, "verdicts": verdicts, "run": run}
    return MARKED.sub(lambda one: f"{one[1]}\n{blocks[one[2]](found)}\n\n{one[3]}", page)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    pairs = measured(Path(sys.argv[1]))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), pairs), encoding="utf-8")
    draw(curves(pairs), PICTURE)
