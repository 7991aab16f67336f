"""Published tables beside what the suite `tiny` measures on the closest pair that it has."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence

from kinprint.behaviour.axis import METHODS
from kinprint.bench.metrics import measured
from kinprint.bench.records import BenchResult, Column, Row

GHOSTSPEC: tuple[tuple[str, str, float, float, float, str], ...] = (
    ("Llama-2-7b", "Vicuna (fine-tuned)", 0.9986, 0.9992, 0.9760, "base.fine-tuned / base"),
    ("Llama-2-7b", "Llemma (continued pre-training)", 0.5052, 0.7595, 0.9532, "base.continued / base"),
    ("Llama-2-7b", "scaled", 0.5970, 1.0, 0.9761, "base.vo-gauge / base"),
    ("Llama-2-7b", "permuted", 0.3863, 1.0, 0.9761, "base.ffn-permutation / base"),
    ("Llama-2-7b", "50 % pruned, retrained", 0.9061, 0.8967, 0.9727, "base.pruned-50-retrained / base"),
    ("Llama-2-7b", "70 % pruned, retrained", 0.7829, 0.7045, 0.9653, "base.pruned-70-retrained / base"),
    ("Llama-2-7b", "Sheared-LLaMA-1.3B", 0.0, 0.9398, 0.8886, "base.sheared / base"),
    ("Llama-2-7b", "Sheared-LLaMA-2.7B", 0.0, 0.9414, 0.9045, "base.narrow-residual / base"),
    ("Llama-2-7b", "function calling, SLERP", 0.9993, 0.9998, 0.9760, "base.merged-slerp / base"),
    ("Llama-2-7b", "Camelidae-8x7B (upcycled)", 0.0204, 0.9999, 0.9761, "base.upcycled / base"),
    ("Llama-2-7b", "Qwen2.5-7B (unrelated)", 0.0, 0.2940, 0.0000, "qwen2 / base"),
    ("Llama-2-7b", "OPT-6.7b (unrelated)", 0.0, 0.3423, 0.5025, "gpt2 / base"),
    ("Mistral-7B", "OpenHermes-2.5 (fine-tuned)", 0.9999, 0.9999, 0.9760, "qwen3.fine-tuned / qwen3"),
    ("Mistral-7B", "Triunvirato-7b (merged)", 0.9997, 0.9997, 0.9759, "base.merged-linear / base"),
    ("Mistral-7B", "Chunky-Lemon-Cookie-11B (up-scaled)", 0.8987, 0.9981, 0.9758, "base.upscaled / base"),
    ("Mistral-7B", "OpenHermes, 50 % pruned", 0.9979, 0.9896, 0.9753, "qwen3.pruned-50 / qwen3"),
    ("Mistral-7B", "Qwen2.5-7B (unrelated)", 0.0, 0.2708, 0.0083, "qwen3 / qwen2"),
    ("Mistral-7B", "Yi-1.5-6B (unrelated)", 0.0, 0.4304, 0.0581, "olmo2 / base"),
    ("none", "no published pair: an innocent twin", float("nan"), float("nan"), float("nan"), "twin-1 / base"),
    ("none", "no published pair: gains replaced", float("nan"), float("nan"), float("nan"), "base.laundered / base"),
)
"""arXiv 2511.06390, table 1: base, suspect, PCS, GhostSpec-corr, GhostSpec-mse; and our pair."""

LEAFBENCH: tuple[tuple[str, float, float, float, float, str], ...] = (
    ("PDF (Intrinsic Fingerprint)", 0.995, 0.996, 0.992, 1.741, "intrinsic: similarity"),
    ("HuRef ICS", 0.994, 0.971, 0.943, 3.154, "ics: similarity"),
)
"""LeaFBench: AUC, partial AUC, TPR at 1 % FPR, Mahalanobis distance; and our column."""

BEHAVIOUR: tuple[tuple[str, float | None, float | None, float | None, str], ...] = (
    ("REEF", 0.896, 0.915, 0.961, "reef: similarity"),
    ("Logits", None, None, 0.9268, "logits: similarity"),
    ("next-token overlap", None, None, None, "next-token: similarity"),
    ("QueRE", None, None, 0.9157, "quere: similarity"),
    ("SeedPrints", None, 0.992, None, "seedprint: similarity"),
    ("TensorGuard's gradients", 0.798, 0.801, None, "gradient: similarity"),
    ("AttnDiff", None, None, None, "attndiff: similarity"),
)
"""LeaFBench's AUC, that of the SeedPrints authors' rerun, GhostSpec's highest F1 (55 pairs); and our column."""

OURS = ("pcs: by role", "ghostspec-corr[fold=false]: similarity", "ghostspec-mse[fold=false]: similarity")


def ghostspec(result: BenchResult) -> str:
    """Return GhostSpec's table 1 with our pairs beside it."""
    rows = {row.case.name: row for row in result.rows}
    columns = (*OURS, "ghostspec-mse: similarity")
    lines = [
        (base, suspect, *(_number(value) for value in published), pair, *(_cell(rows, pair, name) for name in columns))
        for base, suspect, *published, pair in GHOSTSPEC
    ]
    header = ("base", "suspect", "PCS", "corr", "mse", "here", "PCS", "corr", "mse", "mse, gains folded")
    return _table(header, lines)


def leafbench(result: BenchResult) -> str:
    """Return LeaFBench's rates with ours beside them, on all unrelated pairs and on the hard ones."""
    every = {rate.column: rate for rate in result.rates}
    hard = {rate.column: rate for rate in result.rates_hard}
    lines: list[Sequence[str]] = []
    for method, auc, partial, tpr, distance, name in LEAFBENCH:
        rate = every[name]
        found = (rate.auc.value, rate.partial_auc.value, rate.tpr_at_1_fpr.value, rate.mahalanobis)
        ours = [*map(_number, found), _number(hard[name].auc.value)]
        lines.append((method, *map(_number, (auc, partial, tpr, distance)), *ours))
    header = (
        *("method", "AUC", "partial AUC", "TPR at 1 % FPR", "Mahalanobis"),
        *("here: AUC", "partial AUC", "TPR at 1 % FPR", "Mahalanobis", "AUC, hard negatives"),
    )
    return _table(header, lines)


def leafbench_behaviour(result: BenchResult) -> str:
    """Return what papers print of behavioural methods, with ours beside it."""
    every = {rate.column: rate for rate in result.rates}
    hard = {rate.column: rate for rate in result.rates_hard}
    lines = [
        (method, *map(_number, (*told, every[name].auc.value, hard[name].auc.value, every[name].max_f1.value)))
        for method, *told, name in BEHAVIOUR
    ]
    header = (
        *("method", "LeaFBench AUC", "AUC in SeedPrints' rerun", "GhostSpec's highest F1"),
        *("here: AUC", "AUC, hard negatives", "highest F1"),
    )
    return _table(header, lines)


def z_values(result: BenchResult) -> str:
    """Return how far each kind of derived pair lies from the unrelated ones, in standard deviations of those.

    AWM's |Z| (arXiv 2510.06738), for our methods: mean of a category, less the mean of all unrelated pairs, over their
    standard deviation. It is a size and no significance: the unrelated pairs share models and are not normal.
    """
    columns = [column for column in result.columns if column.headline and column.method not in METHODS]
    kinds = dict.fromkeys(row.case.category for row in result.rows if row.case.label == "derived")
    lines = [
        (kind, *(_z(column, result.rows, [r for r in result.rows if r.case.category == kind]) for column in columns))
        for kind in kinds
    ]
    return _table(("category", *(column.name for column in columns)), lines)


def _z(column: Column, rows: Sequence[Row], kind: Sequence[Row]) -> str:
    innocent = [value for row in rows if row.case.label == "unrelated" and (value := measured(column, row)) is not None]
    derived = [value for row in kind if (value := measured(column, row)) is not None]
    if len(innocent) < 2 or not derived or not (spread := statistics.stdev(innocent)):
        return "-"
    return f"{(statistics.fmean(derived) - statistics.fmean(innocent)) / spread:.1f}"


def _cell(rows: dict[str, Row], pair: str, column: str) -> str:
    return _number(rows[pair].cells[column].value)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.4f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (header, ["---"] * len(header), *rows))
