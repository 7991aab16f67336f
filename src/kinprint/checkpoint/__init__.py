"""Checkpoints: sources x formats x codecs, seen as lazy named tensors.

In the core this is the only place that opens model files.
"""

from kinprint.checkpoint.base import Array, Checkpoint, Codec, TensorInfo, Wanted
from kinprint.checkpoint.local import LocalFile
from kinprint.checkpoint.memory import MemoryCheckpoint
from kinprint.checkpoint.open import open_checkpoint
from kinprint.checkpoint.places import on_disk
from kinprint.checkpoint.safetensors_file import SafetensorsFile
from kinprint.checkpoint.write import write_safetensors

__all__ = [
    "Array",
    "Checkpoint",
    "Codec",
    "LocalFile",
    "MemoryCheckpoint",
    "SafetensorsFile",
    "TensorInfo",
    "Wanted",
    "on_disk",
    "open_checkpoint",
    "write_safetensors",
]
