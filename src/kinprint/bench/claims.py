"""Levels at which a paper or a public claim speaks of derivation, held against the pairs of a benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kinprint.bench.metrics import accuses, measured
from kinprint.bench.records import Column, Row


@dataclass(frozen=True, slots=True)
class Claim:
    """A published level of one number.

    Attributes:
        column: Name of the column.
        level: A pair that is at least as similar is as similar as the source's.
        source: Who said it, and of what.
    """

    column: str
    level: float
    source: str


CLAIMS = (
    Claim(
        "layernorm: norm.attn raw cosine",
        0.949,
        "Solar-Open-100B and GLM-4.5-Air, mean over layers: first published as proof, then withdrawn (January 2026)",
    ),
    Claim("intrinsic: similarity", 0.9, "Intrinsic Fingerprint (arXiv 2507.03014): derived models lie above"),
    Claim("intrinsic: similarity", 0.927, "the same, on Pangu Pro MoE and Qwen2.5-14B"),
    Claim(
        "ghostspec-mse[fold=false]: similarity",
        0.8886,
        "GhostSpec (arXiv 2511.06390), table 1: lowest value of a derived pair (Sheared-LLaMA-1.3B)",
    ),
    Claim("ghostspec-mse: similarity", 0.8886, "the same level, with folded gains"),
    Claim(
        "ghostspec-corr[fold=false]: similarity",
        0.7045,
        "GhostSpec, table 1: lowest value of a derived pair (70 % pruned, retrained)",
    ),
    Claim("ghostspec-corr: similarity", 0.7045, "the same level, with folded gains"),
    Claim(
        "ghostspec-mlp[fold=false]: similarity", 0.96, "GhostSpec, MLP spectra: lowest value of a derived pair (Llemma)"
    ),
)
"""Every published level. The papers give no thresholds of their own; these are what a reader would take from them."""


def reached(claim: Claim, columns: Sequence[Column], rows: Sequence[Row]) -> tuple[str, str, str] | None:
    """Return how many derived, easy unrelated and hard unrelated pairs reach a level, as ``count/measured``.

    None where the claim's column was not measured.
    """
    column = next((column for column in columns if column.name == claim.column), None)
    if column is None:
        return None
    hard = "hard negatives"
    groups = (
        [row for row in rows if row.case.label == "derived"],
        [row for row in rows if row.case.label == "unrelated" and row.case.category != hard],
        [row for row in rows if row.case.label == "unrelated" and row.case.category == hard],
    )
    derived, easy, hardest = (_share(column, claim.level, group) for group in groups)
    return derived, easy, hardest


def _share(column: Column, level: float, rows: Sequence[Row]) -> str:
    values = [value for row in rows if (value := measured(column, row)) is not None]
    return f"{sum(accuses(column, value, level) for value in values)}/{len(values)}"
