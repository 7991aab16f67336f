"""What the cosine by role notices (everything), and answers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.methods.tensor_cosine import METHOD, compare
from kinprint.transform import ModelState, preserve
from kinprint.types import MethodResult, Table
from methods import tiny

seeds = st.integers(0, 2**32 - 1)

WORDS = ("a", "b", "c", "d", "e", "f", "g", "h")


def numbers(result: MethodResult) -> Mapping[str, float | None]:
    return {value.name: value.value for value in (*result.values, *result.controls)}


def reasons(result: MethodResult) -> Mapping[str, str | None]:
    return {value.name: value.reason for value in result.values}


def table(result: MethodResult, title: str) -> Table:
    return next(found for found in result.tables if found.title == title)


def plain(arrays: Mapping[str, np.ndarray]) -> ModelView:
    """A model of no known family."""
    return view(MemoryCheckpoint({name: np.asarray(array, np.float32) for name, array in arrays.items()}))


def worded(tensors: Mapping[str, np.ndarray], words: tuple[str, ...]) -> ModelView:
    return view(MemoryCheckpoint(tensors, config={"head_dim": 4}, vocabulary=words))


# -- what it ignores: nothing but a common scale -------------------------------------------------------------------


def test_a_model_and_itself_have_cosine_one_everywhere() -> None:
    for tensors in (tiny.llama(0, bias=True), tiny.mixture(0)):
        model = tiny.model(tensors)
        values = [value for value in compare(model, model).values if value.identical is not None]
        assert len(values) >= 20
        for value in values:
            assert value.value == pytest.approx(1.0, abs=1e-12), value.name  # float64 sums


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=5)
def test_unchanged_when_every_tensor_is_scaled_alike(seed: int, scale: float) -> None:
    tensors = tiny.llama(seed, layers=1)
    scaled = {name: (scale * array).astype(np.float64) for name, array in tensors.items()}
    found = compare(tiny.model(scaled), tiny.model(tensors))
    assert all(value.value == pytest.approx(1.0, abs=1e-12) for value in found.values)


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.notices - {"expert-permutation", "residual-rotation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_every_gauge_brings_some_role_far_down(name: str, seed: int) -> None:
    model = tiny.model(tiny.llama(1, layers=2))
    changed = preserve(ModelState.from_view(model), [name], np.random.default_rng(seed)).view()
    assert min(value.value or 0 for value in compare(changed, model).values) < 0.95


def test_reordered_experts_are_noticed_and_their_shared_expert_is_not_moved() -> None:
    model = tiny.model(tiny.mixture(0))
    changed = preserve(ModelState.from_view(model), ["expert-permutation"], np.random.default_rng(1)).view()
    found = numbers(compare(changed, model))
    assert (found["moe.up cosine"] or 1) < 0.8
    assert (found["moe.router cosine"] or 1) < 0.8
    assert found["moe.shared.up cosine"] == pytest.approx(1.0, abs=1e-6)


def test_after_shuffling_even_a_model_and_itself_are_far_apart() -> None:
    model = tiny.model(tiny.llama(0, layers=2, hidden=64))
    found = numbers(compare(model, model))
    assert abs(found["mlp.up cosine, rows shuffled"] or 1) < 0.2  # 24 rows; one or two stay in place
    assert abs(found["attn.o cosine, rows shuffled"] or 1) < 0.2


def test_strangers_gains_look_alike_as_much_after_shuffling_and_not_when_centred() -> None:
    strangers = [tiny.model(tiny.llama(seed, layers=2, hidden=512, heads=1, kv_heads=1, ffn=2)) for seed in (1, 2)]
    found = numbers(compare(*strangers))
    assert (found["norm.attn cosine"] or 0) > 0.85
    assert found["norm.attn cosine, rows shuffled"] == pytest.approx(found["norm.attn cosine"], abs=0.03)
    assert found["norm.attn cosine, next layer"] == pytest.approx(found["norm.attn cosine"], abs=0.03)
    assert abs(found["norm.attn centred cosine"] or 1) < 0.16  # five standard deviations: 1/sqrt(512), two layers
    assert abs(found["mlp.up cosine"] or 1) < 0.16


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_cosines_of_two_by_two_matrices_by_hand() -> None:
    tensors = tiny.llama(0, layers=1, heads=1, kv_heads=1, ffn=2, hidden=2)
    one = {**tensors, "model.layers.0.mlp.up_proj.weight": np.array([[3, 0], [0, 0]], np.float32)}
    other = {**tensors, "model.layers.0.mlp.up_proj.weight": np.array([[3, 4], [0, 0]], np.float32)}
    found = numbers(compare(tiny.model(one), tiny.model(other)))
    assert found["mlp.up cosine"] == pytest.approx(3 / 5, abs=1e-12)
    # About the means .75 and 1.75: 9 - 4 * .75 * 1.75 over the roots of 9 - 2.25 and 25 - 12.25.
    assert found["mlp.up centred cosine"] == pytest.approx(3.75 / np.sqrt(6.75 * 12.75), abs=1e-12)


def test_a_role_is_the_mean_of_its_layers_and_the_table_has_each() -> None:
    tensors = tiny.llama(0, layers=2)
    flipped = {**tensors, "model.layers.1.mlp.up_proj.weight": -tensors["model.layers.1.mlp.up_proj.weight"]}
    result = compare(tiny.model(flipped), tiny.model(tensors))
    assert numbers(result)["mlp.up cosine"] == pytest.approx(0.0, abs=1e-12)
    by_layer = table(result, "Cosine, layer by role")
    column = by_layer.columns.index("mlp.up")
    assert [row[column] for row in by_layer.rows] == [pytest.approx(1.0), pytest.approx(-1.0)]
    line = next(row for row in table(result, "Cosine by role").rows if row[0] == "mlp.up")
    assert line[1:5] == (2, pytest.approx(0.0, abs=1e-12), pytest.approx(-1.0), pytest.approx(1.0))


def test_the_next_layer_control_finds_layers_that_moved_up_by_one() -> None:
    base = tiny.llama(0, layers=3)
    moved = {name: array for name, array in base.items() if ".layers.0." not in name}
    moved = {name.replace("layers.1.", "layers.0.").replace("layers.2.", "layers.1."): a for name, a in moved.items()}
    found = numbers(compare(tiny.model(moved), tiny.model(base)))
    assert found["mlp.up cosine, next layer"] == pytest.approx(1.0, abs=1e-12)
    assert abs(found["mlp.up cosine"] or 1) < 0.3


# -- tokens --------------------------------------------------------------------------------------------------------


def test_embedding_rows_are_matched_by_token_string() -> None:
    tensors = tiny.llama(0)
    order = np.array([5, 1, 0, 7, 2])
    short = {**tensors, "model.embed_tokens.weight": tensors["model.embed_tokens.weight"][order]}
    result = compare(worded(short, tuple(WORDS[i] for i in order)), worded(tensors, WORDS))
    found = numbers(result)
    assert found["embed.token cosine"] == pytest.approx(1.0, abs=1e-12)
    assert (found["shared tokens"], found["shared tokens with one id"]) == (5, 1)
    assert "vocabulary rows compared by token string: 5 shared tokens, 1 with one id in both" in result.notes


def test_without_a_vocabulary_rows_are_matched_by_id_and_this_is_said() -> None:
    tensors = tiny.llama(0)
    rolled = {**tensors, "model.embed_tokens.weight": np.roll(tensors["model.embed_tokens.weight"], 1, axis=0)}
    result = compare(tiny.model(rolled), worded(tensors, WORDS))
    assert abs(numbers(result)["embed.token cosine"] or 1) < 0.5  # 128 entries of strangers
    assert "vocabulary rows compared by id: no vocabulary in the suspect" in result.notes
    assert "shared tokens" not in numbers(result)


def test_embeddings_of_two_lengths_without_a_vocabulary_are_not_compared() -> None:
    tensors = tiny.llama(0)
    short = {**tensors, "model.embed_tokens.weight": tensors["model.embed_tokens.weight"][:5]}
    found = reasons(compare(tiny.model(short), tiny.model(tensors)))
    assert (
        found["embed.token cosine"] == "embed.token: [5, 16] against [8, 16], and no vocabulary to match the tokens by"
    )
    assert found["attn.q cosine"] is None


def test_vocabularies_without_a_common_token_are_a_finding() -> None:
    tensors = tiny.llama(0)
    result = compare(worded(tensors, WORDS), worded(tensors, tuple("ijklmnop")))
    assert reasons(result)["embed.token cosine"] == "the vocabularies share no token"


def test_tokens_beyond_the_embedding_have_no_row() -> None:
    tensors = tiny.llama(0)
    result = compare(worded(tensors, (*WORDS, "extra")), worded(tensors, (*WORDS, "extra")))
    assert numbers(result)["shared tokens"] == 8


# -- what cannot be compared ---------------------------------------------------------------------------------------


def test_a_role_of_two_shapes_is_not_compared_and_the_others_are() -> None:
    result = compare(tiny.model(tiny.llama(0, ffn=24)), tiny.model(tiny.llama(0, ffn=32)))
    assert reasons(result)["mlp.up cosine"] == "mlp.up@0: [24, 16] against [32, 16]"
    assert numbers(result)["attn.q cosine"] is not None


def test_a_nan_is_named_and_takes_its_role_with_it() -> None:
    broken = tiny.llama(0)
    broken["model.layers.2.self_attn.q_proj.weight"][1, 1] = np.inf
    found = reasons(compare(tiny.model(tiny.llama(0)), tiny.model(broken)))
    assert found["attn.q cosine"] == "tensor 'model.layers.2.self_attn.q_proj.weight' holds NaN or Inf"
    assert found["attn.k cosine"] is None


def test_a_zero_tensor_has_no_direction() -> None:
    tensors = tiny.llama(0, bias=True)
    zeros = {name: np.zeros_like(array) if name.endswith("v_proj.bias") else array for name, array in tensors.items()}
    assert (
        reasons(compare(tiny.model(zeros), tiny.model(tensors)))["attn.v.bias cosine"]
        == "all zero in one of the models"
    )


def test_depths_and_one_sided_roles_are_said() -> None:
    result = compare(tiny.model(tiny.llama(0, layers=3, bias=True)), tiny.model(tiny.llama(0, layers=4)))
    assert "3 layers against 4: compared by index over the shorter" in result.notes
    assert "only the suspect has attn.k.bias, attn.q.bias, attn.v.bias" in result.notes
    assert len(table(result, "Cosine, layer by role").rows) == 3


def test_half_precision_is_read_as_it_is_stored() -> None:
    tensors = tiny.llama(0)
    half = {name: array.astype(ml_dtypes.bfloat16) for name, array in tensors.items()}
    found = numbers(compare(tiny.model(half), tiny.model(tensors)))
    assert found["attn.q cosine"] == pytest.approx(1.0, abs=1e-5)  # rounding to 8 bits: relative 2^-9, squared


# -- models without a family ---------------------------------------------------------------------------------------


def test_unknown_models_are_compared_by_tensor_name() -> None:
    rng = np.random.default_rng(0)
    one = {"block.weight": rng.standard_normal((4, 5)), "block.scale": np.arange(1.0, 4.0), "only": np.ones(2)}
    other = {"block.scale": np.arange(1.0, 4.0), "block.weight": -one["block.weight"], "else": np.ones(2)}
    result = compare(plain(one), plain(other))
    found = numbers(result)
    assert found["matrices paired by name cosine"] == pytest.approx(-1.0, abs=1e-12)
    assert found["vectors paired by name cosine"] == pytest.approx(1.0, abs=1e-12)
    assert [row[0] for row in table(result, "Cosine by tensor").rows] == ["block.weight", "block.scale"]
    assert "no role is shared: tensors paired by name" in result.notes


def test_unknown_models_without_common_names_are_paired_by_shape_and_order() -> None:
    rng = np.random.default_rng(0)
    first, second, third = rng.standard_normal((4, 5)), rng.standard_normal((4, 5)), rng.standard_normal((3, 3))
    result = compare(
        plain({"a": first, "b": third, "c": second}), plain({"x": third, "y": first, "z": second, "w": first})
    )
    assert numbers(result)["matrices paired by shape and order cosine"] == pytest.approx(1.0, abs=1e-12)
    assert {row[0] for row in table(result, "Cosine by tensor").rows} == {"a | y", "b | x", "c | z"}


def test_two_models_without_anything_in_common_are_a_finding() -> None:
    result = compare(plain({"a": np.ones((2, 3))}), plain({"b": np.ones((3, 4))}))
    assert result.status == "not_applicable"
    assert result.reason == "the models share no role, no tensor name and no tensor shape"


def test_names_of_two_shapes_are_a_finding() -> None:
    result = compare(plain({"a": np.ones((2, 3))}), plain({"a": np.ones((3, 4))}))
    assert result.status == "not_applicable"
    assert result.reason == "nothing that is shared can be compared; the first: a: [2, 3] against [3, 4]"
