"""Bring what `kinprint bench related` wrote into docs/report.md and into the package.

Usage: python docs/reference/make_related.py OUT
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from kinprint.bench.related import FILE
from kinprint.evidence.related import GROUPS, Related

DOCS = Path(__file__).parents[1]
PACKAGED = DOCS.parent / "src" / "kinprint" / "evidence" / FILE
MARKED = re.compile(r"(<!-- begin: related -->\n).*?(<!-- end: related -->)", re.DOTALL)


def table(found: Related) -> str:
    """Return the pairs in a Markdown table, group by group, the most alike first."""
    lines = ["| what was done | group | matched heads | matched units |", "|---|---|---|---|"]
    for group in GROUPS:
        held = [pair for pair in found.pairs if pair.group == group]
        for pair in sorted(held, key=lambda pair: -pair.sizes.get("units", 0.0)):
            sizes = (f"{pair.sizes[name]:.3f}" if name in pair.sizes else "-" for name in ("heads", "units"))
            lines.append(f"| {pair.suspect} | {group} | {' | '.join(sizes)} |")
    return "\n".join(lines)


def filled(page: str, found: Related) -> str:
    """Return the page with the table in its place."""
    return MARKED.sub(lambda place: f"{place[1]}\n{table(found)}\n\n{place[2]}", page)


def main(out: Path) -> None:
    """Update the page and the package."""
    found = Related.model_validate_json((out / FILE).read_bytes())
    page = DOCS / "report.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), found), encoding="utf-8")
    shutil.copyfile(out / FILE, PACKAGED)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
