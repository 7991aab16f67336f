"""Does every causal language model of transformers get the verdict that it should?

Usage: python benchmarks/families.py [CLASS]...

Of every class a small model is made twice with other seeds, and once more with a tenth of noise on every matrix. The
two random starts of one config must be ``independent``, the noisy copy ``derived``. Exits with 1 where one is not.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "architecture"))

import causal
from causal_families import judged


def main(names: list[str]) -> int:
    """Judge all classes; return the exit code."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.ERROR)
    print("| class | family | another random start | noisy copy | seconds |\n|---|---|---|---|---|", flush=True)
    wrong: list[str] = []
    for name in names or causal.classes():
        start = time.perf_counter()
        try:
            family, strangers, copy = judged(name)
        except Exception as error:
            family, strangers, copy = "-", "-", f"{type(error).__name__}: {str(error)[:80]}".replace("\n", " ")
        print(f"| {name} | {family} | {strangers} | {copy} | {time.perf_counter() - start:.1f} |", flush=True)
        wrong += [name] if (strangers, copy) != ("independent", "derived") else []
    print(f"\n{len(wrong)} of {len(names or causal.classes())} classes are not judged as they should be: {wrong}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
