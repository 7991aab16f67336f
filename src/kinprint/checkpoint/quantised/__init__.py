"""Quantised checkpoints, read lazily and without the frameworks that wrote them."""

from kinprint.checkpoint.quantised.decoded import DecodedCheckpoint, decoded
from kinprint.checkpoint.quantised.gguf_codecs import gguf_codec
from kinprint.checkpoint.quantised.steps import rounding_error

__all__ = ["DecodedCheckpoint", "decoded", "gguf_codec", "rounding_error"]
