"""A result keeps what was asked for and what it was measured with."""

from __future__ import annotations

import platform
from pathlib import Path

import numpy as np

from kinprint import api

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_a_result_keeps_what_was_asked_for_and_what_it_was_measured_with() -> None:
    limits = api.Limits(budget=400_000, layers=2)
    found = api.compare(EXAMPLES / "child", EXAMPLES / "base", mode="quick", limits=limits, methods=iter(["layernorm"]))
    assert found.request is not None
    assert found.request.model_dump(exclude_defaults=True) == {
        "mode": "quick",
        "methods": ("layernorm",),
        "budget": 400_000,
        "layers": 2,
    }
    assert [one.method for one in found.methods] == ["layernorm"]
    assert found.environment is not None
    assert found.environment.python == platform.python_version()
    assert f"numpy {np.__version__}" in found.environment.device
