"""Do the two models hold the same values?

Axes: R = rows of a tensor, N = its values in any order.

Two values are the same if they are equal as stored or, in two dtypes, if one rounds to the other or one number rounds
to both. Tensors face each other by role, else by name, and what is left is looked for by content alone: by the signs
of a few values, which no rounding changes, and then value by value. The names only say where to look first.

Ignores renamed tensors, folders and shards, other dtypes and, where a family table is known for both, fused,
transposed and stacked storage. Notices every changed value. Left out because strangers have them too: empty and
constant tensors (gains that are all one, biases that are all zero), masks (matrices of two values, one of them zero)
and what the family table ignores. Tensors that differ are left at the first block that does, so that strangers cost a
sample of each tensor.

The share of equal values is estimated on a seeded sample of rows of each tensor. Strangers' gains in bf16 agree in 2
to 8 % by chance, so it stands beside the same share after a shuffle of the sample.

No source: comparing copies needs none.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, cast

import ml_dtypes
import numpy as np

from kinprint.architecture import ModelView, PartKey, layout
from kinprint.canonical import method_id
from kinprint.checkpoint import Array, TensorInfo
from kinprint.evidence.records import Statement
from kinprint.types import Cell, Evidence, Table, Value

SEED = 0

SAMPLE = 1 << 16
"""Most values of one tensor from which its share of equal values is estimated."""

SAMPLE_TOTAL = 1 << 24
"""Most values of one model from which shares are estimated, as long as each tensor keeps ``SAMPLE_LEAST``."""

SAMPLE_LEAST = 1 << 10

RUNS = 8
"""Runs of neighbouring rows that make up the sample of one tensor: few, or a disk would seek for every row."""

FROZEN = 1024
"""Fewest values of a tensor that is reported as unchanged."""

FIRST_BLOCK = 1 << 11
"""Values that are compared first: tensors that differ almost always differ here."""

BLOCK = 1 << 20
"""Values in every later block."""

PROBE = 512
"""Values whose signs stand for a tensor while it is looked for."""

HEAD = 16
"""Values that are compared before a whole tensor is: norm gains are all positive, so their signs tell nothing."""

LISTED = 200
"""Most unchanged tensors that the table lists."""

PACKED = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0"})
"""Dtypes of matrices that may be packed weights: compared as bytes, or equal scales would make a model identical."""

Same = Literal["bytes", "rounded"]

STATEMENT = Statement(
    name="identical values",
    id=method_id("identity", 1, sample=SAMPLE, total=SAMPLE_TOTAL, frozen=FROZEN, seed=SEED),
    rung=0,
    null="no null: that independent models agree in every value of every tensor needs no p-value",
    defeats="any change to the values: training, noise, permutation, rescaling, quantisation in blocks; where no"
    " family table is known, also fused, transposed or stacked storage",
)


@dataclass(frozen=True, slots=True)
class Identity:
    """Which values two models share.

    Attributes:
        tensors_suspect: Stored tensors of the suspect that hold parameters and neither are constant nor a mask.
        tensors_base: The same of the base.
        same_bytes: Tensors of the suspect whose values the base has in the same dtype (all parts of a fused one).
        same_rounded: Those and the ones that the base has after rounding to the coarser dtype.
        elsewhere: Those of ``same_rounded`` that the base has under another name or role.
        left_out: Empty and constant tensors and masks, of suspect and base.
        equal_share: Share of equal values over all matrices that face each other; None where none do.
        shuffled_share: The same with the suspect's values shuffled inside each matrix.
        gains_equal_share: Share over norm gains; over all vectors where no family table says which are gains.
        gains_shuffled_share: The same with the suspect's values shuffled inside each vector.
        compared: Tensors or parts behind the shares: matrices, gains.
        frozen: Parts or tensors with the same values in both, of at least ``FROZEN`` values.
        identical: Whether every tensor of each model has its own counterpart in the other, in the same place where
            roles say which that is: as ``bytes``, or some of them only ``rounded``.
        notes: What the reader must know.
    """

    tensors_suspect: int
    tensors_base: int
    same_bytes: int
    same_rounded: int
    elsewhere: int
    left_out: tuple[int, int]
    equal_share: float | None
    shuffled_share: float | None
    gains_equal_share: float | None
    gains_shuffled_share: float | None
    compared: tuple[int, int]
    frozen: tuple[str, ...]
    identical: Same | None
    notes: tuple[str, ...] = ()


def compare_values(suspect: ModelView, base: ModelView) -> Identity:
    """Return which values two models share.

    Args:
        suspect: One model.
        base: The other; ``frozen`` and the counts of equal tensors are the suspect's.

    Raises:
        CheckpointError: A tensor cannot be decoded.
    """
    search = _Search(_Side(suspect), _Side(base))
    search.face()
    search.look_elsewhere()
    matrices, gains = _shares(search, "matrix"), _shares(search, "gain")
    states = search.suspect.state.values()
    return Identity(
        tensors_suspect=len(search.suspect.kept),
        tensors_base=len(search.base.kept),
        same_bytes=sum(same == "bytes" for same in states),
        same_rounded=sum(same is not None for same in states),
        elsewhere=search.elsewhere,
        left_out=(search.suspect.left_out, search.base.left_out),
        equal_share=matrices[0],
        shuffled_share=matrices[1],
        gains_equal_share=gains[0],
        gains_shuffled_share=gains[1],
        compared=(matrices[2], gains[2]),
        frozen=search.frozen(),
        identical=search.identical(),
        notes=tuple(search.notes()),
    )


def evidence(identity: Identity) -> Evidence:
    """Return rung 0 of the evidence; it carries a verdict only where every tensor is the same."""
    if not identity.tensors_suspect or not identity.tensors_base:
        who = "base" if identity.tensors_suspect else "suspect"
        return STATEMENT.not_applicable(f"the {who} holds no tensor with two different values")
    if not any(identity.compared) and not identity.same_rounded:
        return STATEMENT.not_applicable("no tensors of the same role or name have one shape, and none the same values")
    matrices = (identity.equal_share, identity.shuffled_share)
    gains = (identity.gains_equal_share, identity.gains_shuffled_share)
    equal, shuffled = matrices if matrices[0] is not None else gains
    return Evidence(
        name=STATEMENT.name,
        id=STATEMENT.id,
        rung=STATEMENT.rung,
        status="measured",
        null=STATEMENT.null,
        defeats=STATEMENT.defeats,
        size=None if equal is None or shuffled is None else equal - shuffled,
        carries=identity.identical is not None,
        beyond=identity.identical is not None,
        controls=tuple(
            Value(name=f"{what} equal after a shuffle", value=share, kind="statistic")
            for what, (_, share) in (("matrices", matrices), ("gains", gains))
            if share is not None
        ),
        tables=tuple(_tables(identity)),
        notes=(*_summary(identity), *identity.notes),
    )


def _summary(identity: Identity) -> Iterator[str]:
    rounded = identity.same_rounded - identity.same_bytes
    yield (
        f"of {identity.tensors_suspect} tensors of the suspect, {identity.same_bytes} are in the base byte for byte"
        + (f" and {rounded} after rounding to the coarser dtype" if rounded else "")
    )
    if identity.elsewhere:
        yield f"{identity.elsewhere} of them under another name or role"
    if any(identity.left_out):
        here, there = identity.left_out
        yield f"empty, constant or a mask, and so left out: {here} tensors of the suspect, {there} of the base"
    if identity.frozen and identity.identical is None:
        yield (
            f"{len(identity.frozen)} parts of at least {FROZEN:,} values are unchanged: frozen layers of a derived"
            " model look like this, and so do tables that both compute or copy from a third"
        )


def _tables(identity: Identity) -> Iterator[Table]:
    rows: tuple[tuple[Cell, ...], ...] = (
        ("matrices", identity.compared[0], identity.equal_share, identity.shuffled_share),
        ("norm gains", identity.compared[1], identity.gains_equal_share, identity.gains_shuffled_share),
    )
    yield Table(title="Equal values", columns=("what", "compared", "equal", "after a shuffle"), rows=rows)
    if identity.frozen and identity.identical is None:
        more = len(identity.frozen) - LISTED
        title = "Unchanged parts" + (f", the first {LISTED} of {len(identity.frozen)}" if more > 0 else "")
        yield Table(title=title, columns=("part",), rows=tuple((label,) for label in identity.frozen[:LISTED]))


# -- what faces what -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Piece:
    """A part of a model, or a whole stored tensor where no role says what it is.

    ``raised`` says that one is added to a gain that is stored without it, because the other model's is stored with it.
    """

    view: ModelView
    tensor: str
    key: PartKey | None = None
    raised: bool = False

    @property
    def info(self) -> TensorInfo:
        return self.view.checkpoint.tensors[self.tensor]

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of the values as they are compared: a packed tensor is a row of bytes, a scalar a vector."""
        if self.key is not None:
            return self.view.shape(self.key.role, self.key.layer, self.key.expert)
        return (self.info.shape or (1,)) if self.info.floating else (self.info.nbytes,)

    @property
    def dtype(self) -> str:
        """Dtype that must agree for bytes to agree."""
        return f"{self.info.dtype}+1" if self.raised else self.info.dtype

    @property
    def kind(self) -> Literal["matrix", "gain"] | None:
        if not self.info.floating:
            return None
        if len(self.shape) > 1:
            return "matrix"
        return "gain" if self.key is None or _is_gain(self.key) else None

    @cached_property
    def head(self) -> Array:
        """The first values, in the stored dtype."""
        return self.reader()(slice(0, HEAD)).reshape(-1)[:HEAD]

    def reader(self) -> Callable[[slice], Array]:
        """Return what reads a range of rows in the stored dtype."""
        checkpoint, info, key = self.view.checkpoint, self.info, self.key
        if not info.floating:
            whole: Array = np.frombuffer(checkpoint.raw(self.tensor), np.uint8)
        elif key is not None and not layout.is_plain(self.view.parts[key].rule):
            whole = self.view.stored(key.role, key.layer, key.expert)
        elif info.dtype.startswith("GGUF:") and (key is None or key.role not in ("attn.q", "attn.k")):
            # Decoded only as far as it is asked for. Of q and k a reader may have to put all rows in order first.
            return lambda rows: checkpoint.read(self.tensor, rows)
        else:
            whole = checkpoint.read(self.tensor).reshape(self.shape)
        if self.raised:
            whole = whole.astype(np.float32) + np.float32(1)
        return lambda rows: whole[rows]

    def blocks(self) -> Iterator[slice]:
        """Yield ranges of rows: a small one to decide most cases, then large ones."""
        width, first, values = max(1, math.prod(self.shape[1:])), 0, FIRST_BLOCK
        while first < self.shape[0]:
            following = first + max(1, values // width)
            yield slice(first, min(following, self.shape[0]))
            first, values = following, BLOCK


class _Side:
    """One model: which tensors count, and which of them have been found in the other model."""

    def __init__(self, view: ModelView) -> None:
        self.view = view
        tensors = view.checkpoint.tensors
        self.names = [name for name, info in tensors.items() if name not in view.ignored and _holds_parameters(info)]
        self.kept = [name for name in self.names if not _says_nothing(_Piece(view, name))]
        self.left_out = len(self.names) - len(self.kept)
        self.state: dict[str, Same | None] = dict.fromkeys(self.kept)
        self.parts = Counter(place.tensor for place in view.parts.values())

    def settle(self, found: Mapping[str, list[Same | None]]) -> None:
        """Give every tensor that was compared in all its parts the weakest of their states."""
        for name, states in found.items():
            if name in self.state and None not in states:
                self.state[name] = "rounded" if "rounded" in states else "bytes"


def _holds_parameters(info: TensorInfo) -> bool:
    # Whole numbers in one row are ids and counters.
    return info.floating or (info.dtype in PACKED and len(info.shape) > 1 and min(info.shape) > 1)


@dataclass(frozen=True, slots=True)
class _Faced:
    """Two pieces that face each other, and whether they are the same."""

    suspect: _Piece
    base: _Piece
    same: Same | None = None


class _Search:
    """Every tensor of two models with its counterpart."""

    def __init__(self, suspect: _Side, base: _Side) -> None:
        self.suspect, self.base = suspect, base
        self.faced: dict[tuple[str, PartKey | None], _Faced] = {}
        self.placed: set[str] = set()  # tensors of the suspect whose every part has a role and a shape in the base
        self.elsewhere = 0
        self.moved = 0
        self.copies = 0
        self.constants = 0

    def face(self) -> None:
        """Compare what faces each other by role, and by name where neither side has faced a role."""
        found: tuple[dict[str, list[Same | None]], ...] = (defaultdict(list), defaultdict(list))
        for pair, counts in self._by_role():
            self._compare(pair, counts, found)
        self.placed = {name for name, states in found[0].items() if len(states) == self.suspect.parts[name]}
        for side, states in zip((self.suspect, self.base), found, strict=True):
            for name, known in states.items():
                known.extend([None] * (side.parts[name] - len(known)))  # a part without counterpart
        for name in self.suspect.names:
            mine, theirs = _Piece(self.suspect.view, name), _Piece(self.base.view, name)
            if name in self._base_names and name not in found[0] and name not in found[1] and _alike(mine, theirs):
                self._compare(_Faced(mine, theirs), (True, True), found)
        self.suspect.settle(found[0])
        self.base.settle(found[1])

    @cached_property
    def _base_names(self) -> frozenset[str]:
        return frozenset(self.base.names)

    def _by_role(self) -> Iterator[tuple[_Faced, tuple[bool, bool]]]:
        """Yield the parts of one role and shape, and for which side the outcome counts.

        An output matrix that only one model stores faces the other's token embedding, which serves as one.
        """
        here, there = self.suspect.view, self.base.view
        embedding, output = PartKey("embed.token"), PartKey("unembed")
        # Gemma's gains are stored minus one in its own files, and as they act in GGUF.
        raises = here.family.gain != there.family.gain
        pairs = [(key, key, (True, True)) for key in here.parts if key in there.parts]
        if output in here.parts and there.tied:
            pairs.append((output, embedding, (True, False)))
        if output in there.parts and here.tied:
            pairs.append((embedding, output, (False, True)))
        for mine, theirs, counts in pairs:
            left, right = (
                _Piece(
                    view, view.parts[key].tensor, key, raises and view.family.gain == "zero-centred" and _is_gain(key)
                )
                for view, key in ((here, mine), (there, theirs))
            )
            if left.info.floating and right.info.floating and left.shape == right.shape:
                yield _Faced(left, right), counts

    def _compare(
        self, pair: _Faced, counts: tuple[bool, bool], found: tuple[dict[str, list[Same | None]], ...]
    ) -> None:
        same = _agreement(pair.suspect, pair.base)
        kept = pair.suspect.tensor in self.suspect.state, pair.base.tensor in self.base.state
        if not any(kept) and same is None:
            self.constants += 1
        for piece, states, count in zip((pair.suspect, pair.base), found, counts, strict=True):
            if count:
                states[piece.tensor].append(same)
        if all(kept) and all(counts):
            self.faced[pair.suspect.tensor, pair.suspect.key] = replace(pair, same=same)

    def look_elsewhere(self) -> None:
        """Look for what was not found where it was expected, by content, under any name."""
        wanted = [name for name, same in self.suspect.state.items() if same is None]
        pieces = [_Piece(self.suspect.view, name) for name in wanted]
        shapes = {piece.shape for piece in pieces}
        by_probe: dict[bytes, list[_Piece]] = defaultdict(list)
        # Tensors of the base that have no counterpart yet come first, so that copies take the rest.
        for name in sorted(self.base.kept, key=lambda name: self.base.state[name] is not None):
            piece = _Piece(self.base.view, name)
            if piece.shape in shapes:
                by_probe[_probe(piece)].append(piece)
        for piece in pieces:
            self._find(piece, by_probe[_probe(piece)])

    def _find(self, piece: _Piece, candidates: list[_Piece]) -> None:
        for at, candidate in enumerate(candidates):
            if not _alike(piece, candidate) or not equal_values(piece.head, candidate.head).all():
                continue
            if (same := _agreement(piece, candidate)) is None:
                continue
            self.suspect.state[piece.tensor] = same
            self.elsewhere += 1
            if self.base.state[candidate.tensor] is None:
                self.base.state[candidate.tensor] = same
            else:
                self.copies += 1
            if piece.tensor in self.placed:
                self.moved += 1
            else:
                self.faced[piece.tensor, None] = _Faced(piece, candidate, same)
            candidates.append(candidates.pop(at))
            return

    def identical(self) -> Same | None:
        """Return how every tensor has its own counterpart, or None where one has not."""
        states = [*self.suspect.state.values(), *self.base.state.values()]
        if not states or None in states or self.moved or self.copies or self.constants:
            return None
        return "rounded" if "rounded" in states else "bytes"

    def frozen(self) -> tuple[str, ...]:
        """Return labels of what has not changed."""
        return tuple(
            _label(faced)
            for faced in self.faced.values()
            if faced.same is not None and math.prod(faced.suspect.shape) >= FROZEN
        )

    def notes(self) -> Iterator[str]:
        """Yield what the numbers do not say."""
        if self.moved:
            yield f"{self.moved} tensors stand under another role or in another layer: not the same model in that order"
        if self.copies:
            yield f"{self.copies} tensors of the suspect repeat one of the base that has a counterpart already"
        if self.constants:
            yield f"{self.constants} constant tensors have another value in the base"
        largest = max((math.prod(faced.suspect.shape) for faced in self.faced.values()), default=0)
        if largest > self.sample:
            yield f"shares are estimated from about {self.sample:,} values of each tensor"
        if any(faced.suspect.dtype != faced.base.dtype for faced in self.faced.values()):
            yield "where dtypes differ, values are equal if one number rounds to both"

    @property
    def sample(self) -> int:
        """Values of each tensor from which its share is estimated."""
        return max(SAMPLE_LEAST, min(SAMPLE, SAMPLE_TOTAL // max(1, len(self.faced))))


def _is_gain(key: PartKey) -> bool:
    return key.role.startswith("norm.") and not key.role.endswith(".bias")


def _alike(left: _Piece, right: _Piece) -> bool:
    """Return whether two pieces can be compared value by value."""
    if not left.info.floating or not right.info.floating:
        return (left.info.dtype, left.info.shape) == (right.info.dtype, right.info.shape)
    return left.shape == right.shape


def _label(faced: _Faced) -> str:
    left, right = ((str(piece.key) if piece.key else piece.tensor) for piece in (faced.suspect, faced.base))
    return left if left == right else f"{left} = {right}"


# -- values --------------------------------------------------------------------------------------------------------


def _agreement(left: _Piece, right: _Piece) -> Same | None:
    """Return whether two pieces of one shape are the same; reads up to the first block that differs."""
    exact = left.dtype == right.dtype
    read_left, read_right = left.reader(), right.reader()
    for rows in left.blocks():
        mine, theirs = read_left(rows), read_right(rows)
        if mine.dtype == theirs.dtype and bool((differ := _bits(mine) != _bits(theirs)).any()):
            if not equal_values(mine, theirs).all():
                return None
            # Two NaN are one value, whatever their bits; 0 and -0 are equal, and other bytes.
            exact = exact and bool(np.isnan(_wide(mine[differ])).all())
        elif mine.dtype != theirs.dtype and not equal_values(mine, theirs).all():
            return None
    return "bytes" if exact else "rounded"


def equal_values(left_N: Array, right_N: Array) -> Array:
    """Return which values are equal up to rounding: NaN equals NaN, and 0 equals -0.

    Of two dtypes, the values are equal if one is what the other rounds to, or if one number rounds to both: f16 and
    bf16 each hold numbers that the other does not, and what was rounded twice may end on the other side of a midpoint.

    Example:
        >>> left, right = np.array([1.0, np.nan, 1.5], np.float32), np.array([1.001, np.nan, 1.0], np.float16)
        >>> equal_values(left, right.astype(ml_dtypes.bfloat16)).tolist()
        [True, True, False]
    """
    if left_N.dtype == right_N.dtype:
        return _equal(left_N, right_N)
    if _finfo(left_N.dtype).nmant > _finfo(right_N.dtype).nmant:
        left_N, right_N = right_N, left_N
    with np.errstate(all="ignore"):  # what is too large for the coarser dtype becomes infinite
        equal_N = _equal(left_N, right_N.astype(left_N.dtype))
        rest = ~equal_N
        if rest.any():
            coarse_M, fine_M = left_N[rest], right_N[rest]
            apart_M = np.abs(_wide(coarse_M) - _wide(fine_M))
            meet_M = apart_M <= (_steps(coarse_M) + _steps(fine_M)) / 2
            equal_N[rest] = meet_M | _equal(coarse_M.astype(fine_M.dtype), fine_M)
    return equal_N


def _steps(values: Array) -> Array:
    """Return the distance of each value to the next larger one of its dtype."""
    finfo = _finfo(values.dtype)
    exponents = np.frexp(_wide(values))[1] - 1
    return np.ldexp(1.0, np.maximum(exponents, finfo.minexp) - finfo.nmant)


def _equal(left_N: Array, right_N: Array) -> Array:
    """Return which values of one dtype are equal."""
    equal_N: Array = _bits(left_N) == _bits(right_N)
    if not equal_N.all():
        left_N, right_N = _wide(left_N), _wide(right_N)
        equal_N = equal_N | (left_N == right_N) | (np.isnan(left_N) & np.isnan(right_N))
    return equal_N


def _bits(values: Array) -> Array:
    return values.view(f"u{values.dtype.itemsize}")


def _wide(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64 if values.dtype == np.float64 else np.float32)


def _finfo(dtype: np.dtype[Any]) -> Any:  # noqa: ANN401 - the package has no types
    return cast("Any", ml_dtypes.finfo)(dtype)


def _says_nothing(piece: _Piece) -> bool:
    """Return whether a tensor is empty, constant, or a mask: a matrix of two values, one of them zero."""
    if math.prod(piece.shape) < 2:
        return True
    read, known = piece.reader(), np.empty(0)
    for rows in piece.blocks():
        values = _wide(read(rows)).reshape(-1)
        for value in known:  # at most two
            values = values[values != value]
        if values.size:
            known = np.unique(np.concatenate([known, values]))
        if known.size > 2:
            return False
    return known.size < 2 or (len(piece.info.shape) > 1 and piece.info.floating and bool((known == 0).any()))


def _probe(piece: _Piece) -> bytes:
    """Return what tensors with the same values have in common in every dtype: shape and signs of some values."""
    read, width = piece.reader(), max(1, math.prod(piece.shape[1:]))
    rows = max(1, PROBE // 2 // width)
    starts = {0, piece.shape[0] // 3, piece.shape[0] * 2 // 3}
    parts = [read(slice(at, at + rows)).reshape(-1)[:PROBE] for at in sorted(starts)]
    if piece.info.floating:
        parts = [np.packbits(np.signbit(_wide(part))) for part in parts]
    return repr((piece.info.floating, piece.info.shape)).encode() + b"".join(part.tobytes() for part in parts)


# -- shares --------------------------------------------------------------------------------------------------------


def _shares(search: _Search, kind: Literal["matrix", "gain"]) -> tuple[float | None, float | None, int]:
    """Return the share of equal values, the same after a shuffle, and over how many pairs; weighed by their values."""
    rng = np.random.default_rng(SEED)
    pairs = [faced for faced in search.faced.values() if faced.suspect.kind == kind]
    if not pairs:
        return None, None, 0
    sizes = [float(math.prod(faced.suspect.shape)) for faced in pairs]
    equal, shuffled = np.average([_share(faced, search.sample, rng) for faced in pairs], axis=0, weights=sizes)
    return float(equal), float(shuffled), len(pairs)


def _share(faced: _Faced, sample: int, rng: np.random.Generator) -> tuple[float, float]:
    left_N, right_N = _sampled(faced, sample, rng)
    equal = 1.0 if faced.same is not None else float(equal_values(left_N, right_N).mean())
    # Short vectors are shuffled several times, or one lucky draw would be the control.
    draws = [rng.permutation(left_N.size) for _ in range(max(1, FIRST_BLOCK // left_N.size))]
    return equal, float(np.mean([equal_values(left_N[draw], right_N).mean() for draw in draws]))


def _sampled(faced: _Faced, sample: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return values of the same places of two tensors: all, or a few runs of rows."""
    rows, width = faced.suspect.shape[0], max(1, math.prod(faced.suspect.shape[1:]))
    length, starts = rows, [0]
    if rows * width > sample:
        length = -(-max(1, sample // width) // RUNS)
        starts = np.unique(rng.integers(0, rows - length + 1, RUNS)).tolist()
    left, right = (
        np.concatenate([read(slice(at, at + length)).reshape(-1) for at in starts])
        for read in (faced.suspect.reader(), faced.base.reader())
    )
    return left, right
