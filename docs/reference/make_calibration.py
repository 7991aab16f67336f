"""Bring what `kinprint bench calibration` wrote into docs and, where it is about weights, into the package.

Usage: python docs/reference/make_calibration.py OUT

Fills the marked tables of docs/calibration.md, copies the picture to docs/images and writes
src/kinprint/evidence/calibration.json, from which kinprint knows which tests may carry a verdict. What was made with
`--behave` fills docs/behaviour.md, and carries no verdict.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from kinprint.bench.calibration import CalibrationResult
from kinprint.bench.calibration.records import CalibrationRow, Statistic
from kinprint.bench.calibration.text import blocks
from kinprint.evidence.calibration import FILE, CalibratedTest, CalibratedTests

DOCS = Path(__file__).parents[1]
PACKAGED = DOCS.parent / "src" / "kinprint" / "evidence" / FILE
OTHERS = {"students"}
"""Blocks that another command fills."""

MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)


def filled(document: str, contents: Mapping[str, str]) -> str:
    """Return a document with every marked block replaced; in docs/behaviour.md others have blocks too.

    Raises:
        ValueError: The document and the tables do not agree on the names of blocks.
    """
    places = {name for _, name, _ in MARKED.findall(document)} - OTHERS
    if differing := sorted(places ^ set(contents)):
        raise ValueError(f"the page and the tables do not agree on {', '.join(differing)}")
    return MARKED.sub(
        lambda found: f"{found[1]}\n{contents[found[2]]}\n\n{found[3]}" if found[2] in contents else found[0], document
    )


def behaviour_blocks(result: CalibrationResult) -> dict[str, str]:
    """Return the tables of docs/behaviour.md."""
    held = blocks(result)
    return {f"calibration-{name}": held[name] for name in ("table", "run")}


def packaged(result: CalibrationResult) -> CalibratedTests:
    """Return what the package keeps of a calibration: one entry for each test."""
    tests = {test: _entry([row for row in result.rows if row.test == test]) for test in _ids(result)}
    return CalibratedTests(level=result.level, zoos=result.zoos, tests=tests)


def _ids(result: CalibrationResult) -> list[str]:
    return list(dict.fromkeys(row.test for row in result.rows))


def _entry(rows: Sequence[CalibrationRow]) -> CalibratedTest:
    said = [row.calibrated for row in rows if row.calibrated is not None]
    return CalibratedTest(
        calibrated=all(said) if said else None,
        pairs=sum(row.pairs for row in rows),
        independent=sum(row.independent for row in rows),
        disjoint=sum(row.disjoint for row in rows),
        ks=_smallest(rows, "ks"),
        ad=_smallest(rows, "ad"),
        dispersion=_smallest(rows, "dispersion"),
        adjusted=_digits(min(check.adjusted for row in rows for check in row.checks)),
    )


def _smallest(rows: Sequence[CalibrationRow], statistic: Statistic) -> float:
    return _digits(min(check.p for row in rows for check in row.checks if check.statistic == statistic))


def _digits(value: float) -> float:
    """Four digits: more would differ between processors."""
    return float(f"{value:.4g}")


def main(out: Path) -> None:
    """Update the page, its picture and the package."""
    result = CalibrationResult.model_validate_json((out / "calibration.json").read_bytes())
    if result.axis == "behaviour":
        page = DOCS / "behaviour.md"
        page.write_text(filled(page.read_text(encoding="utf-8"), behaviour_blocks(result)), encoding="utf-8")
        shutil.copyfile(out / "qq.svg", DOCS / "images" / "behaviour-qq.svg")
        return
    page = DOCS / "calibration.md"
    page.write_text(filled(page.read_text(encoding="utf-8"), blocks(result)), encoding="utf-8")
    shutil.copyfile(out / "qq.svg", DOCS / "images" / "calibration-qq.svg")
    PACKAGED.write_text(packaged(result).model_dump_json(indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
