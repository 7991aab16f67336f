"""Residual coordinates in stored order: what the test sees, what defeats it, innocents with like gains, and by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from evidence.models import (
    LOG10_ALPHA,
    Sizes,
    assert_uniform,
    changed,
    disguised,
    noisy,
    p_of,
    pair,
    random,
    relabelled,
)
from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.evidence import exact_residual
from kinprint.evidence.exact_residual import column_cosines, label_free_facing
from kinprint.evidence.pair import Facing, Pair
from kinprint.transform.cutting import with_layers, with_residual, with_units
from kinprint.types import Evidence

Array = np.ndarray[Any, np.dtype[Any]]
SMALL = Sizes(layers=2, hidden=16, heads=2, kv_heads=2, head_dim=4, ffn=20, vocab=32)
FLOOR = -math.lgamma(17) / math.log(10)


def measured(found: Pair, rows: str = "stored") -> Evidence:
    return exact_residual.test(found, rows, LOG10_ALPHA)


def near_floor(found: Evidence) -> bool:
    assert found.log10_p is not None
    assert found.log10_floor is not None
    return found.log10_p < 0.9 * found.log10_floor


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "qwen3", "mixtral"])
@pytest.mark.parametrize("rows", ["stored", "matched", "embeddings"])
def test_a_noisy_copy_is_near_the_floor(form: str, rows: str) -> None:
    base = random(form, 0, sizes=SMALL)
    found = measured(pair(noisy(base, 0.1), base), rows)
    assert found.log10_floor == pytest.approx(FLOOR)
    assert near_floor(found)
    assert found.beyond


@pytest.mark.parametrize("form", ["gpt2", "gpt_neox", "bert"])
def test_so_is_one_of_a_model_with_biases_and_layernorm(form: str) -> None:
    base = random(form, 0, sizes=SMALL)
    found = measured(pair(noisy(base, 0.1), base))
    assert found.log10_floor == pytest.approx(-math.lgamma(9) / math.log(10))  # two heads of four
    assert near_floor(found)


def test_matched_rows_do_without_the_order_of_units_and_heads() -> None:
    base = random("llama", 0, sizes=SMALL)
    bare = {key: array for key, array in base.parts.items() if key.role not in ("embed.token", "unembed")}
    base = replace(base, parts=bare)
    for role in ("norm.attn", "norm.mlp", "norm.final"):
        base = changed(base, role, 1.0)
    found = pair(disguised(base, 1, ["ffn-permutation", "ffn-rescaling", "kv-group-permutation", "vo-gauge"]), base)
    assert near_floor(measured(found, "matched"))
    assert not measured(found, "stored").beyond
    assert "units and heads in another order" in measured(found, "stored").defeats
    assert "units and heads in another order" not in measured(found, "matched").defeats


def test_a_copy_of_another_depth_faces_the_layers_that_it_comes_from() -> None:
    base = random("llama", 0, sizes=SMALL, layers=4)
    found = pair(noisy(with_layers(base, [0, 1, 3]), 0.05), base)
    assert label_free_facing(found) == [Facing(0, 0), Facing(1, 1), Facing(2, 3)]
    assert near_floor(measured(found))


# -- what defeats it -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual-permutation", "residual-rotation"])
@pytest.mark.parametrize("rows", ["stored", "matched", "embeddings"])
def test_a_copy_with_another_stream_passes_unnoticed(name: str, rows: str) -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(disguised(base, 2, [name]), base), rows)
    assert found.log10_p is not None
    assert found.log10_p > -2
    assert "residual stream permuted, rotated" in found.defeats


def test_the_numbering_has_no_part_in_which_layers_face_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def used(*_: object) -> None:
        pytest.fail("the stored basis depends on the numbering that is permuted")

    monkeypatch.setattr("kinprint.evidence.pair.stored_basis", used)
    base = random("llama", 0, sizes=SMALL, layers=3)
    assert len(label_free_facing(pair(random("llama", 1, sizes=SMALL), base))) == 2


@pytest.mark.parametrize("seed", range(4))
def test_which_layers_face_each_other_does_not_depend_on_the_numbering(seed: int) -> None:
    base = random("llama", seed + 50, sizes=SMALL, layers=3)
    for suspect in (random("llama", seed, sizes=SMALL), with_layers(base, [0, 2])):
        before = label_free_facing(pair(suspect, base))
        assert len(before) == 2
        assert label_free_facing(pair(disguised(suspect, seed, ["residual-permutation"]), base)) == before


# -- innocents whose gains are alike within each model -------------------------------------------------------------

LAYERS, WIDTH, WITHIN = 47, 512, 0.65


@dataclass(frozen=True, slots=True)
class Gained:
    """A model that has nothing but gains to compare: what else a family must have is zero."""

    view: ModelView
    gains_LD: Array

    @classmethod
    def of(cls, gains_LD: Array, *, like: Gained | None = None) -> Gained:
        """Return a model with these gains; recognised once, since that costs more than the test."""
        row, first = np.zeros((1, WIDTH)), "model.layers.0."
        tensors: dict[str, Array] = {
            f"{first}post_attention_layernorm.weight": np.ones(WIDTH),
            f"{first}self_attn.k_proj.weight": row,
            f"{first}mlp.gate_proj.weight": row,
            f"{first}mlp.up_proj.weight": row,
            f"{first}mlp.down_proj.weight": row.T,
        }
        for layer in range(LAYERS):
            tensors[f"model.layers.{layer}.self_attn.q_proj.weight"] = row
            tensors[f"model.layers.{layer}.input_layernorm.weight"] = gains_LD[layer]
        config = {"num_attention_heads": 1, "num_key_value_heads": 1, "head_dim": 1}
        checkpoint = MemoryCheckpoint(tensors, config=config)
        return cls(view(checkpoint) if like is None else replace(like.view, checkpoint=checkpoint), gains_LD)

    @classmethod
    def drawn(cls, seed: int, *, like: Gained | None = None) -> Gained:
        """Draw gains that correlate by ``WITHIN`` from layer to layer."""
        rng = np.random.default_rng(seed)
        common_D, own_LD = rng.standard_normal(WIDTH), rng.standard_normal((LAYERS, WIDTH))
        gains_LD = 1 + 0.1 * (math.sqrt(WITHIN) * common_D + math.sqrt(1 - WITHIN) * own_LD)
        return cls.of(gains_LD, like=like)


def cosines(left_LD: Array, right_LD: Array) -> Array:
    """Return the centred cosine of each layer's gains."""
    left, right = (gains - gains.mean(axis=1, keepdims=True) for gains in (left_LD, right_LD))
    return (left * right).sum(axis=1) / np.linalg.norm(left, axis=1) / np.linalg.norm(right, axis=1)


def as_if_independent(cosines_L: Array) -> float:
    """Return the p-value that layers give if each is taken for a test of its own (Stouffer)."""
    z = math.sqrt(WIDTH - 1) * float(cosines_L.sum()) / math.sqrt(len(cosines_L))
    return 0.5 * math.erfc(z / math.sqrt(2))


def test_gains_that_are_alike_within_each_model_accuse_no_innocent() -> None:
    """Published for Solar-Open-100B against GLM-4.5-Air: 47 layers, .65 within a model, about .013 between them."""
    exact: list[float] = []
    naive: list[float] = []
    sizes: list[float] = []
    first = Gained.drawn(0)
    for seed in range(200):
        mine, theirs = (Gained.drawn(2 * seed + side, like=first) for side in (0, 1))
        exact.append(p_of(measured(Pair.of(mine.view, theirs.view))))
        found_L = cosines(mine.gains_LD, theirs.gains_LD)
        sizes.append(float(np.abs(found_L).mean()))
        naive.append(as_if_independent(found_L))
    # A mean size of .013 at a width of 4,096 is one of .036 here.
    assert np.mean(sizes) * math.sqrt(WIDTH / 4096) == pytest.approx(0.0125, abs=0.002)
    assert_uniform(exact)
    assert np.mean(np.array(exact) <= 0.01) <= 0.03
    # 47 numbers that say the same thing, counted 47 times, would accuse every sixth innocent beyond 1e-6.
    assert np.mean(np.array(naive) <= 0.01) > 0.2
    assert np.mean(np.array(naive) <= 1e-6) > 0.1


def test_gains_of_a_noisy_copy_alone_are_near_the_floor() -> None:
    mine = Gained.drawn(0)
    within = np.corrcoef(mine.gains_LD)[~np.eye(LAYERS, dtype=bool)]
    assert within.mean() == pytest.approx(WITHIN, abs=0.05)
    noise_LD = np.random.default_rng(5).standard_normal((LAYERS, WIDTH))
    copy = Gained.of(mine.gains_LD + 0.01 * noise_LD, like=mine)
    found = measured(Pair.of(copy.view, mine.view))
    assert found.log10_p is not None
    assert found.log10_p < -100


# -- by hand -------------------------------------------------------------------------------------------------------


def test_cosines_of_columns_by_hand() -> None:
    left, right = np.array([[3.0, 0.0], [4.0, 0.0]]), np.array([[1.0, 4.0], [0.0, -3.0]])
    np.testing.assert_allclose(column_cosines(left, right), [[0.6, 0.0], [0.0, 0.0]], atol=1e-7)


def test_a_vector_weighs_as_much_as_a_matrix_by_hand() -> None:
    mine, theirs = Gained.drawn(0), Gained.drawn(1)
    found = measured(Pair.of(mine.view, theirs.view))
    # Each vector adds Pearson's r times the root of the width; the three matrices of the first MLP are zero.
    expected = cosines(mine.gains_LD, theirs.gains_LD).sum() * math.sqrt(WIDTH)
    assert found.notes == (f"{WIDTH} labels in {LAYERS + 3} tensors",)
    assert found.size == pytest.approx(expected / WIDTH / (LAYERS + 3), rel=1e-4)


def test_every_tensor_of_one_model_enters_one_statistic() -> None:
    base = random("llama", 0, sizes=SMALL)
    # The final gain; in each layer two gains, four matrices of attention and three of the MLP.
    assert measured(pair(base, base)).notes == ("16 labels in 19 tensors",)
    # Of each MLP the gate rows alone.
    assert measured(pair(base, base), "matched").notes == ("16 labels in 7 tensors",)
    # What tokens are read by and written by.
    assert measured(pair(base, base), "embeddings").notes == ("16 labels in 2 tensors",)


@pytest.mark.parametrize(
    ("rows", "layers"), [("stored", exact_residual.LAYERS), ("matched", exact_residual.MATCHED_LAYERS)]
)
def test_gains_of_all_layers_enter_and_matrices_of_some(rows: str, layers: int) -> None:
    base = random("llama", 0, sizes=SMALL, layers=10)
    found = measured(pair(base, base), rows)
    assert found.notes == (f"16 labels in {1 + 20 + layers * (7 if rows == 'stored' else 1)} tensors",)


# -- when it cannot run --------------------------------------------------------------------------------------------


def test_a_group_that_is_not_exchangeable_is_refused_with_the_family_s_reason() -> None:
    plain = random("llama", 0, sizes=SMALL).view()
    fixed = relabelled(plain, residual="each coordinate has its own frequency")
    for sides in ((fixed, plain), (plain, fixed)):
        found = measured(Pair.of(*sides))
        assert (found.status, found.reason) == ("not_applicable", "each coordinate has its own frequency")


def test_embeddings_of_unknown_vocabularies_cannot_be_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(base, random("llama", 0, sizes=SMALL, vocab=33)), "embeddings")
    assert (found.status, found.reason) == ("not_applicable", "no tensor of the stream could be paired")


def test_other_widths_cannot_be_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(with_residual(base, list(range(12))), base))
    assert found.reason == "the models have 12 and 16 residual coordinates"


def test_matrices_with_other_rows_are_left_out() -> None:
    base = random("llama", 0, sizes=SMALL)
    found = measured(pair(with_units(base, {f"ffn.{layer}": list(range(18)) for layer in range(2)}), base))
    assert found.notes == ("16 labels in 13 tensors",)
    assert near_floor(found)


def test_models_that_share_nothing_cannot_be_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    for role in ("norm.attn", "norm.mlp", "norm.final"):
        base = changed(base, role, 2.0)
    other = random("llama", 1, sizes=replace(SMALL, vocab=33, ffn=17, heads=3, kv_heads=3))
    for role in ("norm.attn", "norm.mlp", "norm.final"):
        other = changed(other, role, 1.0)
    found = measured(pair(other, base))
    assert (found.status, found.reason) == ("not_applicable", "no tensor of the stream could be paired")


def test_streams_that_are_all_alike_say_nothing() -> None:
    base = random("llama", 0, sizes=SMALL)
    same = base.updated({key: np.ones_like(array) for key, array in base.parts.items()})
    found = measured(pair(same, base))
    assert found.reason == "every relabelling gives the same statistic: nothing distinguishes the labels"


def test_what_holds_nan_is_left_out_and_named_and_the_rest_is_tested() -> None:
    base = random("llama", 0, sizes=SMALL)
    suspect = changed(changed(noisy(base, 0.1), "norm.final", np.nan), "attn.q", np.nan, 1)
    found = pair(changed(suspect, "embed.token", np.nan), base)
    result = measured(found)
    assert result.notes == ("16 labels in 14 tensors",)  # without the last gain and one layer's attention
    assert measured(found, "embeddings").notes == ("16 labels in 1 tensors",)
    neither = pair(changed(changed(suspect, "embed.token", np.nan), "unembed", np.nan), base)
    assert measured(neither, "embeddings").reason == "no tensor of the stream could be paired"
    assert near_floor(result)
    assert found.suspect.problems == (
        "tensor 'model.language_model.layers.1.self_attn.q_proj.weight' holds NaN or Inf",
    )
