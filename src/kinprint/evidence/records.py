"""How tests become evidence: one way to write a test that ran and one that could not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kinprint.linalg.permutation import PermutationTest
from kinprint.types import Evidence, Table, Value

ALPHA = 1e-6
"""Family-wise error rate of the exact tests, unless the caller gives another."""

SEED = 0
"""Of the relabellings that exact tests draw."""

NOISE = 1e-6
"""Share of the largest score of an exact test that is rounding: scores are cosines of float32 rows, and equal rows come
out of a product of matrices with other last bits in another place of it."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a test says about itself, whatever it finds.

    Attributes:
        name: What was tested.
        id: Name, version and every setting that changes a number.
        rung: 0 identity, 1 exact test, 2 matched, 3 invariant.
        null: The hypothesis, and the label group whose exchangeability it rests on.
        defeats: What would make a true copy pass unnoticed.
    """

    name: str
    id: str
    rung: Literal[0, 1, 2, 3]
    null: str
    defeats: str

    def not_applicable(self, reason: str) -> Evidence:
        """Return evidence that there is none, with the reason."""
        return Evidence(
            name=self.name,
            id=self.id,
            rung=self.rung,
            status="not_applicable",
            reason=reason,
            null=self.null,
            defeats=self.defeats,
        )

    def exact(
        self, found: PermutationTest | None, *, size: float | None, log10_alpha: float, notes: tuple[str, ...] = ()
    ) -> Evidence:
        """Return the evidence of a permutation test.

        Args:
            found: The test; None where every relabelling gives the same sum.
            size: Mean similarity of labels that face each other, for people.
            log10_alpha: Decimal logarithm of this test's share of alpha.
            notes: What the reader must know.
        """
        if found is None:
            return self.not_applicable("every relabelling gives the same statistic: nothing distinguishes the labels")
        return Evidence(
            name=self.name,
            id=self.id,
            rung=self.rung,
            status="measured",
            null=self.null,
            defeats=self.defeats,
            log10_p=found.log10_p,
            log10_floor=found.log10_floor,
            size=size,
            carries=True,
            beyond=found.log10_p <= log10_alpha,
            controls=(
                Value(
                    name="mean over relabellings",
                    value=found.mean,
                    kind="statistic",
                    note=f"observed {found.observed:.4g}; sd {found.sd:.3g}",
                ),
                Value(
                    name="relabellings that reached it",
                    value=float(found.count),
                    kind="statistic",
                    note=f"of {found.draws} drawn; p from {found.bound_used}",
                ),
            ),
            notes=notes,
        )

    def sized(
        self,
        size: float,
        *,
        controls: tuple[Value, ...] = (),
        tables: tuple[Table, ...] = (),
        notes: tuple[str, ...] = (),
    ) -> Evidence:
        """Return evidence that is known by its size alone: it has no p-value and never carries the verdict.

        Args:
            size: 0 for strangers, 1 for the same.
            controls: Numbers that must look negative if the size is to mean anything.
            tables: Details.
            notes: What the reader must know.
        """
        return Evidence(
            name=self.name,
            id=self.id,
            rung=self.rung,
            status="measured",
            null=self.null,
            defeats=self.defeats,
            size=size,
            controls=controls,
            tables=tables,
            notes=notes,
        )
