"""GhostSpec as evidence: the method's number, what it survives, and that it never carries a verdict."""

from __future__ import annotations

import numpy as np
import pytest

from evidence.models import allowed, changed, disguised, noisy, pair, random
from kinprint.evidence.folded_spectra import statement
from kinprint.evidence.folded_spectra import test as measured
from kinprint.methods.ghostspec_mse import METHODS
from kinprint.spectra import IDENTICAL
from kinprint.types import Evidence
from methods import tiny


def size(found: Evidence) -> float:
    assert found.status == "measured", found.reason
    assert found.size is not None
    return found.size


@pytest.mark.parametrize("form", ["llama", "qwen3", "gpt2", "mixtral"])
def test_unchanged_by_everything_that_keeps_the_function(form: str) -> None:
    base = random(form)
    assert len(allowed(base)) > 4
    assert size(measured(pair(disguised(base), base))) == pytest.approx(IDENTICAL, abs=1e-6)


def test_noise_lowers_it() -> None:
    base = random()
    sizes = [size(measured(pair(noisy(base, scale), base))) for scale in (0.0, 0.3, 1.0)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[2] < 0.9 * sizes[0]


def test_it_is_the_number_of_the_registered_method_with_folded_gains() -> None:
    one, other = random(seed=1), random(seed=2)
    expected = tiny.run(METHODS[0], one.view(np.float64), other.view(np.float64))
    found = measured(pair(one, other))
    assert METHODS[0].name == "ghostspec-mse"
    assert found.size == expected.values[0].value
    assert (found.controls, found.tables, found.notes[1:]) == (expected.controls, expected.tables, expected.notes)


def test_a_model_and_itself_by_hand() -> None:
    found = measured(pair(random(), random()))
    # 1 / (1 + exp(-k tau)) with the paper's k tau of 3.7097.
    assert size(found) == pytest.approx(1 / (1 + np.exp(-3.7097)), abs=1e-12)
    assert found.notes[0] == "a model and itself have 0.976; distance 0"


def test_it_never_carries_and_has_no_p_value() -> None:
    found = measured(pair(random(), random()))
    assert (found.carries, found.beyond, found.log10_p, found.rung) == (False, False, None, 3)
    assert "training" in statement().defeats


def test_attention_that_cannot_be_read_is_a_finding() -> None:
    found = measured(pair(changed(random(), "attn.q", np.nan), random()))
    assert found.status == "not_applicable"
    assert str(found.reason).startswith("suspect: layers 0 left out: tensor ")
