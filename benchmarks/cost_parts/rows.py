"""What one row of the table says, and whether its bars are met."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Check:
    """One bar: what was asked for, in words, and whether it is met."""

    asked: str
    met: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; None where a column does not apply or could not be measured.

    Attributes:
        what: The thing that was measured.
        seconds: Of a cold process, from page cache.
        cpu_seconds: What it spent of all processors.
        limit_seconds: The streaming limit of the bytes that it read.
        suspect_bytes: Read of the suspect.
        base_bytes: Read of the base.
        share: Bytes read of both, as a share of what their files are long.
        peak_mb: Peak of anonymous memory, in MB (1e6 bytes).
        says: The verdict, or the score.
        checks: Bars.
        note: What a reader must know, or why nothing was measured.
    """

    what: str
    seconds: float | None = None
    cpu_seconds: float | None = None
    limit_seconds: float | None = None
    suspect_bytes: int | None = None
    base_bytes: int | None = None
    share: float | None = None
    peak_mb: float | None = None
    says: str = ""
    checks: tuple[Check, ...] = ()
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """Seconds over the streaming limit."""
        return self.seconds / self.limit_seconds if self.seconds and self.limit_seconds else None

    @property
    def missed(self) -> bool:
        """Whether a bar is missed."""
        return not all(check.met for check in self.checks)

    def record(self) -> dict[str, Any]:
        """Return the row as JSON holds it."""
        return asdict(self)

    @classmethod
    def of(cls, record: dict[str, Any]) -> Row:
        """Return the row that :meth:`record` wrote."""
        fields: dict[str, Any] = {**record, "checks": tuple(Check(**check) for check in record["checks"])}
        return cls(**fields)


def at_most(what: str, value: float | None, bar: float, unit: str = "") -> Check:
    """Return a bar from above; a value that could not be measured misses it."""
    return Check(f"{what} ≤ {bar:g}{unit}", value is not None and value <= bar)


def at_least(what: str, value: float | None, bar: float, unit: str = "") -> Check:
    """Return a bar from below; a value that could not be measured misses it."""
    return Check(f"{what} ≥ {bar:g}{unit}", value is not None and value >= bar)


def equals(word: str, said: str) -> Check:
    """Return the bar that a verdict is a certain one."""
    return Check(word, said == word)


HEAD = (
    "what",
    "seconds",
    "CPU s",
    "limit s",
    "ratio",
    "suspect MB",
    "base MB",
    "share",
    "peak MB",
    "says",
    "bar",
    "met",
    "note",
)


def table(rows: Sequence[Row]) -> str:
    """Return rows as a Markdown table."""
    lines = [HEAD, ("---",) * len(HEAD), *map(_cells, rows)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _cells(row: Row) -> tuple[str, ...]:
    met = "" if not row.checks else "no" if row.missed else "yes"
    bars = [check.asked if check.met else f"**{check.asked}**" for check in row.checks]
    return (
        row.what,
        _shown(row.seconds, ".2f"),
        _shown(row.cpu_seconds, ".2f"),
        _shown(row.limit_seconds, ".3f"),
        _shown(row.ratio, ".2f"),
        _megabytes(row.suspect_bytes),
        _megabytes(row.base_bytes),
        "" if row.share is None else f"{row.share:.2%}",
        _shown(row.peak_mb, ",.0f"),
        row.says,
        "; ".join(bars),
        met,
        row.note.replace("|", "/"),
    )


def _shown(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.1f}"
