"""What the norm-gain statistics ignore, what they notice, and answers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.fingerprints import Fingerprint
from kinprint.linalg.gains import effect_size
from kinprint.methods.layernorm import COLUMNS, GAINS_ID, METHOD, SAMPLED, compare, extract, reference_layers
from kinprint.transform import ModelState, preserve
from kinprint.types import MethodResult
from methods import tiny

seeds = st.integers(0, 2**32 - 1)

GLM_WITHIN = (0.375810, 0.375664, 0.377255, 0.379035)
SOLAR_GLM = (0.981094, 0.991792, 0.991429, 0.991635)


def fingerprint(*, zero_centred: bool = False, **arrays: np.ndarray) -> Fingerprint:
    """A fingerprint of vectors named as in ``attn_3`` for norm.attn in layer 3, or ``final``."""
    named = {f"norm.{name.replace('_', '@')}": np.asarray(vector) for name, vector in arrays.items()}
    return Fingerprint(GAINS_ID, {"zero-centred": np.array([zero_centred], np.uint8), **named})


def measure(suspect: ModelView, base: ModelView) -> MethodResult:
    return compare(extract(suspect), extract(base))


def numbers(result: MethodResult) -> Mapping[str, float | None]:
    return {value.name: value.value for value in (*result.values, *result.controls)}


def positive(rng: np.random.Generator, cv: float, size: int = 4096) -> np.ndarray:
    return np.abs(1.0 + cv * rng.standard_normal(size))


# -- what it ignores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.ignores - {"expert-permutation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_unchanged_by_what_leaves_the_basis_and_the_gains_alone(name: str, seed: int) -> None:
    base = tiny.model(tiny.llama(1, layers=2))
    model = ModelState.from_view(tiny.model(tiny.llama(2, layers=2))).view(np.float64)
    changed = preserve(ModelState.from_view(model), [name], np.random.default_rng(seed)).view(np.float64)
    # Exactly: the vectors are the same bytes.
    assert numbers(measure(changed, base)) == numbers(measure(model, base))


def test_the_same_vectors_in_another_dtype_are_bit_equal() -> None:
    stored = positive(np.random.default_rng(0), 0.1).astype(ml_dtypes.bfloat16)
    for dtype in (np.float16, np.float32, np.float64):
        found = numbers(compare(fingerprint(final=stored.astype(dtype)), fingerprint(final=stored)))
        assert found["norm.final bit-equal fraction"] == 1.0


def test_a_zero_centred_gain_equals_the_same_gain_stored_plainly() -> None:
    offsets = np.random.default_rng(0).integers(-16, 17, size=256) / 64  # 1 + w is exact in bfloat16
    suspect = fingerprint(attn_0=offsets.astype(ml_dtypes.bfloat16), zero_centred=True)
    found = numbers(compare(suspect, fingerprint(attn_0=(1 + offsets).astype(np.float32))))
    assert found["norm.attn raw cosine"] == pytest.approx(1.0, abs=1e-12)  # float64 rounding of 256 products
    assert found["norm.attn bit-equal fraction"] == 1.0


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["residual-permutation", "norm-gain-replacement"])
@given(seed=seeds)
@settings(deadline=None, max_examples=5)
def test_a_changed_basis_or_replaced_gains_destroy_the_centred_cosine(name: str, seed: int) -> None:
    model = tiny.model(tiny.llama(1, layers=1, hidden=256, heads=1, kv_heads=1, ffn=2))
    changed = preserve(ModelState.from_view(model), [name], np.random.default_rng(seed)).view()
    found = numbers(measure(changed, model))
    # Independent vectors of 256 coordinates have standard deviation .063.
    assert abs(found["norm.attn centred cosine"] or 0) < 0.4
    assert (found["norm.attn bit-equal fraction"] or 0) < 0.1


def test_a_rotated_model_has_constant_gains_and_says_so() -> None:
    model = tiny.model({**tiny.llama(1, layers=2), "lm_head.weight": np.ones((8, 16), np.float32)})
    rotated = preserve(ModelState.from_view(model), ["residual-rotation"], np.random.default_rng(0)).view()
    found = measure(rotated, model)
    value = next(v for v in found.values if v.name == "norm.attn centred cosine")
    assert (value.value, value.reason) == (None, "constant gains")
    assert "norm.attn: constant vectors in layers 0, 1 left out" in " ".join(found.notes)


def test_the_dispute_in_vitro_strangers_look_alike_only_until_centred() -> None:
    """Two independent positive vectors with cv .1: raw .99, as after shuffling and by expectation; centred 0."""
    rng = np.random.default_rng(0)
    one, other = positive(rng, 0.1), positive(rng, 0.1)
    stranger = numbers(compare(fingerprint(final=one), fingerprint(final=other)))
    assert stranger["norm.final raw cosine"] == pytest.approx(0.9901, abs=1e-3)
    # Their difference is cov/(mean^2), of standard deviation .01/64.
    assert stranger["norm.final shuffled raw cosine"] == pytest.approx(stranger["norm.final raw cosine"], abs=1e-3)
    assert stranger["norm.final expected raw cosine"] == pytest.approx(stranger["norm.final raw cosine"], abs=1e-3)
    assert abs(stranger["norm.final centred cosine"] or 1) < 0.08  # five standard deviations of 1/sqrt(4095)

    child = numbers(compare(fingerprint(final=one + 0.01 * rng.standard_normal(4096)), fingerprint(final=one)))
    assert (child["norm.final centred cosine"] or 0) > 0.99
    assert abs(child["norm.final shuffled centred cosine"] or 1) < 0.02  # mean of 32 draws of .0156


def test_strangers_in_bfloat16_agree_bit_for_bit_in_a_few_per_cent() -> None:
    rng = np.random.default_rng(1)
    one, other = (positive(rng, 0.1).astype(ml_dtypes.bfloat16) for _ in range(2))
    found = numbers(compare(fingerprint(final=one), fingerprint(final=other)))
    assert 0.005 < (found["norm.final bit-equal fraction"] or 0) < 0.08


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_statistics_of_four_coordinates_by_hand() -> None:
    result = compare(fingerprint(attn_0=np.array([1.0, 2, 3, 4])), fingerprint(attn_0=np.array([2.0, 2, 4, 4])))
    row = dict(zip(COLUMNS, result.tables[0].rows[0], strict=True))
    expected = {
        "raw cosine": 34 / np.sqrt(30 * 40),
        "centred cosine": 4 / np.sqrt(5 * 4),
        "expected raw": np.sqrt(3) / 2,  # cv^2 of .2 and 1/9
        "mean_abs_diff": 0.5,
        "p99_abs_diff": 0.03,  # 3.97 against 4
        "rel_l2": np.sqrt(2 / 30),
        "cv_diff": np.sqrt(1.25) / 2.5 - 1 / 3,
        "bit-equal": 0.5,
    }
    for column, value in expected.items():
        assert row[column] == pytest.approx(value, abs=1e-12), column
    assert (row["norm"], row["layer"]) == ("norm.attn", 0)


def test_percentiles_are_of_absolute_values_and_subtracted() -> None:
    result = compare(fingerprint(final=np.arange(101.0)), fingerprint(final=-2 * np.arange(101.0)))
    row = dict(zip(COLUMNS, result.tables[0].rows[0], strict=True))
    assert row["p99_abs_diff"] == pytest.approx(198 - 99, abs=1e-12)


def test_the_published_figures_give_the_published_sigma() -> None:
    assert effect_size(np.array(SOLAR_GLM), np.array(GLM_WITHIN)) == pytest.approx(181.94, abs=0.01)


def test_gains_with_the_published_cosines_give_the_published_sigma() -> None:
    """Layer 0 of the base is e0; its layer k and the suspect's have exactly the published cosines."""
    axes = np.eye(128)
    base = {f"attn_{layer}": axes[0] for layer in range(46)}
    suspect = {f"attn_{layer}": axes[100] for layer in range(48)}
    for place, layer in enumerate((10, 20, 30, 40)):
        within, across = GLM_WITHIN[place], SOLAR_GLM[place]
        base[f"attn_{layer}"] = within * axes[0] + np.sqrt(1 - within**2) * axes[1 + place]
        suspect[f"attn_{layer}"] = across * base[f"attn_{layer}"] + np.sqrt(1 - across**2) * axes[11 + place]
    result = compare(fingerprint(**suspect), fingerprint(**base))
    found = numbers(result)
    assert found["norm.attn claim's sigma"] == pytest.approx(181.94, abs=0.01)
    assert found["norm.attn layer-0 baseline raw cosine, base"] == pytest.approx(np.mean(GLM_WITHIN), abs=1e-12)
    assert "norm.attn: 48 layers against 46, compared by index over the 46 in both" in result.notes


def test_baselines_and_mismatched_layers_by_hand() -> None:
    turn = {angle: np.array([np.cos(np.radians(angle)), np.sin(np.radians(angle))]) for angle in range(0, 181, 30)}
    suspect = fingerprint(attn_0=turn[0], attn_1=turn[60], attn_2=turn[120])
    base = fingerprint(attn_0=turn[90], attn_1=turn[90], attn_2=turn[30])
    found = numbers(compare(suspect, base))
    cos = {angle: np.cos(np.radians(angle)) for angle in (30, 60, 90, 120)}
    assert found["norm.attn raw cosine"] == pytest.approx((cos[90] + cos[30] + cos[90]) / 3, abs=1e-12)
    mismatched = (cos[90] + cos[30] + cos[30] + cos[30] + cos[30] + cos[30]) / 6
    assert found["norm.attn mismatched layers raw cosine"] == pytest.approx(mismatched, abs=1e-12)
    assert found["norm.attn adjacent layers raw cosine, suspect"] == pytest.approx(cos[60], abs=1e-12)
    assert found["norm.attn adjacent layers raw cosine, base"] == pytest.approx((1 + cos[60]) / 2, abs=1e-12)
    # Three layers: the reference layers are 1 and 2.
    assert found["norm.attn layer-0 baseline raw cosine, suspect"] == pytest.approx((cos[60] + cos[120]) / 2, abs=1e-12)
    assert found["norm.attn layer-0 baseline raw cosine, base"] == pytest.approx((1 + cos[60]) / 2, abs=1e-12)


@given(seed=seeds, cv=st.floats(0.01, 1.0))
@settings(deadline=None, max_examples=20)
def test_the_mean_over_all_shuffles_is_the_expected_cosine(seed: int, cv: float) -> None:
    """Exact over all permutations; 32 of them vary by cv^2/sqrt(32 N) in the raw cosine."""
    rng = np.random.default_rng(seed)
    one, other = positive(rng, cv, 512), positive(rng, cv, 512)
    found = numbers(compare(fingerprint(final=one), fingerprint(final=other)))
    assert found["norm.final shuffled raw cosine"] == pytest.approx(
        found["norm.final expected raw cosine"], abs=6 * cv**2 / np.sqrt(32 * 512) + 1e-9
    )


def test_gains_of_opposite_sign_are_expected_to_have_a_negative_cosine() -> None:
    rng = np.random.default_rng(0)
    found = numbers(compare(fingerprint(final=positive(rng, 0.1)), fingerprint(final=-positive(rng, 0.1))))
    assert found["norm.final expected raw cosine"] == pytest.approx(-0.9901, abs=1e-3)
    assert found["norm.final shuffled raw cosine"] == pytest.approx(-0.9901, abs=1e-3)


@pytest.mark.parametrize(
    ("layers", "chosen"), [(48, [10, 20, 30, 40]), (41, [10, 20, 30, 40]), (40, [10, 20, 29, 39]), (2, [1]), (1, [])]
)
def test_reference_layers_are_the_published_ones_or_the_ends_of_the_quarters(layers: int, chosen: list[int]) -> None:
    assert reference_layers(range(layers)) == chosen


# -- what cannot be compared ---------------------------------------------------------------------------------------


def test_extraction_keeps_the_stored_dtype_and_only_the_residual_stream() -> None:
    tensors = tiny.llama(0, layers=2, dtype=ml_dtypes.bfloat16)
    tensors["model.layers.0.self_attn.q_norm.weight"] = np.ones(4, ml_dtypes.bfloat16)
    found = extract(tiny.model(tensors))
    expected = {"norm.attn@0", "norm.attn@1", "norm.mlp@0", "norm.mlp@1", "norm.final"}
    assert set(found.arrays) == {"zero-centred", *expected}
    assert {found.arrays[name].dtype for name in expected} == {np.dtype(ml_dtypes.bfloat16)}


def test_a_nan_is_named_and_takes_its_kind_of_norm_with_it() -> None:
    broken = tiny.llama(0)
    broken["model.layers.2.input_layernorm.weight"][3] = np.nan
    result = measure(tiny.model(broken), tiny.model(tiny.llama(1)))
    reasons = {value.name: value.reason for value in result.values}
    assert reasons["norm.attn raw cosine"] == "tensor 'model.layers.2.input_layernorm.weight' holds NaN or Inf"
    assert reasons["norm.mlp raw cosine"] is None
    assert not any(control.name.startswith("norm.attn ") for control in result.controls)
    assert [row[1] for row in result.tables[0].rows if row[0] == "norm.attn"] == [0, 1, 3]


def test_sampled_gains_stand_beside_the_bases_and_beside_those_of_another_coordinate() -> None:
    rng = np.random.default_rng(0)
    one, two = (fingerprint(**{f"attn_{layer}": positive(rng, 0.1) for layer in range(5)}) for _ in range(2))
    table = compare(one, two).tables[1]
    assert table.columns[:4] == (
        "coordinate", "norm.attn@0 suspect", "norm.attn@0 base", "norm.attn@0 base elsewhere",
    )  # fmt: skip
    assert [name for name in table.columns if name.endswith("suspect")] == [
        f"norm.attn@{layer} suspect" for layer in (0, 2, 4)
    ]
    coordinates = [row[0] for row in table.rows]
    assert len(set(coordinates)) == SAMPLED == len(coordinates)
    stored = one.arrays["norm.attn@0"], two.arrays["norm.attn@0"]
    for before, row in zip(table.rows[-1:] + table.rows, table.rows, strict=False):
        expected = (stored[0][row[0]], stored[1][row[0]], stored[1][before[0]])
        np.testing.assert_allclose(np.array(row[1:4], dtype=float), expected, rtol=1e-5)  # six digits are kept
    assert compare(one, two).tables[1] == table


def test_a_narrow_model_gives_all_its_coordinates_and_one_of_norms_outside_layers_its_own() -> None:
    vector = np.array([1.0, 2.0, 4.0])
    table = compare(fingerprint(final=vector), fingerprint(final=2 * vector)).tables[1]
    assert table.columns == ("coordinate", "norm.final suspect", "norm.final base", "norm.final base elsewhere")
    assert sorted(row[:3] for row in table.rows) == [(0, 1.0, 2.0), (1, 2.0, 4.0), (2, 4.0, 8.0)]


def test_untrained_gains_say_nothing_when_centred() -> None:
    tensors = {name: np.ones_like(a) if "norm" in name else a for name, a in tiny.llama(0).items()}
    result = measure(tiny.model(tensors), tiny.model(tensors))
    found = numbers(result)
    assert found["norm.attn raw cosine"] == pytest.approx(1.0, abs=1e-12)
    assert found["norm.attn centred cosine"] is None
    assert found["norm.attn bit-equal fraction"] is None


def test_other_widths_are_a_finding() -> None:
    result = measure(tiny.model(tiny.llama(0)), tiny.model(tiny.llama(0, hidden=20)))
    assert (result.status, result.reason) == ("not_applicable", "the widths differ: 16 against 20 coordinates")


def test_a_model_without_norms_is_a_finding() -> None:
    stranger = view(MemoryCheckpoint({"a": np.ones((2, 2), np.float32)}))
    result = measure(stranger, tiny.model(tiny.llama(0)))
    assert result.status == "not_applicable"
    assert result.reason == "the suspect has no norm gains: unknown family: no tensor is known to be a norm"


def test_depths_are_compared_by_index_over_the_shorter() -> None:
    deep = tiny.llama(0, layers=4)
    shallow = {name: a for name, a in deep.items() if ".layers.3." not in name}
    result = measure(tiny.model(shallow), tiny.model(deep))
    assert numbers(result)["norm.attn bit-equal fraction"] == 1.0
    assert "norm.attn: 3 layers against 4, compared by index over the 3 in both" in result.notes


def test_a_kind_of_norm_that_one_side_lacks_is_said() -> None:
    ones = np.arange(1.0, 5.0)
    result = compare(fingerprint(attn_0=ones, final=ones), fingerprint(attn_0=ones, mlp_0=ones))
    assert "only the suspect has norm.final" in result.notes
    assert "only the base has norm.mlp" in result.notes
    assert {value.name.split(" ")[0] for value in result.values} == {"norm.attn"}
