"""CKA of attention matrices: what it survives, what weakens it, and answers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evidence.models import allowed, changed, disguised, noisy, pair, random
from kinprint.alignment.basis import Basis
from kinprint.evidence import cka
from kinprint.transform import ModelState
from kinprint.types import Evidence

HARMLESS = ["residual-permutation", "residual-signs", "kv-group-permutation", "query-head-permutation"]


def size(found: Evidence) -> float:
    assert found.status == "measured", found.reason
    assert found.size is not None
    return found.size


def control(found: Evidence) -> float:
    assert found.controls[0].value is not None
    return found.controls[0].value


def turned_rows(state: ModelState, role: str, seed: int = 0) -> ModelState:
    """The model with the rows of one role turned by a rotation in every layer."""
    rng = np.random.default_rng(seed)
    return state.updated(
        {
            key: np.linalg.qr(rng.standard_normal((len(array), len(array))))[0] @ array
            for key, array in state.parts.items()
            if key.role == role
        }
    )


# -- what it survives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "gpt2"])
def test_unchanged_when_coordinates_and_heads_are_in_another_order(form: str) -> None:
    base = random(form)
    names = [name for name in HARMLESS if name in allowed(base)]
    assert {"residual-permutation", "kv-group-permutation"} <= set(names)
    found = cka.test(pair(disguised(base, names=names), base))
    assert size(found) == pytest.approx(1.0, abs=1e-5)  # Gram matrices are float32
    assert found.notes[0].startswith("in the basis of kind tokens, fitted on")


@pytest.mark.parametrize("role", ["attn.q", "attn.k", "attn.v"])
def test_unchanged_when_rows_are_rotated(role: str) -> None:
    base = random()
    scores = cka.test(pair(turned_rows(base, role), base)).tables[0]
    column = scores.columns.index(role[-1])
    assert [row[column] for row in scores.rows] == pytest.approx([1.0, 1.0, 1.0], abs=1e-5)


def test_a_rotated_stream_is_undone_by_the_basis() -> None:
    base = random()
    assert size(cka.test(pair(disguised(base, names=["residual-rotation"]), base))) == pytest.approx(1.0, abs=1e-5)


# -- what it notices -----------------------------------------------------------------------------------------------


def test_uneven_scales_weaken_it_and_leave_it_far_above_mismatched_layers() -> None:
    base = random(hidden=48, decay=0.0)
    found = cka.test(pair(disguised(base), base))
    assert control(found) + 0.3 < size(found) < 0.97


def test_strangers_without_a_common_spectrum_have_nothing() -> None:
    found = cka.test(pair(random(seed=1, hidden=48, decay=0.0), random(seed=2, hidden=48, decay=0.0)))
    assert abs(size(found)) < 0.1
    assert abs(control(found)) < 0.1


def test_strangers_with_loud_directions_have_no_more_than_mismatched_layers() -> None:
    found = cka.test(pair(random(seed=1), random(seed=2)))
    assert abs(size(found) - control(found)) < 0.15
    base = random(seed=2)
    assert size(cka.test(pair(noisy(base, 0.1), base))) > 0.95


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_a_layer_is_the_mean_of_four_by_hand() -> None:
    base = random()
    zero = base.updated({key: 0 * array for key, array in base.parts.items() if key.role == "attn.k"})
    found = cka.test(pair(zero, base))
    assert size(found) == pytest.approx(0.75, abs=1e-5)
    assert found.tables[0].columns == ("suspect layer", "base layer", "q", "k", "v", "o", "mean")
    assert found.tables[0].rows[1][:4] == (1, 1, pytest.approx(1.0, abs=1e-5), 0.0)


def test_the_control_is_the_layer_after_the_partner() -> None:
    base = random(layers=2)
    (first, second) = ({key: a for key, a in base.parts.items() if key.layer == number} for number in (0, 1))
    repeated = base.updated({replace(key, layer=1): array for key, array in first.items()})
    assert len(first) == len(second)
    assert control(cka.test(pair(repeated, repeated))) == pytest.approx(1.0, abs=1e-5)
    assert control(cka.test(pair(base, base))) < 0.8


def test_one_layer_has_no_control() -> None:
    found = cka.test(pair(random(layers=1), random(layers=1)))
    assert size(found) == pytest.approx(1.0, abs=1e-5)
    assert (found.controls[0].value, found.controls[0].reason) == (
        None,
        "no layer has a second partner that could be compared",
    )


def test_coordinates_that_are_only_picked_are_what_the_product_gives() -> None:
    rng = np.random.default_rng(0)
    rows_ND = rng.standard_normal((3, 5)).astype(np.float32)
    picked = np.zeros((5, 3))
    picked[[4, 0, 2], [0, 1, 2]] = (1.0, -1.0, 1.0)
    np.testing.assert_array_equal(cka.in_directions(rows_ND, picked), rows_ND @ picked.astype(np.float32))
    mixed = Basis("tokens", rng.standard_normal((5, 3)), np.eye(3))
    expected = rows_ND @ mixed.suspect_AK.astype(np.float32)
    np.testing.assert_array_equal(cka.in_directions(rows_ND, mixed.suspect_AK), expected)


def test_wide_models_are_sampled(monkeypatch: pytest.MonkeyPatch) -> None:
    base = random()
    monkeypatch.setattr(cka, "DIRECTIONS", 12)
    found = cka.test(pair(base, base))
    assert size(found) == pytest.approx(1.0, abs=1e-5)
    assert found.notes[1] == "12 of 24 common coordinates, drawn once"


def test_it_never_carries_and_has_no_p_value() -> None:
    found = cka.test(pair(random(), random()))
    assert (found.carries, found.beyond, found.log10_p, found.rung) == (False, False, None, 2)


def test_attention_that_cannot_be_read_is_a_finding() -> None:
    unreadable = changed(random(), "attn.q", np.nan)
    assert cka.test(pair(unreadable, random())).reason == "no facing layers have attention that could be read"
