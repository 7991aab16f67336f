"""Arrays on their way to a device and back, and devices that are not there."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import ml_dtypes
import numpy as np
import pytest

from kinprint.errors import MissingExtraError, UsageError
from kinprint.linalg import device as module
from kinprint.linalg.device import Device, multiplied_in_bfloat16, namespace
from linalg.namespaces import DEVICES, place

NARROW = [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2, np.float16]


def torch_with(gpus: int) -> SimpleNamespace:
    return SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: gpus > 0, device_count=lambda: gpus))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("dtype", NARROW)
def test_every_value_of_a_narrow_float_arrives_as_it_is(name: str, dtype: Any) -> None:
    bits = np.arange(1 << (8 * np.dtype(dtype).itemsize), dtype=f"u{np.dtype(dtype).itemsize}")
    stored = bits.view(dtype)
    here = place(name)
    found = here.get(here.put(stored))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, stored.astype(np.float32))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "i8", "?"])
def test_what_is_wide_enough_keeps_its_dtype(name: str, dtype: str) -> None:
    here, stored = place(name), np.array([[0, 1, 1], [1, 0, 1]], dtype)
    found = here.get(here.put(stored))
    assert found.dtype == stored.dtype
    np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize("name", DEVICES)
def test_read_only_and_strided_arrays_are_taken(name: str) -> None:
    here = place(name)
    for dtype in (np.float32, ml_dtypes.bfloat16):
        stored = np.arange(24).reshape(4, 6).astype(dtype)
        stored.flags.writeable = False
        for view in (stored, stored.T, stored[::2, 1::3], stored[:0]):
            np.testing.assert_array_equal(here.get(here.put(view)), view.astype(np.float32))


@pytest.mark.parametrize("name", DEVICES)
def test_text_and_complex_numbers_are_refused(name: str) -> None:
    for array in (np.array(["a"]), np.array([1j]), np.array([1], ml_dtypes.int4)):
        with pytest.raises(TypeError, match="has no place"):
            place(name).put(array)


@pytest.mark.parametrize("name", DEVICES)
def test_a_device_survives_the_way_to_another_process(name: str) -> None:
    place(name)
    device = Device.of(name)
    assert pickle.loads(pickle.dumps(device)) == device
    assert namespace(device.put(np.ones(2))) is device.xp
    device.synchronise()
    assert ("numpy" if name == "cpu" else "torch") in device.description


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:-1", "cuda:1234", "CUDA", "", "cpu\n", "mps"])
def test_a_device_of_another_name_is_refused_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match="use cpu, torch, cuda or cuda:N") as raised:
        Device.of(name)
    assert "\n" not in str(raised.value)


def test_a_missing_torch_names_the_extra_that_brings_it() -> None:
    with (
        patch.dict(sys.modules, {"torch": None}),
        pytest.raises(MissingExtraError, match=r"device cuda \(torch\) needs the \[torch\] extra"),
    ):
        Device.of("cuda")


@pytest.mark.parametrize(
    ("name", "gpus", "said"),
    [("cuda", 0, "torch sees no GPU"), ("cuda:1", 1, "torch sees 1 GPUs"), ("cuda:12", 2, "torch sees 2 GPUs")],
)
def test_a_gpu_that_torch_does_not_see_is_refused(name: str, gpus: int, said: str) -> None:
    with patch.object(module, "optional", return_value=torch_with(gpus)), pytest.raises(UsageError, match=said):
        Device.of(name)


def test_gpus_are_numbered_from_zero() -> None:
    with patch.object(module, "optional", return_value=torch_with(2)):
        assert [Device.of(name).name for name in ("cuda", "cuda:0", "cuda:1")] == ["cuda", "cuda:0", "cuda:1"]


@pytest.mark.parametrize("name", DEVICES)
def test_products_of_short_numbers_are_exact(name: str) -> None:
    rng = np.random.default_rng(0)
    left, right = (rng.integers(-128, 128, shape).astype(np.float32) for shape in ((5, 40), (40, 3)))
    here = place(name)
    found = here.get(multiplied_in_bfloat16(here.put(left), here.put(right)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, left.astype(np.float64) @ right)
