"""Where array functions run: numpy by default, torch on a processor or on a GPU when asked for.

The functions of :mod:`kinprint.linalg.products` and :mod:`kinprint.linalg.stacked` are written in the array API and run
where their arguments lie. A :class:`Device` brings numpy arrays there and back. This is the only module that imports
torch for them, by name and when a device first needs it.

Source: the array API standard, 2023.12 (data-apis.org), as numpy has it and array-api-compat gives it for torch.
"""

from __future__ import annotations

import platform
import re
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from kinprint.errors import UsageError, optional

Array = np.ndarray[Any, np.dtype[Any]]

DeviceArray = Any
"""An array of the namespace of a device: numpy's or torch's."""

_NAME = re.compile(r"cpu|torch|cuda(:\d{1,3})?")

_CARRIED = {
    "bfloat16": ("int16", "bfloat16"),
    "float8_e4m3fn": ("uint8", "float8_e4m3fn"),
    "float8_e5m2": ("uint8", "float8_e5m2"),
}
"""Dtypes that numpy has by ml_dtypes alone: the integers that carry their bits, and torch's name for them."""

_NARROW = frozenset({*_CARRIED, "float16"})
_PLAIN = frozenset({"float32", "float64", "int32", "int64", "bool"})


@dataclass(frozen=True, slots=True)
class Device:
    """One place to compute in.

    Made by :meth:`of`, which checks that the place exists. Two devices of one name are equal, and a device can be sent
    to another process.

    Attributes:
        name: ``cpu`` (numpy), ``torch`` (torch on the processor), ``cuda`` or ``cuda:N`` (torch on a GPU).
    """

    name: str

    @classmethod
    def of(cls, name: str) -> Device:
        """Return a device by its name.

        Raises:
            UsageError: There is no such device, or torch sees no such GPU.
            MissingExtraError: It needs torch, which is not installed.

        Example:
            >>> Device.of("cpu").put(np.array([1.0, 2.0], np.float16)).dtype
            dtype('float32')
        """
        if _NAME.fullmatch(name) is None:
            raise UsageError(f"no device is called {name[:40]!r}: use cpu, torch, cuda or cuda:N")
        device = cls(name)
        if name == "cpu":
            return device
        torch = optional("torch", "torch", f"device {name}")
        if device.is_gpu:
            gpus = int(torch.cuda.device_count()) if torch.cuda.is_available() else 0
            if gpus == 0:
                raise UsageError(f"device {name}: torch sees no GPU; use cpu, or install torch with CUDA")
            if int(name.partition(":")[2] or 0) >= gpus:
                raise UsageError(f"device {name}: torch sees {gpus} GPUs, numbered from 0")
        return device

    @property
    def is_gpu(self) -> bool:
        """Whether arrays lie in the memory of a GPU."""
        return self.name.startswith("cuda")

    @property
    def xp(self) -> Any:  # noqa: ANN401 - namespaces have no type
        """The namespace with the functions of the array API for this device's arrays."""
        return np if self.name == "cpu" else import_module("array_api_compat.torch")

    @property
    def not_decomposed(self) -> tuple[type[Exception], ...]:
        """What a decomposition raises where the matrix has none."""
        if self.name == "cpu":
            return (np.linalg.LinAlgError,)
        return (np.linalg.LinAlgError, import_module("torch").linalg.LinAlgError)

    @property
    def description(self) -> str:
        """The device in words, with the versions that decide its numbers."""
        if self.name == "cpu":
            return f"{platform.machine()}, numpy {np.__version__}"
        torch = import_module("torch")
        where = torch.cuda.get_device_name(self.name) if self.is_gpu else platform.machine()
        return f"{where}, torch {torch.__version__}"

    def put(self, array: Array) -> DeviceArray:
        """Bring an array to the device; floats that are narrower than float32 arrive as float32, which is exact.

        They cross as they are stored, in half or a quarter of the bytes, and are widened there.

        Args:
            array: Floats of any dtype that checkpoints store, int32, int64 or bool, of any shape; may be read-only.

        Returns:
            On ``cpu`` the array itself where nothing had to be widened; else a copy.

        Raises:
            TypeError: Another dtype.
        """
        stored = array.dtype.name
        if stored not in _NARROW | _PLAIN:
            raise TypeError(f"an array of {stored} has no place on a device")
        if self.name == "cpu":
            return array.astype(np.float32) if stored in _NARROW else array
        torch = import_module("torch")
        carrier, meant = _CARRIED.get(stored, (stored, stored))
        # A copy, since torch minds arrays that are read-only; in pinned memory, which a GPU reads directly.
        staged = torch.empty(array.shape, dtype=getattr(torch, carrier), pin_memory=self.is_gpu)
        np.copyto(staged.numpy(), array.view(carrier) if stored in _CARRIED else array)
        moved = staged.to(self.name, non_blocking=True) if self.is_gpu else staged
        if stored in _CARRIED:
            moved = moved.view(getattr(torch, meant))
        return moved.to(torch.float32) if stored in _NARROW else moved

    def get(self, array: DeviceArray) -> Array:
        """Return an array of the device as numpy's, when everything that it depends on is done."""
        return np.asarray(array) if self.name == "cpu" else array.detach().cpu().numpy()

    def synchronise(self) -> None:
        """Wait until the device has done all that it was asked for: a GPU works on while Python goes on."""
        if self.is_gpu:
            import_module("torch").cuda.synchronize(self.name)


CPU = Device("cpu")
"""The default: numpy."""


def namespace(*arrays: DeviceArray) -> Any:  # noqa: ANN401
    """Return the array API namespace of arrays, imported when first needed.

    numpy 2 is one by itself; array-api-compat, which takes a quarter of a second to import, is for other devices.
    """
    if all(isinstance(array, np.ndarray) for array in arrays):
        return np
    return import_module("array_api_compat").array_namespace(*arrays)


def place(array: DeviceArray) -> Any:  # noqa: ANN401
    """Return where an array lies, as the functions of its namespace that make arrays take it."""
    if isinstance(array, np.ndarray):
        return "cpu"
    return import_module("array_api_compat").device(array)


def multiplied_in_bfloat16(left_NK: DeviceArray, right_KM: DeviceArray) -> DeviceArray:
    """Return the product of matrices whose entries bfloat16 holds exactly, float32, with sums in float32.

    On a GPU the tensor cores do it; elsewhere float32 arithmetic, in which products of such entries are exact.

    Args:
        left_NK: Float32, of eight significant bits.
        right_KM: The same.
    """
    if not isinstance(left_NK, np.ndarray) and getattr(left_NK, "is_cuda", False) and left_NK.ndim == 2:
        torch = import_module("torch")
        product = getattr(torch.ops.aten.mm, "dtype", None)  # since torch 2.8; before, results are rounded to bfloat16
        if product is not None:
            return product(left_NK.to(torch.bfloat16), right_KM.to(torch.bfloat16), torch.float32)
    return left_NK @ right_KM
