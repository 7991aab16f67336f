"""The shipped examples are what their recipes and manifest say. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kinprint.architecture import view
from kinprint.checkpoint import open_checkpoint
from kinprint.zoo.card import model_card, suite_card
from kinprint.zoo.manifest import Manifest, read_manifest
from kinprint.zoo.model import Model
from kinprint.zoo.recipes import recipe_digest
from kinprint.zoo.suites import SUITES

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = ("base", "child", "twin", "laundered")


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    found = read_manifest(EXAMPLES)
    assert found is not None
    return found


def gains(name: str) -> list[np.ndarray]:
    weights = Model.read(EXAMPLES / name).weights
    return [weights[key].astype(np.float64) for key in sorted(weights) if weights[key].ndim == 1]


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def strings(value: object) -> Iterator[str]:
    if isinstance(value, dict):
        yield from value
        for item in value.values():
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)
    elif isinstance(value, str):
        yield value


def test_every_model_has_the_bytes_that_the_manifest_names(manifest: Manifest) -> None:
    assert tuple(entry.name for entry in manifest.models) == NAMES
    for entry in manifest.models:
        stored = (EXAMPLES / entry.name / "model.safetensors").read_bytes()
        assert hashlib.sha256(stored).hexdigest() == entry.weights_sha256
        assert open_checkpoint(EXAMPLES / entry.name).content_digest == entry.content_digest
        assert len(stored) == entry.weights_bytes <= 1_500_000


def test_every_model_was_built_from_the_recipe_that_is_in_the_code_today(manifest: Manifest) -> None:
    entries = {entry.name: entry for entry in manifest.models}
    for recipe in SUITES["examples"].recipes:
        entry = entries[recipe.name]
        needed = {name: entries[name].content_digest for name in recipe.needs}
        assert entry.recipe_digest == recipe_digest(recipe, texts=entry.texts, needed=needed)


def test_every_parameter_has_a_role_and_the_vocabulary_is_the_256_bytes() -> None:
    for name in NAMES:
        model = view(open_checkpoint(EXAMPLES / name))
        assert model.family.name == "llama"
        assert model.coverage == 1
        vocabulary = model.checkpoint.vocabulary
        assert vocabulary is not None
        assert len(set(vocabulary)) == 256


def test_every_model_learnt_far_more_than_byte_frequencies(manifest: Manifest) -> None:
    entropy = {text.name: text.unigram_entropy for text in manifest.texts}
    for entry in manifest.models:
        assert entry.losses is not None
        measured_on = "stdlib-code" if entry.kind == "trained" else "help-topics"
        assert entry.losses.held_out < 0.5 * entropy[measured_on]


def test_fine_tuning_helped_and_laundering_cost_nothing(manifest: Manifest) -> None:
    losses = {entry.name: entry.losses for entry in manifest.models}
    child, laundered = losses["child"], losses["laundered"]
    assert child is not None
    assert laundered is not None
    assert child.parent_held_out is not None
    assert child.held_out < child.parent_held_out - 0.2
    # Rounding other weights to bf16 moves the loss in the fourth decimal.
    assert laundered.held_out == pytest.approx(child.held_out, abs=2e-3)


def test_the_laundered_logits_moved_by_less_than_the_issue_allows(manifest: Manifest) -> None:
    same = manifest.models[-1].same_function
    assert same is not None
    assert same.before_rounding <= same.tolerance == 1e-4


def test_the_raw_cosine_of_gains_accuses_the_twin_and_the_centred_one_does_not() -> None:
    base, twin = gains("base"), gains("twin")
    centred = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(base, twin, strict=True)]
    assert min(cosine(a, b) for a, b in zip(base, twin, strict=True)) > 0.98
    # The layers share one residual basis, so their mean may be as wide as one of them: 1/sqrt(95) = 0.103; three of it.
    assert abs(np.mean(centred)) < 0.31


def test_the_centred_cosine_of_gains_finds_the_child_but_not_the_laundered_child() -> None:
    base, child, laundered = gains("base"), gains("child"), gains("laundered")
    assert min(float(np.corrcoef(a, b)[0, 1]) for a, b in zip(base, child, strict=True)) > 0.98
    assert abs(np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(base, laundered, strict=True)])) < 0.31


def test_gains_were_learnt_and_vary_by_some_per_cent() -> None:
    for name in ("base", "child", "twin"):
        assert all(0.02 < gain.std() / gain.mean() < 0.5 for gain in gains(name))


def test_the_cards_say_what_the_manifest_says(manifest: Manifest) -> None:
    for entry in manifest.models:
        assert (EXAMPLES / entry.name / "README.md").read_bytes() == model_card(entry, manifest.texts)
    assert (EXAMPLES / "README.md").read_bytes() == suite_card(manifest)


def test_the_manifest_names_no_machine_and_no_path() -> None:
    text = (EXAMPLES / "zoo.json").read_text()
    assert not [string for string in strings(json.loads(text)) if string.startswith(("/", "~")) or ":\\" in string]
    assert not platform.node() or f'"{platform.node()}"' not in text
