"""Do the two models hold the same values?

Axes: R = rows of a tensor, N = its values in any order.

Two values are the same if they are equal as stored or, in two dtypes, if one rounds to the other or one number rounds
to both. Tensors face each other by role, else by name, and what is left is looked for by content alone: by the signs
of a few values, which no rounding changes, and then value by value. The names only say where to look first.

Ignores renamed tensors, folders and shards, other dtypes and, where a family table is known for both, fused,
transposed and stacked storage. Notices every changed value, except where a tensor is quantised: what differs by no
more than its rounding is equal up to quantisation (``evidence.rounding``). Left out because strangers have them too:
empty and constant tensors (gains that are all one, biases that are all zero), masks (matrices of two values, one of
them zero) and what the family table ignores. Tensors that differ are left at the first block that does, so that
strangers cost a sample of each tensor.

The share of equal values is estimated on a seeded sample of rows of each tensor. Strangers' gains in bf16 agree in 2
to 8 % by chance, so it stands beside the same share after a shuffle of the sample.

No source: comparing copies needs none.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from kinprint.architecture import ModelView
from kinprint.canonical import method_id
from kinprint.evidence.identity_search import FROZEN, SAMPLE, SAMPLE_TOTAL, SEED, Same, Search, Side, shares
from kinprint.evidence.records import Statement
from kinprint.types import Cell, Evidence, Table, Value

LISTED = 200
"""Most unchanged tensors that the table lists."""


STATEMENT = Statement(
    name="identical values",
    id=method_id("identity", 2, sample=SAMPLE, total=SAMPLE_TOTAL, frozen=FROZEN, seed=SEED),
    rung=0,
    null="no null: that independent models agree in every value of every tensor needs no p-value",
    defeats="any change to the values: training, noise, permutation, rescaling; where no"
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
        same_quantised: Further ones that differ by no more than the rounding of a quantisation to the nearest.
        requantised: Whether every difference is explained by the rounding of a quantised tensor, be it to the nearest
            or with weights that make up for each other.
        noise: Largest difference of a quantised tensor, in half-widths of its rounding; None where none faces another.
        elsewhere: Those of ``same_rounded`` that the base has under another name or role.
        left_out: Empty and constant tensors and masks, of suspect and base.
        equal_share: Share of equal values over all matrices that face each other; None where none do.
        shuffled_share: The same with the suspect's values shuffled inside each matrix.
        gains_equal_share: Share over norm gains; over all vectors where no family table says which are gains.
        gains_shuffled_share: The same with the suspect's values shuffled inside each vector.
        compared: Tensors or parts behind the shares: matrices, gains.
        frozen: Parts or tensors with the same values in both, of at least ``FROZEN`` values.
        identical: Whether every tensor of each model has its own counterpart in the other, in the same place where
            roles say which that is: as ``bytes``, or some of them only ``rounded`` or ``quantised``.
        notes: What the reader must know.
    """

    tensors_suspect: int
    tensors_base: int
    same_bytes: int
    same_rounded: int
    same_quantised: int
    requantised: bool
    noise: float | None
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
    if suspect.inferred or base.inferred:
        # Roles that shapes propose may be wrong, and content needs none.
        suspect, base = (replace(side, parts={}) for side in (suspect, base))
    search = Search(Side(suspect), Side(base))
    search.face()
    search.look_elsewhere()
    search.hold_against_rounding()
    matrices, gains = shares(search, "matrix"), shares(search, "gain")
    states = search.suspect.state.values()
    return Identity(
        tensors_suspect=len(search.suspect.kept),
        tensors_base=len(search.base.kept),
        same_bytes=sum(same == "bytes" for same in states),
        same_rounded=sum(same in ("bytes", "rounded") for same in states),
        same_quantised=sum(same == "quantised" for same in states),
        requantised=search.requantised(),
        noise=max((found.difference for found in search.noise.values()), default=None),
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
    if identity.same_quantised:
        yield (
            f"{identity.same_quantised} more are equal up to quantisation: they differ by at most"
            f" {identity.noise or 0.0:.2f} half-widths of its rounding (root mean square; to the nearest it leaves .58)"
        )
    elif identity.requantised:
        yield (
            "every difference lies in quantised tensors, at most"
            f" {identity.noise or 0.0:.2f} half-widths of their rounding: quantisation that makes up for its own errors"
            " explains it, and a change that is smaller than that would hide in it"
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
