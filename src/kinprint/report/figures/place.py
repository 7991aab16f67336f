"""Where this pair falls among pairs of models that are known to be unrelated, and among some that are related."""

from __future__ import annotations

from collections.abc import Sequence

from kinprint.evidence.population import innocents
from kinprint.evidence.related import GROUPS, related
from kinprint.report.figures.records import Axis, Chart, Figure, Missing, Role, Rule, Series
from kinprint.report.figures.tables import evidence
from kinprint.types import Comparison, Evidence

ROWS: dict[Role, str] = {"innocent": "unrelated pairs", "related": "related pairs"}

MATCHED = {"heads": "matched attention heads", "units": "matched MLP units"}

_GOLDEN = 0.618034
_SPREAD = 0.62

CAPTION = (
    "Every dot is one pair of models: grey dots were trained apart and had no say in the margin, hollow ones are "
    "related and were made for this picture, and enter no verdict. 0 is what strangers have, 1 the same weights."
)


def place(comparison: Comparison) -> Figure | Missing:
    """Return the sizes of matched heads and units among those of other pairs."""
    found = [(name, one) for name in MATCHED if (one := _measured(comparison, name)) is not None]
    if not found:
        return Missing("place", "heads and units were not matched (a test before that decided; use --thorough)")
    panels = [_panel(comparison, name, one) for name, one in found]
    return Figure(
        kind="place", title=" ".join(_finding(*both) for both in found), caption=CAPTION, panels=tuple(panels)
    )


def _measured(comparison: Comparison, name: str) -> Evidence | None:
    one = evidence(comparison, f"matched-{name}")
    return one if one is not None and one.size is not None and innocents().sizes(name, "report") else None


def _finding(name: str, one: Evidence) -> str:
    strangers, size = innocents().sizes(name, "report"), one.size or 0.0
    above = sum(value >= size for value in strangers)
    reach = "none" if above == 0 else str(above)
    return (
        f"By {MATCHED[name]} the pair is at {size:.3f}; {reach} of {len(strangers)} independent pairs "
        f"{'reaches' if above < 2 else 'reach'} that, the largest is at {max(strangers):.3f}."
    )


def _panel(comparison: Comparison, name: str, one: Evidence) -> Chart:
    strangers = sorted(innocents().sizes(name, "report"))
    series = [_row(len(GROUPS) + 1, strangers, "innocent", [f"independent pair: {value:.3f}" for value in strangers])]
    for at, group in enumerate(GROUPS):
        kin = sorted(
            (pair.sizes[name], f"{pair.suspect} and {pair.base}: {pair.sizes[name]:.3f}")
            for pair in related().pairs
            if pair.group == group and name in pair.sizes
        )
        series.append(_row(len(GROUPS) - at, [size for size, _ in kin], "related", [told for _, told in kin]))
    verdict = comparison.verdict
    thirds = [
        (size, f"{third.side} and {third.control}: {size:.3f}")
        for third in (verdict.third_models if verdict is not None else ())
        if (size := third.sizes.get(name)) is not None
    ]
    size = one.size or 0.0
    series += [
        Series("one of them and a third model", "third", tuple(at for at, _ in thirds), (0.0,) * len(thirds),
               told=tuple(said for _, said in thirds)),
        Series("this pair", "pair", (size,), (0.0,), told=(f"this pair: {size:.3f}",)),
    ]  # fmt: skip
    rows = (
        (0.0, "this pair"),
        *((float(len(GROUPS) - at), f"related: {group}") for at, group in enumerate(GROUPS)),
        (float(len(GROUPS) + 1), "unrelated"),
    )
    return Chart(
        title=f"Size of {MATCHED[name]}",
        x=Axis(f"size of {MATCHED[name]} (0: strangers, 1: the same)", low=min(-0.05, *strangers, size), high=1.03),
        y=Axis("", low=-0.6, high=len(GROUPS) + 1.6, named=rows),
        series=tuple(one for one in series if one.x),
        rules=() if one.margin is None else (Rule(f"margin {one.margin:.2f}", one.margin, "control"),),
    )


def _row(at: int, sizes: Sequence[float], role: Role, told: Sequence[str]) -> Series:
    # Heights that no two neighbours share, so that points do not hide each other.
    heights = tuple(at + _SPREAD * (place * _GOLDEN % 1 - 0.5) for place in range(len(sizes)))
    return Series(ROWS[role], role, tuple(sizes), heights, told=tuple(told))
