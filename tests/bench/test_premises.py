from __future__ import annotations

import runpy
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from kinprint.architecture import PartKey
from kinprint.bench.premises import change, gains, gauges, plots, removal, sigma, text
from kinprint.bench.premises.models import Models, Real, matrix_keys, real_model, some_layers, spread_layers
from kinprint.bench.premises.records import EXAMPLES, ROSTERS, Curves, Grid, HeatMap, PremisesResult, Series
from kinprint.bench.premises.removal import Decomposed, Surgery, random_bulk, random_energy, smallest, spikes
from kinprint.bench.premises.run import measure
from kinprint.errors import UsageError
from kinprint.transform import ModelState
from kinprint.types import Table
from kinprint.zoo.model import Model
from kinprint.zoo.suites import SUITES

EXAMPLE_MODELS = Path(__file__).parents[2] / "examples"
DOCS = Path(__file__).parents[2] / "docs"
FILLED = runpy.run_path(str(DOCS / "reference" / "make_premises.py"))["filled"]

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 48,
    "vocab_size": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "max_position_embeddings": 64,
}


def llama(seed: int, *, gain_std: float = 0.1) -> Model:
    """A random model with the names and shapes of a real one."""
    rng = np.random.default_rng(seed)
    width, heads, keys, ffn, vocab = 32, 32, 16, 48, 64
    weights: dict[str, np.ndarray] = {
        "model.embed_tokens.weight": rng.standard_normal((vocab, width)),
        "lm_head.weight": rng.standard_normal((vocab, width)),
        "model.norm.weight": 1 + gain_std * rng.standard_normal(width),
    }
    shapes = {
        "self_attn.q_proj": (heads, width),
        "self_attn.k_proj": (keys, width),
        "self_attn.v_proj": (keys, width),
        "self_attn.o_proj": (width, heads),
        "mlp.gate_proj": (ffn, width),
        "mlp.up_proj": (ffn, width),
        "mlp.down_proj": (width, ffn),
    }
    for layer in range(4):
        for name, shape in shapes.items():
            scale = 0.1 * rng.uniform(0.5, 2)
            weights[f"model.layers.{layer}.{name}.weight"] = scale * rng.standard_normal(shape)
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"model.layers.{layer}.{norm}.weight"] = 1 + gain_std * rng.standard_normal(width)
    return Model(CONFIG, {name: array.astype(np.float32) for name, array in weights.items()}, {})


@pytest.fixture
def zoo(tmp_path: Path) -> Models:
    """Base, a child that is the base plus a little noise, and a twin."""
    base, rng = llama(0), np.random.default_rng(9)
    moved = {
        name: (array + 0.01 * rng.standard_normal(array.shape)).astype(np.float32)
        for name, array in base.weights.items()
    }
    for name, model in {"base": base, "child": replace(base, weights=moved), "twin": llama(1)}.items():
        model.write(tmp_path / name)
    return Models(tmp_path, EXAMPLES)


def rows(table: Table, **where: object) -> list[dict[str, object]]:
    found = [dict(zip(table.columns, row, strict=True)) for row in table.rows]
    return [row for row in found if all(row[column] == value for column, value in where.items())]


def silent(_: str) -> None:
    """Hear of progress and say nothing."""


# -- change by rank ------------------------------------------------------------------------------------------------


def test_scaling_a_matrix_changes_every_singular_value_by_the_same_share() -> None:
    base = llama(0).state()
    key = PartKey("attn.q", 2)
    found = change.relative_changes(base, base.updated({key: 1.25 * base.parts[key]}))
    np.testing.assert_allclose(found["attn.q"][2], 0.25, atol=1e-12)
    np.testing.assert_allclose(found["attn.q"][[0, 1, 3]], 0, atol=1e-12)
    # 16 of 32 values of the product are not zero by rank; its values come from a Gram matrix.
    np.testing.assert_allclose(found["W_q^T W_k, folded"][2, :16], 0.25, atol=1e-6)
    np.testing.assert_allclose(found["W_o W_v, folded"][:, :16], 0, atol=1e-12)


def test_white_noise_moves_small_values_more_than_large_ones(zoo: Models) -> None:
    # The child *is* the base plus white noise: what looks like the premise needs no training.
    found = change.measure(zoo, silent)
    child = rows(found.tables["change-by-rank"], model="child", matrix="attn.q")[0]
    assert child["last tenth"] > 3 * child["top tenth"]
    assert child["noise: last tenth"] > 3 * child["noise: top tenth"]
    assert 0.05 < child["size of the change"] < 0.3
    twin = rows(found.tables["change-by-rank"], model="twin", matrix="attn.q")[0]
    assert twin["top tenth"] > child["top tenth"]
    assert twin["noise: top tenth"] is None


def test_child_of_another_shape_is_named_and_left_out(zoo: Models) -> None:
    smaller = some_layers(zoo.read("child").state(), [0, 1])
    model = replace(zoo.read("child"), weights={}, config=CONFIG).with_state(smaller)
    model.write(zoo.folder / "child")
    found = change.measure(zoo, silent)
    assert "child has not the shapes of base" in found.notes
    assert not rows(found.tables["change-by-rank"], model="child")


# -- removal -------------------------------------------------------------------------------------------------------


def rank_one_plus_noise() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    left, right = rng.standard_normal(64), rng.standard_normal(48)
    signal = 60 * np.outer(left, right) / np.linalg.norm(left) / np.linalg.norm(right)
    return signal + 0.1 * rng.standard_normal((64, 48)), signal


def test_removing_the_spike_of_rank_one_plus_noise_leaves_the_noise() -> None:
    matrix, signal = rank_one_plus_noise()
    found = Decomposed.of(matrix)
    assert found.spikes == 1
    left = found.without(spikes(found, np.random.default_rng(0)))
    # What is left has the norm of the noise (0.1 * sqrt(64 * 48) = 5.5), of the signal's 60.
    assert 5 < np.linalg.norm(left) < 6
    assert abs(np.vdot(left, signal)) < 0.01 * np.vdot(signal, signal)


def test_removing_nothing_gives_the_matrix_back() -> None:
    matrix, _ = rank_one_plus_noise()
    found = Decomposed.of(matrix)
    np.testing.assert_allclose(found.without(np.zeros(48, np.bool_)), matrix, atol=1e-12)


def test_controls_take_as_many_directions_or_as_much_energy_and_never_a_spike() -> None:
    rng = np.random.default_rng(4)
    planted = np.concatenate([[3.0, 2.9, 2.8], np.linspace(1.5, 0.1, 37)])
    found = Decomposed(np.eye(40), planted, np.eye(40), spikes=3)
    as_many, least = random_bulk(found, rng), smallest(found, rng)
    assert as_many.sum() == least.sum() == 3
    assert not as_many[:3].any()
    assert least[-3:].all()
    as_much = random_energy(found, rng)
    assert not as_much[:3].any()
    # 8.7 of each: to within half of the largest bulk direction, 1.5^2 / 2 of all the energy.
    allowed = 1.5**2 / 2 / (planted**2).sum()
    assert abs(found.energy_S[as_much].sum() - found.energy_S[:3].sum()) <= allowed


def test_smallest_first_removes_the_energy_that_largest_first_removes() -> None:
    found = Decomposed(np.eye(40), np.linspace(2, 0.1, 40), np.eye(40), spikes=0)
    rng = np.random.default_rng(0)
    large, small = removal.largest_first(0.3)(found, rng), removal.smallest_first(0.3)(found, rng)
    assert large[0]
    assert small[-1]
    assert small.sum() > large.sum()
    assert abs(found.energy_S[large].sum() - found.energy_S[small].sum()) < 0.02
    assert removal.largest_first(1.0)(found, rng).all()


def test_surgery_replaces_the_chosen_matrices_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    model = llama(0)
    seen: list[Mapping[str, np.ndarray]] = []

    def hear(changed: Model, _: bytes) -> float:
        seen.append(changed.weights)
        return 1.0

    monkeypatch.setattr(removal.train, "held_out_loss", hear)
    state = model.state()
    key = PartKey("attn.q", 1)
    surgery = Surgery.on(model, state, [key], b"")
    outcome = surgery.remove([key], removal.largest_first(1.0), seed=0)
    assert (outcome.directions, outcome.loss) == (32.0, 1.0)
    assert abs(outcome.energy - 1) < 1e-12
    noised = surgery.noise([key], removal.largest_first(1.0), seed=0)
    assert noised.directions is None
    gone, added = seen
    name = "model.layers.1.self_attn.q_proj.weight"
    np.testing.assert_allclose(gone[name], 0, atol=1e-6)
    before = model.weights[name]
    # As large as what was removed, here all of it; float32.
    np.testing.assert_allclose(np.linalg.norm(added[name] - before), np.linalg.norm(before), rtol=1e-5)
    others = [other for other in model.weights if other != name]
    assert all(np.array_equal(found[other], model.weights[other]) for found in seen for other in others)


# -- gains ---------------------------------------------------------------------------------------------------------


def test_gains_near_one_point_the_same_way_and_random_gains_do_not(tmp_path: Path) -> None:
    made = {"base": llama(0), "twin": llama(1), "g1": llama(2, gain_std=50), "g2": llama(3, gain_std=50)}
    for name, model in made.items():
        model.write(tmp_path / name)
    found = gains.measure(Models(tmp_path, replace(EXAMPLES, random_gains=("g1", "g2"))), silent)
    near_one = rows(found.tables["gains"], relation=gains.ONES)[0]
    assert near_one["raw cosine"] > 0.97  # 1 / (1 + 0.1^2) = 0.990
    # 9 vectors of 32: standard deviation of a mean 1 / sqrt(31 * 9) = 0.06.
    assert abs(near_one["centred cosine"]) < 0.25
    drawn = rows(found.tables["gains"], relation=gains.RANDOM)[0]
    assert abs(drawn["raw cosine"]) < 0.25
    assert "child" in found.notes[-1]


# -- sigma curves --------------------------------------------------------------------------------------------------


def test_curves_of_the_same_weights_correlate_fully_and_a_real_model_joins(zoo: Models) -> None:
    found = sigma.measure(zoo, Real("real", llama(5)), silent)
    child, real = rows(found.tables["sigma"], model="child")[0], rows(found.tables["sigma"], model="real")[0]
    assert child["attention"] > 0.9  # a tenth of noise in all layers alike
    assert (real["layers"], real["relation to the base"]) == (4, "stranger, real")
    grid = found.heat_maps[0].grids[0]
    np.testing.assert_allclose(np.diagonal(np.array(grid.values)), 1, atol=1e-12)


# -- gauges --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def moved() -> dict[tuple[str, str], float | None]:
    grid = gauges.grid("model", llama(0).state())
    return {
        (spectrum, name): value
        for spectrum, line in zip(grid.rows, grid.values, strict=True)
        for name, value in zip(grid.columns, line, strict=True)
    }


@pytest.mark.parametrize(
    ("name", "singles"),
    [
        ("vo-gauge", ("attn.v", "attn.o")),
        ("qk-gauge", ("attn.q", "attn.k")),
        ("ffn-rescaling", ("mlp.up", "mlp.down")),
        ("norm-gain-replacement", ("attn.q", "attn.k", "attn.v", "mlp.up")),
        ("residual-rotation", ("attn.q", "attn.k", "attn.v", "mlp.up")),
        ("kv-group-permutation", ()),
        ("residual-permutation", ()),
    ],
)
def test_gauge_moves_these_single_spectra_and_never_a_folded_product(
    moved: dict[tuple[str, str], float | None], name: str, singles: tuple[str, ...]
) -> None:
    # 1e-6: what linalg promises of a product's values. Gains of spread 0.1 move a spectrum by some per cent.
    for single in gauges.SINGLE:
        assert (moved[single, name] > 1e-3) == (single in singles), single
        assert single in singles or moved[single, name] < 1e-6
    for product in ("W_q^T W_k, folded", "W_o W_v, folded"):
        assert moved[product, name] < 1e-6


def test_unfolded_products_move_when_gains_are_exchanged_with_matrices(
    moved: dict[tuple[str, str], float | None],
) -> None:
    for product in ("W_q^T W_k", "W_o W_v"):
        assert moved[product, "vo-gauge"] < 1e-6
        assert moved[product, "norm-gain-replacement"] > 1e-3


def test_change_that_would_alter_the_model_is_blank(moved: dict[tuple[str, str], float | None]) -> None:
    assert moved["attn.q", "expert-permutation"] is None


# -- models --------------------------------------------------------------------------------------------------------


def test_some_layers_are_kept_as_they_are_and_numbered_anew() -> None:
    state = llama(0).state()
    kept: ModelState = some_layers(state, [1, 3])
    np.testing.assert_array_equal(kept.parts[PartKey("attn.q", 1)], state.parts[PartKey("attn.q", 3)])
    assert kept.view(np.float64).geometry.layers == 2
    assert len(matrix_keys(kept)["mlp.up"]) == 2


def test_spread_layers_reach_from_the_first_to_the_last() -> None:
    assert spread_layers(llama(0).state(), 3) == [0, 2, 3]
    assert spread_layers(llama(0).state(), 9) == [0, 1, 2, 3]


def test_folder_without_config_or_gguf_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"neither a config.json nor one GGUF file"):
        real_model(tmp_path)
    assert real_model(EXAMPLE_MODELS / "base").name == "base"


# -- everything ----------------------------------------------------------------------------------------------------


def test_zoo_without_the_models_says_so_of_every_premise(tmp_path: Path) -> None:
    found = measure(tmp_path, tmp_path / "out")
    assert [premise.status for premise in found.premises] == ["not measured"] * 5
    assert all(premise.reason for premise in found.premises)
    again = PremisesResult.model_validate_json((tmp_path / "out" / "premises.json").read_bytes())
    assert again == found
    assert "not measured: needs base" in (tmp_path / "out" / "premises.md").read_text()


def test_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="build a suite"):
        measure(tmp_path / "nowhere", tmp_path)


def test_whole_run_writes_numbers_and_every_picture(
    zoo: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(removal.train, "held_out_loss", lambda model, text: 2.0)
    monkeypatch.setattr(removal, "SHARES", (0.2,))
    # Drawing has a test of its own, and is slow.
    monkeypatch.setattr(plots, "draw", lambda picture: {f"{picture.name}.svg": b"<svg/>"})
    said: list[str] = []
    found = measure(zoo.folder, tmp_path / "out", roster=EXAMPLES, real=zoo.folder / "base", progress=said.append)
    assert {premise.status for premise in found.premises} == {"measured"}
    assert [premise.name for premise in found.premises][-3:] == ["bulk-real", "removal-real", "gauges-real"]
    unharmed = rows(found.premises[1].tables["removal"], matrices="all matrices", removed="spikes")[0]
    assert unharmed["times unharmed"] == 1.0
    pictures = [p.name for premise in found.premises for p in (*premise.curves, *premise.heat_maps)]
    assert len(set(pictures)) == len(pictures)
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert written == {f"{name}.svg" for name in pictures} | {"premises.json", "premises.md"}
    assert any("gauges" in line for line in said)
    page = (DOCS / "premises.md").read_text()
    # Every table and every picture has its place in the documentation.
    updated = FILLED(page, text.blocks(found, folder="images/"))
    assert "Not measured" not in updated
    assert FILLED(updated, text.blocks(found, folder="images/")) == updated


def test_documentation_says_what_was_not_measured_and_refuses_what_it_has_no_place_for() -> None:
    page = "a\n<!-- begin: x -->\nold\n<!-- end: x -->\nb\n"
    assert FILLED(page, {"x": "new\n"}) == "a\n<!-- begin: x -->\n\nnew\n\n<!-- end: x -->\nb\n"
    assert "old" not in FILLED(page, {})
    assert "Not measured in this run." in FILLED(page, {})
    with pytest.raises(ValueError, match="NAME --> for y"):
        FILLED(page, {"x": "", "y": ""})


def test_same_picture_gives_the_same_bytes_and_leaves_the_library_as_it_was() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    before = dict(matplotlib.rcParams)
    styles = ("line", "dashed", "marked", "points", "steps", "edge")
    lines = tuple(Series(panel="p", label=style, x=(1.0, 2.0), y=(0.5, None), style=style) for style in styles)
    curves = Curves(name="c", title="t", x_label="x", y_label="y", x_log=True, y_log=True, series=lines)
    grid = Grid(title="g", rows=("a",), columns=("b", "c"), values=((1e-3, None),))
    heat = HeatMap(name="h", title="t", grids=(grid,), low=-16, high=0, log=True)
    for picture in (curves, heat):
        files = plots.draw(picture)
        assert list(files) == [f"{picture.name}.svg", f"{picture.name}.png"]
        assert files[f"{picture.name}.png"].startswith(b"\x89PNG")
        assert b"<dc:date>" not in files[f"{picture.name}.svg"]
        assert plots.draw(picture) == files
    assert dict(matplotlib.rcParams) == before


def test_blocks_hold_every_table_and_the_notes_by_name(zoo: Models) -> None:
    premise = change.measure(zoo, silent)
    result = PremisesResult(kinprint="1", versions={}, models={}, seed=0, seconds=0.0, premises=(premise,))
    found = text.blocks(result, folder="images/")
    assert set(found) == {"change-by-rank", "bulk", "notes-change", "pictures-change", "models"}
    assert "(images/premises-bulk.svg)" in found["pictures-change"]
    assert found["bulk"].startswith("| model | matrix | shape |")
    assert "Marchenko-Pastur" in found["notes-change"]


def test_suite_of_the_zoo_decides_which_models_are_measured() -> None:
    for name, roster in ROSTERS.items():
        made = {recipe.name for recipe in SUITES[name].recipes}
        assert set(Models(Path(), roster).names()) <= made, name
