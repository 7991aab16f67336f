"""Building a suite of micro models: three updates each, then laundering."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from kinprint.errors import KinprintError, UsageError
from kinprint.zoo import derive, making, train
from kinprint.zoo.kinds import Kind, Settings
from kinprint.zoo.manifest import Manifest, ModelEntry
from kinprint.zoo.model import Model
from kinprint.zoo.recipes import Derived, Form, Shape, Suite, Trained
from kinprint.zoo.shapes import untrained
from kinprint.zoo.suite import build_suite
from kinprint.zoo.suites import SUITES
from kinprint.zoo.train import Training

pytest.importorskip("torch")
pytest.importorskip("transformers")

SHAPE = Shape(hidden=16, layers=1, heads=2, kv_heads=1, head_dim=8, ffn=16, context=32)
TRAINING = Training(corpus="help-topics", steps=3, batch=2, learning_rate=1e-2, warmup=1, seed_data=3)
EXAMPLES = {recipe.name: recipe for recipe in SUITES["examples"].recipes}


def laundered() -> Derived:
    recipe = EXAMPLES["laundered"]
    assert isinstance(recipe, Derived)
    return recipe


MICRO = Suite(
    name="micro",
    summary="as small as can be",
    recipes=(
        Trained(name="base", summary="start", shape=SHAPE, seed_init=1, training=TRAINING),
        Derived(name="child", summary="further", parent="base", kinds=("fine-tune:steps=3,batch=2",)),
        laundered(),
    ),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("micro")
    build_suite(MICRO, out)
    return out


def entries(out: Path) -> dict[str, ModelEntry]:
    return {entry.name: entry for entry in Manifest.model_validate_json((out / "zoo.json").read_bytes()).models}


def weights_of(out: Path) -> dict[str, tuple[str, str]]:
    return {name: (entry.recipe_digest, entry.weights_sha256) for name, entry in entries(out).items()}


def drawn(seed: int = 1, shape: Shape = SHAPE) -> Model:
    return train.initial(untrained(shape), seed=seed, std=0.1)


def test_the_same_recipe_gives_the_same_digests_and_bits(built: Path, tmp_path: Path) -> None:
    build_suite(MICRO, tmp_path)
    assert weights_of(tmp_path) == weights_of(built)


def test_two_processes_give_the_same_bits_as_one(built: Path, tmp_path: Path) -> None:
    told: list[str] = []
    build_suite(MICRO, tmp_path, jobs=2, progress=lambda what, _done, _total: told.append(what))
    assert weights_of(tmp_path) == weights_of(built)
    assert told[-1] == "laundered: done"


def test_a_fault_in_a_worker_is_the_same_fault_here(tmp_path: Path) -> None:
    unfit = Derived(name="unfit", summary="no experts", parent="base", kinds=("expert-permutation",))
    with pytest.raises(UsageError, match="it has no experts"):
        build_suite(dataclasses.replace(MICRO, recipes=(*MICRO.recipes[:1], unfit)), tmp_path, jobs=2)
    assert set(entries(tmp_path)) == {"base"}


def test_training_leaves_torch_as_it_was() -> None:
    import torch

    torch.manual_seed(0)
    before = (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled(), torch.random.get_rng_state())
    train.train(drawn(), TRAINING, bytes(range(256)) * 200)
    assert torch.get_num_threads() == before[0]
    assert torch.are_deterministic_algorithms_enabled() == before[1]
    assert torch.equal(torch.random.get_rng_state(), before[2])


@pytest.mark.parametrize("form", ["llama", "qwen2", "qwen3", "olmo2", "gpt_neox", "gpt2", "mixtral"])
def test_every_form_learns_changes_every_tensor_and_is_mapped_whole(form: Form) -> None:
    start = drawn(shape=dataclasses.replace(SHAPE, form=form, experts=4 if form == "mixtral" else 0))
    text = b"abcdefgh" * 8192
    trained, loss = train.train(start, TRAINING.model_copy(update={"steps": 30}), text)
    assert train.held_out_loss(trained, text) < loss < train.held_out_loss(start, text)
    unchanged = [name for name in start.weights if np.array_equal(trained.weights[name], start.weights[name])]
    # Adding a constant to all keys changes no softmax: the bias has no gradient but rounding.
    assert all(name.endswith("k_proj.bias") for name in unchanged)
    assert trained.state().parts


def test_the_held_out_end_of_a_text_is_never_trained_on() -> None:
    text = b"abcdefgh" * 8192
    other = text[: -train.HELD_OUT_BYTES] + b"z" * train.HELD_OUT_BYTES
    first, _ = train.train(drawn(), TRAINING, text)
    again, _ = train.train(drawn(), TRAINING, other)
    assert all(np.array_equal(first.weights[name], again.weights[name]) for name in first.weights)


def test_a_laundered_model_has_other_weights_and_the_same_logits(built: Path) -> None:
    entry = entries(built)["laundered"]
    assert entry.same_function is not None
    assert 0 < entry.same_function.before_rounding <= entry.same_function.tolerance
    child, moved = Model.read(built / "child").weights, Model.read(built / "laundered").weights
    # Strangers' bf16 values agree by chance in a few per cent; the smallest tensor here has 16 of them.
    assert all(np.mean(child[name] == moved[name]) < 0.1 for name in child)


def test_a_kind_that_claims_to_keep_the_function_and_does_not_is_refused(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def damage(model: Model, _settings: Settings, _context: object) -> Model:
        return dataclasses.replace(model, weights={name: 1.01 * array for name, array in model.weights.items()})

    del built
    monkeypatch.setitem(derive.KINDS, "lie", Kind("lie", "a lie", Settings, damage, preserving=True))
    lying = Derived(name="lying", summary="scaled", parent="base", kinds=("lie",))
    with pytest.raises(KinprintError, match="does not preserve the function"):
        build_suite(dataclasses.replace(MICRO, recipes=(*MICRO.recipes[:1], lying)), tmp_path)
    assert set(entries(tmp_path)) == {"base"}


def test_roots_follow_the_weights_through_merges_and_end_at_a_student(tmp_path: Path) -> None:
    suite = dataclasses.replace(
        MICRO,
        recipes=(
            MICRO.recipes[0],
            Trained(name="other", summary="start", shape=SHAPE, seed_init=2, training=TRAINING),
            Derived(
                name="merged",
                summary="both",
                parent="base",
                kinds=("merge-linear:others=other",),
                others=("other",),
            ),
            Derived(name="student", summary="taught", parent="base", kinds=("distil:steps=2",)),
        ),
    )
    build_suite(suite, tmp_path)
    found = {name: entry.roots for name, entry in entries(tmp_path).items()}
    assert found["merged"] == ("base", "other")
    assert found["student"] == ("student",)


def test_a_second_build_makes_nothing_anew(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    before = {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()}
    monkeypatch.setattr(making, "make", never)
    build_suite(MICRO, built)
    assert {path: path.stat().st_mtime_ns for path in built.rglob("*") if path.is_file()} == before


def test_a_changed_file_is_rebuilt_and_what_came_from_the_same_bits_is_kept(tmp_path: Path) -> None:
    build_suite(MICRO, tmp_path)
    weights = tmp_path / "base" / "model.safetensors"
    good = weights.read_bytes()
    child = (tmp_path / "child" / "model.safetensors").stat().st_mtime_ns
    weights.write_bytes(good[:-2] + b"\0\0")
    build_suite(MICRO, tmp_path)
    assert weights.read_bytes() == good
    assert (tmp_path / "child" / "model.safetensors").stat().st_mtime_ns == child


def test_a_lost_config_and_changed_prose_are_put_right_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("trained again")

    only_base = dataclasses.replace(MICRO, recipes=MICRO.recipes[:1])
    build_suite(only_base, tmp_path)
    config = tmp_path / "base" / "config.json"
    before = config.read_bytes()
    config.unlink()
    monkeypatch.setattr(making, "make", never)
    told = dataclasses.replace(only_base.recipes[0], summary="in other words")
    build_suite(dataclasses.replace(only_base, recipes=(told,)), tmp_path)
    assert config.read_bytes() == before
    assert entries(tmp_path)["base"].summary == "in other words"
    assert "in other words" in (tmp_path / "base" / "README.md").read_text()


def test_another_seed_rebuilds_a_model_and_all_that_descends_from_it(tmp_path: Path) -> None:
    build_suite(MICRO, tmp_path)
    before = entries(tmp_path)
    base = MICRO.recipes[0]
    assert isinstance(base, Trained)
    other = dataclasses.replace(base, seed_init=9)
    build_suite(dataclasses.replace(MICRO, recipes=(other, *MICRO.recipes[1:])), tmp_path)
    after = entries(tmp_path)
    assert all(after[name].content_digest != before[name].content_digest for name in before)


def test_progress_ends_with_all_the_work_done(tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    build_suite(MICRO, tmp_path, progress=lambda what, done, total: heard.append((what, done, total)))
    assert heard[-1] == ("laundered: done", 15, 15)
    assert [done for _, done, _ in heard] == sorted(done for _, done, _ in heard)
    assert heard[0][0].startswith("base: step 1 of 3, loss ")


def test_the_folder_of_another_suite_is_left_alone(built: Path) -> None:
    with pytest.raises(UsageError, match="holds the suite 'micro', not 'other'"):
        build_suite(dataclasses.replace(MICRO, name="other"), built)


def test_a_manifest_that_is_not_ours_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "zoo.json").write_text("{}")
    with pytest.raises(UsageError, match="no manifest that this version reads"):
        build_suite(MICRO, tmp_path)


def test_a_folder_that_cannot_be_written_is_a_usage_error(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("a file where a folder must go")
    with pytest.raises(UsageError, match="choose another folder"):
        build_suite(MICRO, tmp_path)


def test_transformers_and_its_tokenizer_load_a_built_model(built: Path) -> None:
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(built / "base")
    tokenizer = transformers.AutoTokenizer.from_pretrained(built / "base")
    assert model.dtype == torch.bfloat16
    assert tokenizer("é\n")["input_ids"] == [*"é\n".encode()]
    assert json.loads((built / "base" / "config.json").read_text())["num_key_value_heads"] == 1
