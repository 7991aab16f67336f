"""A result keeps what was asked for and what it was measured with."""

from __future__ import annotations

import platform
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest

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


@pytest.mark.parametrize(
    ("methods", "mode", "measured"), [(None, "default", False), (["ghostspec-mse"], "default", True)]
)
def test_spectra_that_take_minutes_are_worked_out_only_where_they_are_asked_for(
    methods: list[str] | None, mode: api.Mode, measured: bool
) -> None:
    with patch.object(api, "DENSE_ORDER", 8):
        found = api.compare(EXAMPLES / "child", EXAMPLES / "base", methods=methods, mode=mode)
    (one,) = (result for result in found.methods if result.method == "ghostspec-mse")
    assert (one.status == "measured") == measured
    if not measured:
        assert one.reason is not None
        assert "--method ghostspec-mse" in one.reason
        assert {"layernorm", "intrinsic"} <= {result.method for result in found.methods if result.status == "measured"}
