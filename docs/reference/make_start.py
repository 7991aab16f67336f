"""Fill docs/index.md with what the command line says of the shipped models.

Usage: python docs/reference/make_start.py
"""

from __future__ import annotations

import re
import runpy
from pathlib import Path

PAGE = Path(__file__).parents[1] / "index.md"
MARKED = re.compile(r"(<!-- begin: answer -->\n).*?(<!-- end: answer -->)", re.DOTALL)


def filled(page: str) -> str:
    """Return the page with the answer, which is the README's too."""
    answer = runpy.run_path(str(Path(__file__).parent / "make_tables.py"))["readme"]()
    return MARKED.sub(lambda found: f"{found[1]}\n```text\n{answer}```\n\n{found[2]}", page)


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
