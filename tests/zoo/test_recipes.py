"""Recipes, texts and the plain parts of training: nothing here needs torch."""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest

from kinprint import zoo
from kinprint.errors import MissingExtraError, UsageError
from kinprint.transform import PRESERVING
from kinprint.zoo import corpus, folder
from kinprint.zoo.recipes import SUITES, Laundered, Shape, Trained, recipe_digest
from kinprint.zoo.train import HELD_OUT_BYTES, initial_weights, unigram_entropy


@pytest.mark.parametrize("name", sorted(corpus.CORPORA))
def test_a_text_is_long_enough_to_hold_out_its_end_and_differs_from_the_others(name: str) -> None:
    text = corpus.load(name)
    assert len(text.content) > 4 * HELD_OUT_BYTES
    others = [corpus.load(other).content for other in corpus.CORPORA if other != name]
    assert all(text.content[:2000] not in other for other in others)


def test_a_text_of_another_release_says_that_it_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    known = corpus.CORPORA["help-topics"]
    other = dataclasses.replace(known, read=lambda: b"another text")
    monkeypatch.setattr(corpus, "CORPORA", {"help-topics": other})
    note = corpus.load("help-topics").note
    assert note is not None
    assert "differs from that of CPython 3.11.7" in note


def test_a_python_without_sources_is_told_what_to_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpus, "find_spec", lambda _: None)
    with pytest.raises(UsageError, match="no source of its module"):
        corpus.load("stdlib-code")


def test_an_unknown_suite_is_a_usage_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown suite 'huge': choose from examples"):
        zoo.build("huge", tmp_path)


def test_training_without_torch_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kinprint\[torch\]'"):
        zoo.build("examples", tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suite", SUITES.values(), ids=lambda suite: suite.name)
def test_in_every_suite_parents_come_first_and_transformations_exist(suite: zoo.Suite) -> None:
    seen: set[str] = set()
    for recipe in suite.recipes:
        assert recipe.name not in seen
        assert recipe.parent is None or recipe.parent in seen
        assert recipe.corpus in corpus.CORPORA
        if isinstance(recipe, Laundered):
            assert set(recipe.transformations) <= set(PRESERVING)
        seen.add(recipe.name)


def test_base_and_twin_differ_in_the_seed_of_their_start_and_in_nothing_else() -> None:
    recipes = {recipe.name: recipe for recipe in SUITES["examples"].recipes}
    base, twin = recipes["base"], recipes["twin"]
    assert isinstance(base, Trained)
    assert isinstance(twin, Trained)
    assert base.seed_init != twin.seed_init
    assert dataclasses.replace(twin, name=base.name, summary=base.summary, seed_init=base.seed_init) == base


def test_a_recipe_digest_ignores_prose_and_notices_settings_text_and_parent() -> None:
    recipe = SUITES["examples"].recipes[0]
    assert isinstance(recipe, Trained)

    def digest(changed: Trained = recipe, text: str = "a", parent: str | None = None) -> str:
        return recipe_digest(changed, corpus_sha256=text, parent_content=parent)

    assert digest(dataclasses.replace(recipe, summary="other words")) == digest()
    assert digest(dataclasses.replace(recipe, seed_init=99)) != digest()
    assert digest(text="b") != digest()
    assert digest(parent="c") != digest()


def test_initial_weights_are_the_same_for_the_same_seed_only() -> None:
    shape = Shape(hidden=8, layers=1, heads=2, kv_heads=1, head_dim=4, ffn=8)
    first, again, other = (initial_weights(shape, seed=seed, std=0.1) for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["lm_head.weight"], other["lm_head.weight"])


def test_initial_weights_have_the_stated_spread_and_gains_of_one() -> None:
    weights = initial_weights(Shape(), seed=5, std=0.06)
    # A standard deviation from n draws is off by a share of 1/sqrt(2 n): 0.005 here; 0.03 is six of those.
    assert weights["lm_head.weight"].std() == pytest.approx(0.06, rel=0.03)
    assert weights["model.layers.0.mlp.down_proj.weight"].std() == pytest.approx(0.06 / math.sqrt(12), rel=0.03)
    assert all((array == 1).all() for array in weights.values() if array.ndim == 1)
    assert sum(array.size for array in weights.values()) == 640_224


def test_entropy_of_two_equally_frequent_bytes_is_log_two() -> None:
    assert unigram_entropy(np.frombuffer(b"aabb", np.uint8)) == pytest.approx(math.log(2), abs=1e-12)


def test_the_tokenizer_maps_every_byte_to_itself() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(folder.byte_tokenizer()))
    text = "def f(x): # ä€😀\n\t\x00\x7f"
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.get_vocab_size() == 256
