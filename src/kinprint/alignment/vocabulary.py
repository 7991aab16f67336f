"""Rows of two embeddings that stand for the same token.

Axes: N = shared tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from kinprint.alignment.pairing import BLOCK_BYTES
from kinprint.architecture import ModelView, PartKey, layout
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.shapes import Int64


def shared_tokens(suspect: Sequence[str], base: Sequence[str]) -> tuple[Int64[Array, " N"], Int64[Array, " N"]]:
    """Return the ids that both vocabularies give to the token strings that they share.

    Args:
        suspect: Token strings by id. Of a string that occurs twice the first id counts; empty strings are padding.
        base: The same for the other model.

    Returns:
        The suspect's ids in rising order, and the base's ids of the same tokens.

    Example:
        >>> [ids.tolist() for ids in shared_tokens(["a", "b", "c"], ["c", "x", "a"])]
        [[0, 2], [2, 0]]
    """
    here = _first_ids(suspect)
    there = here if suspect == base else _first_ids(base)
    shared = [token for token in here if token in there]
    return _ids(here, shared), _ids(there, shared)


def _ids(first: Mapping[str, int], tokens: Sequence[str]) -> Int64[Array, " N"]:
    return np.fromiter(map(first.__getitem__, tokens), np.int64, len(tokens))


def _first_ids(tokens: Sequence[str]) -> dict[str, int]:
    first: dict[str, int] = {}
    for index, token in enumerate(tokens):
        if token:
            first.setdefault(token, index)
    return first


def row_blocks_of(
    view: ModelView, key: PartKey, ids_N: Int64[Array, " N"], *, block_bytes: int = BLOCK_BYTES
) -> Iterator[Array]:
    """Yield chosen rows of a part in the order of ``ids_N``, in blocks, as float32 (float64 stays).

    Neighbouring ids are read together, so equal vocabularies cost one read a block, and no more than one block is held
    even where a format must decode what it reads.

    Raises:
        NonFiniteError: A chosen row holds NaN or Inf.
    """
    place = view.parts[key]
    shape = view.shape(key.role, key.layer, key.expert)
    whole = None if layout.is_plain(place.rule) else view.stored(key.role, key.layer, key.expert)
    double = view.checkpoint.tensors[place.tensor].dtype == "F64"
    step = max(1, block_bytes // (4 * max(1, int(np.prod(shape[1:], dtype=np.int64)))))
    for first in range(0, ids_N.size, step):
        chosen = ids_N[first : first + step]
        block = np.empty((chosen.size, *shape[1:]), dtype=np.float64 if double else np.float32)
        breaks = np.flatnonzero(np.diff(chosen) != 1) + 1
        for start, stop in zip([0, *breaks.tolist()], [*breaks.tolist(), chosen.size], strict=True):
            rows = slice(int(chosen[start]), int(chosen[start]) + stop - start)
            block[start:stop] = view.checkpoint.read(place.tensor, rows) if whole is None else whole[rows]
        if not np.isfinite(block).all():
            raise NonFiniteError(place.tensor)
        yield block
