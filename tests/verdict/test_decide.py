"""The verdict on models that ship with the package and on random ones: what moves it, and what must not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from kinprint import api
from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint, open_checkpoint, write_safetensors
from kinprint.errors import UsageError
from kinprint.transform import ModelState
from kinprint.types import Verdict
from kinprint.verdict import decide, untested

EXAMPLES = Path(__file__).parents[2] / "examples"


def model(name: str) -> ModelView:
    return view(open_checkpoint(EXAMPLES / name))


@pytest.fixture(scope="module")
def innocent() -> Verdict:
    return decide(model("twin"), model("base"))


@pytest.fixture(scope="module")
def derived() -> Verdict:
    return decide(model("child"), model("base"), controls=[model("twin")])


def test_a_model_is_identical_to_itself() -> None:
    verdict = decide(model("base"), model("base"))
    assert verdict.conclusion == "identical"
    assert verdict.decided_by is not None


def test_a_fine_tuned_model_is_derived_by_an_exact_test(derived: Verdict) -> None:
    assert derived.conclusion == "derived"
    assert derived.log10_p is not None
    assert derived.log10_p < -50
    assert derived.decided_by is not None


def test_a_rewritten_copy_is_derived_by_size_alone() -> None:
    verdict = decide(model("laundered"), model("base"))
    assert verdict.conclusion == "derived"
    assert verdict.log10_p is not None
    assert verdict.log10_p > -6  # no exact test sees it
    assert verdict.contrary is not None


def test_an_innocent_twin_is_independent_and_a_copy_would_have_been_seen(innocent: Verdict) -> None:
    assert innocent.conclusion == "independent"
    assert innocent.power is not None
    assert innocent.power.sufficient
    assert all(one.plantings >= 200 and one.seen >= 0.99 * one.plantings for one in innocent.power.plantings)
    assert innocent.power.not_excluded
    assert innocent.decided_by is None


def test_matched_evidence_has_a_size_and_a_population_and_never_a_p_value(innocent: Verdict) -> None:
    matched = [one for one in innocent.evidence if one.rung >= 2]
    assert matched
    assert all(one.log10_p is None for one in matched)
    carriers = [one for one in matched if one.carries]
    assert {one.name for one in carriers} >= {carriers[0].name}
    assert all(one.population is not None and one.margin is not None for one in carriers)


def test_p_values_never_pass_their_floor(derived: Verdict) -> None:
    exact = [one for one in derived.evidence if one.log10_p is not None]
    assert exact
    for one in exact:
        assert one.log10_floor is not None
        assert one.log10_floor - 1e-9 <= (one.log10_p or 0.0) <= 0.0


def test_third_models_stay_near_zero(derived: Verdict) -> None:
    assert len(derived.third_models) == 2
    assert all(abs(size) < 0.1 for third in derived.third_models for size in third.sizes.values() if size is not None)


def test_every_statement_says_its_null_and_what_defeats_it(innocent: Verdict) -> None:
    assert all(one.null and one.defeats for one in innocent.evidence)


def test_the_layer_map_of_a_cut_model_names_the_layers_that_were_kept() -> None:
    base = model("base")
    state = ModelState.from_view(base)
    from kinprint.transform.cutting import with_layers

    verdict = decide(with_layers(state, [0, 2, 3, 5]).view(), base)
    assert verdict.conclusion == "derived"
    assert verdict.layer_map is not None
    assert [layer.base for layer in verdict.layer_map.layers] == [0, 2, 3, 5]
    assert all(layer.derived for layer in verdict.layer_map.layers)
    # The table that the map was chosen from is kept: four layers against six, the kept ones alike.
    found = verdict.layer_map
    assert found.base_layers == (0, 1, 2, 3, 4, 5)
    for layer, row in zip(found.layers, found.table, strict=True):
        known = [cell for cell in row if cell is not None]
        assert len(row) == 6
        assert row[layer.base or 0] == pytest.approx(layer.similarity, abs=1e-4) == pytest.approx(1, abs=0.01)
        assert sorted(known)[-2] < 0.5
        assert set(layer.forms) == {"qk", "vo", "ud", "gate"}
        assert sum(layer.forms.values()) / 4 == pytest.approx(layer.similarity, abs=1e-4)


def test_two_copied_layers_among_strangers_are_derived_in_part() -> None:
    base, twin = ModelState.from_view(model("base")), ModelState.from_view(model("twin"))
    parts = {key: (base.parts[key] if key.layer in (2, 3) else array) for key, array in twin.parts.items()}
    verdict = decide(twin.updated(parts).view(), model("base"))
    assert verdict.conclusion == "derived"
    assert verdict.layer_map is not None
    assert [layer.suspect for layer in verdict.layer_map.layers if layer.derived] == [2, 3]


def test_a_copied_embedding_is_named_and_does_not_convict_the_trunk() -> None:
    base, twin = ModelState.from_view(model("base")), ModelState.from_view(model("twin"))
    parts = {key: (base.parts[key] if key.role == "embed.token" else array) for key, array in twin.parts.items()}
    verdict = decide(twin.updated(parts).view(), model("base"))
    by_name = {part.component: part.conclusion for part in verdict.components}
    assert by_name["embedding"] == "derived"
    assert by_name["trunk"] == "independent"


# -- names are no evidence -----------------------------------------------------------------------------------------


@pytest.fixture
def disguised(tmp_path: Path) -> Path:
    """The twin under the base's name, README and manifest, with a config that claims descent."""
    folder = tmp_path / "base"
    shutil.copytree(EXAMPLES / "twin", folder)
    config = json.loads((folder / "config.json").read_text())
    config["_name_or_path"] = "base"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "README.md").write_text("---\nbase_model: base\n---\nfine-tuned from base\n")
    (folder / "zoo.json").write_text("{}")
    return folder


def test_an_innocent_stays_independent_under_the_name_of_the_base(disguised: Path, innocent: Verdict) -> None:
    verdict = decide(view(open_checkpoint(disguised)), model("base"))
    assert verdict.conclusion == innocent.conclusion
    assert [one.size for one in verdict.evidence] == [one.size for one in innocent.evidence]


def test_a_child_stays_derived_under_other_names_of_files_and_tensors(tmp_path: Path, derived: Verdict) -> None:
    child = open_checkpoint(EXAMPLES / "child")
    renamed = {f"model.language_model.{name.removeprefix('model.')}": child.read(name) for name in child.tensors}
    renamed = {
        name.replace("model.language_model.lm_head", "lm_head"): np.asarray(array) for name, array in renamed.items()
    }
    folder = tmp_path / "totally-unrelated"
    folder.mkdir()
    write_safetensors(folder / "weights.safetensors", renamed)
    shutil.copy(EXAMPLES / "child" / "config.json", folder)
    verdict = decide(view(open_checkpoint(folder)), model("base"))
    assert verdict.conclusion == "derived"
    exact = [one.log10_p for one in verdict.evidence]
    assert exact == [one.log10_p for one in derived.evidence]


def scrambled(name: str) -> ModelView:
    """A shipped model under tensor names that say nothing, without a config."""
    checkpoint = open_checkpoint(EXAMPLES / name)
    order = np.random.default_rng(0).permutation(len(checkpoint.tensors))
    arrays = [np.array(checkpoint.read(tensor), dtype=np.float32) for tensor in checkpoint.tensors]
    return view(MemoryCheckpoint({f"x{at}": arrays[i] for at, i in enumerate(order)}, config={}, name="scrambled"))


def test_tensors_without_meaningful_names_still_convict_a_child_and_clear_nobody() -> None:
    assert decide(scrambled("child"), model("base")).conclusion == "derived"
    assert decide(scrambled("base"), model("base")).conclusion == "identical"
    innocent = decide(scrambled("twin"), model("base"))
    assert innocent.conclusion == "inconclusive"
    assert any(part.reason.startswith("no family table fits") for part in innocent.components)


# -- bad input -----------------------------------------------------------------------------------------------------


def with_tensor(name: str, change: str) -> ModelView:
    checkpoint = open_checkpoint(EXAMPLES / "child")
    tensors = {key: np.array(checkpoint.read(key), dtype=np.float32) for key in checkpoint.tensors}
    tensors[name] = {
        "nan": np.full_like(tensors[name], np.nan),
        "zero": np.zeros_like(tensors[name]),
        "constant": np.full_like(tensors[name], 0.5),
    }[change]
    return view(MemoryCheckpoint(tensors, config=checkpoint.config, vocabulary=checkpoint.vocabulary, name="broken"))


@pytest.mark.parametrize("change", ["nan", "zero", "constant"])
@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.mlp.gate_proj.weight",
        "model.layers.2.self_attn.k_proj.weight",
        "model.embed_tokens.weight",
        "model.layers.0.input_layernorm.weight",
    ],
)
def test_one_broken_tensor_neither_stops_the_verdict_nor_turns_it(name: str, change: str) -> None:
    assert decide(with_tensor(name, change), model("base")).conclusion == "derived"


def test_models_with_nothing_in_common_are_not_comparable() -> None:
    one = view(MemoryCheckpoint({"a": np.eye(3, dtype=np.float32)}, config={}, name="one"))
    verdict = decide(one, model("base"))
    assert verdict.conclusion == "not_comparable"
    assert "family table" in verdict.headline


def test_stored_fingerprints_are_not_judged() -> None:
    assert untested("no tensors", 1e-6).conclusion == "not_comparable"


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_alpha_must_be_a_probability(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha"):
        api.compare(model("twin"), model("base"), alpha=alpha)


def test_quick_stops_where_an_exact_test_has_decided() -> None:
    verdict = decide(model("child"), model("base"), mode="quick")
    assert verdict.conclusion == "derived"
    assert {one.rung for one in verdict.evidence} == {0, 1}


def test_thorough_runs_every_test() -> None:
    thorough = decide(model("child"), model("base"), mode="thorough")
    assert {one.rung for one in thorough.evidence} == {0, 1, 2, 3}
    assert thorough.planned == 10
