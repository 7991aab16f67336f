"""Sparse mixtures, read in part: holes are no evidence, and storage makes no difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import open_checkpoint
from kinprint.types import Verdict
from kinprint.verdict import Limits, decide
from kinprint.zoo.sparse import filled_layers, write_sparse

SHAPE, FILLED, EXPERTS = "tiny-moe", 3, 4


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("sparse")
    write_sparse(SHAPE, at / "base", seed=1, filled=FILLED, filled_experts=EXPERTS)
    for layout in ("per-expert", "fused"):
        for dtype in ("bf16", "fp8"):
            where = at / f"finetuned-{layout}-{dtype}"
            write_sparse(SHAPE, where, seed=2, kind="finetuned", base=at / "base", layout=layout, dtype=dtype)
    write_sparse(SHAPE, at / "laundered", seed=3, kind="laundered", base=at / "base", change=0.05)
    write_sparse(SHAPE, at / "twin", seed=4, base=at / "base")
    write_sparse("tiny-dense", at / "dense", seed=5, filled=FILLED)
    write_sparse(SHAPE, at / "upcycled", seed=6, kind="upcycled", base=at / "dense", change=0.05)
    return at


def opened(folder: Path) -> ModelView:
    return view(open_checkpoint(folder))


def judged(models: Path, suspect: str, base: str = "base") -> Verdict:
    return decide(opened(models / suspect), opened(models / base), limits=Limits(small=0))


@pytest.mark.parametrize("layout", ["per-expert", "fused"])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_a_child_is_decided_by_the_first_look_however_it_is_stored(models: Path, layout: str, dtype: str) -> None:
    verdict = judged(models, f"finetuned-{layout}-{dtype}")
    assert verdict.conclusion == "derived"
    assert verdict.decided_by == "a sample of units in stored order"
    assert verdict.reading is not None
    assert set(verdict.reading.suspect.layers_read) <= set(
        filled_layers(SHAPE, 1, filled=FILLED, filled_experts=EXPERTS)
    )


def test_a_laundered_mixture_is_derived_and_a_stranger_is_not(models: Path) -> None:
    assert judged(models, "laundered").conclusion == "derived"
    assert judged(models, "twin").conclusion != "derived"


def test_a_mixture_is_derived_from_the_dense_model_it_was_made_of(models: Path) -> None:
    assert judged(models, "upcycled", "dense").conclusion == "derived"
    assert judged(models, "upcycled", "base").conclusion != "derived"


def test_holes_in_both_models_are_no_evidence(models: Path, tmp_path: Path) -> None:
    # All that these two share is that most of their layers are empty.
    write_sparse(SHAPE, tmp_path / "other", seed=9, filled=1, filled_experts=1, embeddings=False)
    write_sparse(SHAPE, tmp_path / "third", seed=1, base=tmp_path / "other")
    verdict = decide(opened(tmp_path / "third"), opened(tmp_path / "other"), limits=Limits(small=0))
    assert verdict.conclusion in ("independent", "inconclusive", "not_comparable")
    assert verdict.reading is None or verdict.reading.empty_layers > 0


def test_rows_of_one_stacked_expert_are_read_alone(models: Path) -> None:
    fused, apart = (opened(models / f"finetuned-{layout}-bf16") for layout in ("fused", "per-expert"))
    layer = next(number for number in fused.layers("moe.up") if fused.array("moe.up", number, 0).any() or True)
    expert = fused.experts("moe.up", layer)[1]
    before = fused.checkpoint.bytes_read
    rows = [one.stored_rows("moe.up", layer, expert, rows=slice(3, 9)) for one in (fused, apart)]
    np.testing.assert_array_equal(rows[0].view(np.uint16), rows[1].view(np.uint16))
    again = fused.checkpoint.bytes_read - before
    assert again <= 6 * fused.shape("moe.up", layer, expert)[1] * 2
