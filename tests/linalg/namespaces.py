"""The namespaces that array functions are tested in, each as two functions: from numpy and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

from kinprint.linalg.device import Device


@dataclass(frozen=True)
class Place:
    put: Callable[[np.ndarray], Any]
    get: Callable[[Any], np.ndarray]
    name: str


def place(name: str) -> Place:
    """array_api_strict has nothing beyond the standard, so what is only numpy's fails there."""
    if name == "strict":
        strict = pytest.importorskip("array_api_strict")
        return Place(strict.asarray, np.asarray, name)
    if name != "cpu":
        pytest.importorskip("torch")
    device = Device.of(name)
    return Place(device.put, device.get, name)


def _gpu() -> list[str]:
    return ["cuda"] if find_spec("torch") and import_module("torch").cuda.is_available() else []


DEVICES = ["cpu", "torch", *_gpu()]
NAMESPACES = [*DEVICES, "strict"]
