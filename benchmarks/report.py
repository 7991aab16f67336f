"""How long the page of a large comparison takes to render, and how large it is.

The comparison is one of the shipped models, measured here with every test and method, whose record is then stretched
to 100 layers and 128 experts: every table has a row for each layer, one a row for each expert of each layer, and the
map of layers has a cut. The bars are 2 s and 3 MB.

Usage: python benchmarks/report.py [--runs 5]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kinprint import api
from kinprint.report.html import page
from kinprint.types import Comparison

EXAMPLES = Path(__file__).parents[1] / "examples"
LAYERS, EXPERTS, CUT = 100, 128, 12
MOST_SECONDS, MOST_BYTES = 2.0, 3_000_000
NUMBERED = ("layer", "suspect", "base", "suspect layer", "base layer")
"""Columns that hold numbers of layers."""


def stretched(comparison: Comparison, layers: int = LAYERS, experts: int = EXPERTS) -> Comparison:
    """Return a comparison as it would be of models with more layers, and with experts in each.

    Args:
        comparison: Of small models, with a map of layers.
        layers: Layers of the suspect; the base has ``CUT`` more, which are missing in the middle.
        experts: In each layer.
    """
    held: dict[str, Any] = json.loads(comparison.model_dump_json())
    for model, count in ((held["suspect"], layers), (held["base"], layers + CUT)):
        model["geometry"] |= {"layers": count, "experts": experts}
    found = held["verdict"]["layer_map"]
    places = [at + CUT * (at >= layers // 2) for at in range(layers)]
    known = found["layers"]
    found |= {
        "kind": "ordered",
        "layers": [{**known[at % len(known)], "suspect": at, "base": place} for at, place in enumerate(places)],
    }
    for one in (*held["verdict"]["evidence"], *held["methods"]):
        one["tables"] = [{**table, "rows": _rows(table["columns"], table["rows"], layers)} for table in one["tables"]]
        if one.get("name") == held["verdict"]["decided_by"]:
            one["tables"].append(_experts(layers, experts))
    return Comparison.model_validate(held)


def _rows(columns: Sequence[str], rows: Sequence[Sequence[Any]], layers: int) -> list[list[Any]]:
    """Return rows of a table for more layers; rows without a layer stay as they are."""
    numbered = [at for at, name in enumerate(columns) if name in NUMBERED]
    of = {id(row): next((row[at] for at in numbered if isinstance(row[at], int)), None) for row in rows}
    known = 1 + max((layer for layer in of.values() if layer is not None), default=-1)
    if not known:
        return [list(row) for row in rows]
    made = [
        [layer if at in numbered and isinstance(cell, int) else cell for at, cell in enumerate(row)]
        for layer in range(layers)
        for row in rows
        if of[id(row)] == layer % known
    ]
    made.sort(key=lambda row: str(row[0]) if isinstance(row[0], str) else "")
    return made + [list(row) for row in rows if of[id(row)] is None]


def _experts(layers: int, experts: int) -> dict[str, Any]:
    rows = [[at, one, (one * 7) % experts, 0.9 + 0.001 * (one % 90)] for at in range(layers) for one in range(experts)]
    return {
        "title": "experts of facing layers",
        "columns": ["suspect layer", "expert", "base expert", "size"],
        "rows": rows,
    }


def large() -> Comparison:
    """Return the shipped example with every test and method, stretched."""
    found = api.compare(EXAMPLES / "laundered", EXAMPLES / "base", controls=[EXAMPLES / "twin"], mode="thorough")
    return stretched(found)


def main() -> None:
    """Print one row; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--page", type=Path, help="write the page too")
    given = parser.parse_args()
    comparison = large()
    seconds: list[float] = []
    for _ in range(given.runs):
        started = time.perf_counter()
        made = page(comparison)
        seconds.append(time.perf_counter() - started)
    size = len(made.encode())
    if given.page is not None:
        given.page.write_text(made, encoding="utf-8")
    print("| comparison | seconds, median | seconds, longest | megabytes |\n|---|---|---|---|")
    times = f"{statistics.median(seconds):.2f} | {max(seconds):.2f}"
    print(f"| {LAYERS} layers, {EXPERTS} experts | {times} | {size / 1e6:.2f} |")
    sys.exit(max(seconds) > MOST_SECONDS or size > MOST_BYTES)


if __name__ == "__main__":
    main()
