"""The frozen record of a method on one model, what a method is, and the file that keeps fingerprints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from kinprint.architecture import ModelView
from kinprint.checkpoint import Array, LocalFile, SafetensorsFile, write_safetensors
from kinprint.errors import CheckpointError, UsageError
from kinprint.linalg.device import CPU, Device
from kinprint.types import MethodResult, ModelInfo, Record
from kinprint.version import __version__


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """One extraction from one model.

    Attributes:
        id: Name, version and every setting that changes a number. Two fingerprints may be compared only if these
            are equal.
        arrays: The numbers, by name. Names and shapes are fixed by ``id`` and the model's geometry. A layer that
            could not be used is absent or NaN, and ``problems`` says why.
        problems: What could not be used and why, such as a tensor that holds NaN.
    """

    id: str
    arrays: Mapping[str, Array]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """All fingerprints of one model, with what identifies the model. This is what a fingerprint file holds."""

    model: ModelInfo
    fingerprints: Mapping[str, Fingerprint]


@dataclass(frozen=True, slots=True)
class Extractor:
    """The expensive half of a fingerprint method: once per model.

    Attributes:
        id: Name, version and every setting that changes a number.
        extract: Makes the fingerprint of a model.
        on_device: Whether ``extract`` takes a ``device``; its numbers are the same on each, up to rounding.
    """

    id: str
    extract: Callable[..., Fingerprint]
    on_device: bool = False

    def run(self, model: ModelView, device: Device = CPU) -> Fingerprint:
        """Return the fingerprint of a model, worked out on a device where that is possible."""
        return self.extract(model, device=device) if self.on_device and device != CPU else self.extract(model)


@dataclass(frozen=True, slots=True)
class FingerprintMethod:
    """A method that maps each model to a fingerprint and two fingerprints to a result.

    Attributes:
        name: Name in the registry: the paper's.
        id: Name, version and every setting of the comparison.
        source: Paper, section, equation.
        extractor: The fingerprint it compares; several methods may share one.
        compare: Suspect's and base's fingerprint to a result. Never raises for a finding: a role that one side lacks
            gives ``not_applicable`` with the reason.
        ignores: Names of the transformations (see ``kinprint.transform``) that leave every value unchanged.
        notices: Names of transformations that must change at least one value.
    """

    name: str
    id: str
    source: str
    extractor: Extractor
    compare: Callable[[Fingerprint, Fingerprint], MethodResult]
    ignores: frozenset[str] = field(default_factory=frozenset[str])
    notices: frozenset[str] = field(default_factory=frozenset[str])


@dataclass(frozen=True, slots=True)
class PairwiseMethod:
    """A method that needs both models' tensors; ``not_applicable`` to stored fingerprints."""

    name: str
    id: str
    source: str
    compare: Callable[[ModelView, ModelView], MethodResult]
    ignores: frozenset[str] = field(default_factory=frozenset[str])
    notices: frozenset[str] = field(default_factory=frozenset[str])


Method = FingerprintMethod | PairwiseMethod


# -- the file ------------------------------------------------------------------------------------------------------

FILE_VERSION = 1
_KEY = "kinprint_fingerprint"


class _Entry(Record):
    id: str
    arrays: tuple[str, ...]
    problems: tuple[str, ...]


class _Header(Record):
    """What the file's JSON header says; arrays are stored as ``<position of the entry>/<name>``."""

    file_version: int = FILE_VERSION
    kinprint_version: str
    model: ModelInfo
    fingerprints: tuple[_Entry, ...]


def save(fingerprint: ModelFingerprint, path: Path) -> None:
    """Write a fingerprint file: safetensors, with everything that describes it as JSON in the header.

    Written to a temporary file and renamed, so that an interruption leaves nothing half-written.

    Raises:
        UsageError: The file's name does not end in ``.safetensors``, or there is nothing to write.
    """
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: a fingerprint file is a safetensors file: let its name end in .safetensors")
    entries: list[_Entry] = []
    arrays: dict[str, Array] = {}
    for position, part in enumerate(fingerprint.fingerprints.values()):
        entries.append(_Entry(id=part.id, arrays=tuple(part.arrays), problems=part.problems))
        arrays.update({f"{position}/{name}": array for name, array in part.arrays.items()})
    header = _Header(kinprint_version=__version__, model=fingerprint.model, fingerprints=tuple(entries))
    write_safetensors(path, arrays, metadata={_KEY: header.model_dump_json()})


def is_fingerprint(path: Path) -> bool:
    """Return whether a file is a fingerprint file. Anything unreadable is none."""
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        return _KEY in SafetensorsFile(LocalFile(path)).metadata
    except CheckpointError:
        return False


def load(path: Path) -> ModelFingerprint:
    """Read a fingerprint file.

    Raises:
        CheckpointError: The file is none, is damaged, or comes from a newer version.
    """
    stored = SafetensorsFile(LocalFile(path))
    try:
        header = _Header.model_validate_json(stored.metadata[_KEY])
    except (KeyError, ValidationError):
        remedy = "make it again with 'kinprint fingerprint'"
        raise CheckpointError(f"{path}: not a fingerprint file of this version: {remedy}") from None
    if header.file_version != FILE_VERSION:
        raise CheckpointError(f"{path}: fingerprint file version {header.file_version} is unknown: update kinprint")
    parts: dict[str, Fingerprint] = {}
    for position, entry in enumerate(header.fingerprints):
        names = {name: f"{position}/{name}" for name in entry.arrays}
        if missing := [name for name in names.values() if name not in stored.tensors]:
            raise CheckpointError(f"{path}: array {missing[0]!r} is missing: the file is damaged, make it again")
        arrays = {name: stored.read(at, None) for name, at in names.items()}
        parts[entry.id] = Fingerprint(entry.id, arrays, entry.problems)
    made_from = f"fingerprint of a {header.model.format} checkpoint, made by kinprint {header.kinprint_version}"
    here = {"format": "fingerprint", "location": str(path), "notes": (*header.model.notes, made_from)}
    return ModelFingerprint(header.model.model_copy(update=here), parts)
