"""Watermarks of sampling, found in a text with the owner's key: KGW's green lists and SynthID-Text's g-values.

Axes: N = windows of tokens, C = tokens of a window, K = other keys.

They answer a question of their own: was this text written with this key? Whoever holds the key can write so with any
model, and a stolen model that samples without the key leaves no mark. Lineage is not what is measured.

H0: the tokens were chosen without knowledge of the key. Then the key might as well be drawn after the text was written,
and what it says of each distinct context is a fresh random draw:

* *KGW*: each token that follows a context is green with the green list's share of the vocabulary. Tokens that share a
  context share its list, which makes their count less spread than the binomial one: it is a sum of independent
  Bernoulli variables (Vatutin & Mikhailov 1982), whose tail the binomial bounds from one token above the mean on
  (Hoeffding 1956). So the p-value is exact where contexts differ and never too small elsewhere.
* *SynthID*: each layer's g-value of a window is 1 with the sampling table's share of ones, near .5. The mean over
  windows is weighted over layers, and Hoeffding's inequality (1963) bounds its tail.

Both rest on the hash being as good as random. The control does not: the same statistic under other keys, drawn alike,
is exchangeable with the owner's under H0, and its rank has an exact p-value that no hash can spoil, of at least one
over the number of keys.

What is drawn twice counts once, or a repeated phrase would pass for evidence: of KGW a pair of seed and token (seeds
that only differ above the 32 bits that torch's generator keeps are one, and so are windows of *selfhash* with the same
smallest hash), of SynthID a window's row in the sampling table. Pairs whose seed is 0 have the same list under every
key (*lefthash* after token 0) and are left out.

Source: Kirchenbauer et al., ICML 2023, arXiv 2301.10226, section 3, and 2306.04634 (*selfhash*); Dathathri et al.,
Nature 634 (2024), with the weighted mean of google-deepmind/synthid-text, detector_mean.py. Green lists, g-values and
masks are those of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from kinprint.behaviour.watermark_key import MAX_ID, MAX_KEY, KgwKey, SynthIdKey, read_key
from kinprint.behaviour.watermark_scores import (
    ALPHA,
    Score,
    g_values,
    green_tokens,
    kgw_processor,
    unmasked_windows,
    windows,
)
from kinprint.canonical import method_id
from kinprint.checkpoint import Array
from kinprint.checkpoint.faults import natural, shown
from kinprint.errors import UsageError
from kinprint.types import MethodResult, Table, Value

__all__ = ["KgwKey", "SynthIdKey", "kgw", "read_key", "synthid"]

KGW, SYNTHID = "watermark-kgw", "watermark-synthid"
VERSION = 1  # raise whenever any output can change
KGW_SOURCE = "Kirchenbauer et al. (ICML 2023, arXiv 2301.10226), section 3"
SYNTHID_SOURCE = "Dathathri et al. (Nature 634, 2024), weighted mean score"

OTHERS, MAX_OTHERS, SEED = 99, 9999, 0
"""Other keys that are drawn, unless the caller wants more; the most; and the seed that they are drawn from."""

MAX_TOKENS = 1 << 17
MAX_VOCAB = 1 << 24

_SMALL = 0.05
"""A p-value that some of the other keys should have: not more than this share of them."""

QUESTION = (
    "asks whether the text was written with this key, not whose weights wrote it: whoever holds the key can write so "
    "with any model, and a copied model that samples without it leaves no mark"
)
FIXED = "the p-values hold for a key that was fixed before anybody chose the text to test"
PROCESSOR = "only marks that transformers made on the processor are seen: on a GPU the same key draws otherwise"


@dataclass(frozen=True, slots=True)
class _Test:
    """One scheme as the record shows it, and its statistic as a function of windows and a secret of whole numbers."""

    name: str
    id: str
    source: str
    null: str
    statistic: str
    score: Callable[[Array, Sequence[int]], Score]


def kgw(ids: Sequence[Sequence[int]], vocab: int, key: KgwKey, *, others: int = OTHERS) -> MethodResult:
    """Count the green tokens of texts under the owner's key and under others.

    Args:
        ids: Token ids of each text, best without its prompt, by the tokenizer of the model that is suspected to have
            written it. Texts are counted together: a pair that stands in two of them counts once.
        vocab: Size of the model's output layer. The tokenizer's may be smaller, and gives other green lists.
        key: The owner's key.
        others: Other keys to draw, at least 99.

    Returns:
        Binomial p-value, z, green share and the p-value by rank among other keys. ``not_applicable`` where nothing
        can be scored.

    Raises:
        UsageError: An id lies beyond the vocabulary, or a size is out of its range.
        MissingExtraError: torch or transformers is not installed.
    """
    if not 2 <= vocab <= MAX_VOCAB:
        raise UsageError(f"a vocabulary of {shown(vocab)}: give the size of the output layer, from 2 to {MAX_VOCAB}")
    green = int(vocab * key.greenlist_ratio)
    if not 0 < green < vocab:
        raise UsageError(f"a greenlist_ratio of {key.greenlist_ratio} leaves no list in a vocabulary of {vocab}")
    _check(ids, vocab, others)
    made = kgw_processor(vocab, key, key.hashing_key)
    settings = {"ratio": key.greenlist_ratio, "scheme": key.seeding_scheme, "width": key.context_width, "vocab": vocab}
    test = _Test(
        name=KGW,
        id=method_id(KGW, VERSION, key=key.label, others=others, seed=SEED, **settings),
        source=KGW_SOURCE,
        null="H0: the tokens were chosen without knowledge of the key, so that each distinct context's green list is a "
        f"random draw of the key ({green} of {vocab} tokens); p is the binomial tail",
        statistic="green share",
        score=lambda windows_NC, secret: green_tokens(windows_NC, kgw_processor(vocab, key, secret[0], made=made)),
    )
    length = key.context_width + (key.seeding_scheme == "lefthash")
    return _measured(test, ids, [windows(text, length) for text in ids], (key.hashing_key,), others)


def synthid(ids: Sequence[Sequence[int]], key: SynthIdKey, *, others: int = OTHERS) -> MethodResult:
    """Take the weighted mean of the g-values of texts under the owner's keys and under others.

    Args:
        ids: Token ids of each text without its prompt, by the tokenizer of the model that is suspected to have written
            it. Texts are counted together: a window that stands in two of them counts once.
        key: The owner's keys.
        others: Other lists of keys to draw, at least 99.

    Returns:
        A bound of the p-value, z, weighted mean and the p-value by rank among other keys. ``not_applicable`` where
        nothing can be scored.

    Raises:
        UsageError: An id is none, or a size is out of its range.
        MissingExtraError: torch or transformers is not installed.
    """
    _check(ids, MAX_ID, others)
    depth = len(key.keys)
    settings = {"ngram": key.ngram_len, "table": key.sampling_table_size, "table-seed": key.sampling_table_seed}
    settings |= {"history": key.context_history_size, "depth": depth}
    eos = "none" if key.eos_token_id is None else key.eos_token_id
    test = _Test(
        name=SYNTHID,
        id=method_id(SYNTHID, VERSION, key=key.label, others=others, seed=SEED, eos=eos, **settings),
        source=SYNTHID_SOURCE,
        null="H0: the tokens were chosen without knowledge of the keys, so that each layer's g-value of a distinct "
        f"window is a random draw of them ({depth} layers); p is bounded by Hoeffding's inequality",
        statistic="weighted mean g",
        score=lambda windows_NC, secret: g_values(windows_NC, key, secret),
    )
    return _measured(test, ids, [unmasked_windows(text, key) for text in ids], key.keys, others)


def _check(ids: Sequence[Sequence[int]], vocab: int, others: int) -> None:
    """Make sure that texts and the number of keys can be worked on."""
    if not OTHERS <= others <= MAX_OTHERS:
        raise UsageError(f"{shown(others)} other keys: draw from {OTHERS} to {MAX_OTHERS}")
    tokens = sum(len(text) for text in ids)
    if tokens > MAX_TOKENS:
        raise UsageError(f"{tokens} tokens are too many for one test: give at most {MAX_TOKENS}")
    for number, text in enumerate(ids, start=1):
        beyond = next((token for token in text if not natural(token) or token >= vocab), None)
        if beyond is not None:
            raise UsageError(
                f"text {number} holds token {shown(beyond)}, which a vocabulary of {vocab} has not: "
                "give ids by the tokenizer of the watermarked model"
            )


# -- records -------------------------------------------------------------------------------------------------------


def _measured(
    test: _Test, ids: Sequence[Sequence[int]], texts: Sequence[Array], secret: Sequence[int], others: int
) -> MethodResult:
    """Score all texts together under the owner's key and under others, and each text under the owner's."""
    notes = (QUESTION, test.null, FIXED, PROCESSOR)
    windows_NC = np.concatenate(texts) if texts else np.zeros((0, 2), dtype=np.int64)
    own = test.score(windows_NC, secret)
    if not own.counted:
        reason = f"nothing to score in {sum(map(len, ids))} tokens: the texts are too short, or all of them is masked"
        return MethodResult(
            method=test.name, id=test.id, status="not_applicable", reason=reason, notes=notes, source=test.source
        )
    drawn = np.random.default_rng(SEED).integers(1, MAX_KEY, size=(others, len(secret))).tolist()
    scores = [test.score(windows_NC, other) for other in drawn]
    lengths = [len(text) for text in ids]
    each = [test.score(text, secret) for text in texts]
    tables = (
        _table("Texts, each by itself", "text", test, zip(lengths, each, strict=True)),
        _table("Other keys", "key", test, ((sum(lengths), one) for one in scores)),
    )
    return MethodResult(
        method=test.name,
        id=test.id,
        status="measured",
        values=_values(test, own, scores, len(windows_NC)),
        controls=_controls(scores),
        tables=tables,
        notes=notes,
        source=test.source,
    )


def _values(test: _Test, own: Score, scores: Sequence[Score], scored: int) -> tuple[Value, ...]:
    above = sum(one.z >= own.z for one in scores)
    keys = len(scores) + 1
    reachable = own.best <= math.log10(ALPHA)
    keyless = f"; {own.keyless} more are the same under every key and left out" if own.keyless else ""
    return (
        _statistic("log10 p", own.log10_p, f"no less than {own.best:.4g} for a text of this length"),
        _statistic("z", own.z, "standard deviations above what H0 expects"),
        _statistic(test.statistic, own.share, f"expected under H0: {own.expected:.4g}"),
        _statistic(
            "log10 p by rank",
            math.log10((1 + above) / keys),
            f"the owner's key is number {1 + above} of {keys} by z; exact, no less than {-math.log10(keys):.4g}",
        ),
        Value(
            name="false-positive rate",
            value=own.rate if reachable else None,
            kind="statistic",
            reason=None if reachable else f"so short a text cannot reach p = {ALPHA:g}",
            note=f"how often H0 gives p of at most {ALPHA:g}" if reachable else None,
        ),
        _statistic("counted", float(own.counted), "distinct draws of the key" + keyless),
        _statistic("repeats", float(scored - own.counted - own.keyless), f"of {scored} windows, counted once"),
    )


def _controls(scores: Sequence[Score]) -> tuple[Value, ...]:
    """Say how other keys fare: calibrated, their z has mean 0 and deviation 1, and few have a small p."""
    z_K = np.array([one.z for one in scores])
    small = sum(one.log10_p <= math.log10(_SMALL) for one in scores) / len(scores)
    return (
        _statistic("largest z of other keys", float(z_K.max()), f"of {len(scores)} keys"),
        _statistic("mean z of other keys", float(z_K.mean()), "0 if calibrated"),
        _statistic("deviation of z of other keys", float(z_K.std(ddof=1)), "1 if calibrated"),
        _statistic(f"other keys with p of at most {_SMALL:g}", small, f"{_SMALL:g} or less if calibrated"),
    )


def _table(title: str, row: str, test: _Test, scores: Iterable[tuple[int, Score]]) -> Table:
    rows = [
        (number, tokens, one.counted, *((one.share, one.z, one.log10_p) if one.counted else (None, None, None)))
        for number, (tokens, one) in enumerate(scores, start=1)
    ]
    columns = (row, "tokens", "counted", test.statistic, "z", "log10 p")
    return Table(title=title, columns=columns, rows=tuple(rows))


def _statistic(name: str, value: float, note: str) -> Value:
    return Value(name=name, value=value, kind="statistic", note=note)
