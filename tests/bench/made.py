"""Small benchmark results, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kinprint.bench.metrics import hard_rates, rates
from kinprint.bench.records import BenchResult, Case, Cell, Column, Cost, Row, Run

RUN = Run(
    kinprint="0.0",
    commit="abc123",
    dirty=False,
    versions={"python": "3.11", "numpy": "2.4"},
    cpu="a processor",
    blas="openblas, 1 thread",
    seeds={"bootstrap": 0},
    methods=("m/v1[keep=64]",),
    zoo="sha256:0",
    jobs=1,
    seconds=12.5,
)


def column(name: str = "m: s", **changed: Any) -> Column:
    method, value = name.split(": ")
    facts = {
        "method": method,
        "id": f"{method}/v1",
        "value": value,
        "kind": "similarity",
        "identical": 1.0,
        "headline": True,
    }
    return Column.model_validate({**facts, **changed})


def pair(label: str, value: float | str | Mapping[str, float | str | None] | None, **changed: Any) -> Row:
    """A pair; ``value`` is what ``m: s`` measured, or a reason for nothing, or one of either by column.

    ``base`` and ``suspect_root`` name the trainings behind the two models; a derived pair shares its base's.
    """
    base = changed.pop("base", "a")
    suspect_root = changed.pop("suspect_root", base if label == "derived" else "z")
    values = value if isinstance(value, Mapping) else {"m: s": value}
    facts = {
        "suspect": f"{suspect_root}-suspect",
        "base": base,
        "category": {"derived": "model fine-tuning", "unrelated": "unrelated"}.get(label, "shared initialisation"),
        "label": label,
        "roots": tuple(sorted({base, suspect_root})),
        "base_roots": (base,),
    }
    cells = {
        name: Cell(value=None, reason=held) if isinstance(held, str) else Cell(value=held)
        for name, held in values.items()
    }
    costs = {name.split(":")[0]: Cost(seconds=2.0, peak_mb=10.0) for name in values}
    return Row(case=Case.model_validate({**facts, **changed}), cells=cells, costs=costs)


def pairs(derived: Sequence[float | None], unrelated: Sequence[float | None], **changed: Any) -> list[Row]:
    return [pair("derived", value, **changed) for value in derived] + [
        pair("unrelated", value, **changed) for value in unrelated
    ]


def result(columns: Sequence[Column], rows: Sequence[Row], **changed: Any) -> BenchResult:
    facts = {
        "suite": "made",
        "cases_version": 1,
        "columns": tuple(columns),
        "rows": tuple(rows),
        "rates": rates(columns, rows, seed=0, resamples=100),
        "rates_hard": hard_rates(columns, rows, seed=0, resamples=100),
        "run": RUN,
    }
    return BenchResult.model_validate({**facts, **changed})
