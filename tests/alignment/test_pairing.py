"""Which tensors face each other, and how they are read."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from kinprint.alignment.pairing import Misfit, paired_by_shape, shared_names, shared_parts, tensor_blocks
from kinprint.alignment.vocabulary import row_blocks_of, shared_tokens
from kinprint.architecture import ModelView, PartKey, view
from kinprint.checkpoint import MemoryCheckpoint, open_checkpoint
from kinprint.errors import NonFiniteError
from methods import tiny


def plain(**arrays: np.ndarray) -> ModelView:
    return view(MemoryCheckpoint(arrays))


def test_shared_names_keep_the_suspects_order_and_set_misfits_apart() -> None:
    one = plain(b=np.ones(2), a=np.ones(3), c=np.ones(4), ids=np.arange(2))
    other = plain(a=np.ones(3), b=np.ones(2), c=np.ones(5), ids=np.arange(2))
    assert shared_names(one, other) == (["b", "a"], [Misfit("c", (4,), (5,))])


def test_shared_parts_set_other_shapes_apart() -> None:
    fit, misfit = shared_parts(tiny.model(tiny.llama(0, layers=1)), tiny.model(tiny.llama(0, layers=2, ffn=32)))
    assert PartKey("attn.q", 0) in fit
    assert [part.label for part in misfit] == ["mlp.gate@0", "mlp.up@0", "mlp.down@0"]
    assert str(misfit[1]) == "mlp.up@0: [24, 16] against [32, 16]"


def test_pairs_by_shape_follow_the_order_and_use_each_tensor_once() -> None:
    one = plain(a=np.ones(2), b=np.ones(3), c=np.ones(2), d=np.ones(2))
    other = plain(x=np.ones(2), y=np.ones(2), z=np.ones(9))
    assert paired_by_shape(one, other) == [("a", "x"), ("c", "y")]


@given(rows=st.integers(0, 20), block_rows=st.integers(1, 25))
@settings(deadline=None, max_examples=20)
def test_blocks_put_together_are_the_tensor(rows: int, block_rows: int) -> None:
    stored = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3).astype(ml_dtypes.bfloat16)
    blocks = list(tensor_blocks(MemoryCheckpoint({"w": stored}), "w", block_bytes=block_rows * 12))
    assert all(block.dtype == np.float32 and len(block) <= block_rows for block in blocks)
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 3)), *blocks]), stored.astype(np.float32))


def test_a_scalar_is_one_block_and_double_precision_stays(tmp_path: Path) -> None:
    save_file({"s": np.array(2.5)}, tmp_path / "model.safetensors")
    blocks = list(tensor_blocks(open_checkpoint(tmp_path / "model.safetensors"), "s"))
    assert [(block.shape, block.dtype, float(block)) for block in blocks] == [((), np.dtype(np.float64), 2.5)]


def test_a_block_with_nan_names_its_tensor() -> None:
    with pytest.raises(NonFiniteError, match="'w'"):
        list(tensor_blocks(MemoryCheckpoint({"w": np.array([1.0, np.nan])}), "w"))


def test_of_a_repeated_token_the_first_id_counts_and_padding_is_no_token() -> None:
    here, there = shared_tokens(["x", "", "a", "a", "b"], ["", "b", "a", "b"])
    assert (here.tolist(), there.tolist()) == ([2, 4], [2, 1])


@given(ids=st.lists(st.integers(0, 7), max_size=20), block_rows=st.integers(1, 9))
@settings(deadline=None, max_examples=30)
def test_chosen_rows_come_in_the_chosen_order(ids: list[int], block_rows: int) -> None:
    model = tiny.model(tiny.llama(0, layers=1))
    key, chosen = PartKey("embed.token"), np.array(ids, dtype=np.int64)
    blocks = list(row_blocks_of(model, key, chosen, block_bytes=block_rows * 64))
    assert all(len(block) <= block_rows for block in blocks)
    np.testing.assert_array_equal(np.concatenate([np.empty((0, 16)), *blocks]), model.array("embed.token")[chosen])


def test_only_chosen_rows_must_be_finite() -> None:
    tensors = tiny.llama(0, layers=1)
    tensors["model.embed_tokens.weight"][5, 2] = np.inf
    model = tiny.model(tensors)
    assert len(list(row_blocks_of(model, PartKey("embed.token"), np.array([0, 1])))) == 1
    with pytest.raises(NonFiniteError, match="embed_tokens"):
        list(row_blocks_of(model, PartKey("embed.token"), np.array([4, 5])))
