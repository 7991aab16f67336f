"""Running a local model: what a pass gives, that batches change nothing, and folders that lie."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from copy import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kinprint.behaviour.cache import Cache
from kinprint.behaviour.runner import NotFiniteError, Runner
from kinprint.checkpoint import open_checkpoint, write_safetensors
from kinprint.errors import CheckpointError, KinprintError, UsageError

EXAMPLES = Path(__file__).parents[2] / "examples"
TEXTS = ["The cat sat.", "A", "Numbers are counted from one to ten, and then again."]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(EXAMPLES / "base", tmp_path / "model"))


def set_config(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def with_weights(folder: Path, change: Any) -> None:
    checkpoint = open_checkpoint(folder)
    arrays = {name: np.array(checkpoint.read(name)) for name in checkpoint.tensors}
    checkpoint.close()
    change(arrays)
    write_safetensors(folder / "model.safetensors", arrays)


def test_a_pass_holds_every_block_and_every_text_whatever_stands_beside_it(runners: Mapping[str, Runner]) -> None:
    model = runners["base"]
    found = model.run(TEXTS)
    assert found.states.shape == (model.layers, len(TEXTS), 96)
    assert found.logits.shape == (len(TEXTS), 256)
    for at, text in enumerate(TEXTS):
        alone = model.run([text])
        np.testing.assert_allclose(found.logits[at], alone.logits[0], atol=1e-4)
        np.testing.assert_allclose(found.states[:, at], alone.states[:, 0], atol=1e-4)


def test_by_hand_logits_are_products_of_the_normed_last_state_with_the_output_matrix(
    runners: Mapping[str, Runner],
) -> None:
    model = runners["base"]
    found = model.run(TEXTS)
    state = found.states[-1].astype(np.float64)
    checkpoint = model.checkpoint
    gain = np.asarray(checkpoint.read("model.norm.weight"), dtype=np.float64)
    normed = state / np.sqrt((state**2).mean(axis=1, keepdims=True) + 1e-5) * gain
    np.testing.assert_allclose(normed @ model.output_matrix.T, found.logits, atol=1e-3)


def test_two_runs_give_the_same_bits(runners: Mapping[str, Runner]) -> None:
    first, second = (runners["twin"].run(TEXTS) for _ in range(2))
    np.testing.assert_array_equal(first.logits, second.logits)


def test_next_tokens_are_a_distribution_most_likely_first(runners: Mapping[str, Runner]) -> None:
    (one,) = runners["base"].next_tokens(["The"], most=256)
    scores = [score for _, score in one.top]
    assert scores == sorted(scores, reverse=True)
    assert np.exp(scores).sum() == pytest.approx(1.0)
    assert not one.sampled


def test_answers_are_greedy_one_token_at_a_time(runners: Mapping[str, Runner]) -> None:
    model = runners["base"]
    (said,) = model.answers(["The "], most=5)
    text = "The "
    for _ in range(5):
        text += model.next_tokens([text], most=1)[0].top[0][0]
    assert said == text.removeprefix("The ")


@pytest.mark.parametrize("places", [True, False])
def test_answers_are_those_of_each_prompt_alone(
    places: bool, runners: Mapping[str, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, asked = runners["base"], ["The number", "A", "What is the largest of these", "One two three"]
    alone = [model.answers([one], most=6)[0] for one in asked]
    if not places:
        monkeypatch.setattr("kinprint.behaviour.runner.signature", lambda _: SimpleNamespace(parameters={}))
    assert model.answers(asked, most=6) == alone


def test_likelihoods_are_mean_log_probabilities_of_the_tokens_that_follow(runners: Mapping[str, Runner]) -> None:
    model = runners["base"]
    (found,) = model.log_likelihoods(["The "], ["ca"])
    scores = []
    for text, token in (("The ", "c"), ("The c", "a")):
        scores.append(dict(model.next_tokens([text], most=256)[0].top)[token])
    assert found == pytest.approx(np.mean(scores), abs=1e-5)


WORDS = (("yes", "ye", "y"), ("no", "n"))
QUESTIONS = [[f"Q: {what} is a number.\nQ: {ask}?\nA:" for ask in ("Sure", "Is this a guess", "Why")] for what in "137"]


def masses_by_hand(model: Runner) -> np.ndarray[Any, Any]:
    logits = model.run([text for group in QUESTIONS for text in group]).logits.astype(np.float64)
    held = [np.log(np.exp(logits[:, model.tokens_of(words)]).sum(axis=1)) for words in WORDS]
    return np.stack(held, axis=1).reshape(len(QUESTIONS), -1, len(WORDS))


def test_texts_that_begin_alike_are_read_together_with_the_numbers_of_each_alone(
    runners: Mapping[str, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = runners["base"]
    monkeypatch.setattr(Runner, "_of_each", lambda *_: pytest.fail("was to be read together"))
    np.testing.assert_allclose(model.log_masses(QUESTIONS, WORDS), masses_by_hand(model), atol=1e-4)


@pytest.mark.parametrize("why", ["another kind of cache", "no places can be told", "nothing is shared"])
def test_where_reading_together_cannot_be_each_text_is_read(
    why: str, runners: Mapping[str, Runner], monkeypatch: pytest.MonkeyPatch
) -> None:
    import transformers

    model = copy(runners["base"])
    if why == "another kind of cache":
        monkeypatch.setattr(transformers, "DynamicCache", type("Other", (), {}))
    elif why == "no places can be told":
        model.__dict__["_told_places"] = False
    else:
        monkeypatch.setattr("kinprint.behaviour.runner._WORTH_SHARING", 1000)
    monkeypatch.setattr(Runner, "_shared_reading", lambda *_: pytest.fail("was not to be read together"))
    np.testing.assert_allclose(model.log_masses(QUESTIONS, WORDS), masses_by_hand(runners["base"]), atol=1e-4)


def test_logits_of_a_model_that_cannot_be_told_places_are_the_same(runners: Mapping[str, Runner]) -> None:
    told, untold = runners["base"], copy(runners["base"])
    untold.__dict__["_told_places"] = False
    np.testing.assert_allclose(
        told.run(["one", "two three"]).logits, untold.run(["one", "two three"]).logits, atol=1e-4
    )
    rest = (["Q: one", "Q: a longer one"], [" is one", " is not one"])
    np.testing.assert_allclose(told.log_likelihoods(*rest), untold.log_likelihoods(*rest), atol=1e-5)


def test_attention_maps_are_causal_and_sum_to_one(runners: Mapping[str, Runner]) -> None:
    ids = np.arange(30).reshape(3, 10)
    maps = np.concatenate(list(runners["base"].attention(ids)))
    assert maps.shape == (3, 6, 6, 10, 10)
    np.testing.assert_allclose(maps.sum(axis=-1), 1.0, atol=1e-5)
    assert not maps[..., 2, 3:].any()


def test_what_was_run_once_is_kept_and_a_broken_file_is_made_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "kept")
    told: list[str] = []
    model = Runner.open(EXAMPLES / "base", cache=cache, tell=lambda what, _done, _total: told.append(what))
    first = model.run(TEXTS)
    assert told
    told.clear()
    np.testing.assert_array_equal(model.run(TEXTS).logits, first.logits)
    assert not told
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])
    np.testing.assert_array_equal(model.run(TEXTS).logits, first.logits)
    assert told
    assert model.run(TEXTS[:1]).logits.shape == (1, 256)  # other texts are another file
    assert not list((tmp_path / "kept").glob("*.part"))


def test_the_longest_unused_results_make_room(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=3000)
    for number in range(4):
        cache.get(["x", number], lambda: {"values": np.zeros(200)})
    assert 1 <= len(list(tmp_path.iterdir())) <= 2
    assert cache.get(["x", 3], lambda: {"values": np.ones(1)})["values"].size == 200


# -- folders that lie ----------------------------------------------------------------------------------------------


def test_a_folder_without_a_tokenizer_is_named(folder: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / name).unlink()
    with pytest.raises(CheckpointError, match="holds no tokenizer"):
        Runner.open(folder)


def test_a_tokenizer_of_a_larger_model_is_named(folder: Path) -> None:
    set_config(folder, vocab_size=64)

    def cut(arrays: dict[str, np.ndarray]) -> None:
        for name in ("model.embed_tokens.weight", "lm_head.weight"):
            arrays[name] = arrays[name][:64].copy()

    with_weights(folder, cut)
    with pytest.raises(CheckpointError, match="the tokenizer is not this model's"):
        Runner.open(folder).run(TEXTS)


def test_a_probe_longer_than_the_context_is_named(runners: Mapping[str, Runner]) -> None:
    with pytest.raises(UsageError, match="its context 128"):
        runners["base"].run(["x" * 200])
    assert not runners["base"].fits("x" * 200)
    assert runners["base"].fits("x" * 100, room=20)


def test_weights_that_give_nan_are_named_and_no_number_leaves(folder: Path) -> None:
    def spoil(arrays: dict[str, np.ndarray]) -> None:
        arrays["lm_head.weight"] = np.full_like(arrays["lm_head.weight"], np.nan)

    with_weights(folder, spoil)
    with pytest.raises(NotFiniteError, match="NaN or Inf on 3 of 3"):
        Runner.open(folder).run(TEXTS)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 10**9}, "asks for 1000000000 layers"),
        ({"vocab_size": 10**9}, "asks for"),
        ({"model_type": "no-such-model"}, "no model that transformers can run"),
        ({"model_type": "no-such-model", "auto_map": {"AutoConfig": "code.Config"}}, "no model that transformers"),
    ],
)
def test_a_config_that_asks_for_too_much_or_for_code_is_refused(
    folder: Path, changes: dict[str, Any], said: str
) -> None:
    (folder / "code.py").write_text("raise SystemExit('this code was run')\n", "utf-8")
    set_config(folder, **changes)
    with pytest.raises(CheckpointError, match=said) as caught:
        Runner.open(folder)
    assert "\n" not in str(caught.value)


def test_an_adapter_leads_to_no_other_folder(folder: Path) -> None:
    named = {"base_model_name_or_path": str(EXAMPLES / "twin")}
    (folder / "adapter_config.json").write_text(json.dumps(named), "utf-8")
    with pytest.raises(CheckpointError, match="holds an adapter"):
        Runner.open(folder)


def test_what_cannot_be_run_is_said_in_one_line(tmp_path: Path, folder: Path) -> None:
    for place, kind in ((tmp_path / "none", UsageError), (tmp_path, CheckpointError)):
        with pytest.raises(kind) as caught:
            Runner.open(place)
        assert isinstance(caught.value, KinprintError)
    with pytest.raises(UsageError, match="no device"):
        Runner.open(folder, device="warp")
    with pytest.raises(UsageError, match="dtype"):
        Runner.open(folder, dtype="int3")
    with pytest.raises(UsageError, match="batch"):
        Runner.open(folder, batch=0)
