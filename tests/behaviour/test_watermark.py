"""Watermarks: what is no mark, what is one, and green lists and g-values worked out without torch."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kinprint.behaviour.watermark import KgwKey, SynthIdKey, kgw, read_key, synthid
from kinprint.behaviour.watermark_scores import g_values, green_tokens, kgw_processor, unmasked_windows, windows
from kinprint.errors import CheckpointError, MissingExtraError, UsageError
from kinprint.types import MethodResult

pytest.importorskip("torch")

VOCAB = 512
SECRET = 6_210_987_654_321
LEFT = KgwKey(label="owner", hashing_key=SECRET)
SELF = KgwKey(label="owner", hashing_key=SECRET, seeding_scheme="selfhash", context_width=4)
SYNTH = SynthIdKey(label="owner", keys=tuple(range(SECRET, SECRET + 20 * 977, 977)))


def numbers(result: MethodResult) -> dict[str, float | None]:
    assert result.status == "measured", result.reason
    return {value.name: value.value for value in (*result.values, *result.controls)}


def under_other_keys(result: MethodResult, column: str) -> np.ndarray:
    table = result.tables[1]
    return np.array([row[table.columns.index(column)] for row in table.rows], dtype=float)


def plain_text(tokens: int, *, seed: int = 0) -> list[int]:
    """Tokens as unequal as words are, so that contexts and pairs repeat."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, VOCAB + 1)
    return rng.choice(VOCAB, size=tokens, p=weights / weights.sum()).tolist()


@pytest.fixture(scope="module")
def model() -> Any:
    """A random Llama of two layers, with some taste in tokens."""
    import torch
    import transformers

    torch.set_num_threads(1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        config = transformers.LlamaConfig(
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=512, bos_token_id=None, eos_token_id=None,
        )  # fmt: skip
        module = transformers.LlamaForCausalLM(config).eval()
        with torch.no_grad():
            module.lm_head.weight.mul_(10)
    return module


def written(model: Any, watermark: Any, *, tokens: int = 100, seed: int = 0) -> list[int]:
    """What the model says after a prompt of three tokens, under a watermark or none."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ids = model.generate(
            torch.tensor([[11, 12, 13]]), attention_mask=torch.ones((1, 3), dtype=torch.long), do_sample=True, top_k=0,
            max_new_tokens=tokens, pad_token_id=0, watermarking_config=watermark,
        )  # fmt: skip
    return ids[0, 3:].tolist()


def kgw_config(key: KgwKey) -> Any:
    import transformers

    return transformers.WatermarkingConfig(**key.model_dump(exclude={"scheme", "label"}))


def synthid_config(key: SynthIdKey) -> Any:
    import transformers

    settings = key.model_dump(exclude={"scheme", "label", "eos_token_id", "keys"})
    return transformers.SynthIDTextWatermarkingConfig(keys=list(key.keys), **settings)


# -- by hand -------------------------------------------------------------------------------------------------------


def raw(seed: int) -> Any:
    """The 32-bit numbers of a Mersenne Twister, by numpy, one at a time."""
    state = np.random.RandomState(seed % 2**32)
    return lambda: int(state.randint(0, 2**32, dtype=np.uint32))


def green_list(secret: int, context: int, share: float) -> list[int]:
    """The first tokens of a Fisher-Yates shuffle that is seeded by key times token."""
    draw = raw(secret * context % (2**64 - 1))
    order = list(range(VOCAB))
    for place in range(VOCAB - 1):
        other = place + draw() % (VOCAB - place)
        order[place], order[other] = order[other], order[place]
    return order[: int(VOCAB * share)]


def test_green_tokens_after_one_context_are_those_of_a_shuffle_worked_out_by_hand() -> None:
    text = [token for follower in range(20, 60) for token in (7, follower)]
    pairs = set(pairwise(text))
    lists = {context: green_list(SECRET, context, 0.25) for context in {first for first, _ in pairs}}
    green = sum(token in lists[context] for context, token in pairs)
    assert 0 < sum(token in lists[7] for token in range(20, 60)) < 40
    score = green_tokens(windows(text, 2), kgw_processor(VOCAB, LEFT, SECRET))
    assert (score.counted, round(score.share * score.counted)) == (len(pairs), green)
    chance = [math.comb(79, k) * 0.25**k * 0.75 ** (79 - k) for k in range(80)]
    assert score.log10_p == pytest.approx(math.log10(sum(chance[green:])), rel=1e-9)
    assert score.z == pytest.approx((green - 79 / 4) / math.sqrt(79 * 3 / 16), rel=1e-12)
    smallest = next(k for k in range(80) if sum(chance[k:]) <= 1e-6)
    assert score.rate == pytest.approx(sum(chance[smallest:]), rel=1e-9)


def test_the_weighted_mean_of_two_layers_is_that_of_a_hash_worked_out_by_hand() -> None:
    key = SynthIdKey(keys=(654, 400), ngram_len=3, sampling_table_size=1 << 10, sampling_table_seed=5)
    draw = raw(5)
    table = [draw() % 2 for _ in range(1 << 10)]

    def hashed(values: Sequence[int]) -> int:
        state = 1
        for value in values:
            state = ((state + value) * 6364136223846793005 + 1) % 2**64
        return state

    text = [3, 141, 59, 26, 53, 58, 97, 93]
    first, second = (sum(table[hashed([*text[i : i + 3], secret]) % 1024] for i in range(6)) / 6 for secret in key.keys)
    assert first != second
    score = g_values(unmasked_windows(text, key), key, key.keys)
    assert (score.counted, score.share) == (6, pytest.approx((10 * first + second) / 11, abs=1e-12))
    ones = sum(table) / 1024
    squares = (100 + 1) / 121 / 6
    assert score.expected == ones
    assert score.z == pytest.approx((score.share - ones) / math.sqrt(ones * (1 - ones) * squares), abs=1e-9)
    assert score.best == pytest.approx(-2 * (1 - ones) ** 2 / squares / math.log(10), rel=1e-9)


def test_green_tokens_are_those_of_transformers_own_detector() -> None:
    import torch
    import transformers

    text = [token for token in plain_text(300) if token]
    config = transformers.LlamaConfig(vocab_size=VOCAB, bos_token_id=0)
    detector = transformers.WatermarkDetector(config, "cpu", kgw_config(LEFT), ignore_repeated_ngrams=True)
    found = detector(torch.tensor([text]), return_dict=True)
    score = green_tokens(windows(text, 2), kgw_processor(VOCAB, LEFT, SECRET))
    assert score.counted == found.num_tokens_scored[0]
    assert score.share == found.green_fraction[0]
    assert score.z == pytest.approx(found.z_score[0], rel=1e-9)


# -- what is no mark -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [LEFT, SELF], ids=["lefthash", "selfhash"])
def test_a_text_without_a_mark_has_uniform_p_values_over_keys(key: KgwKey) -> None:
    result = kgw([plain_text(100, seed=1), plain_text(100, seed=2)], VOCAB, key)
    found = numbers(result)
    z = under_other_keys(result, "z")
    # Of 99 keys the mean of z is within .35 and its deviation within .25 in all but one run of 2,000.
    assert abs(z.mean()) < 0.35
    assert abs(z.std(ddof=1) - 1) < 0.25
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert found["other keys with p of at most 0.05"] < 0.14
    assert found["log10 p"] > -3
    assert found["log10 p by rank"] > -2
    assert found["mean z of other keys"] == pytest.approx(z.mean())


def test_a_text_without_a_mark_has_ordinary_g_values_under_every_key() -> None:
    result = synthid([plain_text(200, seed=1), plain_text(200, seed=2)], SYNTH, others=199)
    found = numbers(result)
    z = under_other_keys(result, "z")
    assert abs(z.mean()) < 0.25
    assert abs(z.std(ddof=1) - 1) < 0.18
    assert stats.kstest(z, "norm").pvalue > 1e-3
    assert found["other keys with p of at most 0.05"] < 0.05
    assert found["log10 p"] > -3


def test_the_same_phrase_again_and_again_counts_once() -> None:
    found = numbers(synthid([[5, 9, 7, 8, 6, 4] * 50, [5, 9, 7, 8, 6, 4]], SYNTH))
    # Six contexts of four tokens; transformers masks the second turn of each, and the other text brings no new window.
    assert (found["counted"], found["repeats"]) == (6, 2)
    assert green_tokens(windows([5, 9] * 50, 2), kgw_processor(VOCAB, LEFT, SECRET)).counted == 2


def test_windows_of_selfhash_with_the_same_smallest_hash_and_token_count_once() -> None:
    import torch

    # The table of the key gives every token a rank; the smallest of context and token decides alone.
    generator = torch.Generator().manual_seed(1)
    ranks = torch.randperm(1_000_003, generator=generator)[:VOCAB].tolist()
    small, *larger = sorted(range(VOCAB), key=ranks.__getitem__)
    key = KgwKey(hashing_key=1, seeding_scheme="selfhash", context_width=3)
    rows = np.array([[small, larger[10], larger[20]], [larger[30], small, larger[20]]])
    assert green_tokens(rows, kgw_processor(VOCAB, key, 1)).counted == 1
    rows[1, 2] = larger[21]
    assert green_tokens(rows, kgw_processor(VOCAB, key, 1)).counted == 2


def test_what_follows_token_0_says_nothing_of_a_lefthash_key() -> None:
    score = green_tokens(windows([0, 5, 0, 6, 0, 7], 2), kgw_processor(VOCAB, LEFT, SECRET))
    assert (score.counted, score.keyless) == (2, 3)


def test_seeds_that_torch_cannot_tell_apart_are_one() -> None:
    # Of this key only the bits above the 32nd differ between contexts, so every context has the same list.
    score = green_tokens(windows([3, 100, 5, 100, 7, 100], 2), kgw_processor(VOCAB, LEFT, 1 << 33))
    assert (score.counted, score.keyless) == (0, 5)


def test_repeated_contexts_and_what_follows_the_end_are_masked() -> None:
    key = SynthIdKey(keys=(1, 2, 3), ngram_len=3, eos_token_id=99)
    assert unmasked_windows([4, 5, 6, 4, 5, 7], key).tolist() == [[4, 5, 6], [5, 6, 4], [6, 4, 5]]
    assert unmasked_windows([4, 5, 6, 99, 5, 7, 8], key).tolist() == [[4, 5, 6]]
    forgetful = key.model_copy(update={"context_history_size": 1})
    assert len(unmasked_windows([4, 5, 6, 4, 5, 7], forgetful)) == 4


def test_layers_with_the_same_key_do_not_pass_for_independent_ones() -> None:
    text = plain_text(200)
    once = SynthIdKey(keys=(77,))
    twice = SynthIdKey(keys=(77, 77 + (1 << 16), 77 + (1 << 17)))
    one, three = (g_values(unmasked_windows(text, key), key, key.keys) for key in (once, twice))
    assert three.z == pytest.approx(one.z, abs=1e-9)


# -- what is a mark ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [LEFT, SELF], ids=["lefthash", "selfhash"])
def test_a_text_that_was_written_with_the_key_is_noticed_and_only_with_that_key(model: Any, key: KgwKey) -> None:
    text = written(model, kgw_config(key))
    result = kgw([text], VOCAB, key)
    found = numbers(result)
    assert found["log10 p"] < -6
    assert found["green share"] > 0.4
    assert found["log10 p by rank"] == pytest.approx(-2)
    assert 0 < found["false-positive rate"] <= 1e-6
    assert found["largest z of other keys"] < 4.5 < found["z"]
    wrong = green_tokens(windows(text, 2), kgw_processor(VOCAB, LEFT, SECRET + 2))
    assert wrong.log10_p > -3
    assert green_tokens(windows(written(model, None), 2), kgw_processor(VOCAB, LEFT, SECRET)).log10_p > -3


def test_a_text_that_was_written_with_synthid_is_noticed_and_only_with_its_keys(model: Any) -> None:
    texts = [written(model, synthid_config(SYNTH)), written(model, None)]
    result = synthid(texts, SYNTH)
    found = numbers(result)
    assert found["log10 p"] < -6
    assert found["log10 p by rank"] == pytest.approx(-2)
    assert found["false-positive rate"] == 1e-6
    assert found["largest z of other keys"] < 4.5 < found["z"]
    marked, plain = (row[-1] for row in result.tables[0].rows)
    assert marked < -6
    assert plain > -3
    assert synthid(texts, SYNTH) == result


def test_no_text_says_more_than_that_the_key_was_guessed() -> None:
    text = [1]
    for _ in range(200):
        text.append(next(token for token in green_list(SECRET, text[-1], 0.25) if token not in text))
        if len(text) == 101:
            break
    score = green_tokens(windows(text, 2), kgw_processor(VOCAB, LEFT, SECRET))
    assert score.share == 1
    assert score.log10_p == score.best == pytest.approx(-math.log10(2**63 - 1))
    assert green_tokens(windows(text[:6], 2), kgw_processor(VOCAB, LEFT, SECRET)).log10_p == pytest.approx(
        5 * math.log10(0.25)
    )


# -- what is shown -------------------------------------------------------------------------------------------------


def test_results_say_what_they_answer_and_never_show_the_key() -> None:
    texts = [plain_text(30)]
    for result, key in ((kgw(texts, VOCAB, LEFT), LEFT), (synthid(texts, SYNTH), SYNTH)):
        assert "not whose weights wrote it" in result.notes[0]
        assert result.notes[1].startswith("H0: the tokens were chosen without knowledge of the key")
        assert "key=owner" in result.id
        for shown in (result.model_dump_json(), repr(key), str(key)):
            assert str(SECRET) not in shown
    alone = {value.name: value for value in kgw([[5, 9]], VOCAB, LEFT).values}["false-positive rate"]
    assert (alone.value, alone.reason) == (None, "so short a text cannot reach p = 1e-06")


# -- keys ----------------------------------------------------------------------------------------------------------


def test_a_key_file_is_read_as_transformers_writes_its_settings(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps({"scheme": "kgw", "label": "2026-a", **kgw_config(SELF).to_dict()}))
    assert read_key(path) == SELF.model_copy(update={"label": "2026-a"})
    path.write_text(json.dumps({"scheme": "synthid", "keys": [5, 6], "eos_token_id": 2}))
    assert read_key(path) == SynthIdKey(keys=(5, 6), eos_token_id=2)


KGW_FIELDS = {"scheme": "kgw", "hashing_key": SECRET}
SYNTHID_FIELDS = {"scheme": "synthid", "keys": [SECRET, 2]}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "has no scheme that is known"),
        ({**KGW_FIELDS, "scheme": ["kgw"]}, "has no scheme that is known"),
        ({**KGW_FIELDS, "scheme": "unigram"}, "has no scheme that is known"),
        ({"scheme": "kgw"}, "field hashing_key is wrong"),
        ({**KGW_FIELDS, "colour": 1, "sheme\n": 2}, r"holds unknown fields: 'colour', 'sheme\n'; fields are scheme, "),
        ({**KGW_FIELDS, **{f"x{i}": i for i in range(9)}}, "'x4' and 4 more"),
        ({**KGW_FIELDS, "hashing_key": str(SECRET)}, "field hashing_key is wrong"),
        ({**KGW_FIELDS, "hashing_key": True}, "field hashing_key is wrong"),
        ({**KGW_FIELDS, "hashing_key": 0}, "field hashing_key is wrong"),
        ({**KGW_FIELDS, "hashing_key": 10**100}, "field hashing_key is wrong"),
        ({**KGW_FIELDS, "greenlist_ratio": 1.0}, "field greenlist_ratio is wrong"),
        ({**KGW_FIELDS, "greenlist_ratio": math.nan}, "field greenlist_ratio is wrong"),
        ({**KGW_FIELDS, "bias": math.inf}, "field bias is wrong"),
        ({**KGW_FIELDS, "seeding_scheme": "minhash"}, "field seeding_scheme is wrong"),
        ({**KGW_FIELDS, "context_width": 10**9}, "field context_width is wrong"),
        ({**KGW_FIELDS, "label": "a\x1b[2J"}, "field label is wrong"),
        ({**SYNTHID_FIELDS, "keys": []}, "field keys is wrong"),
        ({**SYNTHID_FIELDS, "keys": [1] * 65}, "field keys is wrong"),
        ({**SYNTHID_FIELDS, "keys": [1, -1]}, "field keys.1 is wrong"),
        ({**SYNTHID_FIELDS, "sampling_table_size": 1 << 40}, "field sampling_table_size is wrong"),
        ({**SYNTHID_FIELDS, "ngram_len": 1}, "field ngram_len is wrong"),
        ({**SYNTHID_FIELDS, "context_history_size": 10**9}, "field context_history_size is wrong"),
    ],
)
def test_a_wrong_key_file_is_refused_in_one_line_without_the_key(
    tmp_path: Path, fields: dict[str, object], message: str
) -> None:
    path = tmp_path / "key.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(CheckpointError) as caught:
        read_key(path)
    said = str(caught.value)
    assert message in said
    assert "\n" not in said
    assert str(SECRET) not in said


def test_a_key_file_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.json"
    for text in ("", "[1]", "{", '{"scheme": "kgw", "hashing_key": 1, "hashing_key": 2}', " " * 70_000, "[" * 60_000):
        path.write_text(text)
        with pytest.raises(CheckpointError, match=r"key\.json"):
            read_key(path)
    with pytest.raises(CheckpointError, match="cannot be opened"):
        read_key(tmp_path / "nowhere.json")


# -- bad calls -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("token", [VOCAB, -1, 10**5000], ids=["next", "negative", "endless"])
def test_a_token_beyond_the_vocabulary_is_a_usage_error(token: int) -> None:
    with pytest.raises(UsageError, match=r"text 2 holds token .* which a vocabulary of 512 has not"):
        kgw([[1, 2], [3, token]], VOCAB, LEFT)


def test_sizes_out_of_range_are_usage_errors() -> None:
    with pytest.raises(UsageError, match="98 other keys: draw from 99"):
        kgw([[1, 2]], VOCAB, LEFT, others=98)
    with pytest.raises(UsageError, match="a vocabulary of"):
        kgw([[1, 2]], 1 << 40, LEFT)
    with pytest.raises(UsageError, match="leaves no list in a vocabulary of 3"):
        kgw([[1, 2]], 3, LEFT)
    with pytest.raises(UsageError, match="200000 tokens are too many"):
        synthid([[1] * 200_000], SYNTH)
    with pytest.raises(UsageError, match="holds token"):
        synthid([[1, 1 << 40]], SYNTH)


def test_texts_that_are_too_short_are_not_applicable() -> None:
    for result in (kgw([], VOCAB, LEFT), kgw([[4], []], VOCAB, LEFT), synthid([[1, 2, 3, 4]], SYNTH)):
        assert result.status == "not_applicable"
        assert "nothing to score" in (result.reason or "")
        assert result.notes


def test_without_torch_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"\[torch\] extra"):
        kgw([[1, 2, 3]], VOCAB, LEFT)
