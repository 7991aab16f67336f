"""The records that cross boundaries: what a method measured, and a whole comparison.

They are pydantic models, so the JSON that ``--json`` writes and the published schema come from here.
A number that could not be computed is ``None`` with a reason beside it; NaN and Inf never appear.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 1
"""Raised whenever a reader of the JSON could be misled by the change."""

Cell = str | int | float | None


class Record(BaseModel):
    """Frozen, closed base: an unknown field is an error, and NaN cannot be written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Value(Record):
    """One named number of a method.

    Attributes:
        name: What was measured, unique inside its method: ``similarity``, ``attn.q pearson``.
        value: The number; ``None`` when it could not be computed.
        kind: ``similarity`` is 1 for the same model, ``distance`` is 0 for the same, ``statistic`` is neither.
        identical: What the method gives a model compared with itself, where that is fixed.
        reason: Why ``value`` is ``None``.
        note: How to read the number, in a few words.
    """

    name: str
    value: float | None
    kind: Literal["similarity", "distance", "statistic"]
    identical: float | None = None
    reason: str | None = None
    note: str | None = None


class Table(Record):
    """Details of one method, as rows under named columns. ``title`` says what a row is."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]


class MethodResult(Record):
    """What one method measured on one pair.

    Attributes:
        method: Name in the registry.
        id: Name, version and every setting that changes a number.
        status: ``not_applicable`` when the method could not run on this pair; then ``reason`` says why.
        reason: Why nothing was measured.
        values: The numbers that the method is known by, most important first.
        controls: Numbers that must look negative if the values are to mean anything: shuffles,
            mismatched layers, baselines inside one model, third models.
        tables: Per-layer and per-role details.
        notes: What the reader must know: what was left out, inferred, or interpolated.
        source: Paper, section and equation.
    """

    method: str
    id: str
    status: Literal["measured", "not_applicable"]
    reason: str | None = None
    values: tuple[Value, ...] = ()
    controls: tuple[Value, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""


class GeometryInfo(Record):
    """Sizes of a model. ``None`` where a size is unknown or does not exist."""

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    experts: int | None = None
    vocab: int | None = None


class ModelInfo(Record):
    """What was compared, so that a reader can find the same bytes again.

    Attributes:
        name: Label for people; never evidence.
        location: Path as given.
        format: ``safetensors``, ``pytorch``, ``gguf``, ``fingerprint`` or ``memory``.
        family: Name of the family table, or ``unknown``.
        geometry: Sizes, from the config where there is one and else from shapes.
        inferred: Sizes that were inferred from shapes and how.
        parameters: Count over all floating tensors.
        coverage: Share of those parameters that the family table maps to roles, 0 to 1.
        unmapped: Every tensor without a role.
        header_digest: SHA-256 over sorted names, dtypes and shapes.
        content_digest: SHA-256 over names, dtypes, shapes and bytes; ``None`` when the bytes were not all read.
        notes: Choices made while opening: which of several sets, what was ignored.
    """

    name: str
    location: str
    format: str
    family: str
    geometry: GeometryInfo
    inferred: tuple[str, ...] = ()
    parameters: int
    coverage: float
    unmapped: tuple[str, ...] = ()
    header_digest: str
    content_digest: str | None = None
    notes: tuple[str, ...] = ()


class ControlPair(Record):
    """The same methods on one side of the pair and a third model.

    Attributes:
        side: Which side of the comparison stands against the third model.
        control: The third model's name.
        methods: Results without their detail tables.
    """

    side: Literal["suspect", "base"]
    control: str
    methods: tuple[MethodResult, ...]


class Comparison(Record):
    """Measurements and controls on one pair. States no conclusion.

    Attributes:
        schema_version: Version of this record's layout.
        kinprint_version: The program that measured.
        status: ``not_comparable`` when no method could measure anything; then ``reason`` says why.
        reason: Why nothing was measured.
        suspect: The model whose origin is in question.
        base: The model it may have been derived from.
        controls: Third models.
        methods: What each method measured on the pair.
        control_pairs: What the same methods measured on each side against each third model.
    """

    schema_version: int = SCHEMA_VERSION
    kinprint_version: str
    status: Literal["measured", "not_comparable"]
    reason: str | None = None
    suspect: ModelInfo
    base: ModelInfo
    controls: tuple[ModelInfo, ...] = ()
    methods: tuple[MethodResult, ...] = ()
    control_pairs: tuple[ControlPair, ...] = ()


class RoleSummary(Record):
    """One role of a model, as ``inspect`` shows it."""

    role: str
    parts: int
    shape: tuple[int, ...]
    dtypes: tuple[str, ...]
    parameters: int


class Inspection(Record):
    """What a checkpoint holds and how much of it is understood.

    Attributes:
        model: Identity and geometry.
        summary: The family in one line.
        tied: Whether the output matrix is the token embedding.
        files: Files that hold tensors.
        dtypes: Parameters by stored dtype.
        roles: Every role.
        ignored: Tensors that are no parameters, with the reason.
        bytes_total: Bytes of all tensors.
        bytes_compare: Bytes that a compare with all methods would read.
    """

    schema_version: int = SCHEMA_VERSION
    model: ModelInfo
    summary: str
    tied: bool
    files: tuple[str, ...]
    dtypes: dict[str, int]
    roles: tuple[RoleSummary, ...]
    ignored: dict[str, str]
    bytes_total: int
    bytes_compare: int
