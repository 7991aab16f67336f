"""Token strings by id, from every kind of tokenizer file, read only when they are asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from hostile import build
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError


def tokens(folder: Path, files: dict[str, Any]) -> tuple[str, ...] | None:
    (folder / "model.safetensors").write_bytes(build.valid_safetensors())
    for name, content in files.items():
        (folder / name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return open_checkpoint(folder).vocabulary


def test_a_map_to_ids_is_put_in_order_and_added_tokens_replace(tmp_path: Path) -> None:
    added = [{"id": 2, "content": "<pad>"}, {"id": 4, "content": "<s>"}]
    content = {"model": {"vocab": {"b": 1, "a": 0, "c": 2}}, "added_tokens": added}
    assert tokens(tmp_path, {"tokenizer.json": content}) == ("a", "b", "<pad>", "", "<s>")


def test_a_unigram_list_is_in_the_order_of_ids(tmp_path: Path) -> None:
    content = {"model": {"type": "Unigram", "vocab": [["<unk>", 0.0], ["\u2581a", -1.5]]}}
    assert tokens(tmp_path, {"tokenizer.json": content}) == ("<unk>", "\u2581a")


def test_tokenizer_json_comes_before_vocab_json_before_vocab_txt(tmp_path: Path) -> None:
    lines = {"vocab.txt": b"x\r\n\xe2\x80\xa8\r\ny\n"}
    assert tokens(tmp_path, lines) == ("x", "\u2028", "y")
    assert tokens(tmp_path, {"vocab.json": {"p": 1, "q": 0}, "added_tokens.json": {"r": 2}}) == ("q", "p", "r")
    assert tokens(tmp_path, {"tokenizer.json": {"model": {"vocab": {"m": 0}}}}) == ("m",)


def test_no_tokenizer_file_gives_none(tmp_path: Path) -> None:
    assert tokens(tmp_path, {"tokenizer_config.json": {}, "tokenizer.model": b"\x0a"}) is None


def test_half_of_a_surrogate_pair_is_written_as_an_escape(tmp_path: Path) -> None:
    assert tokens(tmp_path, {"vocab.json": {"\ud800": 0}}) == ("\\ud800",)


@pytest.mark.parametrize(
    "content",
    [
        {"model": {"vocab": {"a": -1}}},
        {"model": {"vocab": {"a": 1 << 62}}},
        {"model": {"vocab": {"a": 70_000}}},
        {"model": {"vocab": {"a": True}}},
        {"model": {"vocab": {"a": 1.5}}},
        {"model": {"vocab": {"a": None}}},
        {"model": {"vocab": [7, []]}},
        {"model": {"vocab": "abc"}},
        {"model": []},
        {"model": {"vocab": {}}, "added_tokens": [{"id": 1}]},
        {"model": {"vocab": {}}, "added_tokens": {"id": 1}},
        [],
        b"{",
        b"\xff",
    ],
)
def test_a_tokenizer_that_cannot_be_believed_spoils_the_vocabulary_and_nothing_else(
    content: Any, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json: .*; "):
        tokens(tmp_path, {"tokenizer.json": content})
    assert open_checkpoint(tmp_path).read("a").shape == (2, 3)
