"""Merges: answers by hand, what they leave alone, and models of different shape."""

from __future__ import annotations

import numpy as np
import pytest

from kinprint.architecture import PartKey
from kinprint.errors import UsageError
from kinprint.transform import ModelState
from kinprint.transform.cutting import with_layers
from kinprint.transform.damaging import noised
from kinprint.transform.merging import linear, slerp, task_arithmetic, ties
from support.loaded import load, tiny

Q = PartKey("attn.q", 0)
STATE = tiny("llama")


def model(*numbers: float) -> ModelState:
    return STATE.updated({Q: np.array([numbers])})


def found(merged: ModelState) -> list[float]:
    return [round(float(number), 12) for number in merged.parts[Q][0]]


def test_linear_is_the_mean_by_weights_that_need_not_add_up_to_one() -> None:
    assert found(linear([model(1, 0), model(3, 4)], [3.0, 1.0])) == [1.5, 1.0]


def test_slerp_halfway_between_orthogonal_vectors_is_on_the_arc() -> None:
    assert found(slerp(model(1, 0), model(0, 1), 0.5)) == [round(np.sqrt(0.5), 12)] * 2


def test_slerp_a_third_of_a_right_angle_is_thirty_degrees() -> None:
    assert found(slerp(model(1, 0), model(0, 1), 1 / 3)) == [round(np.sqrt(0.75), 12), 0.5]


def test_slerp_between_colinear_or_zero_vectors_is_linear() -> None:
    assert found(slerp(model(1, 1), model(3, 3), 0.5)) == [2.0, 2.0]
    assert found(slerp(model(0, 0), model(0, 4), 0.25)) == [0.0, 1.0]
    # cos = -1: an arc between opposite ends could go any way
    assert found(slerp(model(1, 0), model(-1, 0), 0.5)) == [0.0, 0.0]


def test_slerp_ends_at_its_ends() -> None:
    other = noised(STATE, 0.5, np.random.default_rng(1))
    for t, end in ((0.0, STATE), (1.0, other)):
        for key, array in slerp(STATE, other, t).parts.items():
            np.testing.assert_allclose(array, end.parts[key], atol=1e-12)


def test_task_arithmetic_adds_differences_from_the_base() -> None:
    assert found(task_arithmetic(model(1, 1), [model(3, 1), model(1, 5)], [0.5, 2.0])) == [2.0, 9.0]
    assert found(task_arithmetic(model(1, 1), [model(3, 1)], [-1.0])) == [-1.0, 1.0]


def test_ties_trims_elects_and_takes_the_mean_of_those_that_agree() -> None:
    base = model(10, 10, 10)
    # differences (4, -1, 3) and (-2, 3, 0.5); the two largest of each stay: (4, 0, 3) and (-2, 3, 0);
    # elected signs +, +, +; means of those that agree: 4 of one, 3 of one, 3 of one
    assert found(ties(base, [model(14, 9, 13), model(8, 13, 10.5)], density=2 / 3)) == [14.0, 13.0, 13.0]
    # untrimmed: signs + (4 against 2), + (3 against 1), + (both): 4, 3 and the mean of 3 and 0.5
    assert found(ties(base, [model(14, 9, 13), model(8, 13, 10.5)], density=1.0, scale=2.0)) == [18.0, 16.0, 13.5]


def test_ties_with_weights_counts_votes_by_weight() -> None:
    # 4 against 3 times 2: the sign is -, and only the second agrees
    assert found(ties(model(0), [model(4), model(-2)], density=1.0, weights=[1.0, 3.0])) == [-2.0]


@pytest.mark.parametrize("density", [0.2, 1.0])
def test_ties_of_one_model_with_itself_is_what_is_left_of_it(density: float) -> None:
    child = noised(STATE, 0.3, np.random.default_rng(2))
    merged = ties(STATE, [child, child], density=density)
    for key, array in merged.parts.items():
        moved = int((array != STATE.parts[key]).sum())
        if STATE.parts[key].ndim == 2:
            assert moved == int(density * array.size)
            agree = array != STATE.parts[key]
            np.testing.assert_allclose(array[agree], child.parts[key][agree], atol=1e-12)


def test_merges_of_equal_models_change_nothing_and_load() -> None:
    for merged in (
        linear([STATE, STATE], [0.3, 0.7]),
        slerp(STATE, STATE, 0.4),
        task_arithmetic(STATE, [STATE], [0.5]),
        ties(STATE, [STATE, STATE], density=0.2),
    ):
        for key, array in merged.parts.items():
            np.testing.assert_allclose(array, STATE.parts[key], atol=1e-12)
    load(linear([STATE, noised(STATE, 0.1, np.random.default_rng(1))], [1.0, 1.0]))


def test_models_of_different_shape_are_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match=r"attn\.q@0 is \[32, 32\] in the first and \[1, 2\] in model 2") as caught:
        linear([STATE, model(1, 2)], [1.0, 1.0])
    assert "\n" not in str(caught.value)
    with pytest.raises(UsageError, match=r"@3 is .* in the first and missing in model 2"):
        slerp(STATE, with_layers(STATE, [0, 1, 2]), 0.5)
