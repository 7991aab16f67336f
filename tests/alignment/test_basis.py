"""Common bases: that they turn with the models and with nothing else, and by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.models import Sizes, changed, disguised, random
from kinprint.alignment import basis as basis_module
from kinprint.alignment.basis import (
    Basis,
    Refusal,
    coordinate_basis,
    form_similarities,
    from_cross,
    in_basis,
    in_common,
    match_units,
    procrustes,
    stored_basis,
    token_basis,
    token_rows,
)
from kinprint.alignment.forms import FORMS
from kinprint.alignment.trunk import Trunk, Units
from kinprint.architecture import PartKey
from kinprint.transform import ModelState
from kinprint.transform.vocabulary import with_tokens

Array = np.ndarray[Any, np.dtype[Any]]
seeds = st.integers(0, 2**32 - 1)


def trunk(state: ModelState) -> Trunk:
    return Trunk(state.view(np.float64))


def rows_of(suspect: ModelState, base: ModelState) -> tuple[Array, Array]:
    rows = token_rows(suspect.view(np.float64), base.view(np.float64))
    assert not isinstance(rows, Refusal), rows.reason
    return rows


def fitted(basis: Basis | Refusal) -> Basis:
    assert isinstance(basis, Basis), basis.reason
    return basis


def rotation(rng: np.random.Generator, size: int) -> Array:
    return np.linalg.qr(rng.standard_normal((size, size)))[0]


# -- what they ignore ----------------------------------------------------------------------------------------------


@given(seed=seeds)
@settings(deadline=None, max_examples=10, derandomize=True)
def test_a_fit_turns_with_both_sides(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mine, theirs = rng.standard_normal((30, 4)), rng.standard_normal((30, 6))
    turn_A, turn_B = rotation(rng, 4), rotation(rng, 6)
    before, after = procrustes(mine, theirs), procrustes(mine @ turn_A, theirs @ turn_B)
    # The common coordinates may differ; how far a suspect's vector is from a base's may not.
    np.testing.assert_allclose(turn_A @ after[0] @ after[1].T @ turn_B.T, before[0] @ before[1].T, atol=1e-9)


@pytest.mark.parametrize("kind", ["tokens", "coordinates"])
def test_a_copy_of_renumbered_coordinates_and_flipped_signs_is_brought_back(kind: str) -> None:
    state = random("llama", 0)
    rows = rows_of(disguised(state, 3, ["residual-permutation", "residual-signs"]), state)
    basis = fitted((token_basis if kind == "tokens" else coordinate_basis)(rows))
    assert basis.kind == kind
    np.testing.assert_allclose(rows[0] @ basis.suspect_AK, rows[1] @ basis.base_BK, atol=1e-5)


def test_only_tokens_undo_a_rotation() -> None:
    state = random("llama", 0)
    rows = rows_of(disguised(state, 3, ["residual-rotation"]), state)
    tokens, coordinates = fitted(token_basis(rows)), fitted(coordinate_basis(rows))
    np.testing.assert_allclose(rows[0] @ tokens.suspect_AK, rows[1] @ tokens.base_BK, atol=1e-5)
    assert not np.allclose(rows[0] @ coordinates.suspect_AK, rows[1] @ coordinates.base_BK, atol=0.1)


def test_coordinates_find_which_ones_were_cut() -> None:
    rng = np.random.default_rng(0)
    wide, kept = rng.standard_normal((40, 6)).astype(np.float32), [5, 0, 3]
    narrow = -wide[:, kept]
    for rows in ((narrow, wide), (wide, narrow)):
        basis = fitted(coordinate_basis(rows))
        assert basis.directions == 3
        np.testing.assert_allclose(rows[0] @ basis.suspect_AK, rows[1] @ basis.base_BK, atol=1e-6)


def test_of_many_coordinates_the_longest_are_matched_whatever_their_numbers() -> None:
    rng = np.random.default_rng(1)
    rows = (rng.standard_normal((40, 6)) * [1, 9, 2, 8, 3, 7]).astype(np.float32)
    order = [3, 0, 5, 1, 4, 2]
    with patch.object(basis_module, "MOST_PAIRS", 3 * 6):
        basis = fitted(coordinate_basis((-rows[:, order], rows)))
    assert basis.directions == 3
    assert np.flatnonzero(basis.base_BK.any(axis=1)).tolist() == [1, 3, 5]
    np.testing.assert_allclose(-rows[:, order] @ basis.suspect_AK, rows @ basis.base_BK, atol=1e-6)


@given(seed=seeds, shape=st.tuples(st.integers(1, 5), st.integers(1, 5)))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_columns_are_orthonormal_and_the_narrower_side_is_kept_whole(seed: int, shape: tuple[int, int]) -> None:
    left, right = from_cross(np.random.default_rng(seed).standard_normal(shape))
    for side in (left, right):
        np.testing.assert_allclose(side.T @ side, np.eye(min(shape)), atol=1e-12)
    assert np.array_equal(left if shape[0] < shape[1] else right, np.eye(min(shape)))


def test_the_mean_diagonal_in_which_strangers_agree_is_left_out() -> None:
    form = np.array([[1.0, 2.0], [0.0, 3.0]], dtype=np.float32)
    for passed_on in (0.0, 10.0):
        flat = in_basis(form + passed_on * np.eye(2, dtype=np.float32), np.eye(2))
        np.testing.assert_allclose(flat, np.array([-1, 2, 0, 1]) / np.sqrt(6), rtol=1e-6)
    assert in_basis(np.eye(2, dtype=np.float32), np.eye(2)).tolist() == [0, 0, 0, 0]


# -- what they notice ----------------------------------------------------------------------------------------------


def test_layers_of_a_copy_face_themselves_in_every_form_and_strangers_nothing() -> None:
    sizes = Sizes(hidden=48, ffn=64, vocab=128)
    base = random("llama", 0, sizes=sizes)
    for suspect, low, high in ((base, 0.999, 1.001), (random("llama", 1, sizes=sizes), -0.15, 0.15)):
        models = trunk(suspect), trunk(base)
        tables = form_similarities(*models, fitted(stored_basis(*models)), FORMS)
        for form in FORMS:
            assert (np.diagonal(tables[form]) >= low).all()
            assert (np.diagonal(tables[form]) <= high).all()
        across = tables["vo"][~np.eye(3, dtype=bool)]
        assert (np.abs(across) < 0.15).all()


def test_a_fit_brings_strangers_nearer_so_it_is_no_evidence() -> None:
    rows = rows_of(random("llama", 0, vocab=48), random("llama", 1, vocab=48))
    basis = fitted(token_basis(rows))
    cosines = (rows[0] * rows[1]).sum() / np.linalg.norm(rows[0]) / np.linalg.norm(rows[1])
    left, right = rows[0] @ basis.suspect_AK, rows[1] @ basis.base_BK
    assert abs(cosines) < 0.1
    assert (left * right).sum() / np.linalg.norm(left) / np.linalg.norm(right) > 0.4
    assert basis.fitted_on == "embeddings of 48 shared tokens"


# -- by hand -------------------------------------------------------------------------------------------------------


def test_a_quarter_turn_by_hand() -> None:
    left, right = procrustes(np.eye(2), np.array([[0.0, 1.0], [-1.0, 0.0]]))
    np.testing.assert_allclose(left, [[0, 1], [-1, 0]], atol=1e-12)
    assert right.tolist() == [[1, 0], [0, 1]]


def test_a_narrower_model_by_hand() -> None:
    # The suspect's one coordinate is three fifths of the first and four fifths of the second.
    left, right = from_cross(np.array([[3.0, 4.0]]))
    assert left.tolist() == [[1]]
    np.testing.assert_allclose(right, [[0.6], [0.8]])


def test_coordinates_by_hand() -> None:
    rows = np.array([[1.0, 0.1], [0.1, 2.0]], dtype=np.float32)
    basis = fitted(coordinate_basis((rows, np.array([[0.0, -1.0], [1.0, 0.0]], dtype=np.float32))))
    assert basis.suspect_AK.tolist() == [[-1, 0], [0, 1]]
    assert basis.base_BK.tolist() == [[0, 1], [1, 0]]


def test_rows_in_common_by_hand() -> None:
    rows = np.array([[3.0, 4.0, 12.0], [0.0, 0.0, 7.0]], dtype=np.float32)
    # Of the three coordinates two are common; what lies outside is left out before the length is taken.
    np.testing.assert_allclose(in_common(rows, np.eye(3)[:, :2]), [[0.6, 0.8], [0, 0]], rtol=1e-6)


def test_units_are_matched_by_hand() -> None:
    rows = np.array([[2, 0], [0, 1], [0, 9]], dtype=np.float32)
    mine, theirs = Units(rows, rows, rows), Units(rows[[1, 0]], rows[:2], rows[:2])
    eye = Basis("stored", np.eye(2), np.eye(2))
    here, there, cosines = match_units(theirs, mine, eye)
    assert (here.tolist(), cosines.tolist()) == ([0, 1], [1, 1])
    assert there.tolist()[1] == 0
    assert there.tolist()[0] in (1, 2)
    here, there, cosines = match_units(mine, theirs, eye, most=2)  # of all lengths: the shortest and the longest
    assert here.tolist() == [1, 2]
    assert sorted(there.tolist()) == [0, 1]
    assert sorted(cosines.tolist()) == [0, 1]


def test_a_form_that_one_layer_lacks_is_unknown() -> None:
    state = random("llama", 0)
    models = trunk(changed(state, "attn.v", np.nan, 1)), trunk(changed(state, "mlp.up", np.nan, 0))
    tables = form_similarities(*models, fitted(stored_basis(*models)), FORMS)
    assert np.isnan(tables["vo"]).tolist() == [[False] * 3, [True] * 3, [False] * 3]
    assert np.isnan(tables["ud"]).tolist() == [[True, False, False]] * 3


# -- which tokens --------------------------------------------------------------------------------------------------


def test_tokens_are_paired_by_their_strings_whatever_their_order() -> None:
    state = replace(random("llama", 0, vocab=30), vocabulary=tuple(f"t{i}" for i in range(30)))
    order = np.random.default_rng(0).permutation(30)[:20].tolist()
    mine, theirs = rows_of(with_tokens(state, order), state)
    assert len(mine) == 20
    np.testing.assert_array_equal(mine, theirs)


def test_equal_ids_are_taken_for_equal_tokens_where_a_vocabulary_is_unknown() -> None:
    state = random("llama", 0, vocab=30)
    mine, theirs = rows_of(replace(state, vocabulary=tuple(f"t{i}" for i in range(30))), state)
    np.testing.assert_array_equal(mine, theirs)
    assert len(mine) == 30


def test_more_tokens_than_needed_are_sampled_alike_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinprint.alignment.basis.TOKENS", 10)
    state = random("llama", 0, vocab=30)
    first, second = rows_of(state, state), rows_of(state, state)
    assert len(first[0]) == 10
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[0], first[1])


def test_refusals_say_why() -> None:
    def reason(suspect: ModelState, base: ModelState) -> str:
        rows = token_rows(suspect.view(), base.view())
        found = rows if isinstance(rows, Refusal) else token_basis(rows)
        assert isinstance(found, Refusal)
        if not isinstance(rows, Refusal):
            assert coordinate_basis(rows) == found
        return found.reason

    state = random("llama", 0, vocab=30)
    bare = replace(state, parts={key: array for key, array in state.parts.items() if key != PartKey("embed.token")})
    here, there = (replace(state, vocabulary=tuple(f"{mark}{i}" for i in range(30))) for mark in "ab")
    assert reason(state, random("llama", 0, vocab=31)) == "no vocabulary to tell which of 30 and 31 tokens are the same"
    assert reason(here, there) == "the models share 0 tokens, and 8 are the least to fit a basis on"
    assert reason(bare, state) == "one of the models has no token embedding"
    assert reason(changed(state, "embed.token", 0.0), state) == "the shared tokens' embeddings are zero"
    assert reason(changed(state, "embed.token", np.nan), state).endswith("embed_tokens.weight' holds NaN or Inf")
    other = stored_basis(trunk(state), trunk(random("llama", 0, hidden=20)))
    assert other == Refusal("the models have 24 and 20 residual coordinates")
