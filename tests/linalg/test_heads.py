"""Summed heads give the product of the whole layer, written out head by head."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.errors import UsageError
from kinprint.linalg import grouped_output_sum, grouped_query_sum, product_singular_values

seeds = st.integers(0, 2**32 - 1)
SHAPES = {"seed": seeds, "kv_heads": st.integers(1, 4), "group": st.integers(1, 4), "head_dim": st.integers(1, 5)}


@given(**SHAPES)
@settings(deadline=None, max_examples=30, derandomize=True)
def test_summed_queries_give_the_product_with_keys_repeated_head_by_head(
    seed: int, kv_heads: int, group: int, head_dim: int
) -> None:
    rng = np.random.default_rng(seed)
    heads, width = kv_heads * group, 7
    query, key = rng.standard_normal((heads * head_dim, width)), rng.standard_normal((kv_heads * head_dim, width))
    whole = np.zeros((width, width))
    for head in range(heads):
        rows = slice(head * head_dim, (head + 1) * head_dim)
        shared = slice(head // group * head_dim, (head // group + 1) * head_dim)
        whole += query[rows].T @ key[shared]
    summed = grouped_query_sum(query, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    np.testing.assert_allclose(summed.T @ key, whole, atol=1e-12)  # sums of some dozen products of order 1
    values = product_singular_values(summed, key)
    np.testing.assert_allclose(values, np.linalg.svd(whole, compute_uv=False)[: values.size], atol=1e-6)


@given(**SHAPES)
@settings(deadline=None, max_examples=30, derandomize=True)
def test_summed_outputs_give_the_product_with_values_repeated_head_by_head(
    seed: int, kv_heads: int, group: int, head_dim: int
) -> None:
    rng = np.random.default_rng(seed)
    heads, width = kv_heads * group, 6
    output, value = rng.standard_normal((width, heads * head_dim)), rng.standard_normal((kv_heads * head_dim, width))
    repeated = np.repeat(value.reshape(kv_heads, head_dim, width), group, axis=0).reshape(-1, width)
    summed = grouped_output_sum(output, heads=heads, kv_heads=kv_heads, head_dim=head_dim)
    np.testing.assert_allclose(summed @ value, output @ repeated, atol=1e-12)


def test_one_query_head_for_each_key_head_changes_nothing() -> None:
    query = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    np.testing.assert_array_equal(grouped_query_sum(query, heads=3, kv_heads=3, head_dim=2), query)


def test_narrow_dtypes_are_summed_in_double_precision() -> None:
    query = np.array([[256.0], [1.0]]).astype(ml_dtypes.bfloat16)  # 257 is not a bfloat16
    assert grouped_query_sum(query, heads=2, kv_heads=1, head_dim=1).tolist() == [[257.0]]


@pytest.mark.parametrize(("heads", "kv_heads", "head_dim"), [(4, 3, 2), (3, 1, 2), (4, 0, 2)])
def test_head_counts_that_contradict_the_shape_are_refused(heads: int, kv_heads: int, head_dim: int) -> None:
    with pytest.raises(UsageError, match="head counts"):
        grouped_query_sum(np.ones((8, 3)), heads=heads, kv_heads=kv_heads, head_dim=head_dim)
