"""Bring what `kinprint bench innocents` wrote into docs/verdict.md and into the package.

Usage: python docs/reference/make_innocents.py OUT
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np

from kinprint.bench.innocents import FILE
from kinprint.evidence.population import STATISTICS, Innocents

DOCS = Path(__file__).parents[1]
PACKAGED = DOCS.parent / "src" / "kinprint" / "evidence" / FILE
MARKED = re.compile(r"(<!-- begin: innocents -->\n).*?(<!-- end: innocents -->)", re.DOTALL)


def table(result: Innocents) -> str:
    """Return the population in a Markdown table: what set each margin, and what the other half says about it."""
    widths = sorted({model.width for model in result.models})
    sources = sorted({model.source for model in result.models})
    lines = [
        f"{len(result.models)} models of the suites {', '.join(sources)}, widths {widths[0]} to {widths[-1]}.",
        "",
        "| size | pairs that set the margin | largest | margin | pairs that report | 95 % below | largest | beyond |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for statistic in STATISTICS:
        setting, reporting = result.sizes(statistic, "margin"), result.sizes(statistic, "report")
        margin = result.margin(statistic)
        lines.append(
            f"| {statistic} | {len(setting)} | {max(setting):.3f} | {margin:.3f} | {len(reporting)} | "
            f"{np.quantile(reporting, 0.95):.3f} | {max(reporting):.3f} | {sum(size > margin for size in reporting)} |"
            if setting and reporting
            else f"| {statistic} | {len(setting)} | - | - | {len(reporting)} | - | - | - |"
        )
    return "\n".join(lines)


def main(out: Path) -> None:
    """Update the page and the package."""
    result = Innocents.model_validate_json((out / FILE).read_bytes())
    page = DOCS / "verdict.md"
    text = MARKED.sub(lambda found: f"{found[1]}\n{table(result)}\n\n{found[2]}", page.read_text(encoding="utf-8"))
    page.write_text(text, encoding="utf-8")
    shutil.copyfile(out / FILE, PACKAGED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
