"""Write into docs/behaviour.md how near a distilled student is to its teacher on texts of their own kind.

Usage: python docs/reference/make_students.py ZOO

ZOO is the built suite `tiny`. Its models were trained on Python's standard library; they are asked to go on with pieces
of `rich`, which is Python too and which none of them read. Beside the student stand the teacher's innocent twins, and
kinprint's verdict on the weights of each.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import rich

from kinprint import api
from kinprint.behaviour.axis import METHODS
from kinprint.behaviour.cache import Cache
from kinprint.behaviour.runner import Runner

PAGE = Path(__file__).parents[1] / "behaviour.md"
MARKED = re.compile(r"(<!-- begin: students -->\n).*?(<!-- end: students -->)", re.DOTALL)
TEACHER, SUSPECTS = "base", ("base.student", "twin-1", "twin-2", "twin-3", "twin-4")
NUMBERS = (
    ("next-token", "similarity"),
    ("next-token", "agreement"),
    ("reef", "similarity"),
    ("quere", "similarity"),
    ("attndiff", "similarity"),
)
PROBES, LENGTH = 200, 100


def pieces() -> Iterator[str]:
    """Yield pieces of rich's sources at even distances, of plain ASCII, which bytes and characters count alike."""
    text = "".join(file.read_text("utf-8") for file in sorted(Path(rich.__file__).parent.glob("*.py")))
    step = len(text) // (2 * PROBES)
    yield from (text[at : at + LENGTH] for at in range(0, len(text) - LENGTH, step) if text[at : at + LENGTH].isascii())


def table(zoo: Path) -> str:
    """Return the table."""
    cache = Cache.in_memory()
    runners = {name: Runner.open(zoo / name, cache=cache) for name in (TEACHER, *SUSPECTS)}
    fitting = [text for text in pieces() if text.strip() and all(runner.fits(text) for runner in runners.values())]
    probes = fitting[:: max(1, len(fitting) // PROBES)][:PROBES]
    header = ("model", *(f"{method}: {value}" for method, value in NUMBERS), "verdict on weights")
    lines = [header, ("---",) * len(header)]
    for name in SUSPECTS:
        found = {one: METHODS[one].run(runners[name], runners[TEACHER], probes) for one in {one for one, _ in NUMBERS}}
        numbers = {(one, value.name): value.value for one, result in found.items() for value in result.values}
        cells = ["-" if (number := numbers.get(key)) is None else f"{number:.4f}" for key in NUMBERS]
        verdict = api.compare(zoo / name, zoo / TEACHER, mode="default").verdict
        lines.append((name, *cells, verdict.conclusion if verdict is not None else "-"))
    rows = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\n{rows}\n\n{len(probes)} pieces of rich {version('rich')}, against {TEACHER}.\n\n"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    made = table(Path(sys.argv[1]))
    PAGE.write_text(MARKED.sub(lambda found: found[1] + made + found[2], PAGE.read_text("utf-8")), "utf-8")
