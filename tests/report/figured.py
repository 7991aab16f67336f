"""Comparisons by hand, with numbers for every kind of figure, and no model behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kinprint.types import (
    Comparison,
    Evidence,
    GeometryInfo,
    LayerMapInfo,
    LayerMatch,
    MethodResult,
    ModelInfo,
    Table,
    ThirdModel,
    Value,
    Verdict,
)

INTRINSIC_COLUMNS = ("layer", "attn.q suspect", "attn.q base")
GAIN_COLUMNS = ("norm", "layer", "raw cosine", "centred cosine", "expected raw", "shuffled raw", "shuffled centred")
BULK_COLUMNS = ("place", "model", "layer", "rows", "columns", "sigma", "edge", "spikes", "distance from the law")


def model(name: str, layers: int | None = 3) -> ModelInfo:
    return ModelInfo(
        name=name,
        location=name,
        format="memory",
        family="llama",
        geometry=GeometryInfo(layers=layers),
        parameters=1,
        coverage=1.0,
        header_digest="sha256:0",
    )


def match(suspect: int, base: int | None, size: float | None = 0.9, *, derived: bool = True) -> LayerMatch:
    forms = {} if size is None else {"qk": size, "vo": size / 2}
    return LayerMatch(suspect=suspect, base=base, similarity=size, heads=size, units=size, derived=derived, forms=forms)


def layer_map(*layers: LayerMatch, table: Sequence[Sequence[float | None]] = (), columns: int = 3) -> LayerMapInfo:
    return LayerMapInfo(
        kind="ordered",
        basis="tokens",
        layers=layers,
        base_layers=tuple(range(columns)) if table else (),
        table=tuple(map(tuple, table)),
    )


def matched(name: str, size: float | None, *tables: Table) -> Evidence:
    return Evidence(
        name=f"{name} matched",
        id=f"matched-{name}/v1",
        rung=2,
        status="measured",
        null="n",
        defeats="d",
        size=size,
        margin=0.1,
        tables=tables,
    )


def verdict(layer_map: LayerMapInfo | None, *evidence: Evidence, third: str = "other") -> Verdict:
    return Verdict(
        conclusion="derived",
        headline="h",
        alpha=1e-6,
        planned=8,
        layer_map=layer_map,
        evidence=evidence,
        third_models=(ThirdModel(side="base", control=third, sizes={"heads": 0.01, "units": None}),),
    )


def measured(method: str, values: Sequence[tuple[str, float]], *tables: Table, controls: Any = ()) -> MethodResult:
    return MethodResult(
        method=method,
        id=f"{method}/v1",
        status="measured",
        values=tuple(Value(name=name, value=value, kind="similarity") for name, value in values),
        controls=tuple(Value(name=name, value=value, kind="similarity") for name, value in controls),
        tables=tables,
    )


def intrinsic(rows: Sequence[tuple[int, float | None, float | None]]) -> MethodResult:
    held = Table(title="standard deviation of all entries, by layer", columns=INTRINSIC_COLUMNS, rows=tuple(rows))
    return measured(
        "intrinsic",
        [("similarity", 0.75), ("attn.q pearson", 0.5)],
        held,
        controls=[("similarity, layers reversed", -0.25)],
    )


def layernorm(*, sample: bool = True) -> MethodResult:
    rows = tuple(("norm.attn", layer, 0.99, 0.1 * layer, 0.98, 0.97, 0.01) for layer in range(3))
    by_layer = Table(title="Norm gains by layer", columns=GAIN_COLUMNS, rows=rows)
    columns = ("coordinate", "norm.attn@2 suspect", "norm.attn@2 base", "norm.attn@2 base elsewhere")
    drawn = Table(
        title="Norm gains of sampled coordinates", columns=columns, rows=((7, 1.0, 2.0, 4.0), (3, 3.0, 4.0, 2.0))
    )
    return measured(
        "layernorm",
        [("norm.attn raw cosine", 0.99), ("norm.attn centred cosine", 0.1)],
        *((by_layer, drawn) if sample else (by_layer,)),
        controls=[("norm.attn shuffled centred cosine", 0.01), ("norm.attn expected raw cosine", 0.98)],
    )


def ghostspec() -> MethodResult:
    values = Table(
        title="Singular values of mlp.gate by rank",
        columns=("rank", "first suspect", "first base", "last suspect"),
        rows=((1, 9.0, 8.0, 1.0), (2, 5.0, 2.0, 1.0), (3, 1.0, None, 1.0)),
    )
    bulks = Table(
        title="Marchenko-Pastur bulk of mlp.gate",
        columns=BULK_COLUMNS,
        rows=(
            ("first", "suspect", 0, 3, 4, 1.0, 4.0, 2, 0.1),
            ("first", "base", 1, 2, 4, 1.0, 3.0, 1, 0.1),
            ("last", "suspect", 2, 3, 4, 1.0, 4.0, 0, 0.1),
        ),
    )
    return measured("ghostspec-mse", [("similarity", 0.9)], values, bulks)


def comparison(
    verdict: Verdict | None = None, *methods: MethodResult, names: tuple[str, str] = ("one", "two")
) -> Comparison:
    return Comparison(
        kinprint_version="0",
        status="measured",
        verdict=verdict,
        suspect=model(names[0]),
        base=model(names[1]),
        methods=methods,
    )


def whole(third: str = "other") -> Comparison:
    """A comparison that has every figure."""
    table = [[0.9, 0.1, 0.0], [0.1, 0.0, 0.8], [0.0, None, 0.1]]
    experts = Table(
        title="experts of facing layers",
        columns=("suspect", "base", "expert", "size"),
        rows=((0, 0, 0, 0.7), (0, 0, 5, 0.4), (1, 2, 0, 0.6)),
    )
    return comparison(
        verdict(
            layer_map(match(0, 0), match(1, 2, 0.8), match(2, 2, 0.1, derived=False), table=table),
            matched("heads", 0.9),
            matched("units", 0.02, experts),
            third=third,
        ),
        intrinsic([(0, 1.0, 2.0), (1, None, 2.5), (2, 3.0, 2.0)]),
        layernorm(),
        ghostspec(),
    )


def deep(layers: int) -> Comparison:
    """A comparison of two models so many layers deep, every layer with every other, and with experts."""
    table = [[1.0 if a == b else 0.01 * ((a * b) % 10) for b in range(layers)] for a in range(layers)]
    experts = Table(
        title="experts of facing layers",
        columns=("suspect", "base", "expert", "size"),
        rows=tuple((at, at, expert, 0.5) for at in range(layers) for expert in (0, 42, 85, 127)),
    )
    held = layer_map(*(match(at, at) for at in range(layers)), table=table, columns=layers)
    return comparison(verdict(held, matched("heads", 0.9), matched("units", 0.8, experts)), layernorm(), ghostspec())
