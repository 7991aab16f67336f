"""Bring what `kinprint bench premises` wrote into docs/premises.md: tables between markers, pictures into docs/images.

Usage: python docs/reference/make_premises.py OUT
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from kinprint.bench.premises import PremisesResult
from kinprint.bench.premises.text import blocks

DOCS = Path(__file__).parents[1]
MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def filled(document: str, contents: dict[str, str]) -> str:
    """Return a document with every marked block replaced; what was not measured says so.

    Raises:
        ValueError: The document has no place for a block.
    """
    places = {name for _, name, _ in MARKED.findall(document)}
    if homeless := sorted(set(contents) - places):
        raise ValueError(f"docs/premises.md has no <!-- begin: NAME --> for {', '.join(homeless)}")
    absent = "Not measured in this run.\n"
    return MARKED.sub(lambda found: f"{found[1]}\n{contents.get(found[2], absent)}\n{found[3]}", document)


def main(out: Path) -> None:
    """Update the document and its pictures."""
    result = PremisesResult.model_validate_json((out / "premises.json").read_bytes())
    document = DOCS / "premises.md"
    document.write_text(
        filled(document.read_text(encoding="utf-8"), blocks(result, folder="images/")), encoding="utf-8"
    )
    (DOCS / "images").mkdir(exist_ok=True)
    for old in (DOCS / "images").glob("premises-*.svg"):
        old.unlink()
    for premise in result.premises:
        for picture in (*premise.curves, *premise.heat_maps):
            shutil.copyfile(out / f"{picture.name}.svg", DOCS / "images" / f"{picture.name}.svg")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
