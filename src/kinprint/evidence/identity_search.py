"""What of one model faces what of another, and whether it is the same: by role, by name, then by content alone.

Axes: R = rows of a tensor, N = its values in any order.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from kinprint.architecture import ModelView, PartKey, layout
from kinprint.checkpoint import Array, TensorInfo
from kinprint.evidence.rounding import Noise, noise
from kinprint.evidence.values import bits, equal_values, wide

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

PACKED = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0"})
"""Dtypes of matrices that may be packed weights: compared as bytes, or equal scales would make a model identical."""

Same = Literal["bytes", "rounded", "quantised"]
"""How two tensors are the same, the strictest first."""

_ORDER: tuple[Same, ...] = ("bytes", "rounded", "quantised")

# -- what faces what -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Piece:
    """A part of a model, or a whole stored tensor where no role says what it is.

    ``raised`` says that one is added to a gain that is stored without it, because the other model's is stored with it.
    """

    view: ModelView
    tensor: str
    key: PartKey | None = None
    raised: bool = False

    @property
    def info(self) -> TensorInfo:
        """Header of the stored tensor."""
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
        """What its share of equal values counts among, if anything."""
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
        elif ":" in info.dtype and (key is None or key.role not in ("attn.q", "attn.k")):
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


class Side:
    """One model: which tensors count, and which of them have been found in the other model."""

    def __init__(self, view: ModelView) -> None:
        self.view = view
        tensors = view.checkpoint.tensors
        self.names = [name for name, info in tensors.items() if name not in view.ignored and _holds_parameters(info)]
        self.kept = [name for name in self.names if not _says_nothing(Piece(view, name))]
        self.left_out = len(self.names) - len(self.kept)
        self.state: dict[str, Same | None] = dict.fromkeys(self.kept)
        self.parts = Counter(place.tensor for place in view.parts.values())

    def settle(self, found: Mapping[str, list[Same | None]]) -> None:
        """Give every tensor that was compared in all its parts the weakest of their states."""
        for name, states in found.items():
            if name in self.state and None not in states:
                self.state[name] = _weakest([state for state in states if state is not None])


def _holds_parameters(info: TensorInfo) -> bool:
    # Whole numbers in one row are ids and counters.
    return info.floating or (info.dtype in PACKED and len(info.shape) > 1 and min(info.shape) > 1)


@dataclass(frozen=True, slots=True)
class Faced:
    """Two pieces that face each other, and whether they are the same."""

    suspect: Piece
    base: Piece
    same: Same | None = None


class Search:
    """Every tensor of two models with its counterpart."""

    def __init__(self, suspect: Side, base: Side) -> None:
        self.suspect, self.base = suspect, base
        self.faced: dict[tuple[str, PartKey | None], Faced] = {}
        self.placed: set[str] = set()  # tensors of the suspect whose every part has a role and a shape in the base
        self.noise: dict[tuple[str, PartKey | None], Noise] = {}
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
            mine, theirs = Piece(self.suspect.view, name), Piece(self.base.view, name)
            if name in self._base_names and name not in found[0] and name not in found[1] and _alike(mine, theirs):
                self._compare(Faced(mine, theirs), (True, True), found)
        self.suspect.settle(found[0])
        self.base.settle(found[1])

    @cached_property
    def _base_names(self) -> frozenset[str]:
        return frozenset(self.base.names)

    def _by_role(self) -> Iterator[tuple[Faced, tuple[bool, bool]]]:
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
                Piece(
                    view, view.parts[key].tensor, key, raises and view.family.gain == "zero-centred" and _is_gain(key)
                )
                for view, key in ((here, mine), (there, theirs))
            )
            if left.info.floating and right.info.floating and left.shape == right.shape:
                yield Faced(left, right), counts

    def _compare(self, pair: Faced, counts: tuple[bool, bool], found: tuple[dict[str, list[Same | None]], ...]) -> None:
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
        pieces = [Piece(self.suspect.view, name) for name in wanted]
        shapes = {piece.shape for piece in pieces}
        by_probe: dict[bytes, list[Piece]] = defaultdict(list)
        # Tensors of the base that have no counterpart yet come first, so that copies take the rest.
        for name in sorted(self.base.kept, key=lambda name: self.base.state[name] is not None):
            piece = Piece(self.base.view, name)
            if piece.shape in shapes:
                by_probe[_probe(piece)].append(piece)
        for piece in pieces:
            self._find(piece, by_probe[_probe(piece)])

    def _find(self, piece: Piece, candidates: list[Piece]) -> None:
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
                self.faced[piece.tensor, None] = Faced(piece, candidate, same)
            candidates.append(candidates.pop(at))
            return

    def hold_against_rounding(self) -> None:
        """Hold what faces each other and differs against the rounding of those that are quantised."""
        rng = np.random.default_rng(SEED)
        for place, faced in list(self.faced.items()):
            codecs = faced.suspect.info.codec, faced.base.info.codec
            if faced.same is None and codecs != (None, None) and len(faced.suspect.shape) == 2:
                left_RN, right_RN = _sampled_rows(faced, self.sample, rng)
                if np.isfinite(left_RN).all() and np.isfinite(right_RN).all():
                    self.noise[place] = noise(left_RN, right_RN, codecs, rng)
        within = {place for place, found in self.noise.items() if found.nearest}
        for position, side in enumerate((self.suspect, self.base)):
            pieces: dict[str, list[tuple[str, PartKey | None]]] = defaultdict(list)
            for place, faced in self.faced.items():
                pieces[(faced.suspect, faced.base)[position].tensor].append(place)
            for name, places in pieces.items():
                close = [place in within or self.faced[place].same is not None for place in places]
                if within & set(places) and all(close) and len(places) == max(1, side.parts[name]):
                    side.state[name] = "quantised"

    def requantised(self) -> bool:
        """Return whether every difference is one that rounding explains."""
        apart = [place for place, faced in self.faced.items() if faced.same is None]
        explained = all(place in self.noise and self.noise[place].compensated for place in apart)
        faced = {(0, one.suspect.tensor) for one in self.faced.values()}
        faced |= {(1, one.base.tensor) for one in self.faced.values()}
        alone = [
            name
            for at, side in enumerate((self.suspect, self.base))
            for name, same in side.state.items()
            if same is None and (at, name) not in faced
        ]
        return bool(apart) and explained and not alone and not (self.moved or self.copies or self.constants)

    def identical(self) -> Same | None:
        """Return how every tensor has its own counterpart, or None where one has not."""
        states: list[Same | None] = [*self.suspect.state.values(), *self.base.state.values()]
        if not states or None in states or self.moved or self.copies or self.constants:
            return None
        return _weakest([state for state in states if state is not None])

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


def _weakest(states: Sequence[Same]) -> Same:
    return max(states, key=_ORDER.index)


def _is_gain(key: PartKey) -> bool:
    return key.role.startswith("norm.") and not key.role.endswith(".bias")


def _alike(left: Piece, right: Piece) -> bool:
    """Return whether two pieces can be compared value by value."""
    if not left.info.floating or not right.info.floating:
        return (left.info.dtype, left.info.shape) == (right.info.dtype, right.info.shape)
    return left.shape == right.shape


def _label(faced: Faced) -> str:
    left, right = ((str(piece.key) if piece.key else piece.tensor) for piece in (faced.suspect, faced.base))
    return left if left == right else f"{left} = {right}"


# -- values --------------------------------------------------------------------------------------------------------


def _agreement(left: Piece, right: Piece) -> Same | None:
    """Return whether two pieces of one shape are the same; reads up to the first block that differs."""
    exact = left.dtype == right.dtype
    read_left, read_right = left.reader(), right.reader()
    for rows in left.blocks():
        mine, theirs = read_left(rows), read_right(rows)
        if mine.dtype == theirs.dtype and bool((differ := bits(mine) != bits(theirs)).any()):
            if not equal_values(mine, theirs).all():
                return None
            # Two NaN are one value, whatever their bits; 0 and -0 are equal, and other bytes.
            exact = exact and bool(np.isnan(wide(mine[differ])).all())
        elif mine.dtype != theirs.dtype and not equal_values(mine, theirs).all():
            return None
    return "bytes" if exact else "rounded"


def _says_nothing(piece: Piece) -> bool:
    """Return whether a tensor is empty, constant, or a mask: a matrix of two values, one of them zero."""
    if math.prod(piece.shape) < 2:
        return True
    read, known = piece.reader(), list[float]()
    for rows in piece.blocks():
        values = wide(read(rows)).reshape(-1)
        for value in known:
            values = values[_differs(values, value)]
        while values.size:
            known.append(values[0].item())
            if len(known) > 2:
                return False
            values = values[_differs(values, known[-1])]
    return len(known) < 2 or (len(piece.info.shape) > 1 and piece.info.floating and 0 in known)


def _differs(values: Array, value: float | int | bool) -> Array:
    """Return where values are not one value, with NaN the same as NaN."""
    missing = value != value  # NaN, of whatever dtype
    return values == values if missing else values != value


def _probe(piece: Piece) -> bytes:
    """Return what tensors with the same values have in common in every dtype: shape and signs of some values."""
    read, width = piece.reader(), max(1, math.prod(piece.shape[1:]))
    rows = max(1, PROBE // 2 // width)
    starts = {0, piece.shape[0] // 3, piece.shape[0] * 2 // 3}
    parts = [read(slice(at, at + rows)).reshape(-1)[:PROBE] for at in sorted(starts)]
    if piece.info.floating:
        parts = [np.packbits(np.signbit(wide(part))) for part in parts]
    return repr((piece.info.floating, piece.info.shape)).encode() + b"".join(part.tobytes() for part in parts)


# -- shares --------------------------------------------------------------------------------------------------------


def shares(search: Search, kind: Literal["matrix", "gain"]) -> tuple[float | None, float | None, int]:
    """Return the share of equal values, the same after a shuffle, and over how many pairs; weighed by their values."""
    rng = np.random.default_rng(SEED)
    pairs = [faced for faced in search.faced.values() if faced.suspect.kind == kind]
    if not pairs:
        return None, None, 0
    sizes = [float(math.prod(faced.suspect.shape)) for faced in pairs]
    equal, shuffled = np.average([_share(faced, search.sample, rng) for faced in pairs], axis=0, weights=sizes)
    return float(equal), float(shuffled), len(pairs)


def _share(faced: Faced, sample: int, rng: np.random.Generator) -> tuple[float, float]:
    left_N, right_N = _sampled(faced, sample, rng)
    equal = 1.0 if faced.same is not None else float(equal_values(left_N, right_N).mean())
    # Short vectors are shuffled several times, or one lucky draw would be the control.
    draws = [rng.permutation(left_N.size) for _ in range(max(1, FIRST_BLOCK // left_N.size))]
    return equal, float(np.mean([equal_values(left_N[draw], right_N).mean() for draw in draws]))


def _sampled_rows(faced: Faced, sample: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Return whole rows of the same places of two matrices, so that blocks begin where they do in the tensors."""
    rows, width = faced.suspect.shape
    count = min(rows, max(1, sample // width))
    first = int(rng.integers(0, rows - count + 1))
    left, right = (wide(read(slice(first, first + count))) for read in (faced.suspect.reader(), faced.base.reader()))
    return left, right


def _sampled(faced: Faced, sample: int, rng: np.random.Generator) -> tuple[Array, Array]:
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
