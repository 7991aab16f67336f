"""Models too wide to hold: sums of heads, samples of units, forms as factors and bases of few directions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from evidence.models import Sizes, disguised, noisy, random
from kinprint.alignment import basis, forms, trunk, unit_basis
from kinprint.alignment.basis import Basis, from_rows, in_basis, turned
from kinprint.alignment.forms import WIDE, WIDE_DIRECTIONS, Factors
from kinprint.alignment.trunk import MOST_UNITS, Attention, Layer, Trunk, forms_of, layer_bytes, read_layer, same_groups
from kinprint.alignment.unit_basis import UnitTables, match_by_properties
from kinprint.checkpoint import Array
from kinprint.evidence import exact_groups, exact_residual, matched
from kinprint.evidence.pair import Pair, mean_table
from kinprint.evidence.sizes import matched_heads, matched_units
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum
from kinprint.linalg.products import unit_rows
from kinprint.transform import ModelState
from methods import tiny

SIZES = Sizes(layers=2, hidden=WIDE + 32, heads=8, kv_heads=4, head_dim=16, ffn=MOST_UNITS + 100, vocab=1400)
seeds = st.integers(0, 2**32 - 1)


@pytest.fixture(scope="module")
def base() -> ModelState:
    return random("llama", 0, sizes=SIZES)


def factors(rng: np.random.Generator, rows: int = 3, width: int = 5) -> Factors:
    left, right = rng.standard_normal((2, rows, width)).astype(np.float32)
    return Factors(left, right)


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_factors_compute_what_the_array_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first, second = factors(rng), factors(rng, rows=4)
    dense = [one.left_RD.T @ one.right_RD for one in (first, second)]
    rows = rng.standard_normal((6, 5)).astype(np.float32)
    close = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(forms.times(rows, first), forms.times(rows, dense[0]), **close)
    np.testing.assert_allclose(forms.times_transposed(rows, first), forms.times_transposed(rows, dense[0]), **close)
    between = forms.between(rows, first)
    assert isinstance(between, Factors)
    np.testing.assert_allclose(between.left_RD.T @ between.right_RD, forms.between(rows, dense[0]), **close)
    assert forms.norm(first) == pytest.approx(forms.norm(dense[0]), rel=1e-5)
    assert forms.trace(first) == pytest.approx(forms.trace(dense[0]), abs=1e-4)
    for transposed in (False, True):
        expected = float((dense[0] * (dense[1].T if transposed else dense[1])).sum())
        for left in (first, dense[0]):
            for right in (second, dense[1]):
                assert forms.inner(left, right, transposed=transposed) == pytest.approx(expected, abs=1e-3)
    side, out = rng.standard_normal((2, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(in_basis(first, side, out), in_basis(dense[0], side, out), **close)


def test_by_hand_the_trace_of_a_form_is_the_sum_of_its_products() -> None:
    form = Factors(np.array([[1.0, 2.0]], np.float32), np.array([[3.0, 4.0]], np.float32))
    assert forms.trace(form) == 11.0
    assert forms.inner(form, form) == (1 + 4) * (9 + 16)
    assert forms.inner(form, form, transposed=True) == 11.0**2


def test_a_wide_layer_holds_the_sums_of_its_heads(base: ModelState) -> None:
    view = base.view(np.float32)
    wide, whole = read_layer(view, 1, wide=True).attention, read_layer(view, 1).attention
    assert wide is not None
    assert whole is not None
    size = {"heads": 8, "kv_heads": 4, "head_dim": 16}
    np.testing.assert_allclose(wide.q_HD, grouped_query_sum(whole.q_HD, **size), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(wide.o_HD, grouped_output_sum(whole.o_HD.T, **size).T, rtol=1e-4, atol=1e-5)
    assert (wide.heads, wide.kv_heads) == (4, 4)


def test_the_forms_of_sums_are_those_of_all_heads(base: ModelState) -> None:
    view = base.view(np.float32)
    wide, whole = forms_of(read_layer(view, 0, wide=True)), forms_of(read_layer(view, 0))
    side = np.linalg.qr(np.random.default_rng(0).standard_normal((SIZES.hidden, 8)))[0]
    for form in ("qk", "vo"):
        assert isinstance(wide[form], Factors)
        np.testing.assert_allclose(in_basis(wide[form], side), in_basis(whole[form], side), atol=1e-4)


def test_a_wide_layer_holds_its_longest_units_whatever_their_numbers(base: ModelState) -> None:
    held = [
        Trunk(state.view(np.float32)).layer(0).mlps[0] for state in (base, disguised(base, names=["ffn-permutation"]))
    ]
    lengths = [np.sort(np.linalg.norm(units.key_FD, axis=1)) for units in held]
    np.testing.assert_allclose(*lengths, rtol=1e-5)
    assert len(held[0].up_FD) == MOST_UNITS
    assert held[0].count == SIZES.ffn
    assert held[0].numbers is not None


def test_units_are_had_by_their_numbers_though_the_layer_does_not_hold_them(base: ModelState) -> None:
    view = base.view(np.float32)
    trunk = Trunk(view)
    units = trunk.layer(0).mlps[0]
    assert units.numbers is not None
    missing = np.setdiff1d(np.arange(SIZES.ffn), units.numbers)[:5]
    found, whole = trunk.numbered(0, units, missing), read_layer(view, 0).mlps[0]
    np.testing.assert_array_equal(found.up_FD, whole.up_FD[missing])
    np.testing.assert_array_equal(found.down_FD, whole.down_FD[missing])


def test_a_fit_of_wide_rows_brings_a_rotated_model_onto_itself() -> None:
    rng = np.random.default_rng(0)
    width, rows = WIDE + 16, 700
    spectrum = np.arange(1, width + 1) ** -0.5
    left = (rng.standard_normal((rows, width)) * spectrum).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((width, width)))[0].astype(np.float32)
    for count in (300, rows):  # fewer rows than directions, and more
        here, there = from_rows(left[:count], left[:count] @ turn)
        assert here.shape == there.shape == (width, min(count, WIDE_DIRECTIONS))
        np.testing.assert_allclose(here.T @ here, np.eye(here.shape[1]), atol=1e-4)
        mine, theirs = turned(left[:count], here), turned(left[:count] @ turn, there)
        assert np.linalg.norm(mine - theirs) < 0.02 * np.linalg.norm(mine)


def test_a_wide_model_is_found_through_every_disguise_and_a_stranger_is_not(base: ModelState) -> None:
    for suspect, found in ((disguised(noisy(base, 0.1)), True), (random("llama", 7, sizes=SIZES), False)):
        sizes = matched.measure(Pair.of(suspect.view(np.float32), base.view(np.float32))).all()
        assert (sizes["heads"] > 0.5) == found
        assert (sizes["units"] > 0.5) == found
        assert found or max(sizes.values()) < 0.1


def test_wide_layers_are_compared_in_the_basis_as_they_would_be_outside(base: ModelState) -> None:
    pair = Pair.of(noisy(base, 0.3).view(np.float32), base.view(np.float32))
    assert pair.whitened is not None
    for size_of in (matched_heads, matched_units):
        inside = size_of(*pair.compared(pair.facing[0]))
        assert inside is not None
        assert inside > 0.5
        # The sample of units is one of all lengths, which the basis changes.
        assert inside == pytest.approx(size_of(*pair.layers(pair.facing[0]), *pair.whitened), abs=1e-2)
        assert abs(size_of(*pair.compared_within(0, 1)) or 1.0) < 0.1
    attention = pair.compared(pair.facing[0])[0].attention
    assert attention is not None
    assert attention.q_HD.shape[1] == WIDE_DIRECTIONS


def test_a_basis_sharpened_in_the_span_of_its_rows_is_that_of_the_whole_stream(base: ModelState) -> None:
    sides = [Trunk(state.view(np.float32)) for state in (disguised(noisy(base, 0.1)), base)]
    tables, pairs = UnitTables(*sides), [(0, 0), (1, 1)]
    start = Basis("units", *from_rows(*match_by_properties(tables, 0, 0)))
    with patch.object(unit_basis, "_in_their_span", in_the_whole_stream):
        whole = unit_basis._sharpened(tables, start, pairs, 2)
    found = unit_basis._sharpened(tables, start, pairs, 2)
    rows = [unit_rows(tables.units(side, 0).key_FD) for side in (0, 1)]
    assert np.median(np.abs(found.cosines(*rows) - whole.cosines(*rows))) < 1e-3
    assert np.median(found.cosines(*rows).max(axis=1)) > 0.9


def in_the_whole_stream(
    tables: UnitTables, side: int, numbers: Sequence[int]
) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    rows = {number: unit_rows(tables.units(side, number).key_FD) for number in numbers}
    return np.eye(next(iter(rows.values())).shape[1], dtype=np.float32), rows


def test_the_stored_basis_of_wide_models_is_a_projection(base: ModelState) -> None:
    basis = Pair.of(base.view(np.float32), base.view(np.float32)).basis("stored")
    assert isinstance(basis, Basis)
    assert basis.directions == WIDE_DIRECTIONS
    np.testing.assert_allclose(basis.suspect_AK.T @ basis.suspect_AK, np.eye(WIDE_DIRECTIONS), atol=1e-5)


# -- more groups than there is room for --------------------------------------------------------------------------------

MANY = Sizes(layers=2, hidden=WIDE + 32, heads=24, kv_heads=12, head_dim=16, ffn=64, vocab=1400)


@pytest.fixture
def room_for_eight() -> Iterator[None]:
    with patch.object(trunk, "MOST_ENTRIES", 8 * MANY.head_dim * MANY.hidden):
        yield


@pytest.fixture(scope="module")
def many() -> ModelState:
    return random("llama", 1, sizes=MANY)


def sizes_of(attention: Attention) -> Array:
    left, right = attention.group_factors("qk")
    return np.linalg.norm(np.einsum("gcd,gce->gde", left, right), axis=(1, 2))


@pytest.mark.usefixtures("room_for_eight")
def test_of_many_groups_the_largest_are_held_whatever_their_numbers_and_gauges(many: ModelState) -> None:
    gauges = ["kv-group-permutation", "query-head-permutation", "qk-gauge", "vo-gauge"]
    held = [Trunk(state.view(np.float32)).layer(0).attention for state in (many, disguised(many, names=gauges))]
    assert all(one is not None and one.kv_heads == 8 and one.count == 12 for one in held)
    whole = read_layer(many.view(np.float32), 0).attention
    assert whole is not None
    expected = np.sort(sizes_of(whole))[-8:]
    for one in held:
        assert one is not None
        np.testing.assert_allclose(np.sort(sizes_of(one)), expected, rtol=1e-3)


@pytest.mark.usefixtures("room_for_eight")
def test_groups_that_are_held_are_what_the_whole_layer_has_under_their_numbers(many: ModelState) -> None:
    view = many.view(np.float32)
    some, whole = (read_layer(view, 1, wide=True).attention, read_layer(view, 1).attention)
    assert some is not None
    assert whole is not None
    assert some.numbers is not None
    for form in ("qk", "vo"):
        for mine, all_of in zip(some.group_factors(form), whole.group_factors(form), strict=True):
            np.testing.assert_allclose(mine, all_of[some.numbers], rtol=1e-3, atol=1e-4)


def test_by_hand_two_layers_have_the_groups_whose_numbers_both_hold() -> None:
    rows = np.arange(6, dtype=np.float32)[:, None] * np.ones(2, np.float32)
    first = Attention(rows, rows, rows, rows, 3, 3, np.array([1, 4, 7]), 9)  # two rows a group
    second = Attention(rows[:4], rows[:4], rows[:4], rows[:4], 2, 2, np.array([0, 7]), 9)
    both = same_groups(first, second)
    assert both is not None
    assert [one.numbers.tolist() for one in both if one.numbers is not None] == [[7], [7]]
    assert both[0].k_KD[:, 0].tolist() == [4, 5]
    assert both[1].k_KD[:, 0].tolist() == [2, 3]
    assert same_groups(first, Attention(rows, rows, rows, rows, 3, 3)) is None
    apart = Attention(rows, rows, rows, rows, 3, 3, np.array([0, 2, 3]), 9)
    assert same_groups(first, apart) is None


@pytest.mark.usefixtures("room_for_eight")
def test_a_copy_is_found_by_the_groups_that_are_held_and_a_stranger_is_not(many: ModelState) -> None:
    changed = disguised(noisy(many, 0.1))
    for suspect, found in ((changed, True), (random("llama", 7, sizes=MANY), False)):
        sizes = matched.measure(Pair.of(suspect.view(np.float32), many.view(np.float32))).all()
        assert (sizes["heads"] > 0.3) == found
        assert found or sizes["heads"] < 0.1
    for suspect, found in ((noisy(many, 0.3), True), (random("llama", 7, sizes=MANY), False)):
        pair = Pair.of(suspect.view(np.float32), many.view(np.float32))
        basis = pair.basis("stored")
        assert isinstance(basis, Basis)
        tables = exact_groups.score_tables(pair, basis)
        assert tables
        assert all(2 <= len(table) <= 8 for _, table in tables)
        evidence = exact_groups.test(pair, basis, "stored", -6.0)
        assert evidence.log10_p is not None
        assert (evidence.log10_p < -2.9) == found


def test_groups_of_strangers_have_uniform_p_though_each_model_holds_its_largest() -> None:
    sizes = replace(MANY, heads=24, kv_heads=24, vocab=700)
    with patch.object(trunk, "MOST_ENTRIES", 16 * sizes.head_dim * sizes.hidden):
        views = [random("llama", seed, sizes=sizes).view(np.float32) for seed in range(6)]
        found: list[float] = []
        for first, second in combinations(views, 2):
            pair = Pair.of(first, second)
            basis = pair.basis("stored")
            assert isinstance(basis, Basis)
            assert all(2 <= len(table) < 16 for _, table in exact_groups.score_tables(pair, basis))
            log10_p = exact_groups.test(pair, basis, "stored", -6.0).log10_p
            assert log10_p is not None
            found.append(10.0**log10_p)
    assert stats.kstest(found, "uniform").pvalue > 0.01
    assert min(found) > 0.01


def test_layers_that_hold_no_group_of_the_same_number_are_judged_without_them(many: ModelState) -> None:
    with patch.object(trunk, "MOST_ENTRIES", 2 * MANY.head_dim * MANY.hidden):
        for seed in range(2, 8):
            pair = Pair.of(random("llama", seed, sizes=MANY).view(np.float32), many.view(np.float32))
            held = [one.layer(0).attention for one in (pair.suspect, pair.base)]
            assert all(one is not None and one.kv_heads == 2 for one in held)
            assert exact_residual.test(pair, "stored", -6.0).status == "measured"
            basis = pair.basis("stored")
            assert isinstance(basis, Basis)
            exact_groups.test(pair, basis, "stored", -6.0)


def test_inner_products_of_a_latent_projection_are_those_of_it_multiplied_out() -> None:
    view = tiny.model(tiny.latent(0), **tiny.LATENT)
    size = view.heads_at(0)
    assert size is not None
    for role in ("attn.q", "attn.k"):
        rows = view.array(role, 0, fold=True).reshape(size.kv_heads, -1, view.shape(role, 0)[1])
        grams = np.stack(list(trunk._grams(view, role, 0, size.kv_heads, 1)))
        np.testing.assert_allclose(grams, np.einsum("gcd,ged->gce", rows, rows), rtol=1e-3, atol=1e-3)
    held = trunk._largest_groups(view, 0, size, 2, {})
    whole = read_layer(view, 0).attention
    assert whole is not None
    assert held.numbers is not None
    np.testing.assert_allclose(held.v_KD, whole.only(held.numbers).v_KD, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(held.o_HD, whole.only(held.numbers).o_HD, rtol=1e-3, atol=1e-4)


def test_layers_that_make_room_for_each_other_give_what_layers_that_are_all_kept_give() -> None:
    state = random("llama", 3, sizes=replace(SIZES, layers=4))
    suspect, base = (state.view(np.float32), disguised(state, 4, ["ffn-permutation"]).view(np.float32))
    one = layer_bytes(read_layer(base, 0, wide=True))
    kept, tight = (Pair.of(suspect, base, held_bytes=held) for held in (8 * one, 2 * one))
    assert kept.best is not None
    assert tight.best is not None
    np.testing.assert_array_equal(mean_table(kept.forms), mean_table(tight.forms))
    assert kept.at_once == 8
    assert tight.at_once == 2
    # What is kept comes first, and only two are.
    numbers = tight.base.held_first(range(4))
    assert sorted(numbers) == [0, 1, 2, 3]
    with patch.object(trunk, "read_layer", side_effect=AssertionError("read anew")):
        for number in numbers[:2]:
            tight.base.layer(number)


def test_bases_of_a_wide_model_that_lost_are_not_kept_whitened(base: ModelState) -> None:
    pair = Pair.of(random("llama", 8, sizes=SIZES).view(np.float32), base.view(np.float32))
    assert pair.best is not None
    assert list(pair._whitened) == [pair.best.kind]


def test_of_a_wide_embedding_as_many_tokens_are_read_as_there_is_room_for(base: ModelState) -> None:
    view = base.view(np.float32)
    with patch.object(basis, "MOST_TOKEN_ENTRIES", 700 * SIZES.hidden), patch.object(basis, "_COLUMN_TOKENS", 600):
        rows = basis.token_rows(view, view)
    assert not isinstance(rows, basis.Refusal)
    assert [len(side) for side in rows] == [700, 700]
    with patch.object(basis, "MOST_TOKEN_ENTRIES", 1), patch.object(basis, "_COLUMN_TOKENS", 600):
        rows = basis.token_rows(view, view)
    # Fewer than columns are matched by are never read.
    assert not isinstance(rows, basis.Refusal)
    assert len(rows[0]) == 600


def test_layers_that_are_being_read_count_as_held() -> None:
    view = random("llama", 3, sizes=replace(SIZES, layers=4)).view(np.float32)
    one = layer_bytes(read_layer(view, 0, wide=True))
    tight = Trunk(view, held_bytes=2 * one)
    tight.layer(0)
    tight.layer(1)
    beside: list[int] = []

    def reading(number: int) -> None:
        """Read a layer, and another before the first is there."""

        def then(*args: object, **more: object) -> Layer:
            beside.append(len(tight._layers))
            if number == 2:
                reading(3)
            return read_layer(*args, **more)  # pyright: ignore[reportArgumentType]

        with patch.object(trunk, "read_layer", side_effect=then):
            tight.layer(number)

    reading(2)
    # One of the two kept makes room for the first that is read, the other for the second.
    assert beside == [1, 0]
    assert len(tight._layers) == 2
