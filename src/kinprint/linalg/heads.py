"""Attention heads that share keys and values: the smaller factors of the whole layer's products.

Axes: H = heads * head_dim, K = kv_heads * head_dim, N = model width.

Keys and values are expanded to all heads by *blocks*: each block of head_dim rows is repeated heads / kv_heads times.
Then

    W_q^T expand(W_k) = sum_g (sum over heads h of group g of W_q,h)^T W_k,g
    W_o expand(W_v)   = sum_g (sum over heads h of group g of W_o,h) W_v,g

so that the whole layer's products have rank at most K, and their factors K rows instead of H. Repeating single rows, or
the whole matrix, gives other spectra.

In the array API: sums are worked out where the arrays lie (:mod:`kinprint.linalg.device`).

Source: worked out from the definition of grouped-query attention (Ainslie et al., EMNLP 2023, arXiv 2305.13245).
"""

from __future__ import annotations

from kinprint.errors import UsageError
from kinprint.linalg.device import DeviceArray, namespace
from kinprint.shapes import Float, Float64


def grouped_query_sum(
    query_HN: Float[DeviceArray, "H N"], *, heads: int, kv_heads: int, head_dim: int
) -> Float64[DeviceArray, "K N"]:
    """Sum the query heads of each group, so that ``sum^T W_k`` is the product of the whole layer.

    Args:
        query_HN: Rows by head, as [out, in].
        heads: Query heads.
        kv_heads: Key/value heads, a divisor of ``heads``.
        head_dim: Rows of one head.

    Returns:
        In float64: a sum rounded to float32 would move small singular values of the product by more than 1e-6.

    Raises:
        UsageError: The numbers do not divide, or do not give the rows of ``query_HN``.

    Example:
        >>> import numpy as np
        >>> grouped_query_sum(np.array([[1.0], [2.0], [4.0], [8.0]]), heads=4, kv_heads=2, head_dim=1).tolist()
        [[3.0], [12.0]]
    """
    if kv_heads < 1 or heads % kv_heads or query_HN.shape[0] != heads * head_dim:
        raise UsageError(
            f"{heads} heads of {head_dim} in {kv_heads} groups do not divide {query_HN.shape[0]} rows: "
            "check the model's head counts"
        )
    xp = namespace(query_HN)
    by_group = xp.reshape(query_HN, (kv_heads, heads // kv_heads, head_dim, query_HN.shape[1]))
    return xp.reshape(xp.sum(by_group, axis=1, dtype=xp.float64), (kv_heads * head_dim, query_HN.shape[1]))


def grouped_output_sum(
    output_NH: Float[DeviceArray, "N H"], *, heads: int, kv_heads: int, head_dim: int
) -> Float64[DeviceArray, "N K"]:
    """Sum the columns of the output matrix over the heads of each group, so that ``sum W_v`` is the layer's product.

    Args:
        output_NH: Columns by head, as [out, in].
        heads: Query heads.
        kv_heads: Key/value heads, a divisor of ``heads``.
        head_dim: Columns of one head.

    Returns:
        In float64, as ``grouped_query_sum``.

    Raises:
        UsageError: The numbers do not divide, or do not give the columns of ``output_NH``.

    Example:
        >>> import numpy as np
        >>> grouped_output_sum(np.array([[1.0, 2.0, 4.0, 8.0]]), heads=2, kv_heads=1, head_dim=2).tolist()
        [[5.0, 10.0]]
    """
    return grouped_query_sum(output_NH.T, heads=heads, kv_heads=kv_heads, head_dim=head_dim).T
