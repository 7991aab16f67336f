"""One pair, every method: values, and what each cost."""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kinprint import registry
from kinprint.architecture import ModelView, view
from kinprint.behaviour.cache import Cache
from kinprint.bench.records import Cell, Cost, PairVerdict
from kinprint.checkpoint import open_checkpoint
from kinprint.fingerprints import Fingerprint, FingerprintMethod, Method
from kinprint.linalg.threads import one_thread
from kinprint.types import MethodResult, Record

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_RESET_PEAK = "5"
"""What the kernel takes as: the highest resident size so far is the present one (proc(5))."""


class Measured(Record):
    """What one method measured on one pair: the line that a resumed run reads.

    Attributes:
        suspect: Content digest.
        base: Content digest.
        id: The method's id.
        method: Name in the registry.
        values: Name, kind and value at identity of each number but statistics, in the method's order.
        cells: The numbers, by the name of the value.
        cost: What it took.
        reason: Why the method could not measure anything.
        verdict: What was concluded, where the method is the verdict.
    """

    suspect: str
    base: str
    id: str
    method: str
    values: tuple[tuple[str, str, float | None], ...]
    cells: dict[str, Cell]
    cost: Cost
    reason: str | None = None
    verdict: PairVerdict | None = None


@dataclass
class Meter:
    """What something cost, once it is done.

    Attributes:
        seconds: Wall time.
        peak_mb: How far the resident size rose, in MB (1e6 bytes); None where not measurable.
    """

    seconds: float = 0.0
    peak_mb: float | None = None


@dataclass
class Opened:
    """A model with what was made of it so far and what that cost, so that each is made once.

    Attributes:
        model: The model.
        digest: Of its content.
        made: Fingerprints by the extractor's id.
        behaved: What it gave when it was run, by the behavioural method's id.
    """

    model: ModelView
    digest: str
    made: dict[str, tuple[Fingerprint, Meter]] = field(default_factory=dict[str, tuple[Fingerprint, Meter]])
    behaved: dict[str, tuple[Cache, Meter]] = field(default_factory=dict[str, tuple[Cache, Meter]])

    @classmethod
    def of(cls, path: Path) -> Opened:
        """Open a model.

        Raises:
            CheckpointError: It cannot be read.
        """
        model = view(open_checkpoint(path))
        return cls(model, model.checkpoint.content_digest)

    def fingerprint(self, method: FingerprintMethod) -> tuple[Fingerprint, Meter]:
        """Return what a method needs of this model, made now if need be, with what it cost."""
        key = method.extractor.id
        if key not in self.made:
            with metered() as meter:
                made = method.extractor.extract(self.model)
            self.made[key] = (made, meter)
        return self.made[key]


def measure(suspect: Opened, base: Opened, methods: Sequence[Method]) -> list[Measured]:
    """Run methods on one pair, on one thread: the cost then means the same on every machine."""
    with one_thread():
        return [_measure(suspect, base, method) for method in methods]


def method_by_id(identifier: str) -> Method:
    """Return a registered method by its id."""
    return next(method for method in registry.METHODS.values() if method.id == identifier)


def _measure(suspect: Opened, base: Opened, method: Method) -> Measured:
    if isinstance(method, FingerprintMethod):
        made = [side.fingerprint(method) for side in (suspect, base)]
        with metered() as meter:
            result = method.compare(made[0][0], made[1][0])
        parts = [meter, *(cost for _, cost in made)]
    else:
        with metered() as meter:
            result = method.compare(suspect.model, base.model)
        parts = [meter]
    return measured(suspect, base, result, parts)


def measured(suspect: Opened, base: Opened, result: MethodResult, parts: Sequence[Meter]) -> Measured:
    """Return the line of one method on one pair, with the cost of all its parts."""
    peaks = [part.peak_mb for part in parts if part.peak_mb is not None]
    values = [value for value in result.values if value.kind != "statistic"]
    return Measured(
        suspect=suspect.digest,
        base=base.digest,
        id=result.id,
        method=result.method,
        values=tuple((value.name, value.kind, value.identical) for value in values),
        cells=_cells(result),
        cost=Cost(seconds=sum(part.seconds for part in parts), peak_mb=max(peaks) if peaks else None),
        reason=result.reason,
    )


def _cells(result: MethodResult) -> dict[str, Cell]:
    return {
        value.name: Cell(value=value.value, reason=value.reason) for value in result.values if value.kind != "statistic"
    }


@contextmanager
def metered() -> Generator[Meter]:
    """Measure wall time, and how far the resident size rose (Linux; elsewhere the peak stays None)."""
    meter, before = Meter(), _reset_peak()
    start = time.perf_counter()
    yield meter
    meter.seconds = time.perf_counter() - start
    if before is not None and (peak := _status("VmHWM")) is not None:
        meter.peak_mb = max(0.0, peak - before)


def _reset_peak() -> float | None:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        return None
    return _status("VmRSS")


def _status(name: str) -> float | None:
    """Return a size of this process in MB (1e6 bytes)."""
    try:
        line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    except (OSError, StopIteration):
        return None
    return int(line.split()[1]) * 1024 / 1e6
