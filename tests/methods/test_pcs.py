"""What the cosine of all parameters notices (everything), and answers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.methods.pcs import METHOD, compare
from kinprint.transform import ModelState, preserve
from kinprint.types import MethodResult
from methods import tiny

seeds = st.integers(0, 2**32 - 1)


def numbers(result: MethodResult) -> Mapping[str, float | None]:
    return {value.name: value.value for value in (*result.values, *result.controls)}


def plain(arrays: Mapping[str, np.ndarray]) -> ModelView:
    """A model of no known family."""
    return view(MemoryCheckpoint({name: np.asarray(array) for name, array in arrays.items()}))


def gpt2(seed: int) -> dict[str, np.ndarray]:
    """A random GPT-2 of one layer: fused c_attn, stored [in, out]."""
    rng = np.random.default_rng(seed)
    shapes = {
        "wte.weight": (7, 8), "wpe.weight": (5, 8), "ln_f.weight": (8,), "ln_f.bias": (8,),
        "h.0.ln_1.weight": (8,), "h.0.ln_1.bias": (8,), "h.0.ln_2.weight": (8,), "h.0.ln_2.bias": (8,),
        "h.0.attn.c_attn.weight": (8, 24), "h.0.attn.c_attn.bias": (24,),
        "h.0.attn.c_proj.weight": (8, 8), "h.0.attn.c_proj.bias": (8,),
        "h.0.mlp.c_fc.weight": (8, 32), "h.0.mlp.c_fc.bias": (32,),
        "h.0.mlp.c_proj.weight": (32, 8), "h.0.mlp.c_proj.bias": (8,),
    }  # fmt: skip
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


# -- what it ignores: nothing but a common scale -------------------------------------------------------------------


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=5)
def test_unchanged_when_all_parameters_are_scaled_alike(seed: int, scale: float) -> None:
    tensors = tiny.llama(seed, layers=1)
    scaled = {name: scale * array.astype(np.float64) for name, array in tensors.items()}
    for value in compare(tiny.model(scaled), tiny.model(tensors)).values:
        assert value.value == pytest.approx(1.0, abs=1e-12), value.name  # float64 sums


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.notices - {"expert-permutation", "residual-rotation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_every_gauge_brings_it_down(name: str, seed: int) -> None:
    model = tiny.model(tiny.llama(1, layers=2))
    changed = preserve(ModelState.from_view(model), [name], np.random.default_rng(seed)).view()
    found = compare(changed, model)
    assert all((value.value or 0) < 0.98 for value in found.values)


def test_after_shuffling_even_a_model_and_itself_are_far_apart() -> None:
    model = tiny.model(tiny.llama(0, hidden=64))
    found = numbers(compare(model, model))
    assert abs(found["by name, rows shuffled"] or 1) < 0.2
    assert abs(found["by role, rows shuffled"] or 1) < 0.2


def test_strangers_with_long_gains_are_not_at_zero_and_the_shuffle_shows_it() -> None:
    strangers: list[ModelView] = []
    for seed in (1, 2):
        tensors = tiny.llama(seed, hidden=64)
        strangers.append(tiny.model({name: a if "norm" in name else 0.02 * a for name, a in tensors.items()}))
    found = numbers(compare(*strangers))
    assert (found["by name"] or 0) > 0.7
    assert found["by name, rows shuffled"] == pytest.approx(found["by name"], abs=0.05)


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_the_cosine_of_two_tensors_end_to_end_by_hand() -> None:
    one = {"a": np.array([[3.0, 0.0]]), "b": np.array([4.0])}
    other = {"b": np.array([0.0]), "a": np.array([[3.0, 4.0]])}
    result = compare(plain(one), plain(other))
    # (3, 0, 4) and (3, 4, 0): 9 / 25.
    assert numbers(result)["by name"] == pytest.approx(9 / 25, abs=1e-12)
    assert result.values[0].note == "3 parameters: 100.0% of the suspect, 100.0% of the base"


def test_tensors_of_two_shapes_are_skipped_and_listed() -> None:
    one = {"a": np.array([3.0, 4.0]), "b": np.ones((2, 2)), "c": np.ones(4)}
    other = {"a": np.array([4.0, 3.0]), "b": np.ones((3, 2))}
    result = compare(plain(one), plain(other))
    assert numbers(result)["by name"] == pytest.approx(24 / 25, abs=1e-12)
    assert result.tables[1].rows == (("by name", "b", "[2, 2]", "[3, 2]"),)
    assert result.values[0].note == "2 parameters: 20.0% of the suspect, 25.0% of the base"
    assert "by name: 1 of two shapes skipped" in result.notes


def test_embeddings_are_left_out_of_the_second_variant() -> None:
    tensors = tiny.llama(0)
    flipped = {**tensors, "model.embed_tokens.weight": -tensors["model.embed_tokens.weight"]}
    found = numbers(compare(tiny.model(flipped), tiny.model(tensors)))
    for variant in ("by name", "by role"):
        assert found[f"{variant}, without embeddings"] == pytest.approx(1.0, abs=1e-12)
        inside = sum(float(np.square(a.astype(float)).sum()) for a in tensors.values())
        embedding = float(np.square(tensors["model.embed_tokens.weight"].astype(float)).sum())
        assert found[variant] == pytest.approx(1 - 2 * embedding / inside, abs=1e-6)


def test_models_of_other_names_are_compared_by_role() -> None:
    tensors = tiny.llama(0)
    renamed = {name.removeprefix("model."): array for name, array in tensors.items()}
    result = compare(tiny.model(renamed), tiny.model(tensors))
    assert numbers(result)["by role"] == pytest.approx(1.0, abs=1e-12)
    by_name = next(value for value in result.values if value.name == "by name")
    assert (by_name.value, by_name.reason) == (None, "the models share no tensor name")


def test_a_fused_tensor_has_the_same_parameters_by_role_as_by_name() -> None:
    one, other = (view(MemoryCheckpoint(gpt2(seed), config={"n_head": 2})) for seed in (1, 2))
    assert one.family.name == "gpt2"
    result = compare(one, other)
    found = numbers(result)
    assert found["by role"] == pytest.approx(found["by name"], abs=1e-12)
    parameters = {row[0]: row[3] for row in result.tables[0].rows}
    assert parameters["by role"] == parameters["by name"] == one.parameters


# -- what cannot be compared ---------------------------------------------------------------------------------------


def test_a_nan_is_named_and_only_the_variants_that_hold_it_are_lost() -> None:
    broken = tiny.llama(0)
    broken["model.embed_tokens.weight"][0, 0] = np.nan
    result = compare(tiny.model(broken), tiny.model(tiny.llama(0)))
    values = {value.name: value for value in result.values}
    assert values["by name"].reason == "tensor 'model.embed_tokens.weight' holds NaN or Inf"
    assert values["by role"].reason == "tensor 'model.embed_tokens.weight' holds NaN or Inf"
    assert values["by name, without embeddings"].value == pytest.approx(1.0, abs=1e-12)


def test_integers_and_tables_are_no_parameters() -> None:
    tensors = tiny.llama(0)
    buffers = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": np.ones(2, np.float32) for i in range(4)}
    ids = {"model.position_ids": np.arange(4)}
    result = compare(tiny.model({**tensors, **buffers, **ids}), tiny.model({**tensors, **buffers, **ids}))
    assert result.tables[0].rows[0][3] == sum(array.size for array in tensors.values())


def test_unknown_models_are_compared_by_name_and_the_role_says_why_not() -> None:
    model = plain({"embedder.weight": np.ones((2, 2)), "x": np.arange(3.0)})
    result = compare(model, model)
    values = {value.name: value for value in result.values}
    assert values["by name"].value == pytest.approx(1.0, abs=1e-12)
    assert values["by role"].reason == "no role is known in the suspect and the base: unknown family"
    assert result.values[1].note == "3 parameters: 42.9% of the suspect, 42.9% of the base"


def test_two_models_without_a_common_name_or_role_are_a_finding() -> None:
    result = compare(plain({"a": np.ones(2)}), plain({"b": np.ones(2)}))
    assert result.status == "not_applicable"
    assert result.reason is not None
    assert result.reason.startswith("the models share no tensor name; no role is known")


def test_all_zero_parameters_have_no_direction() -> None:
    result = compare(plain({"a": np.zeros(3)}), plain({"a": np.ones(3)}))
    assert result.values == ()
    assert "all compared parameters are zero" in str(result.reason)
