"""Layers, coordinates, units and heads are cut where they should be, as transformers computes the result."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kinprint.architecture import PartKey
from kinprint.errors import UsageError
from kinprint.transform import ModelState
from kinprint.transform.cutting import (
    energy,
    strongest_groups,
    strongest_residual,
    strongest_units,
    with_groups,
    with_layers,
    with_residual,
    with_units,
)
from support.loaded import load, logits, tiny
from support.tiny import GROUPED, KINDS

# float64 throughout, but transformers computes norms and softmax in float32: a few times 1e-7 of rounding remains
CLOSE = 1e-5


def close(a: np.ndarray, b: np.ndarray) -> bool:
    return float(np.abs(a - b).max() / np.abs(b).max()) < CLOSE


def without(state: ModelState, axis: str, role: str, dead: list[int]) -> ModelState:
    """Zero what a matrix reads from some coordinates of an axis."""
    changed = {}
    for key, position in state.along(axis):
        if key.role == role:
            changed[key] = state.parts[key].copy()
            np.moveaxis(changed[key], position, 0)[dead] = 0.0
    assert changed
    return state.updated(changed)


@pytest.mark.parametrize("kind", ["llama", "qwen2_moe", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("order", [[0, 1], [0, 1, 2, 1, 2, 3], [2, 0, 3, 1]])
def test_layers_laid_out_anew_compute_what_the_module_with_these_layers_computes(kind: str, order: list[int]) -> None:
    import torch

    state = tiny(kind)
    module = load(state)
    inner = module.base_model
    name = "h" if kind == "gpt2" else "layers"
    layers = getattr(inner, name)
    setattr(inner, name, torch.nn.ModuleList(layers[i] for i in order))
    module.config.num_hidden_layers = len(order)
    if kind == "qwen2_moe":
        module.config.layer_types = [module.config.layer_types[i] for i in order]
    assert close(logits(with_layers(state, order)), logits(module))


def test_layers_that_stay_are_bit_for_bit_as_they_were() -> None:
    state = tiny("llama")
    cut = with_layers(state, [0, 3])
    for key, array in cut.parts.items():
        old = key if key.layer in (None, 0) else replace(key, layer=3)
        np.testing.assert_array_equal(array, state.parts[old])
    assert {key.layer for key in cut.parts} == {None, 0, 1}
    assert cut.geometry.layers == cut.config["num_hidden_layers"] == 2


def test_lists_by_layer_in_the_config_follow_their_layers() -> None:
    state = tiny("gemma2")
    before = state.config["layer_types"]
    assert before[0] != before[1]
    assert with_layers(state, [1, 1, 0]).config["layer_types"] == [before[1], before[1], before[0]]


def test_layers_without_experts_stay_without_them_where_they_go(monkeypatch: pytest.MonkeyPatch) -> None:
    mixed = {
        **GROUPED,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 24,
        "shared_expert_intermediate_size": 24,
        "decoder_sparse_step": 2,
    }
    monkeypatch.setitem(KINDS, "mixed", ("Qwen2Moe", mixed))
    cut = with_layers(tiny("mixed"), [1, 0, 2])  # layers 1 and 3 have experts
    assert cut.config["mlp_only_layers"] == [1, 2]
    load(cut)


def test_masks_of_a_layer_follow_it_and_other_extra_tensors_stay() -> None:
    state = tiny("gpt_neox")
    state = replace(
        state,
        extra={f"gpt_neox.layers.{i}.attention.bias": np.full(1, i) for i in range(4)} | {"steps": np.zeros(1, int)},
    )
    moved = with_layers(state, [3, 1]).extra
    assert {name: int(array[0]) for name, array in moved.items()} == {
        "gpt_neox.layers.0.attention.bias": 3,
        "gpt_neox.layers.1.attention.bias": 1,
        "steps": 0,
    }


@pytest.mark.parametrize("order", [[], [0, 4], [-1]])
def test_no_layer_or_one_that_is_not_there_is_refused(order: list[int]) -> None:
    with pytest.raises(UsageError, match="name some from 0 to 3"):
        with_layers(tiny("llama"), order)


@pytest.mark.parametrize("kind", ["llama", "gpt_neox", "gpt2", "mixtral", "qwen2_moe"])
def test_cutting_units_whose_output_nothing_reads_leaves_the_logits(kind: str) -> None:
    state = tiny(kind)
    rng = np.random.default_rng(5)
    kept = {}
    for axis in sorted({a for a in state.axis_names() if a.split(".")[0] in ("ffn", "expert-ffn", "shared-ffn")}):
        size = energy(state, axis).size
        dead = rng.choice(size, size=size // 4, replace=False)
        role = next(key.role for key, _ in state.along(axis) if key.role.endswith("down"))
        state = without(state, axis, role, dead.tolist())
        kept[axis] = sorted(set(range(size)) - set(dead.tolist()))
    assert close(logits(with_units(state, kept)), logits(state))


@pytest.mark.parametrize("kind", ["llama", "qwen3", "gemma2", "mixtral"])
def test_cutting_heads_whose_output_nothing_reads_leaves_the_logits(kind: str) -> None:
    state = tiny(kind)
    assert (state.geometry.heads, state.geometry.kv_heads) == (4, 2)
    kept = {0: [1], 1: [0], 2: [1], 3: [1]}
    for layer, (group,) in kept.items():
        columns = 2 * (state.geometry.head_dim or 0)  # two query heads share a key/value head
        dead = list(range((1 - group) * columns, (2 - group) * columns))
        state = without(state, f"context.{layer}", "attn.o", dead)
    cut = with_groups(state, kept)
    assert (cut.geometry.heads, cut.geometry.kv_heads) == (2, 1)
    assert close(logits(cut), logits(state))


def test_cutting_residual_coordinates_that_are_zero_leaves_the_logits_once_gains_make_up_for_the_shorter_mean() -> None:
    state = tiny("llama")
    dead = [0, 7, 8, 30]
    kept = [i for i in range(32) if i not in dead]
    for role in ("embed.token", "attn.o", "attn.o.bias", "mlp.down", "mlp.down.bias"):
        state = without(state, "residual", role, dead)
    cut = with_residual(state, kept)
    gains = [key for key in cut.parts if key.role.startswith("norm.")]
    # x / rms(x) is smaller: the mean of squares over 28 instead of 32 coordinates is larger by 32 / 28
    same = cut.updated({key: cut.parts[key] * np.sqrt(32 / 28) for key in gains})
    assert close(logits(same), logits(state))
    assert not close(logits(cut), logits(state))
    assert cut.config["head_dim"] == state.geometry.head_dim


def test_what_stays_is_what_has_the_largest_norm() -> None:
    state = tiny("llama")
    state = without(state, "ffn.2", "mlp.up", list(range(30)))
    state = without(state, "ffn.2", "mlp.gate", list(range(30)))
    state = without(state, "ffn.2", "mlp.down", list(range(30)))
    assert strongest_units(state, 0.25)["ffn.2"] == list(range(30, 40))
    state = without(state, "context.1", "attn.o", list(range(16)))
    state = without(state, "query.1", "attn.q", list(range(16)))
    assert strongest_groups(state, 0.5)[1] == [1]
    state = state.updated({PartKey("embed.token"): state.parts[PartKey("embed.token")] * (np.arange(32) % 2 * 100 + 1)})
    assert strongest_residual(state, 0.5) == list(range(1, 32, 2))


def test_energy_is_the_sum_of_squares_of_all_that_belongs_to_a_coordinate() -> None:
    state = tiny("gpt2")
    up, down, bias = (state.parts[PartKey(role, 1)] for role in ("mlp.up", "mlp.down", "mlp.up.bias"))
    by_hand = (up[3] ** 2).sum() + (down[:, 3] ** 2).sum() + bias[3] ** 2
    np.testing.assert_allclose(energy(state, "ffn.1")[3], by_hand, rtol=1e-12)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("olmo2", "one q or k norm runs over all of them"),
        ("gpt_neox", "the size of its heads is its width over their number"),
    ],
)
def test_heads_that_cannot_be_cut_by_themselves_are_refused(kind: str, words: str) -> None:
    state = tiny(kind)
    with pytest.raises(UsageError, match=words):
        with_groups(state, strongest_groups(state, 0.5))


def test_a_cut_that_keeps_all_is_refused() -> None:
    with pytest.raises(UsageError, match="keeping 1 of 32 coordinates of the residual stream cuts nothing"):
        strongest_residual(tiny("llama"), 1.0)


def test_layers_of_different_width_are_refused() -> None:
    state = tiny("llama")
    kept = strongest_units(state, 0.5)
    with pytest.raises(UsageError, match="19 ffn units in one layer and 20 in another"):
        with_units(state, {**kept, "ffn.1": kept["ffn.1"][:-1]})
    with pytest.raises(UsageError, match="as many in each"):
        with_groups(state, {0: [0], 1: [0, 1], 2: [0], 3: [0]})
