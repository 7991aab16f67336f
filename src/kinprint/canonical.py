"""Ids, digests and canonical JSON: the same thing always gives the same text.

Digests are taken over input bytes and settings, never over floating-point results, which differ between
processors.
"""

from __future__ import annotations

import hashlib
import json


def method_id(name: str, version: int, **settings: str | int | float | bool) -> str:
    """Return the id of a method: its name, version and every setting that changes a number.

    Example:
        >>> method_id("spectra", 1, products="qk+vo", fold=True)
        'spectra/v1[fold=true,products=qk+vo]'
        >>> method_id("pcs", 2)
        'pcs/v2'
    """

    def show(value: str | int | float | bool) -> str:
        return str(value).lower() if isinstance(value, bool) else str(value)

    inside = ",".join(f"{key}={show(settings[key])}" for key in sorted(settings))
    return f"{name}/v{version}" + (f"[{inside}]" if inside else "")


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys, no spaces and no NaN.

    Example:
        >>> canonical_json({"b": 1, "a": [1.5, None]})
        '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object) -> str:
    """Return ``sha256:`` and the hex digest of a value's canonical JSON."""
    return "sha256:" + hashlib.sha256(canonical_json(value).encode()).hexdigest()
