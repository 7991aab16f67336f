"""Attention between tokens: what it survives, what defeats it, and the same numbers from token x token matrices."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest

from evidence.models import allowed, changed, disguised, noisy, pair, random
from kinprint.evidence.pair import Pair
from kinprint.evidence.token_forms import TokenSide, centred_tokens, token_cosines
from kinprint.evidence.token_forms import test as measured
from kinprint.types import Evidence


def size(found: Evidence) -> float:
    assert found.status == "measured", found.reason
    assert found.size is not None
    return found.size


def controls(found: Evidence) -> dict[str, float | None]:
    return {value.name: value.value for value in found.controls}


def explicit(models: Pair, form: Literal["qk", "vo"], layers: tuple[int, int], *, centred: bool = True) -> float:
    """The cosine of two layers' token forms from token x token matrices."""
    assert isinstance(models.token_rows, tuple)
    flat: list[np.ndarray] = []
    for trunk, rows_ND, layer in zip((models.suspect, models.base), models.token_rows, layers, strict=True):
        tokens = rows_ND - rows_ND.mean(axis=0) if centred else rows_ND
        flat.append((tokens @ trunk.forms(layer)[form].astype(np.float64) @ tokens.T).ravel())
    return float(flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1]))


# -- what it survives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["llama", "qwen3", "gpt2", "gpt_neox", "mixtral", "bert"])
def test_unchanged_by_everything_that_keeps_the_function(form: str) -> None:
    base = random(form)
    assert len(allowed(base)) > 4
    assert size(measured(pair(disguised(base), base))) == pytest.approx(1.0, abs=1e-4)  # forms are float32


def test_tokens_face_each_other_by_their_strings() -> None:
    base = replace(random(), vocabulary=tuple(f"token {i}" for i in range(96)))
    order = np.random.default_rng(0).permutation(96)[:60]
    cut = base.mapped("vocab", lambda array, position, _: np.take(array, order, axis=position))
    named = replace(cut, vocabulary=tuple(f"token {i}" for i in order))
    found = measured(pair(named, base))
    assert size(found) == pytest.approx(1.0, abs=1e-4)
    assert found.notes == ("60 shared tokens",)


def test_layers_in_another_order_are_found() -> None:
    base = random()
    moved = {replace(key, layer=2 - key.layer): a for key, a in base.parts.items() if key.layer is not None}
    found = measured(pair(base.updated(moved), base))
    assert [row[:2] for row in found.tables[0].rows] == [(0, 2), (1, 1), (2, 0)]
    assert size(found) == pytest.approx(1.0, abs=1e-4)


# -- what it notices -----------------------------------------------------------------------------------------------


def test_strangers_have_nothing_and_neither_do_the_controls() -> None:
    found = measured(pair(random(seed=1), random(seed=2)))
    assert abs(size(found)) < 0.1
    assert set(controls(found)) == {"mismatched layers", "shuffled tokens"}
    assert all(abs(value or 1.0) < 0.1 for value in controls(found).values())


def test_a_copy_with_noise_stays_near_and_its_controls_do_not() -> None:
    base = random()
    found = measured(pair(noisy(base, 0.1), base))
    assert size(found) > 0.95
    assert all(abs(value or 1.0) < 0.1 for value in controls(found).values())


def test_a_direction_that_all_tokens_share_does_not_make_strangers_alike() -> None:
    one, other = random(seed=1), random(seed=2)
    plain = size(measured(pair(one, other)))
    for state in (one, other):
        key = next(key for key in state.parts if key.role == "embed.token")
        state.parts[key][:] += 100.0 * np.random.default_rng(3).standard_normal(24)
    shifted = pair(one, other)
    assert size(measured(shifted)) == pytest.approx(plain, abs=1e-3)  # float32 beside a long common direction
    assert abs(explicit(shifted, "qk", (0, 0), centred=False)) > 0.9


def test_new_embeddings_defeat_it() -> None:
    base = random()
    fresh = {key: random(seed=9).parts[key] for key in base.parts if key.role == "embed.token"}
    assert size(measured(pair(base.updated(fresh), base))) < 0.2


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_the_numbers_are_those_of_token_by_token_matrices() -> None:
    models = pair(random(seed=1, hidden=30), noisy(random(seed=1), 0.1))
    assert isinstance(models.token_rows, tuple)
    sides = [
        TokenSide(trunk, centred_tokens(rows))
        for trunk, rows in zip((models.suspect, models.base), models.token_rows, strict=True)
    ]
    tables = token_cosines(sides[0], sides[1])
    for form in ("qk", "vo"):
        for at in np.ndindex(3, 3):
            assert tables[form][at] == pytest.approx(explicit(models, form, at), abs=1e-5)  # float32


@pytest.mark.parametrize("tokens", [20, 24, 90])
@pytest.mark.parametrize("unused", [0, 3])
def test_norms_are_those_of_token_by_token_matrices(tokens: int, unused: int) -> None:
    models = pair(random(), random(seed=1))
    rows = np.random.default_rng(0).standard_normal((tokens, 24)).astype(np.float32)
    rows[:, :unused] = 0.0
    side = TokenSide(models.suspect, centred_tokens(rows))
    made = {form: side.tokens_ND @ models.suspect.forms(1)[form] @ side.tokens_ND.T for form in ("qk", "vo")}
    for form, matrix in made.items():
        assert side.norms[1, form] == pytest.approx(float(np.linalg.norm(matrix)), rel=1e-4)  # float32


def test_a_layer_is_the_mean_of_both_forms_by_hand() -> None:
    base = random()
    flipped = base.updated({key: -array for key, array in base.parts.items() if key.role == "attn.q"})
    found = measured(pair(flipped, base))
    cosines = {tuple(row[:2]): row[2:] for row in found.tables[0].rows}
    same = [values for (here, there), values in cosines.items() if here == there]
    assert same
    for values in same:
        assert values == (pytest.approx(-1.0, abs=1e-4), pytest.approx(1.0, abs=1e-4), pytest.approx(0.0, abs=1e-4))


def test_it_never_carries_and_has_no_p_value() -> None:
    found = measured(pair(random(), random()))
    assert (found.carries, found.beyond, found.log10_p, found.rung) == (False, False, None, 2)


# -- what cannot be measured ---------------------------------------------------------------------------------------


def test_tokens_that_cannot_be_paired_are_a_reason() -> None:
    found = measured(pair(random(vocab=90), random()))
    assert found.reason == "no vocabulary to tell which of 90 and 96 tokens are the same"


def test_embeddings_that_are_all_the_same_are_a_reason() -> None:
    found = measured(pair(changed(random(), "embed.token", 0.1), random()))
    assert found.reason == "the shared tokens' embeddings do not differ"


def test_attention_that_cannot_be_read_is_a_finding() -> None:
    broken = changed(random(), "attn.q", np.nan)
    assert measured(pair(broken, random())).reason == "one of the models has no layer with attention that could be read"
