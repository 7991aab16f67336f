"""The names that say what shapes arrays have: jaxtyping's, where somebody checks them.

Type checkers read these names, and the tests check shapes at run time through jaxtyping's hook. A command does neither,
and importing jaxtyping takes a tenth of a second, so there the names stand for nothing.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING or "jaxtyping" in sys.modules:
    from jaxtyping import Bool, Float, Float32, Float64, Int64, UInt8
else:

    class _Unchecked:
        def __class_getitem__(cls, _: object) -> Any:  # noqa: ANN401
            return Any

    Bool = Float = Float32 = Float64 = Int64 = UInt8 = _Unchecked

__all__ = ["Bool", "Float", "Float32", "Float64", "Int64", "UInt8"]
