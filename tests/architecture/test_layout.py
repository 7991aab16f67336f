"""Fused and turned tensors, by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import Geometry, Rule, layout
from kinprint.errors import CheckpointError

QKV = [
    {"role": "attn.q", "out": "query.{layer}"},
    {"role": "attn.k", "out": "key.{layer}"},
    {"role": "attn.v", "out": "value.{layer}"},
]
GATE_UP = [
    {"role": "moe.gate", "out": "expert-ffn.{layer}.{expert}"},
    {"role": "moe.up", "out": "expert-ffn.{layer}.{expert}"},
]


def rule(parts: list[dict[str, str]], **settings: Any) -> Rule:
    return Rule.model_validate({"name": "w.{layer}", "in": "residual", "parts": parts, **settings})


def rows(*, count: int) -> np.ndarray:
    """Rows that hold their own number, twice."""
    return np.repeat(np.arange(count, dtype=np.float32)[:, None], 2, axis=1)


def taken(fused: Rule, stored: np.ndarray, geometry: Geometry, expert: int | None = None) -> list[list[float]]:
    parts = [layout.take(stored, fused, index, expert, geometry) for index in range(len(fused.parts))]
    return [part[:, 0].tolist() for part in parts]


def test_blocks_lie_one_after_the_other_and_know_grouped_heads() -> None:
    geometry = Geometry(heads=4, kv_heads=2, head_dim=2)
    assert taken(rule(QKV), rows(count=16), geometry) == [list(range(8)), [8, 9, 10, 11], [12, 13, 14, 15]]


def test_blocks_of_a_convolution_are_cut_along_the_second_stored_axis() -> None:
    stored = rows(count=6).T  # [in 2, out 6]
    turned = rule(QKV, layout="in-out")
    assert taken(turned, stored, Geometry(heads=1, kv_heads=1, head_dim=2)) == [[0, 1], [2, 3], [4, 5]]


def test_interleaved_by_head_gives_every_head_its_rows() -> None:
    geometry = Geometry(heads=2, kv_heads=2, head_dim=2)
    assert taken(rule(QKV, split="per-head"), rows(count=12), geometry) == [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]]


def test_interleaved_by_group_gives_queries_first() -> None:
    geometry = Geometry(heads=4, kv_heads=2, head_dim=1)
    assert taken(rule(QKV, split="per-group"), rows(count=8), geometry) == [[0, 1, 4, 5], [2, 6], [3, 7]]


def test_stacked_experts_are_cut_by_the_first_axis() -> None:
    stored = rows(count=12).reshape(3, 4, 2)
    assert taken(rule(GATE_UP, stacked=True), stored, Geometry(), expert=1) == [[4, 5], [6, 7]]


def test_rows_that_cannot_be_cut_are_an_error() -> None:
    with pytest.raises(CheckpointError, match="7 rows cannot hold"):
        layout.part_shape((7, 2), rule(QKV), 0, Geometry())


def test_interleaved_heads_without_head_counts_are_an_error() -> None:
    with pytest.raises(CheckpointError, match="add the model's config"):
        layout.take(rows(count=12), rule(QKV, split="per-head"), 0, None, Geometry())


@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    head_dim=st.integers(1, 4),
    width=st.integers(1, 3),
    split=st.sampled_from(["blocks", "per-head", "per-group"]),
    turned=st.booleans(),
    vector=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_join_undoes_take(
    kv_heads: int, group: int, head_dim: int, width: int, split: str, turned: bool, vector: bool
) -> None:
    group = 1 if split == "per-head" else group
    geometry = Geometry(heads=kv_heads * group, kv_heads=kv_heads, head_dim=head_dim)
    count = kv_heads * (group + 2) * head_dim
    stored = np.arange(count * width, dtype=np.float32).reshape(count, width)
    stored = stored[:, 0] if vector else stored.T if turned else stored
    fused = rule(QKV, split=split, layout="in-out" if turned else "out-in")
    parts = [layout.take(stored, fused, index, None, geometry) for index in range(3)]
    np.testing.assert_array_equal(layout.join([parts], fused, geometry), stored)


@given(experts=st.integers(1, 4), units=st.integers(1, 3), width=st.integers(1, 3), turned=st.booleans())
@settings(deadline=None, max_examples=30)
def test_join_undoes_take_for_stacked_experts(experts: int, units: int, width: int, turned: bool) -> None:
    stored = np.arange(experts * 2 * units * width, dtype=np.float32).reshape(experts, 2 * units, width)
    stored = stored.transpose(0, 2, 1) if turned else stored
    fused = rule(GATE_UP, stacked=True, layout="in-out" if turned else "out-in")
    parts = [[layout.take(stored, fused, index, e, Geometry()) for index in range(2)] for e in range(experts)]
    np.testing.assert_array_equal(layout.join(parts, fused, Geometry()), stored)
