"""The peers' scripts live beside the package, not in it."""

from __future__ import annotations

import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

sys.path[:0] = [str(BENCHMARKS / "peers"), str(BENCHMARKS)]
