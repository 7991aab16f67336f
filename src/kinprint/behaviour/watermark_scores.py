"""What one key says of a text: green tokens of KGW, g-values of SynthID-Text.

Axes: N = windows of tokens, C = tokens of a window, V = vocabulary, D = layers of SynthID
(its depth), B = a batch of one.

Green lists, g-values and masks are those of transformers, which is imported when first needed. The null hypothesis and
what the numbers mean stand in :mod:`kinprint.behaviour.watermark`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from kinprint.behaviour.loading import extra
from kinprint.behaviour.watermark_key import MAX_KEY, KgwKey, SynthIdKey
from kinprint.checkpoint import Array
from kinprint.shapes import Int64

ALPHA = 1e-6
"""False-positive rate of the threshold that is reported: that of the verdict's exact tests."""


@dataclass(frozen=True, slots=True)
class Score:
    """What one key says of a text.

    Attributes:
        counted: How many distinct draws of the key were counted.
        keyless: How many were left out because no key changes them.
        share: Share of green tokens, or the weighted mean of g-values.
        expected: What it is in the mean under H0.
        z: Standard deviations above ``expected``.
        log10_p: Decimal logarithm of the p-value, or of a bound of it.
        best: The smallest ``log10_p`` that so many draws could have given.
        rate: Probability under H0 that ``log10_p`` is at most that of ``ALPHA``, or a bound of it.
    """

    counted: int
    keyless: int = 0
    share: float = 0.0
    expected: float = 0.0
    z: float = 0.0
    log10_p: float = 0.0
    best: float = 0.0
    rate: float = 0.0


def kgw_processor(vocab: int, key: KgwKey, hashing_key: int, *, made: Any = None) -> Any:  # noqa: ANN401 - no types here
    """Return transformers' processor of green lists under one key.

    Args:
        vocab: Size of the output layer.
        key: The settings.
        hashing_key: The secret, in place of that of ``key``.
        made: A processor of the same settings. Under lefthash it is set to the key and returned: to make one takes
            longer than to score a short text, and what takes so long is a table that only selfhash reads.
    """
    if made is not None and key.seeding_scheme == "lefthash":
        made.hash_key = hashing_key
        return made
    settings = key.model_dump(include={"greenlist_ratio", "bias", "seeding_scheme", "context_width"})
    return extra("transformers").WatermarkLogitsProcessor(vocab, "cpu", hashing_key=hashing_key, **settings)


def green_tokens(windows_NC: Int64[Array, "N C"], processor: Any) -> Score:  # noqa: ANN401
    """Count distinct pairs of seed and token under one key, and how many of them are green."""
    selfhash = processor.seeding_scheme == "selfhash"
    seeded: dict[int, tuple[Any, set[int]]] = {}
    keyless = 0
    # Under lefthash only the token before enters the seed, however wide the context.
    for window in extra("torch").from_numpy(np.unique(windows_NC if selfhash else windows_NC[:, -2:], axis=0)):
        prefix = window if selfhash else window[:-1]
        processor.set_seed(prefix)
        seed = processor.rng.initial_seed() % (1 << 32)
        if seed:
            seeded.setdefault(seed, (prefix, set()))[1].add(int(window[-1]))
        keyless += not seed
    pairs = sum(len(tokens) for _, tokens in seeded.values())
    green = 0
    for prefix, tokens in seeded.values():
        green_V = np.zeros(processor.vocab_size, dtype=bool)
        green_V[processor._get_greenlist_ids(prefix).numpy()] = True
        green += int(green_V[sorted(tokens)].sum())
    if not pairs:
        return Score(0, keyless)
    ratio = processor.greenlist_size / processor.vocab_size
    # A key is one of so many: no text can say more against H0 than that the owner guessed it.
    floor = -math.log10(MAX_KEY)
    stats, special = import_module("scipy.stats"), import_module("scipy.special")
    tail = special.logsumexp(stats.binom.logpmf(np.arange(green, pairs + 1), pairs, ratio))
    return Score(
        counted=pairs,
        keyless=keyless,
        share=green / pairs,
        expected=ratio,
        z=(green - pairs * ratio) / math.sqrt(pairs * ratio * (1 - ratio)),
        log10_p=max(min(float(tail) / math.log(10), 0.0), floor),
        best=max(pairs * math.log10(ratio), floor),
        rate=float(stats.binom.sf(stats.binom.isf(ALPHA, pairs, ratio), pairs, ratio)),
    )


def g_values(windows_NC: Int64[Array, "N C"], key: SynthIdKey, keys: Sequence[int]) -> Score:
    """Take the weighted mean of g-values over distinct windows under one list of keys."""
    if not len(windows_NC):
        return Score(0)
    processor = _processor(key, keys)
    hashes_BND = processor.compute_ngram_keys(extra("torch").from_numpy(windows_NC)[None])
    places_ND, first_N = np.unique(hashes_BND[0].numpy() % key.sampling_table_size, axis=0, return_index=True)
    g_ND = processor.sample_g_values(hashes_BND)[0].numpy()[first_N]
    weights_D = np.linspace(10, 1, len(keys))
    weights_D /= weights_D.sum()
    # Layers whose keys are equal modulo the table's size say the same thing twice: their weights add up.
    layer_D = np.unique(places_ND, axis=1, return_inverse=True)[1].ravel()
    squares = float((np.bincount(layer_D, weights_D) ** 2).sum()) / len(g_ND)
    share = float((g_ND @ weights_D).mean())
    expected = int(processor.sampling_table.sum()) / key.sampling_table_size
    floor = -len(keys) * math.log10(key.sampling_table_size)

    def bound(excess: float) -> float:
        return max(-2 * max(excess, 0.0) ** 2 / squares / math.log(10), floor)

    return Score(
        counted=len(g_ND),
        share=share,
        expected=expected,
        z=(share - expected) / math.sqrt(expected * (1 - expected) * squares),
        log10_p=bound(share - expected),
        best=bound(1 - expected),
        rate=ALPHA,
    )


def _processor(key: SynthIdKey, keys: Sequence[int]) -> Any:  # noqa: ANN401 - no types here
    settings = key.model_dump(exclude={"scheme", "label", "keys", "eos_token_id"})
    device = extra("torch").device("cpu")
    return extra("transformers").SynthIDTextWatermarkLogitsProcessor(keys=list(keys), device=device, **settings)


def windows(text: Sequence[int], length: int) -> Int64[Array, "N C"]:
    """Return every run of ``length`` tokens."""
    if len(text) < length:
        return np.zeros((0, length), dtype=np.int64)
    return np.lib.stride_tricks.sliding_window_view(np.array(text, dtype=np.int64), length)


def unmasked_windows(text: Sequence[int], key: SynthIdKey) -> Int64[Array, "N C"]:
    """Return the windows that were watermarked: before the end of the text, after a context that is new."""
    windows_NC = windows(text, key.ngram_len)
    if not len(windows_NC):
        return windows_NC
    processor = _processor(key, key.keys)
    ids = extra("torch").tensor([list(text)])
    mask_N = processor.compute_context_repetition_mask(ids)[0].numpy().astype(bool)
    if key.eos_token_id is not None:
        mask_N &= processor.compute_eos_token_mask(ids, key.eos_token_id)[0, key.ngram_len - 1 :].numpy().astype(bool)
    return windows_NC[mask_N]
