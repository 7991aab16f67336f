"""Equal up to quantisation: what rounding explains, what it does not, and strangers under few levels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import Codec, MemoryCheckpoint
from kinprint.evidence.identity import compare_values, evidence
from kinprint.evidence.rounding import noise
from kinprint.verdict import decide
from methods import tiny

BLOCK = 8


def rounded(array: np.ndarray, bits: int) -> np.ndarray:
    """Round each block to a grid of its own between its smallest and its largest value."""
    blocks = array.reshape(array.shape[0], -1, BLOCK).astype(np.float64)
    low, high = blocks.min(axis=2, keepdims=True), blocks.max(axis=2, keepdims=True)
    step = (high - low) / (2**bits - 1)
    return (low + np.round((blocks - low) / step) * step).reshape(array.shape).astype(np.float32)


def quantised(arrays: Mapping[str, np.ndarray], bits: int, *, scheme: str = "TEST") -> ModelView:
    chosen = {name for name, array in arrays.items() if array.ndim == 2 and "layers" in name}
    tensors = {name: rounded(array, bits) if name in chosen else array for name, array in arrays.items()}
    codecs = dict.fromkeys(chosen, Codec(scheme, bits, BLOCK))
    return view(MemoryCheckpoint(tensors, config={"head_dim": 4}, codecs=codecs))


def plain(arrays: Mapping[str, np.ndarray]) -> ModelView:
    return view(MemoryCheckpoint(dict(arrays), config={"head_dim": 4}))


def disturbed(arrays: Mapping[str, np.ndarray], share: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(9)
    return {
        name: (array + share * array.std() * rng.standard_normal(array.shape)).astype(np.float32)
        if array.ndim == 2 and "layers" in name
        else array
        for name, array in arrays.items()
    }


@pytest.mark.parametrize("bits", [3, 4, 8])
@pytest.mark.parametrize("swapped", [False, True])
def test_a_quantised_copy_is_identical_up_to_its_rounding(bits: int, swapped: bool) -> None:
    arrays = tiny.llama(0)
    pair = [plain(arrays), quantised(arrays, bits)]
    found = compare_values(*(pair[::-1] if swapped else pair))
    assert found.identical == "quantised"
    assert found.noise is not None
    assert 0.4 < found.noise < 0.8
    assert any("equal up to quantisation" in note for note in evidence(found).notes)


def test_two_quantisations_of_one_model_are_identical_up_to_both() -> None:
    arrays = tiny.llama(0)
    verdict = decide(quantised(arrays, 4), quantised(arrays, 8))
    assert (verdict.conclusion, verdict.relation) == ("identical", "requantised")


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_strangers_are_not_equal_whatever_the_number_of_levels(bits: int) -> None:
    found = compare_values(plain(tiny.llama(0)), quantised(tiny.llama(1), bits))
    assert found.identical is None
    assert not found.requantised
    assert found.same_quantised == 0


def test_a_change_beyond_the_rounding_is_noticed() -> None:
    arrays = tiny.llama(0)
    found = compare_values(quantised(disturbed(arrays, 0.3), 8), plain(arrays))
    assert found.identical is None
    assert not found.requantised


def test_rounding_that_makes_up_for_itself_is_called_requantised_and_not_identical() -> None:
    arrays = tiny.llama(0)
    suspect = quantised(disturbed(arrays, 0.2), 4, scheme="GPTQ")  # as far as GPTQ goes
    found = compare_values(suspect, plain(arrays))
    assert (found.identical, found.requantised) == (None, True)
    verdict = decide(suspect, plain(arrays))
    assert (verdict.conclusion, verdict.relation) == ("derived", "requantised")


@pytest.mark.parametrize("share", [0.1, 0.2])
def test_a_light_fine_tuning_beneath_the_rounding_is_not_identical(share: float) -> None:
    """The same noise that a quantiser makes up for is a change where the scheme rounds to the nearest."""
    arrays = tiny.llama(0)
    found = compare_values(quantised(disturbed(arrays, share), 4, scheme="Q4_0"), plain(arrays))
    assert found.identical is None
    assert not found.requantised


def test_a_change_outside_the_quantised_tensors_is_no_requantisation() -> None:
    arrays = tiny.llama(0)
    changed = {**arrays, "model.norm.weight": arrays["model.norm.weight"] + np.float32(0.1)}
    found = compare_values(quantised(changed, 8), plain(arrays))
    assert (found.identical, found.requantised) == (None, False)


def test_half_widths_by_hand() -> None:
    """Levels 0 and 2 and 4 and 6 lie 2 apart, so half a width is 1, and every value is off by .5."""
    levels = np.array([[0.0, 2.0, 4.0, 6.0]] * 4)
    found = noise(levels + 0.5, levels, (None, Codec("TEST", 2, 4)), np.random.default_rng(0))
    assert found.difference == pytest.approx(0.5)
    assert found.nearest
