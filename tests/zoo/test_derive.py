"""Chains of kinds, and one model derived outside any suite."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinprint.errors import UsageError
from kinprint.transform import PRESERVING
from kinprint.zoo.derive import KINDS, Chain, derive, logit_change
from kinprint.zoo.manifest import read_manifest
from kinprint.zoo.model import Model
from kinprint.zoo.recipes import Shape
from kinprint.zoo.shapes import untrained
from kinprint.zoo.single import derive_folder
from kinprint.zoo.train import initial

pytest.importorskip("torch")

SHAPE = Shape(hidden=16, layers=2, heads=2, kv_heads=1, head_dim=8, ffn=16, context=32)


@pytest.fixture(scope="module")
def model() -> Model:
    return initial(untrained(SHAPE), seed=1, std=0.1)


@pytest.fixture(scope="module")
def folder(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("models") / "base"
    model.write(out)
    return out


def other(_: str) -> Model:
    raise AssertionError("no other model is needed")


def run(model: Model, *kinds: str, seed: int = 0) -> Model:
    return derive(model, Chain.parse(kinds), seed=seed, others=other).model


def test_every_kind_that_keeps_the_function_says_so_and_no_other_does() -> None:
    assert {name for name, kind in KINDS.items() if kind.preserving} == set(PRESERVING)


def test_kinds_compose_in_order(model: Model) -> None:
    cut_first = run(model, "depth-cut:drop=0", "depth-upscale:order=0+0")
    up_first = run(model, "depth-upscale:order=0+1+1", "depth-cut:drop=1")
    first, last = (model.weights[f"model.layers.{layer}.mlp.up_proj.weight"] for layer in (0, 1))
    expected = {"cut first": (last, last), "up first": (first, last)}
    for made, layers in zip((cut_first, up_first), expected.values(), strict=True):
        assert made.config["num_hidden_layers"] == 2
        for layer, matrix in enumerate(layers):
            assert np.array_equal(made.weights[f"model.layers.{layer}.mlp.up_proj.weight"], matrix)


def test_the_seed_decides_what_is_drawn(model: Model) -> None:
    first, again, different = (run(model, "noise:share=0.1", seed=seed) for seed in (1, 1, 2))
    name = "model.layers.0.mlp.up_proj.weight"
    assert np.array_equal(first.weights[name], again.weights[name])
    assert not np.array_equal(first.weights[name], different.weights[name])


def test_a_run_of_preserving_kinds_is_measured_even_between_others(model: Model) -> None:
    outcome = derive(model, Chain.parse(["noise", "ffn-permutation", "noise"]), seed=0, others=other)
    assert outcome.moved_logits is not None
    assert outcome.moved_logits <= 1e-4
    assert logit_change(model, outcome.model) > 1e-4
    assert derive(model, Chain.parse(["noise"]), seed=0, others=other).moved_logits is None


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("melt", "unknown kind 'melt': choose from resave"),
        ("noise:0.1", "'0.1' has no value"),
        ("noise:share=much", "share: Input should be a valid number"),
        ("noise:colour=red", r"colour: Extra inputs are not permitted \(settings: share\)"),
        ("noise:share=nan", "share: "),
        ("prune-magnitude:share=2", "share: Input should be less than 1"),
        ("merge-slerp", r"others: Field required \(settings: others, t\)"),
    ],
)
def test_a_kind_that_cannot_be_read_is_told_where_and_why(words: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Chain.parse([words])


def test_no_kind_at_all_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no kind given: choose from"):
        Chain.parse([])


def test_a_derived_folder_holds_a_model_and_says_how_it_was_made(folder: Path, tmp_path: Path) -> None:
    derive_folder(folder, tmp_path / "out", ["ffn-permutation", "vo-gauge"], seed=3)
    manifest = read_manifest(tmp_path / "out")
    assert manifest is not None
    (entry,) = manifest.models
    assert (entry.parent, entry.roots) == ("base", ("base",))
    assert entry.settings["kinds"] == ["ffn-permutation", "vo-gauge"]
    assert entry.same_function is not None
    assert entry.same_function.before_rounding <= 1e-4
    assert Model.read(tmp_path / "out").content_digest == entry.content_digest
    assert not list(tmp_path.glob(".*"))


def test_the_same_command_gives_the_same_recipe_digest_and_bits(folder: Path, tmp_path: Path) -> None:
    entries = []
    for name in ("one", "two"):
        derive_folder(folder, tmp_path / name / "out", ["noise", "fine-tune:steps=2,batch=1"], seed=3)
        manifest = read_manifest(tmp_path / name / "out")
        assert manifest is not None
        entries.append(manifest.models[0])
    assert entries[0].recipe_digest == entries[1].recipe_digest
    assert entries[0].weights_sha256 == entries[1].weights_sha256


def test_other_models_of_a_merge_are_paths(folder: Path, tmp_path: Path) -> None:
    derive_folder(folder, tmp_path / "noised", ["noise:share=0.5"])
    derive_folder(folder, tmp_path / "merged", [f"merge-linear:others={tmp_path / 'noised'}"])
    name = "model.layers.0.mlp.up_proj.weight"
    a, b, merged = (Model.read(at).weights[name] for at in (folder, tmp_path / "noised", tmp_path / "merged"))
    # Half a unit in the last place of bf16 for values up to 0.5: 2^-9 x 0.5.
    np.testing.assert_allclose(merged, (a + b) / 2, atol=1e-3)


def test_a_folder_that_holds_something_is_left_alone(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(UsageError, match="is there already: choose another folder"):
        derive_folder(folder, folder, ["noise"])
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_kind_that_does_not_fit_writes_nothing(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it has no experts"):
        derive_folder(folder, tmp_path / "out", ["expert-permutation"])
    assert not list(tmp_path.iterdir())
