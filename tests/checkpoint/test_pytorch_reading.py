"""Reading torch.save files: the values of ``torch.load(weights_only=True)``, from a reader that can run nothing."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hostile import build
from kinprint.checkpoint import Checkpoint, open_checkpoint, pickled, pytorch_file
from kinprint.errors import CheckpointError

KINDS = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool,
]  # fmt: skip
FORMATS = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])


def saved(value: Any, path: Path, *, zipped: bool = True) -> Checkpoint:
    torch.save(value, path, _use_new_zipfile_serialization=zipped)
    return open_checkpoint(path)


def same(ours: np.ndarray[Any, Any], theirs: torch.Tensor) -> bool:
    bits = theirs.detach().contiguous().reshape(-1).view(torch.uint8).numpy()
    return ours.shape == tuple(theirs.shape) and bool(
        np.array_equal(np.ascontiguousarray(ours).reshape(-1).view(np.uint8), bits)
    )


@FORMATS
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_dtype_reads_as_torch_wrote_it(kind: torch.dtype, zipped: bool, tmp_path: Path) -> None:
    values = torch.linspace(0, 3, 24).reshape(4, 6).to(kind)
    ours = saved({"w": values}, tmp_path / "model.bin", zipped=zipped)
    assert same(ours.read("w"), values)
    assert same(ours.read("w", slice(1, 3)), values[1:3])
    assert bytes(ours.raw("w")) == values.view(torch.uint8).numpy().tobytes()
    assert not ours.read("w").flags.writeable


@FORMATS
def test_strided_offset_shared_scalar_and_empty_tensors_read(zipped: bool, tmp_path: Path) -> None:
    base = torch.arange(24.0).reshape(4, 6)
    state = OrderedDict(
        plain=base,
        tied=base,
        transposed=base.T,
        corner=base[1:3, 2:5],
        every_second=base[::2, ::3],
        one_column=base[:, 4],
        scalar=base[2, 3],
        empty=base[:0],
        expanded_by_one=torch.arange(6.0).expand(1, -1),
        parameter=torch.nn.Parameter(base + 1),
    )
    ours = saved(state, tmp_path / "model.bin", zipped=zipped)
    assert list(ours.tensors) == list(state)
    for name, values in state.items():
        assert same(ours.read(name), values), name
        assert bytes(ours.raw(name)) == values.detach().contiguous().numpy().tobytes(), name
        assert ours.tensors[name].nbytes == values.numel() * 4, name


@FORMATS
def test_rows_that_overlap_inside_their_storage_read_as_torch_reads_them(zipped: bool, tmp_path: Path) -> None:
    values = torch.arange(6.0).as_strided((3, 2), (1, 1))
    ours = saved({"w": values}, tmp_path / "model.bin", zipped=zipped)
    assert same(ours.read("w"), values)
    assert bytes(ours.raw("w")) == values.contiguous().numpy().tobytes()


@FORMATS
def test_a_module_state_dict_with_buffers_reads(zipped: bool, tmp_path: Path) -> None:
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4), torch.nn.LayerNorm(4))
    ours = saved(module.state_dict(), tmp_path / "model.bin", zipped=zipped)
    assert ours.notes == ()
    for name, values in torch.load(tmp_path / "model.bin", weights_only=True).items():
        assert same(ours.read(name), values), name


def test_a_parameter_with_attributes_reads(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    parameter.tag = "x"  # pyright: ignore[reportAttributeAccessIssue]
    assert same(saved({"w": parameter}, tmp_path / "model.pt").read("w"), parameter)


def test_the_model_is_found_inside_a_training_checkpoint_and_the_note_says_where(tmp_path: Path) -> None:
    linear = torch.nn.Linear(4, 4)
    optimizer = torch.optim.Adam(linear.parameters())
    linear(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    checkpoint = {
        "epoch": 3,
        "loss": torch.tensor(0.5),
        "args": {"name": "x", "device": torch.device("cpu"), "size": torch.Size([2]), "flags": {1, 2}},
        "optimizer": optimizer.state_dict(),
        "model": {"state_dict": linear.state_dict()},
    }
    ours = saved(checkpoint, tmp_path / "model.pt")
    assert list(ours.tensors) == ["weight", "bias"]
    assert any("model.state_dict" in note for note in ours.notes)
    assert any("4 other entries" in note for note in ours.notes)


def test_entries_that_are_no_tensors_are_counted(tmp_path: Path) -> None:
    ours = saved({"w": torch.ones(2), "step": 3, "name": "x", 7: torch.ones(1)}, tmp_path / "model.pt")
    assert list(ours.tensors) == ["w"]
    assert ours.notes == ("model.pt: 3 other entries are no tensors of the model and were left out",)


def test_a_whole_pickled_module_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "model.pt")
    with pytest.raises(CheckpointError, match=r"asks for torch\.nn\.modules\.linear\.Linear: refused"):
        open_checkpoint(tmp_path / "model.pt")


def test_a_view_in_an_old_file_starts_where_it_says(tmp_path: Path) -> None:
    view = build.tuple_of(build.text("v"), build.integer(2), build.integer(3))
    body = build.dict_of({"a": build.tensor(build.storage("0", 6, view=view), (3,), (1,))})
    (tmp_path / "model.bin").write_bytes(build.torch_legacy(body, {"0": build.FLOATS}))
    np.testing.assert_array_equal(open_checkpoint(tmp_path).read("a"), [2, 3, 4])


@pytest.mark.parametrize(("module", "limit"), [(pickled, "MAX_INSTRUCTIONS"), (pytorch_file, "PICKLE_BYTES")])
def test_a_pickle_over_the_limits_is_refused(
    module: Any, limit: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.bin").write_bytes(build.valid_zip())
    monkeypatch.setattr(module, limit, 20)
    with pytest.raises(CheckpointError, match="a pickle of more than 20"):
        open_checkpoint(tmp_path)


def test_a_pickle_with_protocol_4_reads(tmp_path: Path) -> None:
    values = torch.arange(6.0)
    torch.save({"w": values}, tmp_path / "model.pt", pickle_protocol=4)
    assert same(open_checkpoint(tmp_path).read("w"), values)
