"""Spectra that are shown: of which matrices, unchanged by what, and where a bulk ends."""

from __future__ import annotations

import numpy as np
import pytest

from kinprint.architecture import ModelView
from kinprint.fingerprints import Fingerprint
from kinprint.spectra import attention_spectra
from kinprint.spectra.shown import COLUMNS, ROWS, matrix_spectra, spectrum_tables
from kinprint.transform import ModelState, preserve
from kinprint.types import Table
from methods import tiny

GATE = "model.layers.{}.mlp.gate_proj.weight"


def tables(suspect: ModelView, base: ModelView) -> tuple[Table, ...]:
    return spectrum_tables(*(attention_spectra(one, fold=True) for one in (suspect, base)))


def by_place(table: Table) -> dict[tuple[object, object], dict[str, object]]:
    return {(row[0], row[1]): dict(zip(table.columns, row, strict=True)) for row in table.rows}


def test_the_gate_of_the_first_the_middle_and_the_last_layer_by_hand() -> None:
    tensors = tiny.llama(0, layers=5)
    arrays, problems = matrix_spectra(tiny.model(tensors), fold=False)
    assert problems == []
    for place, layer in (("first", 0), ("middle", 2), ("last", 4)):
        exact = np.linalg.svd(tensors[GATE.format(layer)].astype(np.float64), compute_uv=False)
        np.testing.assert_allclose(arrays[f"matrix.mlp.gate.{place}"], exact, rtol=1e-6)
        assert arrays[f"matrix.mlp.gate.{place}.of"].tolist() == [layer, 24, 16]
        assert arrays[f"matrix.attn.o.{place}"].size == 16


@pytest.mark.parametrize(
    "name",
    [
        "residual-rotation",
        "residual-permutation",
        "ffn-permutation",
        "ffn-rescaling",
        "norm-gain-replacement",
        "vo-gauge",
    ],
)
def test_no_rewriting_of_a_model_moves_the_spectrum_of_its_gate(name: str) -> None:
    model = ModelState.from_view(tiny.model(tiny.llama(3))).view()
    changed = preserve(ModelState.from_view(model), [name], np.random.default_rng(0)).view()
    before, after = (matrix_spectra(one, fold=True)[0] for one in (model, changed))
    for place in ("first", "middle", "last"):
        # float64 changes that went back to float32
        np.testing.assert_allclose(after[f"matrix.mlp.gate.{place}"], before[f"matrix.mlp.gate.{place}"], rtol=1e-4)


def test_other_weights_have_another_spectrum() -> None:
    one, two = (matrix_spectra(tiny.model(tiny.llama(seed)), fold=True)[0]["matrix.mlp.gate.first"] for seed in (1, 2))
    assert np.abs(one - two).max() > 0.1


def test_a_planted_spike_is_counted_in_its_own_model() -> None:
    rng = np.random.default_rng(0)
    quiet, loud = (tiny.llama(seed, hidden=48, heads=12, ffn=96) for seed in (1, 1))
    for layer in range(4):
        noise = rng.standard_normal((96, 48)).astype(np.float32)
        quiet[GATE.format(layer)] = noise
        loud[GATE.format(layer)] = noise + 3 * np.outer(np.ones(96), np.ones(48)).astype(np.float32)
        for tensors in (quiet, loud):
            tensors[f"model.layers.{layer}.post_attention_layernorm.weight"] = np.ones(48, np.float32)
    values, bulks = tables(tiny.model(loud), tiny.model(quiet))
    assert values.title == "Singular values of mlp.gate by rank"
    assert [row[0] for row in values.rows] == [*range(1, 25), *sorted({row[0] for row in values.rows[24:]})]
    assert values.rows[-1][0] == 48
    found = by_place(bulks)
    for place in ("first", "middle", "last"):
        assert (found[place, "suspect"]["spikes"], found[place, "base"]["spikes"]) == (1, 0)
        # sqrt(96) + sqrt(48) times sigma, and a margin of some per cent
        assert found[place, "base"]["edge"] == pytest.approx(16.7, rel=0.1)
        assert (found[place, "base"]["rows"], found[place, "base"]["columns"]) == (96, 48)
    assert float(str(values.rows[0][1])) > 3 * float(str(values.rows[0][2]))


def test_a_large_matrix_is_taken_in_part_and_keeps_its_law() -> None:
    rng = np.random.default_rng(0)
    tensors = tiny.llama(0, layers=1, hidden=2 * COLUMNS, heads=1, kv_heads=1, ffn=ROWS + 8)
    tensors[GATE.format(0)] = rng.standard_normal((ROWS + 8, 2 * COLUMNS)).astype(np.float32)
    tensors["model.layers.0.post_attention_layernorm.weight"] = np.ones(2 * COLUMNS, np.float32)
    model = tiny.model(tensors, head_dim=4)
    _, bulks = tables(model, model)
    row = by_place(bulks)["first", "suspect"]
    assert (row["rows"], row["columns"]) == ((ROWS + 8) / 2, COLUMNS)
    assert row["sigma"] == pytest.approx(1, abs=0.05)
    assert row["spikes"] == 0


def test_the_output_projection_stands_in_where_only_one_model_has_a_gate() -> None:
    dense = attention_spectra(tiny.model(tiny.llama(0)), fold=True)
    kept = {name: array for name, array in dense.arrays.items() if "mlp" not in name}
    (values, _) = spectrum_tables(Fingerprint(dense.id, kept), dense)
    assert values.title == "Singular values of attn.o by rank"


def test_fingerprints_of_older_releases_and_matrices_of_zeros_have_no_table() -> None:
    made = attention_spectra(tiny.model(tiny.llama(0)), fold=True)
    old = Fingerprint(made.id, {name: array for name, array in made.arrays.items() if not name.startswith("matrix.")})
    assert spectrum_tables(old, made) == ()
    nothing = {name: np.zeros_like(array) if not name.endswith("of") else array for name, array in made.arrays.items()}
    assert spectrum_tables(Fingerprint(made.id, nothing), made) == ()


def test_a_gate_that_holds_nan_is_named_and_the_rest_is_there() -> None:
    tensors = tiny.llama(1)
    tensors[GATE.format(2)][0, 0] = np.nan
    found = attention_spectra(tiny.model(tensors), fold=True)
    assert [one for one in found.problems if "spectrum of mlp.gate, layer 2 left out" in one]
    assert "matrix.mlp.gate.middle" not in found.arrays
    (values, _) = spectrum_tables(found, found)
    assert values.columns == ("rank", "first suspect", "first base", "last suspect", "last base")


def test_numbers_beyond_float64_are_a_problem_and_no_crash() -> None:
    tensors = {name: array.astype(np.float64) for name, array in tiny.llama(1).items()}
    tensors[GATE.format(3)][:] = 1e300
    arrays, problems = matrix_spectra(tiny.model(tensors), fold=False)
    assert [one.partition(": ")[0] for one in problems] == ["spectrum of mlp.gate, layer 3 left out"]
    assert "matrix.mlp.gate.first" in arrays
