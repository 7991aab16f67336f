"""Equal values: what they ignore (names, shards, dtypes, layouts), what they notice, and answers by hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint, open_checkpoint, write_safetensors
from kinprint.evidence import identity_search
from kinprint.evidence.identity import Identity, compare_values, evidence
from kinprint.evidence.values import equal_values
from methods import tiny

BF16 = ml_dtypes.bfloat16
UP = "model.layers.2.mlp.up_proj.weight"
seeds = st.integers(0, 2**32 - 1)


def plain(arrays: Mapping[str, Any]) -> ModelView:
    """A model of no known family."""
    return view(MemoryCheckpoint({name: np.asarray(array) for name, array in arrays.items()}))


def scrambled(arrays: Mapping[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """The same tensors in another order, under names that mean nothing."""
    names = list(arrays)
    order = np.random.default_rng(seed).permutation(len(names))
    return {f"t{at}.x": arrays[names[at]] for at in order}


def cast(arrays: Mapping[str, np.ndarray], dtype: Any) -> dict[str, np.ndarray]:
    return {name: array.astype(dtype) for name, array in arrays.items()}


def gpt2(seed: int = 0, layers: int = 2) -> dict[str, np.ndarray]:
    """A random GPT-2, whose attention is one fused and transposed tensor."""
    rng = np.random.default_rng(seed)
    shapes = {"wte.weight": (9, 8), "wpe.weight": (6, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)}
    for layer in range(layers):
        shapes |= {
            f"h.{layer}.{name}": shape
            for name, shape in {
                "ln_1.weight": (8,), "ln_1.bias": (8,), "ln_2.weight": (8,), "ln_2.bias": (8,),
                "attn.c_attn.weight": (8, 24), "attn.c_attn.bias": (24,),
                "attn.c_proj.weight": (8, 8), "attn.c_proj.bias": (8,),
                "mlp.c_fc.weight": (8, 32), "mlp.c_fc.bias": (32,),
                "mlp.c_proj.weight": (32, 8), "mlp.c_proj.bias": (8,),
            }.items()
        }  # fmt: skip
    return {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}


def gguf_gpt2(arrays: Mapping[str, np.ndarray]) -> ModelView:
    """The same model under GGUF's names, whose matrices are not transposed."""
    names = {
        "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm", "ln_2": "ffn_norm",
        "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down",
    }  # fmt: skip
    tensors: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        stem, kind = name.rsplit(".", 1)
        head, layer = ("", stem) if not stem.startswith("h.") else (f"blk.{stem.split('.')[1]}.", stem[4:])
        turned = array.T if layer.partition(".")[2] and array.ndim > 1 else array
        tensors[f"{head}{names[layer]}.{kind}"] = turned
    settings = {"attention.head_count": 2, "embedding_length": 8, "block_count": 2, "feed_forward_length": 32}
    config = {"general.architecture": "gpt2", **{f"gpt2.{key}": value for key, value in settings.items()}}
    return view(MemoryCheckpoint(tensors, config=config))


# -- ignored -------------------------------------------------------------------------------------------------------


def test_a_model_is_identical_to_itself_byte_for_byte() -> None:
    arrays = tiny.llama()
    found = compare_values(tiny.model(arrays), tiny.model(arrays, name="other"))
    assert found.identical == "bytes"
    assert found.same_bytes == found.same_rounded == found.tensors_suspect == found.tensors_base == len(arrays)
    assert found.equal_share == found.gains_equal_share == 1.0
    said = evidence(found)
    assert said.carries
    assert said.beyond
    assert said.rung == 0
    assert said.log10_p is None
    assert said.size is not None
    assert said.size > 0.99


@pytest.mark.parametrize("dtype", [np.float32, BF16])
def test_unchanged_when_names_mean_nothing(dtype: Any) -> None:
    arrays = cast(tiny.llama(), dtype)
    suspect = view(MemoryCheckpoint(scrambled(arrays)))
    assert suspect.inferred
    for found in (compare_values(suspect, tiny.model(arrays)), compare_values(tiny.model(arrays), suspect)):
        assert found.identical == "bytes"
        assert found.elsewhere == len(arrays)
        assert found.equal_share == 1.0


def test_names_that_lie_are_no_evidence() -> None:
    names = [f"w{number}" for number in range(6)]
    rng = np.random.default_rng(0)
    arrays = {name: rng.standard_normal((5, 4)) for name in names}
    turned = dict(zip(names, [*list(arrays.values())[1:], arrays["w0"]], strict=True))
    assert compare_values(plain(turned), plain(arrays)).identical == "bytes"


def test_unchanged_when_the_model_is_sharded(tmp_path: Path) -> None:
    arrays = tiny.llama()
    names = list(arrays)
    write_safetensors(tmp_path / "one.safetensors", arrays)
    shards = {"model-00001-of-00002": names[::2], "model-00002-of-00002": names[1::2]}
    folder = tmp_path / "many"
    folder.mkdir()
    for shard, held in shards.items():
        write_safetensors(folder / f"{shard}.safetensors", {name: arrays[name] for name in held})
    index = {name: f"{shard}.safetensors" for shard, held in shards.items() for name in held}
    import json

    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    found = compare_values(view(open_checkpoint(folder)), view(open_checkpoint(tmp_path / "one.safetensors")))
    assert found.identical == "bytes"


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize(
    ("suspect", "base"),
    [
        (np.float32, BF16),
        (BF16, np.float32),
        (np.float16, np.float32),
        (np.float64, np.float16),
        (np.float16, BF16),
        (BF16, np.float16),
        (ml_dtypes.float8_e4m3fn, np.float32),
        (BF16, ml_dtypes.float8_e5m2),
    ],
)
def test_unchanged_up_to_rounding_when_one_source_is_stored_in_two_dtypes(suspect: Any, base: Any, known: bool) -> None:
    arrays = tiny.llama()
    if min(np.dtype(suspect).itemsize, np.dtype(base).itemsize) > 1:
        # Down to where f16 has only a few bits left; f8 would make constants of that.
        arrays = {name: array * np.float32(10.0 ** -(at % 7)) for at, (name, array) in enumerate(arrays.items())}
    mine = cast(arrays, suspect)
    found = compare_values(
        tiny.model(mine if known else scrambled(mine)),
        tiny.model(cast(arrays, base)),
    )
    assert found.identical == "rounded"
    assert found.same_bytes == 0
    assert found.same_rounded == len(arrays)


def test_unchanged_when_it_was_rounded_and_widened_again() -> None:
    arrays = tiny.llama()
    once = cast(arrays, BF16)
    found = compare_values(tiny.model(cast(once, np.float16)), tiny.model(once))
    assert found.identical == "rounded"


def test_unchanged_when_layouts_are_fused_and_transposed() -> None:
    arrays = gpt2()
    suspect, base = gguf_gpt2(arrays), view(MemoryCheckpoint(arrays, config={"n_head": 2}))
    assert suspect.family.name == base.family.name == "gpt2"
    assert not suspect.unmapped
    for found in (compare_values(suspect, base), compare_values(base, suspect)):
        assert found.identical == "bytes"
        assert found.elsewhere == 0
        assert found.same_bytes == len(arrays)
    arrays["h.1.attn.c_attn.weight"][3, 11] += 1
    found = compare_values(suspect, view(MemoryCheckpoint(arrays, config={"n_head": 2})))
    assert found.identical is None
    assert found.same_bytes == len(arrays) - 1


def mixtral(experts: int, *, stacked: bool) -> ModelView:
    """The first experts of one mixture, each in tensors of its own or all in one."""
    mixture = tiny.mixture(0, layers=2, experts=5, shared=False)
    arrays = {name: array for name, array in mixture.items() if ".experts." not in name}
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp."
        arrays[f"{prefix}gate.weight"] = mixture[f"{prefix}gate.weight"][:experts]
        each = {
            kind: [mixture[f"{prefix}experts.{at}.{kind}_proj.weight"] for at in range(experts)]
            for kind in ("gate", "up", "down")
        }
        if stacked:
            fused = [np.concatenate(both) for both in zip(each["gate"], each["up"], strict=True)]
            arrays |= {f"{prefix}experts.gate_up_proj": np.stack(fused)}
            arrays |= {f"{prefix}experts.down_proj": np.stack(each["down"])}
        else:
            arrays |= {
                f"{prefix}experts.{at}.{kind}_proj.weight": array
                for kind, stack in each.items()
                for at, array in enumerate(stack)
            }
    return tiny.model(arrays)


def test_unchanged_when_experts_are_stacked_and_not_when_one_is_cut() -> None:
    one, other, cut = mixtral(5, stacked=True), mixtral(5, stacked=False), mixtral(4, stacked=True)
    assert one.family.name == other.family.name == "mixtral"
    for pair in ((one, other), (other, one)):
        found = compare_values(*pair)
        assert found.identical == "bytes"
        assert found.elsewhere == 0
    found = compare_values(one, cut)
    assert found.identical is None
    # Routers and stacked experts lack the fifth; its like is in no tensor of the cut model.
    assert found.tensors_suspect - found.same_bytes == 2 * 3
    assert found.equal_share == 1.0


def test_unchanged_when_the_shared_embedding_is_saved_twice() -> None:
    arrays = tiny.llama()
    twice = {**arrays, "lm_head.weight": arrays["model.embed_tokens.weight"]}
    assert compare_values(tiny.model(twice), tiny.model(arrays)).identical == "bytes"
    assert compare_values(tiny.model(arrays), tiny.model(twice)).identical == "bytes"
    other = {**arrays, "lm_head.weight": arrays["model.embed_tokens.weight"] + 1}
    assert compare_values(tiny.model(other), tiny.model(arrays)).identical is None
    assert compare_values(tiny.model(arrays), tiny.model(other)).identical is None


def test_unchanged_when_gains_are_stored_without_their_one() -> None:
    arrays = tiny.llama()
    centred = {name: array - 1 if "norm" in name else array for name, array in cast(arrays, np.float32).items()}
    as_they_act = {name: array + np.float32(1) if "norm" in name else array for name, array in centred.items()}
    suspect = tiny.model(centred, model_type="gemma")
    assert suspect.family.gain == "zero-centred"
    found = compare_values(suspect, tiny.model(as_they_act))
    assert found.identical == "rounded"
    assert found.same_rounded - found.same_bytes == sum("norm" in name for name in arrays)


def test_unchanged_when_constants_and_masks_come_and_go() -> None:
    arrays = tiny.llama()
    bare = plain(scrambled(arrays))
    more = {"ones": np.ones(40, np.float32), "mask": np.tril(np.ones((60, 60), np.float32)), "none": np.zeros((0, 3))}
    found = compare_values(plain({**arrays, **more}), bare)
    assert found.identical == "bytes"
    assert found.left_out == (3, 0)
    assert any("3 tensors of the suspect" in note for note in evidence(found).notes)


# -- noticed -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", [(0, 0), (23, 15)])
def test_one_changed_value_is_noticed(where: tuple[int, int]) -> None:
    arrays = tiny.llama()
    changed = {name: array.copy() for name, array in arrays.items()}
    changed[UP][where] = np.nextafter(changed[UP][where], np.float32(9))
    found = compare_values(tiny.model(changed), tiny.model(arrays))
    assert found.identical is None
    assert found.same_bytes == found.tensors_suspect - 1
    said = evidence(found)
    assert not said.carries
    assert not said.beyond


def test_one_value_changed_after_the_first_blocks_is_noticed() -> None:
    array = np.random.default_rng(0).standard_normal((1100, 1000)).astype(np.float32)
    changed = array.copy()
    changed[-1, -1] += 1
    assert compare_values(plain({"w": array.copy()}), plain({"w": array})).identical == "bytes"
    for name in ("w", "v"):
        assert compare_values(plain({name: changed}), plain({"w": array})).identical is None


def test_another_constant_is_noticed() -> None:
    arrays = tiny.llama()
    ones, twos = (
        {**arrays, "model.layers.0.input_layernorm.weight": np.full(16, value, np.float32)} for value in (1, 2)
    )
    assert compare_values(tiny.model(ones), tiny.model(ones)).identical == "bytes"
    found = compare_values(tiny.model(ones), tiny.model(twos))
    assert found.identical is None
    assert any("constant" in note for note in found.notes)


def test_frozen_layers_are_listed_and_carry_nothing() -> None:
    arrays = tiny.llama(ffn=80)
    tuned = {
        name: array if ".layers.0." in name or ".layers.1." in name else array + np.float32(0.01)
        for name, array in arrays.items()
    }
    found = compare_values(tiny.model(tuned), tiny.model(arrays))
    assert set(found.frozen) == {f"mlp.{part}@{layer}" for part in ("gate", "up", "down") for layer in (0, 1)}
    assert found.same_bytes == 18
    said = evidence(found)
    assert not said.carries
    assert said.size is not None
    assert 0.3 < said.size < 0.6
    assert {row[0] for table in said.tables if table.title.startswith("Unchanged") for row in table.rows} == set(
        found.frozen
    )


def test_layers_in_another_order_are_found_and_not_called_identical() -> None:
    arrays = tiny.llama()
    swapped = {
        name.replace("layers.0.", "layers.x.")
        .replace("layers.1.", "layers.0.")
        .replace("layers.x.", "layers.1."): array
        for name, array in arrays.items()
    }
    found = compare_values(tiny.model(swapped), tiny.model(arrays))
    assert found.same_bytes == len(arrays)
    assert found.elsewhere == 18
    assert found.identical is None


def test_repeated_layers_are_found_and_not_called_identical() -> None:
    arrays = tiny.llama(layers=3)
    copied = {**arrays}
    copied |= {name.replace("layers.1.", "layers.3."): array for name, array in arrays.items() if "layers.1." in name}
    suspect, base = tiny.model(copied), tiny.model(arrays)
    found = compare_values(suspect, base)
    assert found.same_bytes == found.tensors_suspect == found.tensors_base + 9
    assert found.identical is None
    assert compare_values(base, suspect).identical is None
    assert compare_values(plain(scrambled(copied)), plain(scrambled(arrays))).identical is None


def test_packed_weights_that_differ_are_no_identity_though_their_scales_agree() -> None:
    rng = np.random.default_rng(0)
    scales = rng.random((8, 2)).astype(np.float16)
    packed = [rng.integers(0, 2**31, (8, 4)).astype(np.int32) for _ in range(2)]
    models = [plain({"w.scales": scales, "w.qweight": codes}) for codes in packed]
    assert compare_values(models[0], models[0]).identical == "bytes"
    assert compare_values(models[0], plain({"s": scales, "q": packed[0]})).identical == "bytes"
    assert compare_values(models[0], models[1]).identical is None
    assert compare_values(models[0], plain({"s": scales, "q": packed[1]})).identical is None


def test_strangers_share_no_matrix_values() -> None:
    found = compare_values(tiny.model(tiny.llama(0)), tiny.model(tiny.llama(1)))
    assert found.same_rounded == 0
    assert found.frozen == ()
    said = evidence(found)
    assert said.size == pytest.approx(0.0, abs=1e-3)
    assert not said.carries


@given(seed=seeds)
@settings(deadline=None, max_examples=10, derandomize=True)
def test_gains_of_strangers_in_bf16_agree_as_often_as_after_a_shuffle(seed: int) -> None:
    rng = np.random.default_rng(seed)
    models = [
        plain({f"layers.{at}.norm": (1 + 0.05 * rng.standard_normal(600)).astype(BF16) for at in range(24)})
        for _ in range(2)
    ]
    found = compare_values(*models)
    assert found.gains_equal_share is not None
    assert found.gains_shuffled_share is not None
    assert 0.01 < found.gains_equal_share < 0.08
    # 14,400 values at 3 %: a standard deviation of 0.0014.
    assert found.gains_equal_share == pytest.approx(found.gains_shuffled_share, abs=0.007)


# -- by hand -------------------------------------------------------------------------------------------------------


def by_hand() -> Identity:
    suspect = {"a": [[1.0, 2.0], [3.0, 4.0]], "b": [1.0, 5.0], "c": [[7.0, 7.0]]}
    base = {"a": [[1.0, 2.0], [3.0, 9.0]], "b": [1.0, 5.0], "c": [[7.0, 7.0]]}
    return compare_values(plain(suspect), plain(base))


def test_two_by_two_by_hand() -> None:
    """a: three of four values are equal; shuffled, 3 pairs of 16 are, so 3/16. b: equal; shuffled, half are."""
    found = by_hand()
    assert (found.tensors_suspect, found.tensors_base, found.left_out) == (2, 2, (1, 1))
    assert (found.same_bytes, found.same_rounded, found.identical) == (1, 1, None)
    assert found.equal_share == 0.75
    assert found.shuffled_share == pytest.approx(3 / 16, abs=0.04)
    assert found.gains_equal_share == 1.0
    assert found.gains_shuffled_share == pytest.approx(1 / 2, abs=0.06)
    assert evidence(found).size == pytest.approx(0.75 - 3 / 16, abs=0.04)
    assert by_hand() == found


def test_a_number_near_a_midpoint_is_one_value_in_both_halves() -> None:
    """1 + 3/256 + 2^-20 is nearer to 1 + 2/128 in bf16, and in f16 is 1 + 3/256, a tie that goes to 1 + 2/128 too.

    A little below 1 + 1/256 it is 1 in bf16; f16 has 1 + 4/1024, whose tie goes to 1. A little above, bf16 has
    1 + 1/128, to which that tie does not go: the same number, and only the intervals tell.
    """
    source = np.array([1 + 3 / 256 + 2**-20, 1 + 1 / 256 - 2**-20, 1 + 1 / 256 + 2**-20])
    half, brain = source.astype(np.float16), source.astype(np.float32).astype(BF16)
    assert (half.astype(np.float32).astype(BF16) == brain).tolist() == [True, True, False]
    assert equal_values(half, brain).all()
    assert equal_values(brain, half).all()
    assert not equal_values(half, (brain.astype(np.float32) + 2**-6).astype(BF16)).any()


@given(seed=seeds)
@settings(deadline=None, max_examples=20, derandomize=True)
def test_every_number_equals_itself_in_both_halves_and_not_its_neighbour_but_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = (rng.standard_normal(2000) * 10.0 ** rng.uniform(-9, 3, 2000)).astype(np.float32)
    half, brain = source.astype(np.float16), source.astype(BF16)
    assert equal_values(half, brain).all()
    further = (brain.view(np.uint16) + 2).view(BF16)
    normal = np.abs(source) > 1e-4
    assert not equal_values(half, further)[normal].any()


# -- hostile -------------------------------------------------------------------------------------------------------


def test_nan_at_the_same_place_is_the_same_value() -> None:
    arrays = tiny.llama()
    arrays[UP][0, :3] = [np.nan, np.inf, -np.inf]
    again = {name: array.copy() for name, array in arrays.items()}
    again[UP].view(np.uint32)[0, 0] += 1  # another NaN
    assert compare_values(tiny.model(again), tiny.model(arrays)).identical == "bytes"
    assert compare_values(tiny.model(cast(again, BF16)), tiny.model(arrays)).identical == "rounded"
    assert compare_values(tiny.model(cast(again, np.float16)), tiny.model(cast(arrays, BF16))).identical == "rounded"
    again[UP][0, 0] = 1
    found = compare_values(tiny.model(again), tiny.model(arrays))
    assert found.identical is None
    assert found.equal_share is not None
    assert 0.99 < found.equal_share < 1


def test_a_zero_of_the_other_sign_is_equal_and_other_bytes() -> None:
    plus, minus = np.array([[0.0, 1.0, np.nan]]), np.array([[-0.0, 1.0, -np.nan]])
    assert compare_values(plain({"w": plus}), plain({"w": minus})).identical == "rounded"


def test_a_matrix_of_two_values_is_a_mask_only_with_a_zero() -> None:
    signs = np.sign(np.random.default_rng(0).standard_normal((6, 6)))
    assert compare_values(plain({"w": signs}), plain({"w": signs})).identical == "bytes"
    assert compare_values(plain({"w": np.maximum(signs, 0)}), plain({"w": signs})).left_out == (1, 0)


def test_a_tensor_of_nothing_but_nan_is_constant() -> None:
    found = compare_values(plain({"w": np.full((3, 3), np.nan)}), plain({"w": np.full((3, 3), np.nan)}))
    assert found.left_out == (1, 1)
    assert evidence(found).status == "not_applicable"


def test_values_too_large_for_the_coarser_dtype_are_compared_without_a_warning() -> None:
    arrays = {"w": np.array([[1e30, 1.0, 2.0, -1e30]], np.float32)}
    assert compare_values(plain(cast(arrays, BF16)), plain(arrays)).identical == "rounded"
    with np.errstate(over="ignore"):
        assert compare_values(plain(cast(arrays, np.float16)), plain(arrays)).identical == "rounded"
        assert compare_values(plain(cast(arrays, np.float16)), plain(cast(arrays, BF16))).identical == "rounded"


@pytest.mark.parametrize(
    ("suspect", "base", "reason"),
    [
        ({}, {"w": [[1.0, 2.0]]}, "the suspect holds no tensor"),
        ({"w": [[1.0, 2.0]]}, {"w": np.ones((2, 2))}, "the base holds no tensor"),
        ({"w": [[1.0, 2.0]]}, {"w": [[1.0], [2.0]]}, "none the same values"),
        ({"w": [[1.0, 2.0]]}, {"v": [[1.0, 3.0]]}, "none the same values"),
        ({"w": 1.0, "i": np.arange(9)}, {"w": 1.0, "i": np.arange(9)}, "the suspect holds no tensor"),
    ],
)
def test_nothing_in_common_is_said_and_not_raised(
    suspect: Mapping[str, Any], base: Mapping[str, Any], reason: str
) -> None:
    found = compare_values(plain(suspect), plain(base))
    assert found.identical is None
    assert found.equal_share is None
    said = evidence(found)
    assert said.status == "not_applicable"
    assert said.reason is not None
    assert reason in said.reason


def test_models_of_other_sizes_compare_what_has_one_shape() -> None:
    found = compare_values(tiny.model(tiny.llama(0, ffn=24)), tiny.model(tiny.llama(0, ffn=28)))
    assert found.identical is None
    assert found.compared == (1 + 4 * 4, 9)


def test_tensors_that_differ_are_left_at_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    read = 0

    def counted(original: Callable[..., np.ndarray]) -> Callable[..., np.ndarray]:
        def equal(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            nonlocal read
            read += left.size
            return original(left, right)

        return equal

    rng = np.random.default_rng(0)
    models = [plain({f"w{at}": rng.standard_normal((2000, 1000)) for at in range(3)}) for _ in range(2)]
    monkeypatch.setattr(identity_search, "equal_values", counted(identity_search.equal_values))
    assert compare_values(*models).identical is None
    assert read < 3 * 3 * identity_search.SAMPLE
