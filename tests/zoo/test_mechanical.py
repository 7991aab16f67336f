"""Every mechanical kind, on models as the zoo has them: what it makes loads in transformers, or it says why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinprint.errors import UsageError
from kinprint.transform import PRESERVING
from kinprint.zoo.kinds import Context, parse
from kinprint.zoo.mechanical import KINDS
from kinprint.zoo.model import Model, as_json
from kinprint.zoo.tokens import frequent_ids, tokenizer_cut
from kinprint.zoo.train import encode
from support import tiny
from support.loaded import load, logits

EXAMPLES = Path(__file__).parents[2] / "examples"
BY_NAME = {kind.name: kind for kind in KINDS}
TEXT = b"the quick brown fox jumps over the lazy dog, " * 20
OTHERS = {"merge-linear": "twin", "merge-slerp": "twin", "merge-ties": "twin+base", "merge-task-arithmetic": "base"}
RESIZING = [
    "depth-cut",
    "depth-upscale",
    "reorder-blocks",
    "width-cut-residual",
    "width-cut-ffn",
    "width-cut-heads",
    "upcycle",
    "vocab-cut:keep=44",
    "vocab-extend:tokens=3",
]
REFUSED = {
    ("gpt_neox", "width-cut-residual"): "the size of its heads is its width over their number",
    ("gpt_neox", "width-cut-heads"): "the size of its heads is its width over their number",
    ("gpt_neox", "upcycle"): "this is gpt_neox",
    ("mixtral", "upcycle"): "it has experts already",
    ("olmo2", "width-cut-heads"): "one q or k norm runs over all of them",
    ("olmo2", "upcycle"): "this is olmo2",
}


def read(name: str) -> Model:
    return Model.read(EXAMPLES / name)


def derive(model: Model, words: str) -> Model:
    step = parse(words, BY_NAME)
    context = Context(np.random.default_rng(4), lambda _: TEXT, read, lambda *_: None)
    return step.kind.apply(model, step.settings, context)


def small(kind: str) -> Model:
    """Return one of the tiny models as the zoo holds models."""
    made = tiny.Model(kind)
    weights = {name: made.checkpoint.read(name).astype(np.float32) for name in made.checkpoint.tensors}
    return Model(made.checkpoint.config, weights, {})


def changed(after: Model, before: Model) -> bool:
    same = after.weights.keys() == before.weights.keys()
    return not same or any(not np.array_equal(after.weights[name], before.weights[name]) for name in before.weights)


@pytest.mark.parametrize("name", [kind.name for kind in KINDS if not kind.preserving])
def test_what_a_kind_makes_of_the_base_is_another_model_that_loads(name: str) -> None:
    base = read("child" if name in ("merge-ties", "merge-task-arithmetic") else "base")
    derived = derive(base, f"{name}:others={OTHERS[name]}" if name in OTHERS else name)
    assert changed(derived, base)
    load(derived.state())


@pytest.mark.parametrize("name", list(PRESERVING))
def test_preserving_kinds_are_the_transformations_and_keep_the_logits(name: str) -> None:
    assert BY_NAME[name].preserving
    model = small("mixtral")
    derived = derive(model, name)
    assert changed(derived, model)
    before = logits(model.state())
    assert np.abs(logits(derived.state()) - before).max() / np.abs(before).max() < 1e-4  # weights in float32


@pytest.mark.parametrize("kind", ["llama-tied", "qwen2", "gpt_neox", "mixtral", "olmo2"])
@pytest.mark.parametrize("words", RESIZING)
def test_other_sizes_are_in_the_config_or_the_kind_says_why_it_cannot(kind: str, words: str) -> None:
    model = small(kind)
    name = words.partition(":")[0]
    if (kind, name) in REFUSED:
        with pytest.raises(UsageError, match=REFUSED[kind, name]) as caught:
            derive(model, words)
        assert "\n" not in str(caught.value)
        return
    derived = derive(model, words)
    assert changed(derived, model)
    load(derived.state())


@pytest.mark.parametrize(
    ("words", "layers"),
    [
        ("depth-cut", [0, 1, 4, 5]),
        ("depth-cut:count=1", [0, 1, 2, 4, 5]),
        ("depth-cut:drop=0+5", [1, 2, 3, 4]),
        ("depth-upscale", [0, 1, 2, 3, 2, 3, 4, 5]),
        ("depth-upscale:order=0+1+2+3+4+5+5", [0, 1, 2, 3, 4, 5, 5]),
        ("reorder-blocks:order=5+4+3+2+1+0", [5, 4, 3, 2, 1, 0]),
    ],
)
def test_layers_are_where_the_settings_put_them(words: str, layers: list[int]) -> None:
    base = read("base")
    derived = derive(base, words)
    assert derived.config["num_hidden_layers"] == len(layers)
    for new, old in enumerate(layers):
        name = "model.layers.{}.mlp.up_proj.weight"
        np.testing.assert_array_equal(derived.weights[name.format(new)], base.weights[name.format(old)])


def test_layers_are_shuffled_where_no_order_is_given() -> None:
    base = read("base")
    derived = derive(base, "reorder-blocks")
    up = [f"model.layers.{layer}.mlp.up_proj.weight" for layer in range(6)]
    order = [next(old for old in up if np.array_equal(derived.weights[new], base.weights[old])) for new in up]
    assert order != up
    assert sorted(order) == up


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("depth-cut:drop=6", "cannot drop layers 6 of 6: name some from 0 to 5"),
        ("depth-cut:drop=0+1+2+3+4+5", "name some from 0 to 5"),
        ("depth-cut:count=5", "cannot drop layers"),
        ("depth-upscale:order=0+1", "2 layers are no more than the 6 there are"),
        ("reorder-blocks:order=0+0+1+2+3+4", "is no order of 6 layers"),
        ("merge-ties:others=twin", "others"),
        ("merge-slerp:others=twin+child", "others"),
        ("vocab-cut:keep=256", "keeping 256 of 256 tokens cuts nothing"),
        ("upcycle:experts=4,active=5", "cannot send a token to 5 of 4 experts"),
        ("width-cut-heads:keep=1", "keeping 1 of 2 key/value heads cuts nothing"),
    ],
)
def test_settings_that_cannot_be_are_refused_with_the_reason(words: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        derive(read("base"), words)


def test_merges_take_the_last_of_the_others_as_the_base_of_task_vectors() -> None:
    base, child, twin = read("base"), read("child"), read("twin")
    name = "model.layers.0.mlp.up_proj.weight"
    b, c, t = (model.weights[name].astype(float) for model in (base, child, twin))
    task = derive(child, "merge-task-arithmetic:others=twin+base,weight=0.5").weights[name]
    np.testing.assert_allclose(task, b + 0.5 * (c - b) + 0.5 * (t - b), atol=1e-6)  # float32
    linear = derive(child, "merge-linear:others=twin+base,weight=0.4").weights[name]
    np.testing.assert_allclose(linear, 0.6 * c + 0.2 * t + 0.2 * b, atol=1e-6)
    every = derive(child, "merge-ties:others=twin+base,density=1,scale=0").weights[name]
    np.testing.assert_allclose(every, b, atol=1e-6)


def tokens(model: Model) -> list[str]:
    """Token strings by id."""
    table: dict[str, int] = model.tokenizer["model"]["vocab"]
    return sorted(table, key=table.__getitem__)


def test_a_cut_vocabulary_keeps_the_tokens_of_the_text_under_new_ids() -> None:
    base = read("base")
    derived = derive(base, "vocab-cut:keep=30")
    letters = sorted(set(TEXT))
    strings, old = tokens(derived), tokens(base)
    assert len(strings) == derived.config["vocab_size"] == 30
    assert {old[byte] for byte in letters} <= set(strings)
    embedding = "model.embed_tokens.weight"
    for place, token in enumerate(strings):
        np.testing.assert_array_equal(derived.weights[embedding][place], base.weights[embedding][old.index(token)])
    ids = encode(derived, TEXT)
    assert [strings[i] for i in ids] == [old[byte] for byte in TEXT]


def test_added_tokens_are_known_to_the_tokenizer() -> None:
    from tokenizers import Tokenizer

    derived = derive(read("base"), "vocab-extend:tokens=2")
    assert derived.weights["lm_head.weight"].shape[0] == 258
    tokenizer = Tokenizer.from_str(derived.files["tokenizer.json"].decode())
    assert tokenizer.encode("a<added_257>").ids == [97, 257]


def pairs(merges: list[Any], *, added: list[dict[str, Any]] | None = None, **more: Any) -> Model:
    vocabulary = {"a": 0, "b": 1, "c": 2, "ab": 3, "abc": 4}
    table = {"type": "BPE", "vocab": vocabulary, "merges": merges}
    return Model({}, {}, {"tokenizer.json": as_json({"added_tokens": added or [], "model": table, **more})})


@pytest.mark.parametrize("merges", [[["a", "b"], ["ab", "c"]], ["a b", "ab c"]])
def test_merges_whose_parts_are_gone_go_with_them(merges: list[Any]) -> None:
    table = tokenizer_cut(pairs(merges), [0, 1, 3, 4]).tokenizer["model"]
    assert table["vocab"] == {"a": 0, "b": 1, "ab": 2, "abc": 3}
    assert table["merges"] == merges[:1]


def test_special_tokens_stay_whatever_the_text_says() -> None:
    model = pairs([], added=[{"id": 4, "content": "abc"}, {"id": 5, "content": "<end>"}])
    model = replace(model, files={"tokenizer.json": as_json({**model.tokenizer})})
    ids = frequent_ids(model, b"aaab", 3, rows=6)
    assert ids == [0, 4, 5]
    assert [token["id"] for token in tokenizer_cut(model, ids).tokenizer["added_tokens"]] == [1, 2]


def test_a_tokenizer_that_cannot_be_rewritten_is_refused() -> None:
    with pytest.raises(UsageError, match="only plain BPE"):
        tokenizer_cut(pairs([], post_processor={"special_tokens": {"<s>": {"ids": [0]}}}), [0])


def test_the_same_seed_derives_the_same_bits() -> None:
    base = read("base")
    for words in ("noise", "upcycle:noise=0.1", "embedding-reinit", "vocab-extend"):
        assert not changed(derive(base, words), derive(base, words))


def test_every_kind_has_a_name_of_its_own_and_needs_no_setting_but_other_models() -> None:
    assert len(BY_NAME) == len(KINDS)
    for name in BY_NAME:
        if name in OTHERS:
            with pytest.raises(UsageError, match="others: Field required"):
                parse(name, BY_NAME)
        else:
            assert parse(name, BY_NAME).others == ()
