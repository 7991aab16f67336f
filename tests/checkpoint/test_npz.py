"""Reading ``.npz``: numpy's own arrays, stored or deflated, without a pickle."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from hostile import build
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError

KINDS = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]
SAVE = pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "deflated"])


@SAVE
@pytest.mark.parametrize("kind", KINDS)
def test_every_dtype_reads_as_numpy_wrote_it(kind: str, save: Any, tmp_path: Path) -> None:
    values = np.linspace(0, 3, 24).reshape(4, 6).astype(kind)
    save(tmp_path / "model.npz", w=values)
    ours = open_checkpoint(tmp_path)
    assert ours.format == "npz"
    np.testing.assert_array_equal(ours.read("w"), values)
    np.testing.assert_array_equal(ours.read("w", slice(1, 3)), values[1:3])
    assert ours.read("w").dtype == values.dtype
    assert bytes(ours.raw("w")) == values.tobytes()
    assert ours.tensors["w"].nbytes == values.nbytes
    assert not ours.read("w").flags.writeable


@SAVE
def test_fortran_order_scalars_empty_arrays_and_names_with_slashes_read(save: Any, tmp_path: Path) -> None:
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    arrays = {"a/b.c": base, "f": np.asfortranarray(base), "scalar": np.array(2.5), "empty": np.ones((0, 4))}
    save(tmp_path / "model.npz", **arrays)
    ours = open_checkpoint(tmp_path / "model.npz")
    assert set(ours.tensors) == set(arrays)
    for name, values in arrays.items():
        np.testing.assert_array_equal(ours.read(name), values)
        assert ours.tensors[name].shape == values.shape
        assert bytes(ours.raw(name)) == values.tobytes("C")


def test_stored_arrays_are_mapped_and_deflated_ones_decompressed_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", w=np.ones(9))
    np.savez_compressed(tmp_path / "b.npz", w=np.ones(9), v=np.zeros(9))
    stored, deflated = open_checkpoint(tmp_path / "a.npz"), open_checkpoint(tmp_path / "b.npz")
    assert stored.read("w").base is not None
    assert np.shares_memory(stored.read("w"), stored.read("w"))
    assert np.shares_memory(deflated.read("w"), deflated.read("w"))
    np.testing.assert_array_equal(deflated.read("v"), np.zeros(9))


def test_bfloat16_that_numpy_has_no_name_for_is_read_and_said(tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3).astype(ml_dtypes.bfloat16)
    np.savez(tmp_path / "model.npz", w=values)
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("w"), values)
    assert ours.tensors["w"].dtype == "BF16"
    assert any("bfloat16" in note for note in ours.notes)


def test_objects_and_foreign_byte_orders_are_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    for name, values, says in (
        ("o", np.array([{}], dtype=object), "Python objects"),
        ("b", np.ones(3, ">f4"), "the dtype '>f4'"),
        ("c", np.ones(3, np.complex64), "the dtype"),
        ("s", np.array(["text"]), "the dtype"),
        ("r", np.zeros(2, [("x", "f4")]), "the dtype"),
    ):
        np.savez(tmp_path / f"{name}.npz", **{name: values})
        with pytest.raises(CheckpointError, match=says):
            open_checkpoint(tmp_path / f"{name}.npz")


def test_a_single_array_is_refused_with_what_to_do(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    with pytest.raises(CheckpointError, match=r"a single NumPy array.*numpy\.savez"):
        open_checkpoint(tmp_path / "w.npy")


def test_a_zip_of_torch_s_is_not_taken_for_one_of_numpy_s(tmp_path: Path) -> None:
    (tmp_path / "model.npz").write_bytes(build.torch_zip(build.ONE_TENSOR, {"0": build.FLOATS}, extra={"x.npy": b""}))
    assert open_checkpoint(tmp_path / "model.npz").format == "pytorch"


def test_versions_of_the_array_format_with_wide_headers_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.npz", "w") as archive:
        for version in ((1, 0), (2, 0), (3, 0)):
            with archive.open(f"v{version[0]}.npy", "w") as file:
                np.lib.format.write_array(file, np.arange(3.0), version=version)
    ours = open_checkpoint(tmp_path)
    assert all(np.array_equal(ours.read(name), np.arange(3.0)) for name in ("v1", "v2", "v3"))
