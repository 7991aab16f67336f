"""Forms of layers: what leaves them as they are, what changes them, and by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evidence.models import FORMS as MODELS
from evidence.models import allowed, changed, disguised, random
from kinprint.alignment.forms import Form
from kinprint.alignment.trunk import Attention, Layer, Trunk, Units, forms_of, largest, pooled
from kinprint.architecture import PartKey, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.linalg.products import unit_rows
from kinprint.transform import PRESERVING, ModelState
from kinprint.transform.cutting import with_layers

Array = np.ndarray[Any, np.dtype[Any]]
CASES = [(form, name) for form in MODELS for name in PRESERVING if name in allowed(random(form, layers=1))]
EMBEDDING = PartKey("embed.token")


def trunk(state: ModelState) -> Trunk:
    return Trunk(state.view(np.float64))


def turn(before: ModelState, after: ModelState) -> Array:
    """Return what the residual stream was multiplied by, as the embeddings tell: there are more tokens than needed."""
    return np.linalg.lstsq(before.parts[EMBEDDING], after.parts[EMBEDDING], rcond=None)[0]


def farthest(before: ModelState, after: ModelState) -> float:
    """Return the largest relative distance of a form from what the turn of the stream makes of it."""
    turn_AB, old, new = turn(before, after), trunk(before), trunk(after)
    assert old.layers == new.layers
    distances: list[float] = []
    for number in old.layers:
        assert list(new.forms(number)) == ["qk", "vo", "ud", "gate"]
        for form, form_AA in old.forms(number).items():
            expected = turn_AB.T @ form_AA @ turn_AB
            distances.append(float(np.linalg.norm(new.forms(number)[form] - expected) / np.linalg.norm(expected)))
    return max(distances)


def units(gate: Any, up: Any, down: Any, expert: int | None = None) -> Units:
    up_FD, down_FD = np.array(up, dtype=np.float32), np.array(down, dtype=np.float32)
    return Units(None if gate is None else np.array(gate, dtype=np.float32), up_FD, down_FD, expert)


# -- what they ignore ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("form", "name"), CASES)
def test_unchanged_up_to_the_turn_of_the_stream_by(form: str, name: str) -> None:
    state = random(form, 3)
    assert farthest(state, disguised(state, 5, [name])) < 1e-5


@pytest.mark.parametrize("form", MODELS)
@given(seed=st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=3, derandomize=True)
def test_unchanged_by_all_together(form: str, seed: int) -> None:
    state = random(form, seed)
    assert farthest(state, disguised(state, seed)) < 1e-5


@pytest.mark.parametrize("form", ["gpt2", "gpt_neox", "bert"])
def test_what_a_norm_that_subtracts_the_mean_never_sees_changes_nothing(form: str) -> None:
    state = random(form, 0)
    rng = np.random.default_rng(0)
    written: dict[PartKey, Array] = {
        key: array + 3.0 * rng.standard_normal(array.shape[1])
        for key, array in state.parts.items()
        if key.role in ("attn.o", "mlp.down")
    }
    assert farthest(state, state.updated(written)) < 1e-5


def test_a_mixture_of_copies_has_the_forms_of_the_one_mlp() -> None:
    rng = np.random.default_rng(0)
    gate, up, down = (rng.standard_normal((7, 5)) for _ in range(3))
    one = units(gate, up, down)
    alone, mixture = forms_of(Layer(None, (one,))), forms_of(Layer(None, (one, one, one)))
    for form in ("ud", "gate"):
        np.testing.assert_allclose(mixture[form], alone[form], rtol=1e-6, atol=1e-6)


# -- what they notice ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "form"),
    [
        *[("attn.q", "qk"), ("attn.k", "qk"), ("attn.v", "vo"), ("attn.o", "vo")],
        *[("mlp.up", "ud"), ("mlp.down", "ud"), ("mlp.gate", "gate")],
    ],
)
def test_a_form_notices_one_matrix_and_the_others_do_not(role: str, form: str) -> None:
    state = random("llama", 0)
    key = PartKey(role, 1)
    first = state.parts[key].copy()
    first[0] *= -2.0
    first[1, 0] += 1.0
    old, new = trunk(state), trunk(state.updated({key: first}))
    moved = {name for name in old.forms(1) if not np.allclose(old.forms(1)[name], new.forms(1)[name], atol=1e-4)}
    assert moved == {form}
    assert all(np.array_equal(old.forms(0)[name], new.forms(0)[name]) for name in old.forms(0))


def test_a_constant_that_an_rms_norm_sees_changes_the_forms() -> None:
    state = random("llama", 0)
    key = PartKey("attn.o", 0)
    assert farthest(state, state.updated({key: state.parts[key] + 1.0})) > 0.1


@pytest.mark.parametrize(("order", "repeats"), [([0, 1, 2], False), ([0, 1, 1, 2], True), ([0, 1, 2, 0, 1, 2], True)])
def test_layers_that_are_copies_are_told_even_in_disguise(order: list[int], repeats: bool) -> None:
    state = with_layers(random("llama", 0), order)
    assert trunk(state).repeats is repeats
    assert trunk(disguised(state)).repeats is repeats


# -- by hand -------------------------------------------------------------------------------------------------------


def test_forms_by_hand() -> None:
    attention = Attention(
        q_HD=np.array([[1, 2]], dtype=np.float32),
        k_KD=np.array([[3, 4]], dtype=np.float32),
        v_KD=np.array([[5, 6]], dtype=np.float32),
        o_HD=np.array([[1, 0]], dtype=np.float32),
        heads=1,
        kv_heads=1,
    )
    forms = forms_of(Layer(attention, (units([[3, 4], [0, 2]], [[1, 0], [0, 1]], [[0, 2], [5, 0]]),)))
    assert forms["qk"].tolist() == [[3, 4], [6, 8]]
    assert forms["vo"].tolist() == [[5, 6], [0, 0]]
    assert forms["ud"].tolist() == [[0, 5], [2, 0]]  # the first unit moves axis 0 to 1, the second 1 to 0
    np.testing.assert_allclose(forms["gate"], [[0.36, 0.48], [0.48, 1.64]], rtol=1e-6)


def test_query_heads_of_a_group_are_summed_by_hand() -> None:
    attention = Attention(
        q_HD=np.array([[1, 0], [0, 1], [2, 0], [0, 3]], dtype=np.float32),
        k_KD=np.array([[1, 1], [1, -1]], dtype=np.float32),
        v_KD=np.eye(2, dtype=np.float32),
        o_HD=np.ones((4, 2), dtype=np.float32),
        heads=4,
        kv_heads=2,
    )
    left, right = attention.group_factors("qk")
    assert left.tolist() == [[[1, 1]], [[2, 3]]]
    assert right.tolist() == [[[1, 1]], [[1, -1]]]
    left, right = attention.group_factors("vo")
    assert left.tolist() == [[[2, 2]], [[2, 2]]]
    assert right.tolist() == [[[1, 0]], [[0, 1]]]


def test_a_layer_has_the_forms_of_what_it_has() -> None:
    assert forms_of(Layer(None, ())) == {}
    ungated: dict[Form, Array] = forms_of(Layer(None, (units(None, [[0, 2]], [[1, 0]]),)))
    assert {name: form.tolist() for name, form in ungated.items()} == {"ud": [[0, 2], [0, 0]], "gate": [[0, 0], [0, 1]]}


def test_rows_at_unit_length_by_hand() -> None:
    # 1e-30 squared is no float32.
    rows = unit_rows(np.array([[3, 4], [0, 0], [0, -1e-30]], dtype=np.float32))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0], [0, -1]], rtol=1e-6)
    assert rows.dtype == np.float32


def test_the_largest_units_are_chosen_by_their_gate_and_named_in_order() -> None:
    four = units([[1, 0], [0, 3], [0, 0], [2, 0]], np.ones((4, 2)), np.ones((4, 2)))
    assert largest(four, 2).tolist() == [1, 3]
    assert largest(four, 9).tolist() == [0, 1, 2, 3]


def test_mlps_are_pooled_by_size_whatever_their_order() -> None:
    small, middle, large = (
        units([[size, 0]], [[size, 1]], [[size, 2]], expert) for expert, size in enumerate((1, 2, 3))
    )
    for mlps in ((small, middle, large), (large, small, middle)):
        both = pooled(Layer(None, mlps), most=2)
        assert both is not None
        assert both.key_FD.tolist() == [[3, 0], [2, 0]]
        assert both.down_FD.tolist() == [[3, 2], [2, 2]]
    assert pooled(Layer(None, (small,))) is small
    assert pooled(Layer(None, ())) is None


# -- what cannot be read -------------------------------------------------------------------------------------------


def test_what_holds_nan_is_left_out_and_named() -> None:
    state = changed(changed(random("llama", 0), "mlp.up", np.nan, 1), "norm.attn", np.inf, 2)
    model = trunk(state)
    assert model.layer(1).mlps == ()
    assert list(model.forms(1)) == ["qk", "vo"]
    assert list(model.forms(2)) == ["ud", "gate"]
    assert model.problems == (
        "tensor 'model.language_model.layers.1.mlp.up_proj.weight' holds NaN or Inf",
        "tensor 'model.language_model.layers.2.input_layernorm.weight' holds NaN or Inf",
    )
    assert (model.layers, model.width) == ([0, 1, 2], 24)


def test_one_expert_that_holds_nan_does_not_take_the_others_along() -> None:
    state = random("mixtral", 0)
    key = PartKey("moe.down", 0, 1)
    model = trunk(state.updated({key: np.full_like(state.parts[key], np.nan)}))
    assert [one.expert for one in model.layer(0).experts] == [0, 2]
    assert len(model.problems) == 1


def test_a_shared_expert_is_an_mlp_and_no_routed_expert() -> None:
    layer = trunk(random("qwen2_moe", 0)).layer(0)
    assert [one.expert for one in layer.mlps] == [0, 1, 2, None]
    assert [one.expert for one in layer.experts] == [0, 1, 2]


def test_a_model_without_roles_has_no_layers() -> None:
    model = Trunk(view(MemoryCheckpoint({"weight": np.ones((4, 4))})))
    assert (model.layers, model.width, model.repeats, model.problems) == ([], 0, False, ())


def test_attention_whose_output_does_not_fit_its_heads_is_left_out_and_its_mlp_stays() -> None:
    state = random("llama", 0)
    tensors = {name: state.checkpoint().read(name) for name in state.checkpoint().tensors}
    name = "model.language_model.layers.1.self_attn.o_proj.weight"
    model = Trunk(view(MemoryCheckpoint({**tensors, name: tensors[name][:, :-1]}, config=state.config)))
    whole = ["qk", "vo", "ud", "gate"]
    assert [list(model.forms(number)) for number in model.layers] == [whole, ["ud", "gate"], whole]
    assert model.width == 24
