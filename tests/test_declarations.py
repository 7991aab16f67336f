"""What every method declares to ignore and to notice, checked on models of several families.

The transformations are generated from the family tables and are known to leave the logits alone
(tests/transform), so a method that declares more than it keeps, or notices less than it says, is caught here.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

import numpy as np
import pytest

from kinprint.architecture import ModelView, view
from kinprint.fingerprints import FingerprintMethod, Method
from kinprint.registry import METHODS
from kinprint.transform import PRESERVING, ModelState, preserve
from kinprint.types import MethodResult
from support.tiny import Model

FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "gpt_neox", "mixtral", "qwen2_moe")
TOLERANCE = 1e-6  # values are computed from weights that went through float64 transformations and back to float32


@cache
def state(family: str) -> ModelState:
    return ModelState.from_view(view(Model(family).checkpoint))


@cache
def transformed(family: str, name: str) -> ModelView:
    return preserve(state(family), [name], np.random.default_rng(11)).view()


@cache
def untouched(family: str) -> ModelView:
    return state(family).view()


@cache
def made(method: str, family: str, name: str | None) -> MethodResult:
    """The method on a model and its transformation (itself for None)."""
    chosen: Method = METHODS[method]
    one, other = untouched(family), untouched(family) if name is None else transformed(family, name)
    if isinstance(chosen, FingerprintMethod):
        return chosen.compare(chosen.extractor.extract(one), chosen.extractor.extract(other))
    return chosen.compare(one, other)


def numbers(result: MethodResult) -> Mapping[str, float | None]:
    return {value.name: value.value for value in result.values}


def allowed(family: str, name: str) -> bool:
    return PRESERVING[name].obstacle(state(family)) is None


IGNORED = [(m.name, t) for m in METHODS.values() for t in sorted(m.ignores)]
NOTICED = [(m.name, t) for m in METHODS.values() for t in sorted(m.notices)]


@pytest.mark.parametrize(("method", "name"), IGNORED)
def test_a_method_ignores_what_it_declares_to_ignore(method: str, name: str) -> None:
    compared = 0
    for family in FAMILIES:
        if not allowed(family, name):
            continue
        before, after = numbers(made(method, family, None)), numbers(made(method, family, name))
        assert set(before) == set(after), family
        for label, value in before.items():
            compared += value is not None
            assert (value is None) == (after[label] is None), (family, label)
            if value is not None:
                assert after[label] == pytest.approx(value, abs=TOLERANCE), (family, label)
    assert compared > 0


@pytest.mark.parametrize(("method", "name"), NOTICED)
def test_a_method_notices_what_it_declares_to_notice(method: str, name: str) -> None:
    moved = False
    for family in FAMILIES:
        if not allowed(family, name):
            continue
        before, after = numbers(made(method, family, None)), numbers(made(method, family, name))
        moved |= any(
            value is not None and (after.get(label) is None or abs(after[label] - value) > 1e-3)  # type: ignore[operator]
            for label, value in before.items()
        )
    assert moved


def test_every_transformation_is_declared_by_every_method() -> None:
    for method in METHODS.values():
        assert method.ignores | method.notices <= set(PRESERVING), method.name
        assert not method.ignores & method.notices, method.name
        assert method.notices or method.ignores == set(PRESERVING), f"{method.name} says nothing of some changes"


def test_every_method_names_its_source() -> None:
    for method in METHODS.values():
        assert len(method.source) > 20, method.name
        assert method.id.startswith(method.name.split("[")[0] + "/v"), method.id
