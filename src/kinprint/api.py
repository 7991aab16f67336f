"""The public functions: open a model, make its fingerprint, compare two, look into one."""

from __future__ import annotations

import gc
import platform
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from kinprint import fingerprints, registry
from kinprint.architecture import ModelView, view, view_like
from kinprint.checkpoint import Checkpoint, on_disk, open_checkpoint
from kinprint.errors import CheckpointError, UsageError
from kinprint.evidence.sampling import few_experts
from kinprint.fingerprints import Extractor, Fingerprint, FingerprintMethod, Method, ModelFingerprint
from kinprint.linalg.device import CPU, Device
from kinprint.spectra import ATTENTION
from kinprint.types import (
    Behaviour,
    Comparison,
    ControlPair,
    Environment,
    Inspection,
    MethodResult,
    ModelInfo,
    Request,
    RoleSummary,
    Verdict,
)
from kinprint.verdict import (
    ALPHA,
    Limits,
    Meter,
    Mode,
    Progress,
    a_layer,
    decide,
    look_bytes,
    total_bytes,
    untested,
)
from kinprint.version import __version__

_METHODS_OF: Mapping[Mode, tuple[str, ...]] = {"default": ("layernorm", "intrinsic", "ghostspec-mse")}
"""Methods of the public debate that a mode measures beside the verdict, where no others are asked for."""

DENSE_ORDER = 4096
"""Singular values of one product of attention that the default mode works out: 8,192 take minutes and 2 GB."""

Model = ModelView | ModelFingerprint
Reference = str | Path | Model
"""A model, or the path of a checkpoint or fingerprint file."""


def open_model(reference: str | Path) -> Model:
    """Open a checkpoint (a folder or a file) or a fingerprint file. Nothing is read but headers.

    Raises:
        CheckpointError: It cannot be read.
    """
    opened = _opened_by_name(reference)
    return _by_role(opened) if isinstance(opened, Checkpoint) else opened


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


def _by_role(checkpoint: Checkpoint, others: Iterable[Model] = ()) -> ModelView:
    """Return a checkpoint by role, as one of others where it is like it; contradictions are told with their place."""
    for other in others:
        if isinstance(other, ModelView) and (alike := view_like(other, checkpoint)) is not None:
            return alike
    try:
        return view(checkpoint)
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint.location}: {error}") from error


def fingerprint(
    model: Reference, *, methods: Iterable[str] | None = None, progress: Progress | None = None
) -> ModelFingerprint:
    """Make the fingerprints that methods need, each once. A stored fingerprint is returned as it is.

    Args:
        model: A model, or the path of one.
        methods: Names in the registry; all fingerprint methods by default.
        progress: Called before each extraction, and with bytes as by :func:`compare`.

    Raises:
        UsageError: An unknown method.
        CheckpointError: The model cannot be read.
    """
    side = _Side.of(open_model(model) if isinstance(model, str | Path) else model)
    if isinstance(side.model, ModelFingerprint):
        return side.model
    needed = registry.extractors(registry.select(methods))
    checkpoint, meter = side.model.checkpoint, Meter(progress)
    with meter.at_most(len(needed)), meter.reading(side.info.name, total_bytes(checkpoint), [checkpoint]):
        for extractor in needed:
            meter.step(f"{side.info.name}: {extractor.id}")
            side.get(extractor)
    meter.done()
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
    limits: Limits | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    announce: Callable[[str], None] | None = None,
    with_behaviour: bool = False,
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
        limits: What may be read of each model; see :class:`kinprint.verdict.Limits`.
        device: Where arrays are worked through: ``cpu`` (numpy), ``torch``, ``cuda`` or ``cuda:N``.
        progress: Called before each step with what comes next, steps done and steps planned at most; and, where what
            begins with "reading ", with bytes read and to be read, from a thread of its own.
        announce: Called with a sentence that says how much will be read, before it is.
        with_behaviour: Run the models on texts too, as :func:`kinprint.behaviour.entry.behave` does; they must be
            local folders.

    Returns:
        Verdict, measurements and controls.

    Raises:
        UsageError: An unknown method, an alpha that is no probability, or a component that a model lacks.
        CheckpointError: A model cannot be read.
    """
    if not 0 < alpha < 1:
        raise UsageError(f"alpha is {alpha}: give a probability between 0 and 1")
    asked = None if methods is None else tuple(methods)
    chosen = [] if asked is None and mode == "quick" else registry.select(asked or _METHODS_OF.get(mode))
    limits = limits or Limits(full=mode == "thorough")
    place = Device.of(device)
    request = Request(
        mode=mode,
        methods=asked,
        component=component,
        budget=limits.budget,
        layers=limits.layers,
        full=limits.full,
        device=device,
        behaviour=with_behaviour,
    )
    sides = _opened((suspect, base, *controls), component, limits, place)
    pairs = [(0, 1), *((side, third) for third in range(2, len(sides)) for side in (0, 1))]
    meter = Meter(progress, planned=len(pairs) * len(chosen))
    verdict = _verdict(sides, mode, alpha, limits, meter, announce)
    if asked is None:
        sides = _as_read(sides, verdict)
    results: dict[tuple[int, int], list[MethodResult]] = {pair: [] for pair in pairs}
    for a, b in pairs:
        for method in chosen:
            meter.step(f"{method.name}: {sides[a].info.name} and {sides[b].info.name}")
            dear = _dear(method, sides[a], sides[b]) if asked is None and mode == "default" else None
            results[a, b].append(dear or _run(method, sides[a], sides[b]))
    behaviour = _beside(verdict, (suspect, base, *controls), device, progress) if with_behaviour else None
    meter.done()
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
        behaviour=behaviour,
        request=request,
        environment=_environment(place),
    )


def _environment(device: Device) -> Environment:
    """Return what numbers may depend on in their last digits."""
    return Environment(
        python=platform.python_version(),
        numpy=np.__version__,
        system=f"{platform.system()} {platform.machine()}",
        device=device.description,
    )


def _beside(verdict: Verdict, models: Sequence[Reference], device: str, progress: Progress | None) -> Behaviour:
    """Return how a pair behaves, with a sentence on how that goes with the verdict on its weights."""
    from kinprint.behaviour.axis import beside
    from kinprint.behaviour.entry import Running, behave

    folders = [one for one in models if isinstance(one, str | Path)]
    if len(folders) < len(models):
        raise UsageError("behaviour needs models that can be run: give paths of folders")
    running = Running(device=device)
    found = behave(folders[0], folders[1], controls=folders[2:], running=running, progress=progress)
    return found.model_copy(update={"summary": f"{found.summary} {beside(verdict.conclusion, close=found.close)}"})


def _opened(references: Sequence[Reference], component: str | None, limits: Limits, device: Device) -> list[_Side]:
    """Open models: over a network side by side, where each waits for its headers, and from disk in turn."""
    with _nothing_collected(), ThreadPoolExecutor(len(references), thread_name_prefix="open") as pool:
        away = {
            one: pool.submit(_opened_by_name, one) for one in references if isinstance(one, str) and not on_disk(one)
        }
        models: list[Model] = []
        for one in references:
            opened = away[one].result() if isinstance(one, str) and one in away else _opened_by_name(one)
            models.append(_by_role(opened, models) if isinstance(opened, Checkpoint) else opened)
        if component is not None:
            models = [component_of(model, component) for model in models]
        return [_Side.of(model, limits, device) for model in models]


def _opened_by_name(reference: Reference) -> Model | Checkpoint:
    """Open what is not open yet, without looking for roles."""
    if not isinstance(reference, str | Path):
        return reference
    path = Path(reference)
    return fingerprints.load(path) if fingerprints.is_fingerprint(path) else open_checkpoint(reference)


@contextmanager
def _nothing_collected() -> Generator[None]:
    """Keep Python from looking for garbage in what headers and roles are made of: nothing of it is garbage yet."""
    on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if on:
            gc.enable()


def _verdict(
    sides: Sequence[_Side],
    mode: Mode,
    alpha: float,
    limits: Limits,
    meter: Meter,
    announce: Callable[[str], None] | None,
) -> Verdict:
    """Return the verdict on the first two sides; stored fingerprints hold no tensors to test."""
    models = [side.model for side in sides]
    suspect, base = models[:2]
    if not isinstance(suspect, ModelView) or not isinstance(base, ModelView):
        return untested("a stored fingerprint holds no tensors, which every test of the verdict needs", alpha)
    thirds = [model for model in models[2:] if isinstance(model, ModelView)]
    return decide(
        suspect,
        base,
        controls=thirds,
        mode=mode,
        alpha=alpha,
        limits=limits,
        device=sides[0].device,
        meter=meter,
        announce=announce,
    )


def _as_read(sides: Sequence[_Side], verdict: Verdict) -> list[_Side]:
    """Return the models as far as the verdict read them, which is what methods that nobody asked for are measured on.

    Vectors of all layers stay: norm gains are next to nothing.
    """
    reading, layers = verdict.reading, verdict.layer_map
    if reading is None or not reading.sampled:
        return list(sides)
    read = [one for one in (layers.layers if layers is not None else ()) if one.base is not None]
    kept = [{one.suspect for one in read}, {one.base for one in read if one.base is not None}]
    return [side.as_read(sorted(kept[min(at, 1)])) for at, side in enumerate(sides)]


def inspect(model: str | Path | ModelView, *, component: str | None = None) -> Inspection:
    """Say what a checkpoint (or one component of it) holds and how much of it is understood, from headers alone.

    Raises:
        CheckpointError: It cannot be read, or is a fingerprint file.
        UsageError: It has no such component.
    """
    found = model if isinstance(model, ModelView) else _by_role(open_checkpoint(model))
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
        bytes_look=look_bytes(found),
        bytes_layer=a_layer(found, max(key.layer or 0 for key in found.parts)) if found.parts else 0,
    )


# -- one side of a comparison --------------------------------------------------------------------------------------


@dataclass
class _Side:
    """A model with the fingerprints made so far, so that each is made once however many pairs need it."""

    model: Model
    info: ModelInfo
    made: dict[str, Fingerprint] = field(default_factory=dict[str, Fingerprint])
    note: str | None = None
    device: Device = CPU

    @classmethod
    def of(cls, model: Model, limits: Limits | None = None, device: Device = CPU) -> _Side:
        """Return a side; the content of a model that is not read whole has no digest."""
        if isinstance(model, ModelFingerprint):
            return cls(model, model.model, dict(model.fingerprints), device=device)
        whole = limits is None or limits.whole(model)
        info = model.info(content_digest=model.checkpoint.content_digest if whole else None)
        return cls(model, info, device=device)

    def as_read(self, layers: Sequence[int]) -> _Side:
        """Return the same model with the matrices of some layers alone."""
        if isinstance(self.model, ModelFingerprint):
            return self
        kept = few_experts(self.model, layers)
        vectors = {
            key: place
            for key, place in self.model.parts.items()
            if key.role.startswith("norm.") and key.layer is not None
        }
        self.model.checkpoint.fetch([(place.tensor, None) for place in vectors.values()])
        note = f"as far as it was read: {len(layers)} layers" + (f" ({', '.join(map(str, layers))})" if layers else "")
        return _Side(replace(kept, parts={**kept.parts, **vectors}), self.info, note=note, device=self.device)

    def get(self, extractor: Extractor) -> Fingerprint | None:
        """Return a fingerprint, made now if need be; None where only stored ones exist and this is not among them."""
        if extractor.id not in self.made and isinstance(self.model, ModelView):
            self.made[extractor.id] = extractor.run(self.model, self.device)
        return self.made.get(extractor.id)


def _dear(method: Method, a: _Side, b: _Side) -> MethodResult | None:
    """Return why a method that nobody asked for is left out, where it would take minutes and gigabytes."""
    if not isinstance(method, FingerprintMethod) or method.extractor not in ATTENTION.values():
        return None
    order = max((_product_order(side.model) for side in (a, b) if isinstance(side.model, ModelView)), default=0)
    if order <= DENSE_ORDER:
        return None
    return _not_applicable(
        method,
        f"one product of attention has {order:,} singular values, which take minutes a layer: "
        f"ask for them with --method {method.name}",
    )


def _product_order(model: ModelView) -> int:
    """Return how many singular values the largest product of a model's attention has that need not be 0."""
    return max(
        (min(model.shape(role, layer)) for role in ("attn.k", "attn.v") for layer in model.layers(role)), default=0
    )


def _run(method: Method, a: _Side, b: _Side) -> MethodResult:
    found = _measured(method, a, b)
    return found if a.note is None else found.model_copy(update={"notes": (*found.notes, a.note)})


def _measured(method: Method, a: _Side, b: _Side) -> MethodResult:
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


def _count(shape: tuple[int, ...]) -> int:
    count = 1
    for length in shape:
        count *= length
    return count


__all__ = ["compare", "component_of", "fingerprint", "inspect", "open_model"]
