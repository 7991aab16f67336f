"""Where layers come from: the recipe's word, held against the bits of models that were made by it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from kinprint.architecture import ModelView, view
from kinprint.bench.verdicts_layers import DRAWS_NOTHING, Lineage, order_by_bits, recipe_order
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.zoo.derive import KINDS, Chain, derive
from kinprint.zoo.kinds import parse
from kinprint.zoo.manifest import Manifest, read_manifest
from kinprint.zoo.model import Model
from kinprint.zoo.recipes import Derived, Shape, Suite, Trained
from kinprint.zoo.shapes import untrained
from kinprint.zoo.suite import build_suite
from kinprint.zoo.train import Training, initial
from support.small import context, drawn

pytest.importorskip("torch")

DEPTH = 7
SHAPE = Shape(hidden=16, layers=5, heads=2, kv_heads=1, head_dim=8, ffn=16, context=32)
TRAINING = Training(corpus="help-topics", steps=3, batch=2, learning_rate=1e-2, warmup=1, seed_data=3)
HIDDEN = ("noise", "reorder-blocks", "norm-gain-replacement")
HEAL = "heal:steps=2,batch=2,corpus=help-topics"


def viewed(model: Model) -> ModelView:
    return view(MemoryCheckpoint(model.weights, config=model.config, name="made"))


def nobody(name: str) -> Model:
    raise AssertionError(name)


# -- by the recipe -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kinds", "order"),
    [
        (["fine-tune"], (0, 1, 2, 3, 4, 5, 6, 7)),
        # The last quarter of eight is 6 and 7; those before it go.
        (["depth-cut:count=1", "heal"], (0, 1, 2, 3, 4, 6, 7)),
        (["depth-cut"], (0, 1, 2, 3, 6, 7)),
        (["depth-cut:drop=0+3"], (1, 2, 4, 5, 6, 7)),
        (["depth-upscale"], (0, 1, 2, 3, 4, 5, 2, 3, 4, 5, 6, 7)),
        (["noise", "reorder-blocks:order=7+6+5+4+3+2+1+0"], (7, 6, 5, 4, 3, 2, 1, 0)),
        (["depth-cut:drop=0+1+2+3+4", "noise", "depth-upscale:order=0+0+1+2"], (5, 5, 6, 7)),
    ],
)
def test_settings_tell_the_order(kinds: list[str], order: tuple[int, ...]) -> None:
    assert recipe_order(Chain.parse(kinds), 0, 8) == order


@pytest.mark.parametrize(
    "kinds",
    [
        ["reorder-blocks"],
        ["depth-cut:count=2", "reorder-blocks"],
        ["reorder-blocks", "depth-upscale", "noise"],
        ["width-cut-ffn", "quantise", "depth-cut:count=1", "reorder-blocks"],
        ["reorder-blocks", "residual-rotation", "reorder-blocks:order=6+5+4+3+2+1+0"],
    ],
)
@pytest.mark.parametrize("seed", [1, 2])
def test_an_order_that_the_recipe_draws_is_the_one_that_the_model_has(kinds: list[str], seed: int) -> None:
    base = drawn("llama", DEPTH)
    told = recipe_order(Chain.parse(kinds), seed, DEPTH)
    # What changes every weight is left out, so that bits can be found again; it draws after the order was drawn.
    still = [kind for kind in kinds if not kind.startswith(("noise", "residual-rotation", "quantise", "width"))]
    made = derive(base, Chain.parse(still), seed=seed, others=nobody).model
    assert told == order_by_bits(viewed(made), viewed(base))
    assert told != tuple(range(DEPTH))


@pytest.mark.parametrize("kinds", [["depth-cut-shortgpt:count=1"], ["query-head-permutation", "reorder-blocks"]])
def test_an_order_that_settings_do_not_tell_is_not_known(kinds: list[str]) -> None:
    assert recipe_order(Chain.parse(kinds), 0, DEPTH) is None


@pytest.mark.parametrize("name", DRAWS_NOTHING)
def test_kinds_that_are_said_to_draw_nothing_draw_nothing(name: str) -> None:
    told, step = context(5), parse(name, KINDS)
    shape = dataclasses.replace(SHAPE, kv_heads=2)
    step.kind.apply(initial(untrained(shape), seed=1, std=0.1), step.settings, told)
    assert told.rng.bit_generator.state == np.random.default_rng(5).bit_generator.state


# -- by bits -------------------------------------------------------------------------------------------------------


def test_one_tensor_that_was_left_alone_tells_where_a_layer_comes_from() -> None:
    base = drawn("llama", 3)
    kept = {f"model.layers.{layer}.mlp.down_proj.weight" for layer in range(3)}
    made = derive(base, Chain.parse(["reorder-blocks:order=2+0+1"]), seed=0, others=nobody).model
    weights = {name: array if name in kept or array.ndim < 2 else array * 1.5 for name, array in made.weights.items()}
    assert order_by_bits(viewed(Model(made.config, weights, {})), viewed(base)) == (2, 0, 1)


def test_a_layer_like_none_or_like_two_has_no_known_origin() -> None:
    base, stranger = drawn("llama", 3), drawn("llama", 3, seed=9)
    twice = derive(base, Chain.parse(["depth-upscale:order=0+1+1+2"]), seed=0, others=nobody).model
    assert order_by_bits(viewed(stranger), viewed(base)) is None
    assert order_by_bits(viewed(base), viewed(twice)) is None
    assert order_by_bits(viewed(twice), viewed(base)) == (0, 1, 1, 2)


# -- a zoo ---------------------------------------------------------------------------------------------------------

MICRO = Suite(
    name="micro",
    summary="as small as can be",
    recipes=(
        Trained(name="a", summary="start", shape=SHAPE, seed_init=1, training=TRAINING),
        Trained(name="b", summary="another", shape=SHAPE, seed_init=2, training=TRAINING),
        Derived(name="a.cut", summary="cut", parent="a", kinds=("depth-cut:count=1", HEAL), seed=4),
        Derived(name="a.mixed", summary="drawn later", parent="a", kinds=("noise", "reorder-blocks"), seed=5),
        Derived(name="a.hidden", summary="no bits", parent="a", kinds=HIDDEN, seed=6),
        Derived(name="a.cut.up", summary="twice", parent="a.cut", kinds=("depth-upscale",), seed=7),
        Derived(name="a.anew", summary="nothing left", parent="a", kinds=("redraw",), seed=8),
    ),
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro")
    build_suite(MICRO, out)
    return out


@pytest.fixture(scope="module")
def lineage(zoo: Path) -> Lineage:
    manifest = read_manifest(zoo)
    assert isinstance(manifest, Manifest)
    return Lineage(manifest, zoo)


def test_a_child_of_a_child_has_its_grandparents_layers(lineage: Lineage) -> None:
    assert lineage.true_layers("a.cut", "a") == ((0,), (1,), (2,), (4,))
    # Of four layers the first three, then the last three.
    assert lineage.true_layers("a.cut.up", "a.cut") == ((0,), (1,), (2,), (1,), (2,), (3,))
    assert lineage.true_layers("a.cut.up", "a") == ((0,), (1,), (2,), (1,), (2,), (4,))


def test_a_repeated_layer_of_the_base_is_right_in_each_place_and_a_dropped_one_in_none(lineage: Lineage) -> None:
    assert lineage.true_layers("a", "a.cut.up") == ((0,), (1, 3), (2, 4), (), (5,))


def test_an_order_drawn_after_other_draws_is_read_from_the_weights(lineage: Lineage) -> None:
    found = lineage.true_layers("a.mixed", "a")
    assert found is not None
    assert sorted(found) == [(0,), (1,), (2,), (3,), (4,)]
    # Noise leaves the gains alone, and the model tells which order was drawn after it.
    assert found != ((0,), (1,), (2,), (3,), (4,))


def test_where_neither_recipe_nor_weights_tell_nothing_is_said(lineage: Lineage) -> None:
    assert lineage.true_layers("a.hidden", "a") is None


def test_models_without_a_common_origin_have_no_common_layers(lineage: Lineage) -> None:
    assert lineage.true_layers("b", "a") is None
    assert lineage.true_layers("a.anew", "a") is None
