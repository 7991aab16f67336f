"""Sizes of matched heads and units, and what a pair works out for them: the basis and the map of layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.models import FORMS, Sizes, changed, disguised, noisy, pair, random
from kinprint.alignment.basis import Basis, Refusal
from kinprint.alignment.trunk import Attention, Layer, Units
from kinprint.architecture import view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.evidence.pair import BASES, Facing, Pair
from kinprint.evidence.sizes import group_cosines, matched_heads, matched_mlps, matched_units, trunk_size, unit_size
from kinprint.transform import ModelState
from kinprint.transform.cutting import strongest_units, with_groups, with_layers, with_residual, with_units
from kinprint.transform.upcycling import upcycled
from kinprint.transform.vocabulary import with_new_embedding

SIX = Sizes(layers=6)
ORDERS = ("ffn-permutation", "kv-group-permutation", "query-head-permutation", "expert-permutation")
EYE = Basis("stored", np.eye(2), np.eye(2))


def best(of: Pair) -> Basis:
    assert of.best is not None
    return of.best


def sizes(of: Pair) -> tuple[list[float], list[float]]:
    """Return the sizes of heads and of units of every facing pair of layers."""
    heads = [matched_heads(*of.layers(facing), best(of)) for facing in of.facing]
    units = [matched_units(*of.layers(facing), best(of)) for facing in of.facing]
    return [size for size in heads if size is not None], [size for size in units if size is not None]


def attention(q: Any, k: Any, v: Any, o: Any, *, kv_heads: int) -> Attention:
    q_HD, k_KD, v_KD, o_HD = (np.array(rows, dtype=np.float32) for rows in (q, k, v, o))
    return Attention(q_HD, k_KD, v_KD, o_HD, len(q_HD), kv_heads)


def mlp(gate: Any, up: Any, down: Any) -> Units:
    up_FD, down_FD = np.array(up, dtype=np.float32), np.array(down, dtype=np.float32)
    return Units(None if gate is None else np.array(gate, dtype=np.float32), up_FD, down_FD)


# -- a copy has 1 --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_after_all_that_keeps_the_function_has_size_1(form: str) -> None:
    state = random(form, 0)
    found = pair(disguised(state), state)
    assert best(found).kind in ("tokens", "coordinates")
    assert (found.map.kind, found.map.partners) == ("same", (0, 1, 2))
    heads, units = sizes(found)
    assert len(heads) == len(units) == 3
    assert min(heads + units) > 0.999


@pytest.mark.parametrize("form", FORMS)
def test_so_has_a_copy_whose_embeddings_were_drawn_anew_besides(form: str) -> None:
    state = random(form, 0)
    disguise = with_new_embedding(disguised(state), np.random.default_rng(9))
    for found in (pair(disguise, state), pair(state, disguise)):
        assert best(found).kind == "units"
        assert (found.map.kind, found.map.partners) == ("same", (0, 1, 2))
        heads, units = sizes(found)
        assert min(heads + units) > 0.999


def test_the_search_ends_where_a_copy_is_plain_to_see(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_needed(*_: object) -> None:
        pytest.fail("not needed")

    monkeypatch.setattr("kinprint.evidence.pair.unit_basis", not_needed)
    state = random("llama", 0)
    assert best(pair(noisy(state, 0.1), state)).kind == "stored"


def up_scaled(state: ModelState) -> ModelState:
    return with_layers(state, [0, 1, 2, 3, 2, 3, 4, 5])


def narrowed(state: ModelState) -> ModelState:
    return with_residual(state, [0, 2, 3, 4, 5, 7, 8, 9, 11, 12, 13, 15, 16, 17, 19, 20, 21, 23])


DERIVED: dict[str, tuple[Callable[[ModelState], ModelState], str, tuple[int, ...], float]] = {
    # Of 24 coordinates 18 are kept: nothing can be brought into a narrower stream whole.
    "narrower": (narrowed, "same", (0, 1, 2, 3, 4, 5), 0.8),
    "fewer units": (lambda s: with_units(s, strongest_units(s, 0.6)), "same", (0, 1, 2, 3, 4, 5), 0.999),
    "fewer heads": (lambda s: with_groups(s, {i: [i % 2] for i in range(6)}), "same", (0, 1, 2, 3, 4, 5), 0.999),
    "shallower": (lambda s: with_layers(s, [0, 1, 3, 5]), "ordered", (0, 1, 3, 5), 0.999),
    "deeper": (up_scaled, "free", (0, 1, 2, 3, 2, 3, 4, 5), 0.999),
    "reordered": (lambda s: with_layers(s, [3, 1, 2, 0, 5, 4]), "free", (3, 1, 2, 0, 5, 4), 0.999),
    "a mixture": (
        lambda s: upcycled(s, experts=4, active=2, noise=0.1, rng=np.random.default_rng(0)),
        "same",
        (0, 1, 2, 3, 4, 5),
        0.97,
    ),
}
"""How a model was derived, and what is then expected: kind of map, partners, and the least size."""


@pytest.mark.parametrize("anew", [False, True], ids=["own embeddings", "new embeddings"])
@pytest.mark.parametrize("how", DERIVED)
def test_where_each_layer_comes_from_is_found(how: str, anew: bool) -> None:
    derive, kind, partners, least = DERIVED[how]
    base = random("llama", 0, sizes=SIX)
    suspect = disguised(derive(base))
    if anew:
        suspect = with_new_embedding(suspect, np.random.default_rng(9))
    found = pair(suspect, base)
    assert (found.map.kind, found.map.partners) == (kind, partners)
    heads, units = sizes(found)
    assert min(heads + units) > least


def test_layers_that_were_dropped_face_something_that_is_nothing_like_them() -> None:
    base = random("llama", 0, sizes=SIX)
    found = pair(base, disguised(with_layers(base, [0, 1, 3, 5])))
    assert found.map.kind == "ordered"
    at = dict(enumerate(found.map.partners))
    assert [at[layer] for layer in (0, 1, 3, 5)] == [0, 1, 2, 3]
    heads, units = sizes(found)
    for layer in range(6):
        assert (heads[layer] > 0.999, units[layer] > 0.999) == (layer in (0, 1, 3, 5),) * 2
    assert max(heads[2], heads[4], units[2], units[4]) < 0.2


# -- strangers have 0 ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decay", [0.0, 0.5], ids=["flat", "falling spectrum"])
@pytest.mark.parametrize("form", FORMS)
def test_strangers_stay_below_a_tenth_in_the_best_basis(form: str, decay: float) -> None:
    size = Sizes(layers=2, hidden=48, heads=8, kv_heads=4, ffn=64, vocab=96)
    found = pair(random(form, 0, sizes=size, decay=decay), random(form, 1, sizes=size, decay=decay))
    heads, units = sizes(found)
    assert np.abs(heads + units).max() < 0.1


def test_one_new_layer_is_told_from_those_that_were_kept() -> None:
    base, other = random("llama", 0), random("llama", 1)
    mixed = base.updated({key: other.parts[key] for key in base.parts if key.layer == 1})
    heads, units = sizes(pair(disguised(mixed), base))
    assert min(heads[0], heads[2], units[0], units[2]) > 0.999
    assert max(abs(heads[1]), abs(units[1])) < 0.2


# -- what a pair works out does not depend on orders ---------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "mixtral", "gpt2"])
@given(seed=st.integers(0, 2**32 - 1), related=st.booleans())
@settings(deadline=None, max_examples=3, derandomize=True)
def test_basis_and_map_do_not_depend_on_the_order_of_units_heads_and_experts(
    form: str, seed: int, related: bool
) -> None:
    size = Sizes(layers=2, ffn=24, hidden=24)
    base = random(form, seed, sizes=size)
    suspect = disguised(base, seed) if related else random(form, seed + 1, sizes=size)
    orders = [name for name in ORDERS if name != "expert-permutation" or form == "mixtral"]
    orders = [name for name in orders if name != "query-head-permutation" or form != "gpt2"]
    before = pair(suspect, base)
    after = pair(disguised(suspect, seed, orders), disguised(base, seed + 1, orders))
    for kind in BASES:
        first, second = before.basis(kind), after.basis(kind)
        assert isinstance(first, Basis)
        assert isinstance(second, Basis)
        for old, new in ((first.suspect_AK, second.suspect_AK), (first.base_BK, second.base_BK)):
            # Nothing of a stream's mean is seen under LayerNorm, so there its sign may be either.
            mean = old.mean(axis=0) - new.mean(axis=0) if form == "gpt2" else 0.0
            np.testing.assert_allclose(new + mean, old, atol=1e-3)
        assert after.facing_in(kind) == before.facing_in(kind)
    assert best(after).kind == best(before).kind
    assert after.map.partners == before.map.partners


@pytest.mark.parametrize("seed", range(6))
def test_the_basis_for_tests_of_coordinates_is_chosen_without_their_numbering(seed: int) -> None:
    suspect, base = random("llama", seed, layers=4), random("llama", seed + 100)
    before = pair(suspect, base)
    after = pair(disguised(suspect, seed, ["residual-permutation"]), base)
    assert before.best_free is not None
    assert after.best_free is not None
    assert after.best_free.kind == before.best_free.kind != "stored"
    assert after.facing_in(after.best_free.kind) == before.facing_in(before.best_free.kind)


# -- by hand -------------------------------------------------------------------------------------------------------


def test_cosines_of_groups_by_hand() -> None:
    # Two groups of one head: qk forms e1 e1^T and e2 e1^T; of the base (e1 + e2) e1^T and e1 e2^T.
    mine = attention([[1, 0], [0, 1]], [[3, 0], [2, 0]], [[1, 0]] * 2, [[1, 0]] * 2, kv_heads=2)
    theirs = attention([[1, 1], [1, 0]], [[1, 0], [0, 1]], [[1, 0]] * 2, [[-1, 0]] * 2, kv_heads=2)
    half = np.sqrt(0.5)
    np.testing.assert_allclose(group_cosines(mine, theirs, EYE, "qk"), [[half, 0], [half, 0]])
    np.testing.assert_allclose(group_cosines(mine, theirs, EYE, "vo"), [[-1, -1], [-1, -1]])


def test_groups_are_matched_by_what_they_attend_to_and_tested_by_what_they_move() -> None:
    # In the base the two groups stand in the other order, and the first of the suspect moves along other axes.
    mine = attention([[1, 0], [0, 1]], [[1, 0], [0, 1]], [[1, 0], [0, 1]], [[1, 0], [0, 1]], kv_heads=2)
    theirs = attention([[0, 1], [1, 0]], [[0, 1], [1, 0]], [[0, 5], [1, 1]], [[0, 1], [1, 0]], kv_heads=2)
    # Group 2 faces group 1 of the base: e2 e2^T in both, 1. Group 1: e1 e1^T against e1 (e1 + e2)^T, 1 / sqrt 2.
    found = matched_heads(Layer(mine, ()), Layer(theirs, ()), EYE)
    assert found == pytest.approx((1 + np.sqrt(0.5)) / 2)


@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=20, derandomize=True)
def test_a_group_whose_form_vanishes_is_like_nothing(seed: int) -> None:
    # One row times 1, -2, -6, 5 against one times 1, 3, 5, 7: the products undo each other, 1 - 6 - 30 + 35.
    # What rounding leaves of the sum of squares may be below 0, and of two such sums it is no cosine.
    rng = np.random.default_rng(seed)
    query, key = rng.integers(-1000, 1000, (2, 8)).astype(np.float32)
    zero_q, zero_k = np.outer([1, 3, 5, 7], query), np.outer([1, -2, -6, 5], key)
    zero_q, zero_k = zero_q.astype(np.float32), zero_k.astype(np.float32)
    q, k, v, o = rng.standard_normal((4, 4, 8)).astype(np.float32)
    nothing, other = Attention(zero_q, zero_k, zero_k, zero_q, 1, 1), Attention(q, k, v, o, 1, 1)
    eight = Basis("stored", np.eye(8), np.eye(8))
    for two in ((nothing, nothing), (nothing, other), (other, nothing)):
        assert group_cosines(*two, eight, "qk").tolist() == [[0]]
    np.testing.assert_allclose(group_cosines(other, other, eight, "qk"), 1, rtol=1e-5)


def test_units_are_matched_by_gates_and_tested_by_up_times_down_by_hand() -> None:
    mine = mlp([[1, 0], [0, 1]], [[1, 0], [0, 1]], [[1, 0], [0, 1]])
    theirs = mlp([[0, 2], [3, 0]], [[0, -1], [1, 1]], [[0, -4], [1, 1]])
    # Unit 2 faces unit 1: both signs are exchanged, 1. Unit 1 faces unit 2: 1 / sqrt 2 squared.
    assert unit_size(mine, theirs, EYE) == pytest.approx((1 + 0.5) / 2)


def test_units_without_a_gate_are_matched_by_up_and_tested_by_down_by_hand() -> None:
    mine, theirs = mlp(None, np.eye(2), [[1, 0], [0, 1]]), mlp(None, [[0, 1], [1, 0]], [[0, -1], [3, 4]])
    assert unit_size(mine, theirs, EYE) == pytest.approx((-1 + 0.6) / 2)
    assert unit_size(mine, mlp(np.eye(2)[::-1], np.eye(2), [[0, -1], [3, 4]]), EYE) == pytest.approx((-1 + 0.6) / 2)


def test_every_expert_faces_the_one_that_is_most_like_it() -> None:
    rng = np.random.default_rng(0)
    experts = [mlp(*(rng.standard_normal((6, 8)) for _ in range(3))) for _ in range(3)]
    eight = Basis("stored", np.eye(8), np.eye(8))
    mine, theirs = Layer(None, (experts[0], experts[1])), Layer(None, (experts[2], experts[1], experts[0]))
    assert matched_units(mine, theirs, eight) == pytest.approx(1, abs=1e-6)
    assert matched_units(mine, Layer(None, (experts[2], experts[1])), eight) == pytest.approx(0.5, abs=0.2)


def test_each_expert_that_is_matched_keeps_its_number_and_its_size() -> None:
    rng = np.random.default_rng(0)
    experts = [replace(mlp(*(rng.standard_normal((6, 8)) for _ in range(3))), expert=at) for at in range(3)]
    eight = Basis("stored", np.eye(8), np.eye(8))
    mine, theirs = Layer(None, (experts[2], experts[1])), Layer(None, (experts[1],))
    found = matched_mlps(mine, theirs, eight)
    assert [expert for expert, _ in found] == [2, 1]
    assert found[1][1] == pytest.approx(1, abs=1e-6)
    assert matched_units(mine, theirs, eight) == pytest.approx((found[0][1] + found[1][1]) / 2)
    assert matched_mlps(mine, Layer(None, ()), eight) == []


def test_layers_without_attention_or_an_mlp_have_no_size() -> None:
    layer = random("llama", 0).view()
    full, empty = Pair.of(layer, layer).layers(Facing(0, 0))[0], Layer(None, ())
    basis = Basis("stored", np.eye(24), np.eye(24))
    for sides in ((full, empty), (empty, full)):
        assert matched_heads(*sides, basis) is None
        assert matched_units(*sides, basis) is None


def test_the_size_of_a_trunk_is_that_of_its_better_half() -> None:
    assert trunk_size([0.9, 0.0, 0.7, None]) == pytest.approx(0.8)
    assert trunk_size([0.9, 0.0, 0.1, 0.7]) == pytest.approx(0.8)
    assert trunk_size([None, 0.3]) == pytest.approx(0.3)
    assert trunk_size([None]) is None


# -- what cannot be compared ---------------------------------------------------------------------------------------


def test_a_model_without_roles_is_an_obstacle_and_no_fault() -> None:
    unknown, known = view(MemoryCheckpoint({"weight": np.ones((4, 4))})), random("llama", 0).view()
    found = Pair.of(unknown, known)
    assert found.obstacle == "no family table fits the suspect, so its tensors have no roles"
    assert (found.best, found.map.partners, found.facing) == (None, (), [])
    found = Pair.of(known, unknown)
    assert found.obstacle == "no family table fits the base, so its tensors have no roles"
    assert (found.map.partners, found.facing) == ((None, None, None), [])


def test_a_model_of_which_nothing_can_be_read_is_an_obstacle_that_names_a_tensor() -> None:
    state = random("llama", 0)
    found = pair(changed(changed(state, "attn.q", np.nan), "mlp.up", np.nan), state)
    assert found.obstacle is not None
    assert found.obstacle.startswith(
        "no layer of the suspect has attention or an MLP that could be read (tensor 'model"
    )
    assert pair(state, state).obstacle is None


def test_a_layer_that_cannot_be_read_has_no_partner_and_the_others_keep_theirs() -> None:
    state = random("llama", 0)
    found = pair(disguised(changed(changed(state, "attn.v", np.nan, 1), "mlp.gate", np.nan, 1)), state)
    assert (found.map.kind, found.map.partners) == ("same", (0, None, 2))
    assert len(found.suspect.problems) == 2
    assert all("layers.1." in problem for problem in found.suspect.problems)
    heads, units = sizes(found)
    assert len(heads) == len(units) == 2
    assert min(heads + units) > 0.999


def test_a_basis_that_cannot_be_is_refused_with_the_reason_and_the_others_are_tried() -> None:
    state = random("llama", 0)
    bare = replace(state, parts={key: array for key, array in state.parts.items() if key.role != "embed.token"})
    found = pair(bare, disguised(state))
    for kind in ("tokens", "coordinates"):
        assert found.basis(kind) == Refusal("one of the models has no token embedding")
        assert found.facing_in(kind) == []
    assert best(found).kind == "units"
    assert min(map(min, sizes(found))) > 0.999
