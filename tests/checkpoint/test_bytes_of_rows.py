"""How many bytes a read takes: those of the rows, in every format whose rows lie apart, and the ledger counts them."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from pathlib import Path

import gguf
import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from kinprint.architecture.selected import Renamed, Selected
from kinprint.checkpoint import Array, Checkpoint, LocalFile, MemoryCheckpoint, Wanted, open_checkpoint
from kinprint.checkpoint.quantised import decoded
from kinprint.checkpoint.source import Pending
from kinprint.errors import CheckpointError

ROWS, COLUMNS = 2048, 32
"""Far longer than the windows through which headers are read."""

ROW_BYTES = 4 * COLUMNS
VALUES = np.arange(ROWS * COLUMNS, dtype=np.float32).reshape(ROWS, COLUMNS)
TAKEN = slice(1500, 1510)


def safetensors(folder: Path) -> Path:
    save_file({"w": torch.tensor(VALUES), "other": torch.zeros(7, 3)}, folder / "model.safetensors")
    return folder / "model.safetensors"


def torch_zip(folder: Path) -> Path:
    torch.save({"w": torch.tensor(VALUES), "other": torch.zeros(7, 3)}, folder / "model.pt")
    return folder / "model.pt"


def torch_legacy(folder: Path) -> Path:
    torch.save({"w": torch.tensor(VALUES)}, folder / "old.pt", _use_new_zipfile_serialization=False)
    return folder / "old.pt"


def npz(folder: Path) -> Path:
    np.savez(folder / "model.npz", w=VALUES, other=np.zeros(3))
    return folder / "model.npz"


def gguf_file(folder: Path) -> Path:
    writer = gguf.GGUFWriter(folder / "model.gguf", "llama")
    writer.add_tensor("w", VALUES)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return folder / "model.gguf"


FORMATS: list[Callable[[Path], Path]] = [safetensors, torch_zip, torch_legacy, npz, gguf_file]


@pytest.mark.parametrize("write", FORMATS)
@pytest.mark.parametrize("rows", [TAKEN, slice(1500, 1510, 3), slice(1509, 1499, -1), slice(-548, -538)])
def test_rows_are_read_and_nothing_beside_them(write: Callable[[Path], Path], rows: slice, tmp_path: Path) -> None:
    ours = open_checkpoint(write(tmp_path))
    before = ours.bytes_read
    np.testing.assert_array_equal(ours.read("w", rows), VALUES[rows])
    first, last = min(range(ROWS)[rows]), max(range(ROWS)[rows]) + 1
    assert ours.bytes_read - before == (last - first) * ROW_BYTES
    np.testing.assert_array_equal(ours.read("w", TAKEN), VALUES[TAKEN])
    assert ours.bytes_read - before == 10 * ROW_BYTES


@pytest.mark.parametrize("write", FORMATS)
def test_no_rows_and_rows_beyond_the_end_are_empty(write: Callable[[Path], Path], tmp_path: Path) -> None:
    ours = open_checkpoint(write(tmp_path))
    before = ours.bytes_read
    assert ours.read("w", slice(5, 5)).shape == (0, COLUMNS)
    assert ours.read("w", slice(2090, 2099)).shape == (0, COLUMNS)
    assert ours.bytes_read == before
    np.testing.assert_array_equal(ours.read("w", slice(2040, 2099)), VALUES[2040:])


def test_a_stack_of_experts_is_read_expert_by_expert(tmp_path: Path) -> None:
    experts = torch.arange(8 * 6 * 5, dtype=torch.float32).reshape(8, 6, 5)
    save_file({"experts": experts}, tmp_path / "model.safetensors")
    ours = open_checkpoint(tmp_path)
    before = ours.bytes_read
    np.testing.assert_array_equal(ours.read("experts", slice(3, 4)), experts[3:4].numpy())
    assert ours.bytes_read - before == 4 * 6 * 5


def test_a_tensor_saved_strided_is_read_between_its_first_and_last_element(tmp_path: Path) -> None:
    torch.save({"t": torch.tensor(VALUES).T[:, ::2]}, tmp_path / "model.pt")
    ours = open_checkpoint(tmp_path / "model.pt")
    np.testing.assert_array_equal(ours.read("t", slice(4, 6)), VALUES.T[4:6, ::2])
    # Rows 4 and 5 of the transpose are columns: from [0, 4] to [2046, 5] of the stored matrix.
    ((source, (start, end)),) = ours._owner["t"].spans("t", slice(4, 6))  # type: ignore[attr-defined]
    assert (source.name, end - start) == ("model.pt", 4 * (2046 * COLUMNS + 5 - 4 + 1))


def test_gguf_reads_the_blocks_of_rows_and_of_q_the_heads_they_lie_in(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_head_count(4)
    writer.add_head_count_kv(4)
    packed = gguf.quants.quantize(VALUES, gguf.GGMLQuantizationType.Q8_0)
    writer.add_tensor("blk.0.attn_q.weight", VALUES)
    writer.add_tensor("w", packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = open_checkpoint(tmp_path / "model.gguf")
    whole, q = ours.read("w"), np.array(ours.read("blk.0.attn_q.weight"))
    again = open_checkpoint(tmp_path / "model.gguf")
    before = again.bytes_read
    np.testing.assert_array_equal(again.read("w", TAKEN), whole[TAKEN])
    assert again.bytes_read - before == 10 * (2 + 32)
    before = again.bytes_read
    np.testing.assert_array_equal(again.read("blk.0.attn_q.weight", TAKEN), q[TAKEN])
    # Four heads of 512 rows: rows 1500 to 1510 lie in the third.
    assert again.bytes_read - before == 512 * ROW_BYTES


def fp8(folder: Path) -> tuple[Path, int]:
    tensors = {
        "m.weight": torch.tensor(VALUES / 50).to(torch.float8_e4m3fn),
        "m.weight_scale": torch.rand(ROWS, 1),
    }
    save_file(tensors, folder / "model.safetensors")
    return folder, COLUMNS + 4


def mlx(folder: Path) -> tuple[Path, int]:
    rng = np.random.default_rng(0)
    tensors = {
        "m.weight": torch.tensor(rng.integers(0, 2**31, (ROWS, COLUMNS // 8)).astype(np.uint32)),
        "m.scales": torch.rand(ROWS, 1),
        "m.biases": torch.rand(ROWS, 1),
    }
    save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text('{"quantization": {"bits": 4, "group_size": 32}}')
    return folder, COLUMNS // 2 + 4 + 4


def nvfp4(folder: Path) -> tuple[Path, int]:
    tensors = {
        "m.weight": torch.randint(0, 256, (ROWS, COLUMNS // 2), dtype=torch.uint8),
        "m.weight_scale": torch.rand(ROWS, COLUMNS // 16).to(torch.float8_e4m3fn),
    }
    save_file({**tensors, "m.weight_scale_2": torch.tensor(1.0)}, folder / "model.safetensors")
    return folder, COLUMNS // 2 + COLUMNS // 16


def int8(folder: Path) -> tuple[Path, int]:
    tensors = {"m.weight": torch.randint(-127, 127, (ROWS, COLUMNS), dtype=torch.int8), "m.SCB": torch.rand(ROWS)}
    save_file(tensors, folder / "model.safetensors")
    return folder, COLUMNS + 4


@pytest.mark.parametrize("write", [fp8, mlx, nvfp4, int8])
def test_rows_of_packed_tensors_are_decoded_from_their_own_bytes(
    write: Callable[[Path], tuple[Path, int]], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    folder, row_bytes = write(tmp_path)
    whole = open_checkpoint(folder).read("m.weight")
    ours = open_checkpoint(folder)
    before = ours.bytes_read
    np.testing.assert_array_equal(ours.read("m.weight", TAKEN), whole[TAKEN])
    one_for_all = 4 if write is nvfp4 else 0
    assert ours.bytes_read - before == 10 * row_bytes + one_for_all


def test_the_ledger_counts_a_byte_once_and_headers_and_config_too(tmp_path: Path) -> None:
    file = safetensors(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    header = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    ours = open_checkpoint(tmp_path)
    assert ours.bytes_read == header + 2
    for _ in range(2):
        for first in range(0, ROWS, 64):
            ours.read("w", slice(first, first + 64))
    assert ours.bytes_read == header + 2 + ROWS * ROW_BYTES
    ours.raw("w")
    assert (ours.bytes_read, ours.bytes_fetched) == (header + 2 + ROWS * ROW_BYTES, 0)


def test_views_of_a_checkpoint_share_its_ledger(tmp_path: Path) -> None:
    ours = open_checkpoint(safetensors(tmp_path))
    part, renamed = Selected(ours, ["w"], title="part"), Renamed(ours, {"w": "new", "other": "other"})
    before = ours.bytes_read
    renamed.read("new", slice(0, 1))
    assert bytes(renamed.raw_rows("new", 1, 2)) == VALUES[1].tobytes()
    assert part.bytes_read == renamed.bytes_read == ours.bytes_read == before + 2 * ROW_BYTES
    assert MemoryCheckpoint({"w": VALUES}).bytes_read == 0


class Asked(MemoryCheckpoint):
    """A checkpoint that writes down what is to be fetched."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        super().__init__(arrays)
        self.asked: list[tuple[str, slice | None]] = []

    def fetch(self, wanted: Iterable[Wanted]) -> None:
        self.asked.extend(wanted)


def test_what_is_to_be_fetched_is_passed_on_under_stored_names() -> None:
    stored = Asked(
        {
            "m.weight": np.zeros((ROWS, COLUMNS), ml_dtypes.float8_e4m3fn),
            "m.weight_scale": np.ones((ROWS, 1), np.float32),
            "n.weight": np.zeros((256, 256), ml_dtypes.float8_e4m3fn),
            "n.weight_scale_inv": np.ones((2, 2), np.float32),
            "norm": np.ones(4, np.float32),
        }
    )
    shown = Renamed(decoded(stored), {"m.weight": "a", "n.weight": "b", "norm": "c"})
    shown.fetch([("a", TAKEN), ("b", slice(0, 8)), ("c", None)])
    assert stored.asked == [
        ("m.weight", TAKEN),
        ("m.weight_scale", TAKEN),
        ("n.weight", slice(0, 8)),
        ("n.weight_scale_inv", None),
        ("norm", None),
    ]


def test_a_merged_checkpoint_fetches_the_base_and_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save_file({"model.layers.0.self_attn.q_proj.weight": torch.tensor(VALUES)}, base / "model.safetensors")
    stem = "base_model.model.model.layers.0.self_attn.q_proj.lora_"
    factors = {f"{stem}A.weight": torch.ones(1, COLUMNS), f"{stem}B.weight": torch.ones(ROWS, 1)}
    save_file(factors, adapter / "adapter_model.safetensors")
    (adapter / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 1, "lora_alpha": 1}')
    merged = open_checkpoint(f"{base}+{adapter}")
    asked: list[tuple[str, int]] = []
    own = LocalFile.request

    def noted(self: LocalFile, ranges: Iterable[tuple[int, int]]) -> Pending:
        spans = list(ranges)
        asked.extend((self.name, end - start) for start, end in spans)
        return own(self, spans)

    monkeypatch.setattr(LocalFile, "request", noted)
    merged.fetch([("model.layers.0.self_attn.q_proj.weight", slice(0, 2))])
    assert sorted(asked) == [
        ("adapter_model.safetensors", 4 * COLUMNS),
        ("adapter_model.safetensors", 4 * ROWS),
        ("model.safetensors", 2 * ROW_BYTES),
    ]
    before = merged.bytes_read
    merged.read("model.layers.0.self_attn.q_proj.weight", slice(0, 2))
    assert merged.bytes_read - before == 4 * COLUMNS + 4 * ROWS + 2 * ROW_BYTES
    merged.close()


def test_fetching_reads_nothing_by_the_ledger_and_names_must_be_there(tmp_path: Path) -> None:
    ours: Checkpoint = open_checkpoint(safetensors(tmp_path))
    before = ours.bytes_read
    ours.fetch([("w", None), ("w", slice(0, 3)), ("other", None)])
    assert ours.bytes_read == before
    with pytest.raises(KeyError):
        ours.fetch([("absent", None)])


def test_opening_a_long_gguf_header_reads_no_more_than_a_window_behind_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    tokens = [f"token{number:06d}" for number in range(20_000)]
    writer.add_token_list(tokens)
    writer.add_tensor("w", np.zeros((1000, 1000), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    ours = open_checkpoint(tmp_path / "model.gguf")
    header = 20_000 * (8 + len(tokens[0]))
    assert header < ours.bytes_read <= header + 1000 + (1 << 16)
    assert ours.vocabulary == tuple(tokens)


def test_a_counted_length_may_not_exceed_the_file(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1 << 40, 0))
    with pytest.raises(CheckpointError, match="more than it can hold"):
        open_checkpoint(tmp_path / "model.gguf")


@pytest.mark.parametrize("write", FORMATS)
def test_the_system_reads_nothing_ahead_while_a_header_is_read(
    write: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []
    own = LocalFile.hold_back

    def noted(self: LocalFile, active: bool) -> None:
        asked.append(active)
        own(self, active)

    monkeypatch.setattr(LocalFile, "hold_back", noted)
    open_checkpoint(write(tmp_path))
    assert (asked[0], asked[-1]) == (True, False)
