"""Which files of a folder are read, what is said about the others, and what belongs to a file that is named alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from hostile import build
from kinprint import canonical
from kinprint.checkpoint import MemoryCheckpoint, open_checkpoint
from kinprint.errors import CheckpointError

INDEX = "model.safetensors.index.json"


def one(name: str, value: float = 0.0) -> bytes:
    return build.safetensors({name: build.entry("F32", [1], 0, 4)}, np.float32(value).tobytes())


def fill(folder: Path, files: dict[str, bytes | dict[str, object]]) -> Path:
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return folder


ORDER: list[tuple[str, dict[str, bytes | dict[str, object]]]] = [
    ("model.safetensors", {"model.safetensors": one("w")}),
    (INDEX, {INDEX: {"weight_map": {"w": "x.safetensors"}}, "x.safetensors": one("w")}),
    ("model-*-of-1.safetensors", {"model-00001-of-00001.safetensors": one("w")}),
    ("other.safetensors", {"other.safetensors": one("w")}),
    ("consolidated.safetensors", {"consolidated.safetensors": one("w")}),
    ("pytorch_model.bin", {"pytorch_model.bin": build.valid_zip()}),
    ("state.pt", {"state.pt": build.valid_zip()}),
    ("m.gguf", {"m.gguf": build.valid_gguf()}),
]


@pytest.mark.parametrize("first", range(len(ORDER)))
def test_one_of_several_sets_is_read_by_the_documented_order_and_said(first: int, tmp_path: Path) -> None:
    for _, files in ORDER[first:]:
        fill(tmp_path, files)
    ours = open_checkpoint(tmp_path)
    title, files = ORDER[first]
    assert {tensor.file for tensor in ours.tensors.values()} <= set(files)
    others = [name for name, _ in ORDER[first + 1 :]]
    choices = [note for note in ours.notes if "left aside" in note]
    assert choices == ([f"read {title}; left aside: {', '.join(others)}"] if others else [])


def test_files_that_are_no_model_are_not_taken_for_one(tmp_path: Path) -> None:
    names = ("optimizer.pt", "scheduler.pt", "training_args.bin", "rng_state_0.pth", "scaler.pt", "optimizer.bin")
    others = ("adapter_model.safetensors", "tokenizer.json", "vocab.txt", "mmproj-F16.gguf", "openvino_model.bin")
    fill(tmp_path, dict.fromkeys(names + others, b"not read") | {"pytorch_model.bin": build.valid_zip()})
    (tmp_path / "checkpoint-1.safetensors").mkdir()
    assert open_checkpoint(tmp_path).notes == ()


def test_an_index_joins_shards_of_any_name_and_its_shards_are_no_other_set(tmp_path: Path) -> None:
    weight_map = {"a": "x.safetensors", "b": "y.safetensors"}
    fill(tmp_path, {"w.safetensors.index.json": {"weight_map": weight_map}, "x.safetensors": one("a", 1)})
    fill(tmp_path, {"y.safetensors": one("b", 2)})
    for target in (tmp_path, tmp_path / "w.safetensors.index.json"):
        ours = open_checkpoint(target)
        assert (ours.read("a"), ours.read("b"), ours.notes) == (1, 2, ())
        assert ours.tensors["b"].file == "y.safetensors"


def test_a_tensor_that_the_index_leaves_out_is_read_and_said(tmp_path: Path) -> None:
    content = build.safetensors({"a": build.entry("F32", [1], 0, 4), "b": build.entry("F32", [1], 4, 8)}, bytes(8))
    fill(tmp_path, {INDEX: {"weight_map": {"a": "x.safetensors"}}, "x.safetensors": content})
    ours = open_checkpoint(tmp_path)
    assert set(ours.tensors) == {"a", "b"}
    assert ours.notes == ("the index leaves out 1 tensors that the shards hold (b, ...)",)


def test_numbered_shards_are_joined_without_an_index(tmp_path: Path) -> None:
    fill(tmp_path, {f"part-{number:05d}-of-00003.safetensors": one(f"w{number}", number) for number in (1, 2, 3)})
    ours = open_checkpoint(tmp_path)
    assert [float(ours.read(name)[0]) for name in ours.tensors] == [1, 2, 3]


def test_sharded_torch_files_are_joined_by_their_index(tmp_path: Path) -> None:
    other = build.torch_zip(build.dict_of({"b": build.tensor(build.storage("0", 6), (6,), (1,))}), {"0": build.FLOATS})
    weight_map = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    fill(tmp_path, {"pytorch_model.bin.index.json": {"weight_map": weight_map}, weight_map["a"]: build.valid_zip()})
    fill(tmp_path, {weight_map["b"]: other})
    ours = open_checkpoint(tmp_path)
    assert (ours.format, list(ours.tensors)) == ("pytorch", ["a", "b"])


def test_files_that_are_links_into_a_cache_are_read(tmp_path: Path) -> None:
    fill(tmp_path, {"blob": one("w", 5)})
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    (snapshot / "model.safetensors").symlink_to(tmp_path / "blob")
    assert open_checkpoint(snapshot).read("w") == 5


def test_content_decides_the_format_not_the_name(tmp_path: Path) -> None:
    fill(tmp_path, {"pytorch_model.bin": one("w", 5)})
    ours = open_checkpoint(tmp_path)
    assert (ours.format, ours.read("w")) == ("safetensors", 5)


def test_a_header_whose_length_starts_like_a_web_page_is_no_web_page(tmp_path: Path) -> None:
    header = json.dumps({"w": build.entry("F32", [1], 0, 4)}).ljust(0x3C + 256)
    content = build.safetensors(header, bytes(4))
    assert content[:1] == b"<"
    fill(tmp_path, {"model.safetensors": content})
    assert list(open_checkpoint(tmp_path).tensors) == ["w"]


def test_a_folder_gives_its_config_its_name_and_its_location(tmp_path: Path) -> None:
    fill(tmp_path, {"config.json": {"hidden_size": 4}, "model.safetensors": one("w")})
    ours = open_checkpoint(str(tmp_path))
    assert (ours.config, ours.name, ours.location) == ({"hidden_size": 4}, tmp_path.name, str(tmp_path))


def test_a_folder_without_a_config_has_an_empty_one(tmp_path: Path) -> None:
    assert open_checkpoint(fill(tmp_path, {"model.safetensors": one("w")})).config == {}


def test_a_config_may_hold_infinity_as_transformers_writes_it(tmp_path: Path) -> None:
    fill(tmp_path, {"config.json": b'\xef\xbb\xbf{"limit": Infinity}', "model.safetensors": one("w")})
    assert open_checkpoint(tmp_path).config == {"limit": float("inf")}


def test_the_config_belongs_to_the_folder_s_model_and_not_to_another_file_beside_it(tmp_path: Path) -> None:
    fill(tmp_path, {"config.json": {"x": 1}, "vocab.txt": b"a\nb\n", "model.safetensors": one("w")})
    fill(tmp_path, {"a.pt": build.valid_zip(), "b.pt": build.valid_zip()})
    model = open_checkpoint(tmp_path / "model.safetensors")
    assert (model.config, model.vocabulary) == ({"x": 1}, ("a", "b"))
    assert model.notes == ("config.json beside model.safetensors was used",)
    other = open_checkpoint(tmp_path / "a.pt")
    assert (other.config, other.vocabulary) == ({}, None)
    assert other.notes == ("config.json beside a.pt was not used",)


def test_one_shard_alone_is_read_alone(tmp_path: Path) -> None:
    fill(tmp_path, {f"model-0000{number}-of-00002.safetensors": one(f"w{number}") for number in (1, 2)})
    assert list(open_checkpoint(tmp_path / "model-00002-of-00002.safetensors").tensors) == ["w2"]


def test_the_digests_do_not_depend_on_sharding_but_on_names_and_bytes(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("whole", "shards", "changed")]
    for folder in folders:
        folder.mkdir()
    header = {"a": build.entry("F32", [1], 0, 4), "b": build.entry("F32", [1], 4, 8)}
    data = np.array([1, 2], np.float32).tobytes()
    fill(folders[0], {"model.safetensors": build.safetensors(header, data)})
    fill(folders[1], {"m-1-of-2.safetensors": one("b", 2), "m-2-of-2.safetensors": one("a", 1)})
    fill(folders[2], {"model.safetensors": build.safetensors(header, data[::-1])})
    whole, shards, changed = (open_checkpoint(folder) for folder in folders)
    assert whole.header_digest == shards.header_digest == changed.header_digest
    assert whole.content_digest == shards.content_digest != changed.content_digest


def test_a_digest_is_that_of_names_dtypes_shapes_and_bytes_however_many_tensors_there_are() -> None:
    arrays = {f"t{at:05}": np.full((1 + at % 3,), at, np.float32) for at in reversed(range(2500))}
    rows = [
        [name, "F32", list(arrays[name].shape), hashlib.sha256(arrays[name].tobytes()).hexdigest()]
        for name in sorted(arrays)
    ]
    assert MemoryCheckpoint(arrays).content_digest == canonical.digest(rows)


def test_an_unknown_tensor_is_a_key_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        open_checkpoint(fill(tmp_path, {"model.safetensors": one("w")})).read("v")


def test_a_message_names_the_path_so_that_two_models_of_one_file_name_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=str(tmp_path / "model.safetensors")):
        open_checkpoint(fill(tmp_path, {"model.safetensors": one("w")[:-1]}))
