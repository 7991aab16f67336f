"""Fingerprint files that lie: every one is compared, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinprint import api
from kinprint.checkpoint import write_safetensors
from kinprint.errors import CheckpointError, KinprintError
from kinprint.fingerprints import ModelFingerprint, load, save

EXAMPLES = Path(__file__).parents[2] / "examples"

LIES = {
    "empty": lambda array: array[:0],
    "scalar": lambda array: np.zeros((), array.dtype),
    "longer": lambda array: np.concatenate([array, array]),
    "nan": lambda array: np.full(array.shape, np.nan),
    "inf": lambda array: np.full(array.shape, np.inf),
    "zero": lambda array: np.zeros(array.shape),
    "integers": lambda array: np.ones(array.shape, np.int64),
    "another axis": lambda array: array[None],
    "negative": lambda array: -np.ones(array.shape),
}


@pytest.fixture(scope="module")
def honest() -> ModelFingerprint:
    return api.fingerprint(EXAMPLES / "base")


def outcome(fingerprint: ModelFingerprint, path: Path) -> str:
    """What becomes of a fingerprint file that is compared with an honest model, on either side."""
    save(fingerprint, path)
    said = ""
    for suspect, base in ((path, EXAMPLES / "child"), (EXAMPLES / "child", path)):
        try:
            api.compare(suspect, base)
        except KinprintError as error:
            said = str(error)
            assert "\n" not in said
            assert str(path) in said
    return said


@pytest.mark.parametrize("lie", list(LIES))
def test_lying_arrays_end_in_a_result_or_in_one_line(honest: ModelFingerprint, tmp_path: Path, lie: str) -> None:
    parts = {
        name: replace(part, arrays={key: LIES[lie](np.asarray(array)) for key, array in part.arrays.items()})
        for name, part in honest.fingerprints.items()
    }
    outcome(replace(honest, fingerprints=parts), tmp_path / "lie.safetensors")


def test_missing_arrays_are_refused_or_not_applicable(honest: ModelFingerprint, tmp_path: Path) -> None:
    parts = {name: replace(part, arrays={"nothing": np.zeros(1)}) for name, part in honest.fingerprints.items()}
    outcome(replace(honest, fingerprints=parts), tmp_path / "lie.safetensors")


@pytest.mark.parametrize(
    "header", ["", "{}", "[]", '{"file_version":99}', "\x00", '{"file_version":1,"kinprint_version":"0","model":{}}']
)
def test_a_lying_header_is_refused_in_one_line(tmp_path: Path, header: str) -> None:
    path = tmp_path / "lie.safetensors"
    write_safetensors(path, {"0/x": np.zeros(3)}, metadata={"kinprint_fingerprint": header})
    with pytest.raises(CheckpointError, match="kinprint fingerprint") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_an_entry_without_its_array_is_refused(honest: ModelFingerprint, tmp_path: Path) -> None:
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save(honest, whole)
    from kinprint.checkpoint import LocalFile, SafetensorsFile

    stored = SafetensorsFile(LocalFile(whole))
    names = list(stored.tensors)[1:]
    write_safetensors(cut, {name: stored.read(name, None) for name in names}, metadata=dict(stored.metadata))
    with pytest.raises(CheckpointError, match="is missing"):
        load(cut)
