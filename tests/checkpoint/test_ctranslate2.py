"""Reading CTranslate2's ``model.bin``: names, shared weights, settings, and integers with their scales."""

from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from hostile import build
from hostile.containers import SCALES, W, ct2, ct2_variable, valid_ct2
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError

LINEAR = "decoder.layers.0.ffn.linear_0.weight"


def test_names_shared_weights_and_settings(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(valid_ct2())
    (tmp_path / "config.json").write_text('{"bos_token": "<s>"}')
    (tmp_path / "vocabulary.json").write_text(json.dumps(["<s>", "a"]))
    ours = open_checkpoint(tmp_path)
    assert ours.format == "ctranslate2"
    assert list(ours.tensors) == ["decoder.embeddings.weight", LINEAR, "decoder.projection.weight"]
    np.testing.assert_array_equal(ours.read("decoder.projection.weight"), ours.read("decoder.embeddings.weight"))
    assert ours.config == {"bos_token": "<s>", "decoder/num_heads": 2}
    assert ours.vocabulary == ("<s>", "a")
    assert any("layers.N" in note for note in ours.notes)


def test_int8_rows_are_divided_by_their_scales(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(valid_ct2())
    ours = open_checkpoint(tmp_path / "model.bin")
    # 127 / 2, -64 / 2, 0; 1 / 4, 2 / 4, 3 / 4
    np.testing.assert_array_equal(ours.read(LINEAR), [[63.5, -32, 0], [0.25, 0.5, 0.75]])
    np.testing.assert_array_equal(ours.read(LINEAR, slice(1, 2)), [[0.25, 0.5, 0.75]])
    info = ours.tensors[LINEAR]
    assert (info.dtype, info.nbytes, str(info.codec)) == ("CT2:8", 14, "CT2:8")
    assert bytes(ours.raw(LINEAR)) == W.tobytes() + SCALES.tobytes()


def test_int16_has_one_scale_and_convolutions_one_for_each_row(tmp_path: Path) -> None:
    conv = np.arange(12, dtype=np.int8).reshape(2, 3, 2)
    variables = [
        ct2_variable("a/weight", np.array([[100, -200]], np.int16)),
        ct2_variable("a/weight_scale", np.array(10, np.float32)),
        ct2_variable("c/weight", conv),
        ct2_variable("c/weight_scale", SCALES),
    ]
    (tmp_path / "model.bin").write_bytes(ct2(variables))
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("a.weight"), [[10, -20]])
    np.testing.assert_array_equal(ours.read("c.weight"), conv / np.array([2, 4])[:, None, None])


def test_a_shared_integer_weight_shares_its_scales(tmp_path: Path) -> None:
    variables = [ct2_variable("a/weight", W), ct2_variable("a/weight_scale", SCALES)]
    (tmp_path / "model.bin").write_bytes(ct2(variables, {"b/weight": "a/weight"}))
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("b.weight"), ours.read("a.weight"))


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float32])
def test_floats_come_as_they_are_stored(kind: type, tmp_path: Path) -> None:
    values = np.arange(6).reshape(2, 3).astype(kind)
    (tmp_path / "model.bin").write_bytes(ct2([ct2_variable("w", values)]))
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("w"), values)
    assert ours.read("w").dtype == values.dtype


def test_a_model_bin_of_torch_s_is_still_one(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(build.valid_zip())
    assert open_checkpoint(tmp_path).format == "pytorch"
    (tmp_path / "model.bin").write_bytes(build.valid_legacy())
    assert open_checkpoint(tmp_path / "model.bin").format == "pytorch"


def test_torch_s_own_file_is_preferred_to_it(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(valid_ct2())
    (tmp_path / "pytorch_model.bin").write_bytes(build.valid_zip())
    ours = open_checkpoint(tmp_path)
    assert ours.format == "pytorch"
    assert "read pytorch_model.bin; left aside: model.bin" in ours.notes


def test_weights_that_awq_packed_are_refused(tmp_path: Path) -> None:
    variables = [ct2_variable("a/weight", np.ones((2, 3), np.int32)), ct2_variable("a/weight_scale", SCALES)]
    (tmp_path / "model.bin").write_bytes(ct2(variables))
    with pytest.raises(CheckpointError, match=r"'a\.weight' is packed by AWQ"):
        open_checkpoint(tmp_path)
