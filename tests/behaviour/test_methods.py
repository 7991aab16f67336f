"""Behavioural methods: what each ignores, what it notices, and one answer worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.behaviour import attndiff, gradient, logits, next_token, quere, reef, seedprint
from kinprint.behaviour.axis import METHODS, standing, summary
from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.runner import Runner
from kinprint.errors import UsageError
from kinprint.types import ControlPair, MethodResult, Value

Array = np.ndarray[Any, np.dtype[Any]]
seeds = st.integers(0, 2**32 - 1)


def values(result: MethodResult) -> dict[str, float]:
    assert result.status == "measured", result.reason
    return {value.name: value.value for value in result.values if value.value is not None}


def measured(
    runners: Mapping[str, Runner], pair: tuple[str, str], name: str, probes: Sequence[str]
) -> dict[str, float]:
    return values(METHODS[name].run(runners[pair[0]], runners[pair[1]], probes))


# -- on models -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(METHODS))
def test_a_model_is_like_itself(runners: Mapping[str, Runner], probes: list[str], name: str) -> None:
    result = METHODS[name].run(runners["base"], runners["base"], probes)
    for value in result.values:
        if value.identical is not None:
            assert value.value == pytest.approx(value.identical, abs=1e-6), value.name


def test_a_copy_that_keeps_the_function_behaves_alike(runners: Mapping[str, Runner], probes: list[str]) -> None:
    pair = "laundered", "child"
    states = measured(runners, pair, "reef", probes)
    assert states["centred"] > 0.999
    assert states["unbiased"] > 0.999
    # Divided by each coordinate's deviation, as published, a rotation of the stream is seen.
    assert 0.9 < states["similarity"] < 0.999
    said = measured(runners, pair, "logits", probes)
    assert said["similarity"] == 1.0
    assert said["mean explained"] > 0.999
    # The laundered weights are rounded to another grid.
    assert measured(runners, pair, "next-token", probes)["similarity"] > 0.995
    assert measured(runners, pair, "quere", probes)["similarity"] > 0.99
    assert measured(runners, pair, "attndiff", probes)["similarity"] > 0.999


@pytest.mark.parametrize("name", ["reef", "attndiff", "gradient", "quere", "next-token"])
def test_a_child_is_nearer_than_a_twin(runners: Mapping[str, Runner], probes: list[str], name: str) -> None:
    child, twin = (measured(runners, (suspect, "base"), name, probes)["similarity"] for suspect in ("child", "twin"))
    assert child > twin


def test_the_numbering_of_coordinates_tells_a_child_and_not_a_twin_or_a_laundered_copy(
    runners: Mapping[str, Runner], probes: list[str]
) -> None:
    found = {
        suspect: measured(runners, (suspect, "base"), "seedprint", probes) for suspect in ("child", "twin", "laundered")
    }
    assert found["child"]["log10 p"] < -50
    assert found["child"]["log10 p"] >= found["child"]["log10 floor"]
    for stranger in ("twin", "laundered"):
        assert found[stranger]["log10 p"] > -3


def test_controls_look_negative(runners: Mapping[str, Runner], probes: list[str]) -> None:
    for name in ("reef", "quere"):
        result = METHODS[name].run(runners["child"], runners["base"], probes)
        shuffled = next(control.value for control in result.controls if control.name == "shuffled probes")
        assert shuffled is not None
        assert abs(shuffled) < 0.25


def test_what_cannot_be_measured_says_why(runners: Mapping[str, Runner]) -> None:
    few = ["One.", "Two."]
    for name in ("reef", "quere", "attndiff"):
        result = METHODS[name].run(runners["base"], runners["twin"], few)
        assert result.status == "not_applicable"
        assert result.reason
        assert not result.values


# -- reef ----------------------------------------------------------------------------------------------------------


@given(seed=seeds, scale=st.floats(0.01, 100))
@settings(max_examples=30, deadline=None)
def test_centred_cka_ignores_rotations_shifts_and_scale_and_notices_a_stretch(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    states = rng.standard_normal((20, 6))
    turn = np.linalg.qr(rng.standard_normal((6, 6)))[0]
    copy = scale * states @ turn + rng.standard_normal(6)
    assert reef.linear_cka(reef.centred(states), reef.centred(copy)) == pytest.approx(1.0, abs=1e-9)
    stretched = states * np.array([10.0, 1, 1, 1, 1, 1])
    assert reef.linear_cka(reef.centred(states), reef.centred(stretched)) < 0.99
    # Division by the deviation ignores a stretch of single coordinates instead.
    assert reef.linear_cka(reef.standardised(states), reef.standardised(stretched)) == pytest.approx(1.0, abs=1e-9)


def test_by_hand_the_cka_of_two_lines() -> None:
    # Gram matrices [[1,-1,0],[-1,1,0],[0,0,0]] and [[1,0,-1],[0,0,0],[-1,0,1]]: product 1, norms 2 and 2.
    left, right = np.array([[1.0], [-1.0], [0.0]]), np.array([[1.0], [0.0], [-1.0]])
    assert reef.linear_cka(left, right) == pytest.approx(1 / 4)


# -- logits --------------------------------------------------------------------------------------------------------


@given(seed=seeds)
@settings(max_examples=30, deadline=None)
def test_products_with_a_matrix_lie_in_its_span_and_others_do_not(seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix, states = rng.standard_normal((60, 5)).astype(np.float32), rng.standard_normal((8, 5)).astype(np.float32)
    own = logits.relative_residuals(3.0 * states @ matrix.T + 7.0, matrix)
    assert own.max() < 1e-5
    other = logits.relative_residuals(rng.standard_normal((200, 60)), matrix)
    # Five of fifty-nine directions explain 5/59 of a random vector's squared length.
    assert (1 - other**2).mean() == pytest.approx(5 / 59, abs=0.03)


def test_columns_that_depend_on_others_and_blocks_of_tokens_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    matrix, rows = rng.standard_normal((60, 5)).astype(np.float32), rng.standard_normal((8, 60))
    whole = logits.relative_residuals(rows, matrix)
    twice = np.hstack([matrix, 1e3 * matrix, matrix - 3.0])  # adding a constant to a column adds nothing to the span
    np.testing.assert_allclose(logits.relative_residuals(rows, twice), whole, atol=1e-6)
    monkeypatch.setattr(logits, "_TOKENS", 7)
    monkeypatch.setattr(logits, "_ROWS", 3)
    np.testing.assert_allclose(logits.relative_residuals(rows, matrix), whole, atol=1e-12)


def test_by_hand_a_residual() -> None:
    # (3, 0, -3) centred lies half along (1, -1, 0): 9/2 of 18 is explained.
    span = np.array([[1.0], [-1.0], [0.0]])
    assert logits.relative_residuals(np.array([[4.0, 1.0, -2.0]]), span)[0] ** 2 == pytest.approx(1 - 4.5 / 18)


# -- next-token ----------------------------------------------------------------------------------------------------


def test_overlap_by_hand_counts_what_only_one_vocabulary_has_as_different() -> None:
    mine, theirs = np.log([[0.5, 0.25, 0.25]]), np.log([[0.5, 0.5]])
    # Token 2 of the first is token 0 of the second, 0 is 1, and 1 has no counterpart: min(.25, .5) + min(.5, .5).
    assert next_token.overlaps(mine, theirs, np.array([2, 0]), np.array([0, 1]))[0] == pytest.approx(0.75)


@given(seed=seeds, shift=st.floats(-50, 50))
@settings(max_examples=30, deadline=None)
def test_overlap_ignores_a_shift_of_logits_and_the_order_of_tokens(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    mine, theirs = rng.standard_normal((2, 5, 12))
    order, ids = rng.permutation(12), np.arange(12)
    plain = next_token.overlaps(mine, theirs, ids, ids)
    np.testing.assert_allclose(next_token.overlaps(mine + shift, theirs[:, order], order, ids), plain, atol=1e-9)
    assert (plain < 1).all()


def test_overlap_and_agreement_of_other_probes_are_the_control(
    runners: Mapping[str, Runner], probes: list[str]
) -> None:
    result = METHODS["next-token"].run(runners["child"], runners["base"], probes)
    own, chance = result.values[0].value, result.controls[0].value
    assert own is not None
    assert chance is not None
    assert own > chance


# -- quere ---------------------------------------------------------------------------------------------------------


@dataclass
class Fixed:
    """A model that leans towards yes by a hash of the probe and of its own seed."""

    seed: int
    name: str = "fixed"
    identity: str = "fixed"

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        leanings = (np.random.default_rng([self.seed, *prompt.encode()]).uniform(0.1, 0.9) for prompt in prompts)
        return [NextToken(((" Yes", math.log(yes)), (" no", math.log(1 - yes)))[:most]) for yes in leanings]

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        return [f"{self.seed}"[:most] for _ in prompts]


def test_black_boxes_are_compared_by_their_leanings(probes: list[str]) -> None:
    assert values(quere.measure(Fixed(0), Fixed(0), probes))["similarity"] == pytest.approx(1.0)
    assert abs(values(quere.measure(Fixed(0), Fixed(1), probes))["similarity"]) < 0.2


def test_by_hand_a_leaning_is_yes_among_yes_and_no() -> None:
    one = NextToken((("Yes", math.log(0.3)), (" YES", math.log(0.1)), ("no", math.log(0.2)), (" maybe", math.log(0.4))))
    assert quere.leaning([one, NextToken(())]).tolist() == pytest.approx([2 / 3, 0.5])


# -- attndiff ------------------------------------------------------------------------------------------------------


@given(seed=seeds, length=st.integers(4, 20))
@settings(max_examples=30, deadline=None)
def test_a_corrupted_text_has_two_neighbours_exchanged(seed: int, length: int) -> None:
    ids = np.random.default_rng(seed).permutation(1000)[: 3 * length].reshape(3, length)
    changed = attndiff.corrupted(ids)
    for before, after in zip(ids, changed, strict=True):
        places = np.flatnonzero(before != after)
        assert places.size == 2
        assert places[1] == places[0] + 1
        assert after[places].tolist() == before[places][::-1].tolist()


# -- seedprint -----------------------------------------------------------------------------------------------------


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_tau_counts_pairs_in_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right = (rng.permutation(9).astype(np.float64) for _ in range(2))
    pairs = [(i, j) for i in range(9) for j in range(i)]
    same = sum((left[i] < left[j]) == (right[i] < right[j]) for i, j in pairs)
    assert seedprint.mean_tau(left[:, None], right[:, None]) == pytest.approx((2 * same - len(pairs)) / len(pairs))


def test_p_values_of_independent_models_are_uniform() -> None:
    """Strangers that answer alike: the same function of the text in coordinates that were numbered independently."""
    from kinprint.linalg.permutation import permutation_test

    found: list[float] = []
    for seed in range(120):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((40, 12))
        sides = [shared[:, rng.permutation(12)] + rng.standard_normal((40, 12)) for _ in range(2)]
        table = seedprint.rank_correlations(*sides)
        found.append(10 ** permutation_test([table], draws=199, seed=0).log10_p)
    counts = [sum(p <= level for p in found) for level in (0.05, 0.2, 0.5)]
    # Binomial bounds, one in ten thousand on either side.
    assert counts[0] <= 17
    assert 8 <= counts[1] <= 42
    assert 38 <= counts[2] <= 82


def test_a_coordinate_that_never_moves_agrees_with_none() -> None:
    """Ranks by place would make any two such coordinates agree, and their numbers tell of nothing."""
    rng = np.random.default_rng(0)
    sides = [rng.standard_normal((20, 3)) for _ in range(2)]
    for side in sides:
        side[:, 1] = 7.0
    table = seedprint.rank_correlations(*sides)
    np.testing.assert_array_equal(table[1], 0.0)
    np.testing.assert_array_equal(table[:, 1], 0.0)
    assert seedprint.mean_tau(*sides) == pytest.approx(
        sum(seedprint.mean_tau(sides[0][:, [at]], sides[1][:, [at]]) for at in (0, 2)) / 3
    )


# -- gradient ------------------------------------------------------------------------------------------------------


@given(seed=seeds)
@settings(max_examples=20, deadline=None)
def test_statistics_are_those_of_the_gradient_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weight, noise = rng.standard_normal((5, 7)), rng.standard_normal(7)
    output = weight @ noise
    entries = np.outer(output / np.linalg.norm(output), noise).ravel()
    about = entries - entries.mean()
    deviation = entries.std()
    expected = [
        entries.mean(),
        deviation,
        np.linalg.norm(entries),
        (about**3).mean() / deviation**3,
        (about**4).mean() / deviation**4 - 3,
    ]
    np.testing.assert_allclose(gradient.statistics(weight, noise), expected, rtol=1e-8, atol=1e-8)


# -- the axis ------------------------------------------------------------------------------------------------------


def result_of(name: str, value: float) -> MethodResult:
    return MethodResult(
        method=name, id=name, status="measured", values=(Value(name="similarity", value=value, kind="similarity"),)
    )


def test_the_summary_counts_methods_by_which_the_pair_is_closest() -> None:
    own = (result_of("reef", 0.9), result_of("logits", 0.5))
    third = ControlPair(side="base", control="other", methods=(result_of("reef", 0.3), result_of("logits", 0.6)))
    judged, closer = standing(own, (third,))
    assert (judged, closer) == (["reef", "logits"], ["reef"])
    said = summary(judged, closer)
    assert "By 1 of 2 methods" in said
    assert "distillation" in said
    assert "--control" in summary(*standing(own, ()))


def test_an_unknown_method_is_named() -> None:
    from kinprint.behaviour.axis import select

    with pytest.raises(UsageError, match="unknown behavioural method 'x': choose from reef"):
        select(["x"])
