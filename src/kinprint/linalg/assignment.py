"""The linear assignment problem: pairs of rows and columns with the largest sum."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.machinery import PathFinder
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from typing import Any

import numpy as np

from kinprint.shapes import Float, Int64

Array = np.ndarray[Any, np.dtype[Any]]


def assignment(scores_MN: Float[Array, "M N"]) -> tuple[Int64[Array, " K"], Int64[Array, " K"]]:
    """Return rows and columns of the pairing with the largest sum of scores, each used once; rows rise.

    The shorter side is used up. Where every row of the shorter side likes another column best, as those of a copy do,
    that is the answer; else SciPy's solver finds it, which takes 2 s for 4,096 unrelated rows and columns.

    Source: Crouse, On implementing 2D rectangular assignment algorithms, IEEE TAES 52 (2016), as in SciPy.

    Example:
        >>> [side.tolist() for side in assignment(np.array([[1.0, 9.0, 0.0], [2.0, 8.0, 0.0]]))]
        [[0, 1], [1, 0]]
    """
    wide_MN = scores_MN if scores_MN.shape[0] <= scores_MN.shape[1] else scores_MN.T
    best_M: Array = wide_MN.argmax(axis=1) if wide_MN.size else np.zeros(0, np.int64)
    if wide_MN.size and np.isfinite(wide_MN).all() and np.bincount(best_M).max() == 1:
        places_M: Array = np.arange(best_M.size)
        if wide_MN is scores_MN:
            return places_M, best_M
        return np.sort(best_M), best_M.argsort()
    rows, columns = _solver()(scores_MN, maximize=True)
    return rows.astype(np.int64), columns.astype(np.int64)


@cache
def _solver() -> Callable[..., tuple[Array, Array]]:
    """Return ``scipy.optimize.linear_sum_assignment`` from its compiled module alone.

    All of ``scipy.optimize`` takes longer to import than two small models take to compare. Where a SciPy keeps the
    solver elsewhere, it comes the usual way.
    """
    scipy = find_spec("scipy")
    folders = (scipy.submodule_search_locations or []) if scipy else []
    found = PathFinder.find_spec("scipy.optimize._lsap", [str(Path(folder) / "optimize") for folder in folders])
    if found is None or found.loader is None or "scipy.optimize" in sys.modules:
        return import_module("scipy.optimize").linear_sum_assignment
    compiled = module_from_spec(found)
    found.loader.exec_module(compiled)
    return compiled.linear_sum_assignment
