"""Layers in matched residual coordinates: what the match survives, what defeats it, and answers by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from evidence.models import changed, disguised, noisy, pair, random
from kinprint.evidence.matched_coordinates import statement
from kinprint.evidence.matched_coordinates import test as measured
from kinprint.evidence.pair import Pair
from kinprint.transform import PRESERVING, ModelState
from kinprint.types import Evidence
from methods import tiny

UNTURNED = sorted(set(PRESERVING) - {"residual-rotation"})


def size(found: Evidence) -> float:
    assert found.status == "measured", found.reason
    assert found.size is not None
    return found.size


def controls(found: Evidence) -> dict[str, float | None]:
    return {value.name: value.value for value in found.controls}


def without(state: ModelState, role: str) -> ModelState:
    return replace(state, parts={key: array for key, array in state.parts.items() if key.role != role})


def narrowed(state: ModelState, kept: list[int]) -> ModelState:
    """The model with only some of its residual coordinates."""
    cut = state.mapped("residual", lambda array, position, _: np.take(array, kept, axis=position))
    return replace(cut, geometry=replace(state.geometry, hidden=len(kept)))


# -- what it survives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "qwen3", "gpt2", "mixtral"])
def test_unchanged_by_everything_but_a_rotation_of_the_stream(form: str) -> None:
    base = random(form)
    names = [name for name in UNTURNED if PRESERVING[name].obstacle(base) is None]
    assert "residual-permutation" in names
    found = measured(pair(disguised(base, names=names), base))
    assert size(found) == pytest.approx(1.0, abs=1e-5)  # forms are float32
    assert found.notes[0] == "24 coordinates matched by embedding columns of 96 shared tokens"


def test_a_narrower_model_keeps_all_its_coordinates() -> None:
    base = random()
    found = measured(pair(narrowed(base, [23, *range(2, 20)]), base))
    assert size(found) == pytest.approx(1.0, abs=1e-5)
    assert found.notes[0].startswith("19 coordinates")


def test_tokens_face_each_other_by_their_strings() -> None:
    base = replace(random(), vocabulary=tuple(f"token {i}" for i in range(96)))
    order = np.random.default_rng(0).permutation(96)
    moved = base.mapped("vocab", lambda array, position, _: np.take(array, order, axis=position))
    named = replace(moved, vocabulary=tuple(f"token {i}" for i in order))
    found = measured(pair(named, base))
    assert size(found) == pytest.approx(1.0, abs=1e-5)
    assert found.tables[1].rows[0][1] == pytest.approx(1.0, abs=1e-5)
    unnamed = measured(pair(replace(moved, vocabulary=None), base))
    assert size(unnamed) < 0.3


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "gpt2"])
def test_strangers_have_nothing_and_neither_do_the_controls(form: str) -> None:
    found = measured(pair(random(form, 1), random(form, 2)))
    assert abs(size(found)) < 0.1
    assert all(abs(value or 1.0) < 0.1 for value in controls(found).values())


def test_the_controls_of_a_copy_have_nothing() -> None:
    base = random()
    found = measured(pair(noisy(base, 0.1), base))
    assert size(found) > 0.95
    assert set(controls(found)) == {"mismatched layers", "coordinates matched at random"}
    assert all(abs(value or 1.0) < 0.1 for value in controls(found).values())


def test_a_rotated_stream_defeats_it() -> None:
    base = random()
    assert size(measured(pair(disguised(base, names=["residual-rotation"]), base))) < 0.5
    assert "rotated" in statement().defeats


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_a_layer_is_the_mean_of_vo_and_ud_by_hand() -> None:
    base = random()
    flipped = base.updated({key: -array for key, array in base.parts.items() if key.role == "attn.v"})
    found = measured(pair(flipped, base))
    assert [row[:2] for row in found.tables[0].rows] == [(0, 0), (1, 1), (2, 2)]
    for row in found.tables[0].rows:
        assert row[2:] == (pytest.approx(-1.0, abs=1e-5), pytest.approx(1.0, abs=1e-5), pytest.approx(0.0, abs=1e-5))
    assert size(found) == pytest.approx(0.0, abs=1e-5)


def test_columns_of_the_output_matrix_stand_apart() -> None:
    base = random()
    output = next(key for key in base.parts if key.role == "unembed")
    copied = disguised(base, names=["residual-permutation", "norm-gain-replacement"])
    table = measured(pair(copied, base)).tables[1]
    assert table.rows[0][:2] == ("unembed", pytest.approx(1.0, abs=1e-5))  # although gains changed their signs
    assert abs(float(table.rows[0][2] or 0)) < 0.5
    turned = copied.updated({output: -copied.parts[output]})
    found = measured(pair(turned, base))
    assert found.tables[1].rows[0][1] == pytest.approx(-1.0, abs=1e-5)
    assert size(found) == pytest.approx(1.0, abs=1e-5)  # it is no part of the size


def test_a_tied_output_matrix_is_no_other_tensor() -> None:
    base = random()
    found = measured(pair(without(base, "unembed"), base))
    assert len(found.tables) == 1
    assert found.notes[1] == "output matrix: tied to the embedding, or absent, in one of the models"


def test_it_never_carries_and_has_no_p_value() -> None:
    found = measured(pair(random(), random()))
    assert (found.carries, found.beyond, found.log10_p, found.rung) == (False, False, None, 2)


# -- what cannot be measured ---------------------------------------------------------------------------------------


def test_a_basis_that_is_refused_gives_its_reason() -> None:
    found = measured(pair(random(vocab=90), random()))
    assert (found.status, found.size) == ("not_applicable", None)
    assert found.reason == "no vocabulary to tell which of 90 and 96 tokens are the same"
    zero = measured(pair(changed(random(), "embed.token", 0.0), random()))
    assert zero.reason == "the shared tokens' embeddings are zero"


def test_an_unknown_family_is_a_reason() -> None:
    unknown = tiny.view(tiny.MemoryCheckpoint({"x": np.ones((2, 2))}))
    found = measured(Pair.of(unknown, random().view(np.float32)))
    assert "no family table fits the suspect" in str(found.reason)


def test_an_output_matrix_with_nan_is_left_out() -> None:
    broken = changed(random(), "unembed", np.nan)
    found = measured(pair(broken, random()))
    assert "holds NaN or Inf" in found.notes[1]
    assert size(found) == pytest.approx(1.0, abs=1e-5)
