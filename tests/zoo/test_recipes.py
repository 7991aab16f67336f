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
from kinprint.zoo import corpus, making
from kinprint.zoo.derive import Chain
from kinprint.zoo.recipes import Derived, Shape, Suite, Trained, recipe_digest
from kinprint.zoo.shapes import untrained
from kinprint.zoo.suites import SUITES
from kinprint.zoo.train import HELD_OUT_BYTES, byte_tokenizer, initial, unigram_entropy, with_random_gains


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
def test_in_every_suite_parents_come_first_and_kinds_and_texts_exist(suite: Suite) -> None:
    seen: set[str] = set()
    for recipe in suite.recipes:
        assert recipe.name not in seen
        assert set(recipe.needs) <= seen
        assert set(making.texts(recipe)) <= set(corpus.CORPORA)
        assert making.work(recipe) > 0
        if isinstance(recipe, Derived):
            assert set(Chain.parse(recipe.kinds).others) <= set(recipe.others)
        seen.add(recipe.name)


@pytest.mark.parametrize(
    ("suite", "base", "twin"),
    [("examples", "base", "twin"), *(("tiny", "base", f"twin-{n}") for n in (1, 2, 3, 4)), ("tiny", "moe", "moe-twin")],
)
def test_a_base_and_its_twin_differ_in_the_seed_of_their_start_and_in_nothing_else(
    suite: str, base: str, twin: str
) -> None:
    recipes = {recipe.name: recipe for recipe in SUITES[suite].recipes}
    first, second = recipes[base], recipes[twin]
    assert isinstance(first, Trained)
    assert isinstance(second, Trained)
    assert first.seed_init != second.seed_init
    assert dataclasses.replace(second, name=base, summary=first.summary, seed_init=first.seed_init) == first


def test_no_two_independent_models_share_a_random_start_but_those_that_say_so() -> None:
    for suite in SUITES.values():
        starts = [
            (recipe.seed_init, recipe.shape)
            for recipe in suite.recipes
            if isinstance(recipe, Trained) and not recipe.name.startswith("shared-init")
        ]
        assert len(set(starts)) == len(starts)


def test_the_tiny_suite_has_the_bases_twins_and_pairs_that_it_promises() -> None:
    trained = [recipe for recipe in SUITES["tiny"].recipes if isinstance(recipe, Trained)]
    assert {recipe.shape.form for recipe in trained} == {
        "llama", "qwen2", "qwen3", "olmo2", "gpt_neox", "gpt2", "mixtral",
    }  # fmt: skip
    assert sum(recipe.name.startswith("twin-") for recipe in trained) >= 4
    assert len({recipe.shape for recipe in trained}) >= 8


def test_a_recipe_digest_ignores_prose_and_notices_settings_text_and_parent() -> None:
    recipe = SUITES["examples"].recipes[0]
    assert isinstance(recipe, Trained)

    def digest(changed: Trained = recipe, text: str = "a", **needed: str) -> str:
        return recipe_digest(changed, texts={"stdlib-code": text}, needed=needed)

    assert digest(dataclasses.replace(recipe, summary="other words")) == digest()
    assert digest(dataclasses.replace(recipe, seed_init=99)) != digest()
    assert digest(text="b") != digest()
    assert digest(parent="c") != digest()


def test_initial_weights_are_the_same_for_the_same_seed_only() -> None:
    shape = Shape(hidden=8, layers=1, heads=2, kv_heads=1, head_dim=4, ffn=8)
    first, again, other = (initial(untrained(shape), seed=seed, std=0.1).weights for seed in (1, 1, 2))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["lm_head.weight"], other["lm_head.weight"])


def test_initial_weights_have_the_stated_spread_and_gains_of_one() -> None:
    weights = initial(untrained(Shape()), seed=5, std=0.06).weights
    # A standard deviation from n draws is off by a share of 1/sqrt(2 n): 0.005 here; 0.03 is six of those.
    assert weights["lm_head.weight"].std() == pytest.approx(0.06, rel=0.03)
    assert weights["model.layers.0.mlp.down_proj.weight"].std() == pytest.approx(0.06 / math.sqrt(12), rel=0.03)
    assert all((array == 1).all() for array in weights.values() if array.ndim == 1)
    assert sum(array.size for array in weights.values()) == 640_224


def test_random_gains_are_drawn_and_nothing_else_is_changed() -> None:
    plain = initial(untrained(Shape(layers=1)), seed=5, std=0.06)
    drawn = with_random_gains(plain, seed=5, std=0.5).weights
    changed = {name for name in drawn if not np.array_equal(drawn[name], plain.weights[name])}
    assert changed == {name for name in drawn if "norm" in name}
    # 3 x 96 values: the standard deviation is off by a share of 1/sqrt(576) = 0.04; four of those.
    assert np.concatenate([drawn[name] for name in changed]).std() == pytest.approx(0.5, rel=0.17)


def test_entropy_of_two_equally_frequent_bytes_is_log_two() -> None:
    assert unigram_entropy(np.frombuffer(b"aabb", np.uint8)) == pytest.approx(math.log(2), abs=1e-12)


def test_the_tokenizer_maps_every_byte_to_itself() -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(byte_tokenizer()))
    text = "def f(x): # ä€😀\n\t\x00\x7f"
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.get_vocab_size() == 256
