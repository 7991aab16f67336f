"""Adapters trained and merged."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from kinprint.errors import MissingExtraError, UsageError
from kinprint.zoo.kinds import parse
from kinprint.zoo.lora import KINDS, LowRank, lora_merged
from kinprint.zoo.recipes import Form
from support.small import FORMS, context, drawn

BRIEF = LowRank(steps=3, batch=2, rank=2)


@pytest.mark.parametrize("form", FORMS)
def test_every_matrix_of_the_layers_moves_by_a_matrix_of_the_rank_and_nothing_else_moves(form: Form) -> None:
    model = drawn(form)
    merged = lora_merged(model, BRIEF, context())
    assert set(merged.weights) == set(model.weights)
    for name, before in model.weights.items():
        moved = merged.weights[name].astype(np.float64) - before
        if before.ndim == 2 and ("layers." in name or ".h." in name):
            fused = name.endswith((".w1.weight", ".w3.weight"))  # gate and up of an expert share an adapter
            # 1e-6: weights are about 0.3 in float32, and the sum W + B A is rounded to 3e-8 an entry.
            assert 1 <= np.linalg.matrix_rank(moved, tol=1e-6) <= (4 if fused else 2), name
        else:
            assert not moved.any(), name


def test_only_the_named_targets_move() -> None:
    model, settings = drawn(), parse("lora-merge:steps=2,batch=1,targets=q_proj+v_proj", {k.name: k for k in KINDS})
    merged = lora_merged(model, settings.settings, context())  # type: ignore[arg-type]
    moved = {name for name, before in model.weights.items() if not np.array_equal(before, merged.weights[name])}
    assert moved == {f"model.layers.{layer}.self_attn.{part}_proj.weight" for layer in (0, 1) for part in "qv"}


def test_without_training_nothing_moves() -> None:
    assert lora_merged(drawn(), LowRank(steps=0), context()) is drawn()


def test_the_same_seed_gives_the_same_bits_and_another_does_not() -> None:
    digests = [lora_merged(drawn(), BRIEF, context(seed)).content_digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_a_target_that_does_not_exist_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no linear module is called c_attn: choose other targets"):
        lora_merged(drawn(), LowRank(steps=1, targets=("c_attn",)), context())


def test_without_peft_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtraError, match=r"\(peft\) needs the \[torch\] extra"):
        lora_merged(drawn(), BRIEF, context())
