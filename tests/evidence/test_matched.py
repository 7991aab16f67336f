"""Evidence by size: what it says of copies and strangers, its controls, the embedding, and what a planting shows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from models import changed, disguised, noisy, pair, random

from kinprint.alignment.whitening import brought_into
from kinprint.evidence import embedding
from kinprint.evidence.matched import Sizes, heads, measure, units
from kinprint.evidence.pair import Pair
from kinprint.evidence.power import (
    NOT_EXCLUDED,
    PLANTINGS,
    PRUNED,
    RELATIVE_CHANGE,
    damaged,
    lower_bound,
    power,
)
from kinprint.evidence.sizes import matched_heads, matched_units
from kinprint.types import Evidence

BASE = random("llama", 0, layers=4)
STRANGER = random("llama", 1, layers=4)


def both(models: Pair) -> tuple[Evidence, Evidence]:
    sizes = measure(models)
    return heads(models, sizes), units(models, sizes)


def test_a_disguised_copy_is_beyond_both_margins_and_its_wrong_layers_are_not() -> None:
    for evidence in both(pair(disguised(BASE), BASE)):
        assert evidence.size == pytest.approx(1.0, abs=1e-3)
        assert evidence.carries
        assert evidence.beyond
        controls = {control.name: control.value for control in evidence.controls}
        assert set(controls) == {"mismatched layers", "within the suspect"}
        assert all(value is not None and abs(value) < 0.2 for value in controls.values())


def test_strangers_are_below_both_margins() -> None:
    for evidence in both(pair(STRANGER, BASE)):
        assert evidence.size is not None
        assert abs(evidence.size) < 0.1
        assert not evidence.beyond


def test_noise_lowers_the_size_and_more_noise_lowers_it_more() -> None:
    found = [both(pair(noisy(BASE, scale), BASE))[1].size or 0.0 for scale in (0.1, 0.5, 1.0)]
    assert found[0] > found[1] > found[2] > 0.2


def test_sizes_of_experts_are_kept_layer_by_layer_and_a_dense_model_has_none() -> None:
    mixture = random("mixtral", 0, layers=2)
    (layers, experts) = both(pair(mixture, mixture))[1].tables
    assert layers.title == "units of facing layers"
    assert experts.title == "experts of facing layers"
    assert {row[:2] for row in experts.rows} == {(0, 0), (1, 1)}
    assert all(row[3] == pytest.approx(1, abs=1e-3) for row in experts.rows)
    assert len(both(pair(BASE, BASE))[1].tables) == 1


def test_there_is_no_p_value() -> None:
    assert all(evidence.log10_p is None for evidence in both(pair(disguised(BASE), BASE)))


def test_without_sizes_the_evidence_says_why() -> None:
    models = pair(BASE, BASE)
    found = heads(models, Sizes((), ()))
    assert found.status == "not_applicable"
    assert found.reason


def test_sizes_of_the_trunk_and_of_its_best_layer_by_hand() -> None:
    sizes = Sizes((0.1, 0.5, None, 0.3), (0.2, 0.0, 0.4, 0.6)).all()
    assert sizes == pytest.approx({"heads": 0.4, "units": 0.5, "layer heads": 0.5, "layer units": 0.6})


# -- the embedding -------------------------------------------------------------------------------------------------


def test_a_kept_embedding_is_found_in_stored_order_and_under_a_rotation() -> None:
    for suspect in (BASE, disguised(BASE)):
        found = embedding.test(pair(suspect, BASE))
        assert found.size == pytest.approx(1.0, abs=0.02)
        assert found.beyond
        assert not found.carries  # it says nothing about the trunk


def test_an_embedding_drawn_anew_is_not_beyond_though_the_trunk_is_a_copy() -> None:
    fresh = np.random.default_rng(5).standard_normal(
        next(a.shape for k, a in BASE.parts.items() if k.role == "embed.token")
    )
    found = embedding.test(pair(disguised(changed(BASE, "embed.token", fresh)), BASE))
    assert found.size is not None
    assert abs(found.size) < 0.1
    assert not found.beyond


def test_models_without_common_tokens_are_not_applicable() -> None:
    other = random("llama", 1, layers=4, vocab=80)
    found = embedding.test(pair(other, BASE))
    assert found.status == "not_applicable"
    assert "tokens are the same" in (found.reason or "")


# -- plantings -----------------------------------------------------------------------------------------------------


def test_copies_planted_in_a_model_of_some_width_are_seen() -> None:
    wide = random("llama", 3, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=128)
    found = power(
        pair(wide, random("llama", 4, layers=2, hidden=64, heads=4, kv_heads=2, head_dim=16, ffn=96, vocab=128))
    )
    assert found.plantings[0].plantings == PLANTINGS >= 200
    assert found.sufficient
    assert found.plantings[0].lower_bound >= 0.97
    assert found.not_excluded == NOT_EXCLUDED


def test_a_model_whose_layers_hold_nothing_has_no_power() -> None:
    empty = BASE
    for role in ("attn.v", "attn.o", "mlp.up", "mlp.down"):
        empty = changed(empty, role, 0.0)
    found = power(pair(empty, BASE))
    assert found.plantings[0].seen == 0
    assert not found.sufficient


def test_a_damaged_matrix_keeps_half_of_its_entries_at_any_size() -> None:
    rng = np.random.default_rng(0)
    for shape in ((40, 50), (700, 1000)):
        rows = rng.standard_normal(shape, dtype=np.float32)
        found = damaged(rows, rng)
        kept = found != 0
        assert abs(kept.mean() - (1 - PRUNED)) < 0.01
        # Unit variance and noise of RELATIVE_CHANGE: cosine with what it was, before and after pruning.
        assert np.corrcoef(found[kept], rows[kept])[0, 1] > 1 / np.sqrt(1 + RELATIVE_CHANGE**2)


def test_an_original_in_its_basis_stands_against_a_copy_as_it_did_outside() -> None:
    models = pair(noisy(BASE, 0.3), BASE)
    assert models.whitened is not None
    copy, original = models.layers(models.facing[0])
    read, write = models.whitened
    turned = brought_into(original, read.base_BK, write.base_BK)
    own = np.eye(read.directions, dtype=np.float32)
    both = [replace(basis, base_BK=own) for basis in models.whitened]
    assert turned.attention is not None
    assert turned.attention.k_KD.shape[1] == both[0].directions
    for size in (matched_heads, matched_units):
        before, after = size(copy, original, *models.whitened), size(copy, turned, *both)
        assert before == pytest.approx(after, abs=1e-5)
        assert before is not None
        assert before > 0.5


def test_the_interval_by_hand() -> None:
    # All of n seen: the lower end is alpha^(1/n).
    assert lower_bound(300, 300) == pytest.approx(0.05 ** (1 / 300))
    assert lower_bound(0, 10) == 0.0
    assert lower_bound(5, 10) == pytest.approx(0.2224, abs=1e-4)
