"""How GGUF's quantisations round: bits, and how many neighbours share a scale.

The block here is the run under one scale, which in the K and IQ kinds is shorter than the run that is stored together.
Kinds of three levels count as one bit: half of their range is the step.

Source: ggml, ggml-common.h and ggml-quants.c (llama.cpp, 2026).
"""

from __future__ import annotations

from types import MappingProxyType

from kinprint.checkpoint.base import Codec

_BITS_AND_BLOCK = {
    "Q4_0": (4, 32), "Q4_1": (4, 32), "Q5_0": (5, 32), "Q5_1": (5, 32), "Q8_0": (8, 32), "Q8_1": (8, 32),
    "Q2_K": (2, 16), "Q3_K": (3, 16), "Q4_K": (4, 32), "Q5_K": (5, 32), "Q6_K": (6, 16), "Q8_K": (8, 256),
    "IQ1_S": (1, 32), "IQ1_M": (1, 16), "IQ2_XXS": (2, 32), "IQ2_XS": (2, 16), "IQ2_S": (2, 16),
    "IQ3_XXS": (3, 32), "IQ3_S": (3, 32), "IQ4_NL": (4, 32), "IQ4_XS": (4, 32),
    "TQ1_0": (1, 256), "TQ2_0": (1, 256), "Q1_0": (1, 128),
}  # fmt: skip

_CODECS = MappingProxyType(
    {name: Codec(name, bits, block) for name, (bits, block) in _BITS_AND_BLOCK.items()}
    | {"MXFP4": Codec("MXFP4", 4, 32, exponent=True), "NVFP4": Codec("NVFP4", 4, 16, exponent=True)}
)


def gguf_codec(type_name: str) -> Codec | None:
    """Return how a GGUF type rounds, None for plain numbers and for kinds that are not known.

    Example:
        >>> gguf_codec("Q4_K"), gguf_codec("F16")
        (Codec(scheme='Q4_K', bits=4, block=32, exponent=False), None)
    """
    return _CODECS.get(type_name)
