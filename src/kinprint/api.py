"""The public functions: open a model, make its fingerprint, compare two, look into one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kinprint import fingerprints, registry
from kinprint.architecture import ModelView, view
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError, UsageError
from kinprint.fingerprints import Extractor, Fingerprint, FingerprintMethod, Method, ModelFingerprint
from kinprint.types import Comparison, ControlPair, Inspection, MethodResult, ModelInfo, RoleSummary, Verdict
from kinprint.verdict import ALPHA, Mode, decide, untested
from kinprint.version import __version__

_METHODS_OF: Mapping[Mode, tuple[str, ...]] = {"default": ("layernorm", "intrinsic", "ghostspec-mse")}
"""Methods of the public debate that a mode measures beside the verdict, where no others are asked for."""

Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)`` while long work goes on."""

Model = ModelView | ModelFingerprint
Reference = str | Path | Model
"""A model, or the path of a checkpoint or fingerprint file."""


def open_model(reference: str | Path) -> Model:
    """Open a checkpoint (a folder or a file) or a fingerprint file. Nothing is read but headers.

    Raises:
        CheckpointError: It cannot be read.
    """
    path = Path(reference)
    if fingerprints.is_fingerprint(path):
        return fingerprints.load(path)
    return _open_view(path)


def component_of(model: Model, name: str) -> ModelView:
    """Return a part beside the language model (``vision``, ``encoder``, ...) as a model of its own.

    Raises:
        UsageError: The model has no such part, or is a stored fingerprint.
    """
    if not isinstance(model, ModelView):
        raise UsageError(
            f"the fingerprint {model.model.name} has no component {name!r}: it holds the language model only"
        )
    if name not in model.components:
        has = f"it has {', '.join(model.components)}" if model.components else "it has none"
        raise UsageError(f"{model.checkpoint.name} has no component {name!r}: {has}")
    return model.components[name]


def _open_view(path: Path) -> ModelView:
    """Open a checkpoint by role; what contradicts itself is reported with its place."""
    checkpoint = open_checkpoint(path)
    try:
        return view(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def fingerprint(
    model: Reference, *, methods: Iterable[str] | None = None, progress: Progress | None = None
) -> ModelFingerprint:
    """Make the fingerprints that methods need, each once. A stored fingerprint is returned as it is.

    Args:
        model: A model, or the path of one.
        methods: Names in the registry; all fingerprint methods by default.
        progress: Called before each extraction.

    Raises:
        UsageError: An unknown method.
        CheckpointError: The model cannot be read.
    """
    side = _Side.of(model)
    if isinstance(side.model, ModelFingerprint):
        return side.model
    needed = registry.extractors(registry.select(methods))
    for done, extractor in enumerate(needed):
        _tell(progress, f"{side.info.name}: {extractor.id}", done, len(needed))
        side.get(extractor)
    _tell(progress, side.info.name, len(needed), len(needed))
    return ModelFingerprint(side.info, dict(side.made))


def compare(
    suspect: Reference,
    base: Reference,
    *,
    methods: Iterable[str] | None = None,
    controls: Sequence[Reference] = (),
    mode: Mode = "default",
    alpha: float = ALPHA,
    component: str | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Give the verdict on one pair, and measure it with methods of the literature, each side also against third models.

    Args:
        suspect: The model whose origin is in question.
        base: The model it may have been derived from.
        methods: Names in the registry; by default those of the mode: none (``quick``), the cheap ones of the public
            debate (``default``), or all (``thorough``).
        controls: Third models that are known to be unrelated: what they score is what chance and architecture give.
        mode: How much evidence is gathered for the verdict. ``quick`` and ``default`` stop where they have decided.
        alpha: Family-wise error rate of the exact tests.
        component: Compare this part of each model (``vision``, ``encoder``, ...) in place of the language model.
        progress: Called before each step.

    Returns:
        Verdict, measurements and controls.

    Raises:
        UsageError: An unknown method, an alpha that is no probability, or a component that a model lacks.
        CheckpointError: A model cannot be read.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: give a probability between 0 and 1")
    chosen = [] if methods is None and mode == "quick" else registry.select(methods or _METHODS_OF.get(mode))
    sides = [_Side.of(reference, component) for reference in (suspect, base, *controls)]
    verdict = _verdict(sides, mode, alpha, progress)
    pairs = [(0, 1), *((side, third) for third in range(2, len(sides)) for side in (0, 1))]
    total, done = len(pairs) * len(chosen), 0
    results: dict[tuple[int, int], list[MethodResult]] = {pair: [] for pair in pairs}
    for a, b in pairs:
        for method in chosen:
            _tell(progress, f"{method.name}: {sides[a].info.name} and {sides[b].info.name}", done, total)
            results[a, b].append(_run(method, sides[a], sides[b]))
            done += 1
    _tell(progress, "done", total, total)
    measured = tuple(results[0, 1])
    reason = _nothing_in_common(measured) if measured else None
    return Comparison(
        kinprint_version=__version__,
        status="not_comparable" if reason else "measured",
        reason=reason,
        verdict=verdict,
        suspect=sides[0].info,
        base=sides[1].info,
        controls=tuple(side.info for side in sides[2:]),
        methods=measured,
        control_pairs=tuple(
            ControlPair(
                side="suspect" if a == 0 else "base",
                control=sides[b].info.name,
                methods=tuple(result.model_copy(update={"tables": ()}) for result in results[a, b]),
            )
            for a, b in pairs[1:]
        ),
    )


def _verdict(sides: Sequence[_Side], mode: Mode, alpha: float, progress: Progress | None) -> Verdict:
    """Return the verdict on the first two sides; stored fingerprints hold no tensors to test."""
    models = [side.model for side in sides]
    suspect, base = models[:2]
    if not isinstance(suspect, ModelView) or not isinstance(base, ModelView):
        return untested("a stored fingerprint holds no tensors, which every test of the verdict needs", alpha)
    thirds = [model for model in models[2:] if isinstance(model, ModelView)]
    return decide(suspect, base, controls=thirds, mode=mode, alpha=alpha, tell=lambda what: _tell(progress, what, 0, 0))


def inspect(model: str | Path | ModelView, *, component: str | None = None) -> Inspection:
    """Say what a checkpoint (or one component of it) holds and how much of it is understood, from headers alone.

    Raises:
        CheckpointError: It cannot be read, or is a fingerprint file.
        UsageError: It has no such component.
    """
    found = model if isinstance(model, ModelView) else _open_view(Path(model))
    found = found if component is None else component_of(found, component)
    tensors = found.checkpoint.tensors
    dtypes: dict[str, int] = {}
    for info in tensors.values():
        dtypes[info.dtype] = dtypes.get(info.dtype, 0) + info.size
    roles: list[RoleSummary] = []
    for role in sorted({key.role for key in found.parts}):
        keys = [key for key in found.parts if key.role == role]
        shapes = [found.shape(key.role, key.layer, key.expert) for key in keys]
        roles.append(
            RoleSummary(
                role=role,
                parts=len(keys),
                shape=shapes[0],
                dtypes=tuple(sorted({tensors[found.parts[key].tensor].dtype for key in keys})),
                parameters=sum(_count(shape) for shape in shapes),
            )
        )
    return Inspection(
        model=found.info(),
        summary=found.family.summary,
        tied=found.tied,
        files=tuple(dict.fromkeys(info.file for info in tensors.values())),
        dtypes=dtypes,
        roles=tuple(roles),
        ignored=dict(found.ignored),
        bytes_total=sum(info.nbytes for info in tensors.values()),
        bytes_compare=sum(i.nbytes for name, i in tensors.items() if i.floating and name not in found.ignored),
    )


# -- one side of a comparison --------------------------------------------------------------------------------------


@dataclass
class _Side:
    """A model with the fingerprints made so far, so that each is made once however many pairs need it."""

    model: Model
    info: ModelInfo
    made: dict[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])

    @classmethod
    def of(cls, reference: Reference, component: str | None = None) -> _Side:
        model = open_model(reference) if isinstance(reference, str | Path) else reference
        model = model if component is None else component_of(model, component)
        if isinstance(model, ModelFingerprint):
            return cls(model, model.model, dict(model.fingerprints))
        return cls(model, model.info(content_digest=model.checkpoint.content_digest))

    def get(self, extractor: Extractor) -> Fingerprint | None:
        """Return a fingerprint, made now if need be; None where only stored ones exist and this is not among them."""
        if extractor.id not in self.made and isinstance(self.model, ModelView):
            self.made[extractor.id] = extractor.extract(self.model)
        return self.made.get(extractor.id)


def _run(method: Method, a: _Side, b: _Side) -> MethodResult:
    if isinstance(method, FingerprintMethod):
        found = a.get(method.extractor), b.get(method.extractor)
        if found[0] is not None and found[1] is not None:
            return _compare_fingerprints(method, a, b, found[0], found[1])
        side = a if found[0] is None else b
        return _not_applicable(method, f"the fingerprint file {side.info.location} does not hold {method.extractor.id}")
    if isinstance(a.model, ModelView) and isinstance(b.model, ModelView):
        return method.compare(a.model, b.model)
    return _not_applicable(method, "needs both models' tensors, and a stored fingerprint holds none")


def _compare_fingerprints(
    method: FingerprintMethod, a: _Side, b: _Side, suspect: Fingerprint, base: Fingerprint
) -> MethodResult:
    """Compare; arrays of a stored fingerprint that no extraction makes are the file's fault, not ours."""
    stored = [side.info.location for side in (a, b) if isinstance(side.model, ModelFingerprint)]
    if not stored:
        return method.compare(suspect, base)
    try:
        with np.errstate(all="ignore"):  # a record refuses NaN and Inf, whatever they came from
            return method.compare(suspect, base)
    except (LookupError, TypeError, ValueError, ArithmeticError, AssertionError, AttributeError) as error:
        what = f"the arrays of {method.extractor.id} are not what the method makes"
        raise CheckpointError(f"{' or '.join(stored)}: {what}: make the fingerprint again") from error


def _not_applicable(method: Method, reason: str) -> MethodResult:
    return MethodResult(method=method.name, id=method.id, status="not_applicable", reason=reason, source=method.source)


def _nothing_in_common(results: Sequence[MethodResult]) -> str | None:
    """Return why nothing was measured, or None if something was."""
    if any(value.value is not None for result in results for value in result.values):
        return None
    reasons = dict.fromkeys(
        reason
        for result in results
        for reason in (result.reason, *(value.reason for value in result.values))
        if reason is not None
    )
    return "no method could measure anything: " + "; ".join(reasons)


def _tell(progress: Progress | None, what: str, done: int, total: int) -> None:
    if progress is not None:
        progress(what, done, total)


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


__all__ = ["compare", "component_of", "fingerprint", "inspect", "open_model"]
