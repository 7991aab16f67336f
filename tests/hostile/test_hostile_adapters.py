"""Adapters that lie, do not fit, or ask for what is not applied: one line that names the file, and nothing is run."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from hostile import build
from kinprint.checkpoint import Checkpoint, open_checkpoint
from kinprint.errors import CheckpointError

Arrays = Mapping[str, np.ndarray[Any, Any]]
PREFIX = "base_model.model.model.layers.0."
A, B = PREFIX + "q.lora_A.weight", PREFIX + "q.lora_B.weight"
PLAIN: dict[str, Any] = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "some/base"}
EXPERTS = {f"model.layers.0.experts.{e}.{w}.weight": (4, 6) for e in range(2) for w in ("w1", "w3")}
BASE = {"model.layers.0.q.weight": (8, 6), "model.layers.0.q.bias": (8,), "model.embed_tokens.weight": (10, 6)}


def ones(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray[Any, Any]]:
    return {name: np.ones(shape, np.float32) for name, shape in shapes.items()}


def both(folder: Path, shapes: Mapping[str, tuple[int, ...]], config: object, base: Arrays | None = None) -> str:
    for name in ("base", "adapter"):
        (folder / name).mkdir()
    save_file(dict(base or ones({**BASE, **EXPERTS})), folder / "base" / "model.safetensors")
    save_file(ones(shapes), folder / "adapter" / "adapter_model.safetensors")
    text = config if isinstance(config, str) else json.dumps(config)
    (folder / "adapter" / "adapter_config.json").write_text(text)
    return f"{folder / 'base'}+{folder / 'adapter'}"


def read_all(checkpoint: Checkpoint) -> None:
    for name in checkpoint.tensors:
        checkpoint.read(name)
        checkpoint.raw(name)


GOOD = {A: (2, 6), B: (8, 2)}
CONFIGS: list[tuple[str, str, object]] = [
    ("no JSON", "malformed JSON", "{"),
    ("a list", "no object", "[]"),
    ("no type", "adapter of type", {}),
    ("another method", "adapter of type 'LOHA'", {**PLAIN, "peft_type": "LOHA"}),
    ("prompt tuning", "adapter of type 'PROMPT_TUNING'", {**PLAIN, "peft_type": "PROMPT_TUNING"}),
    ("a type with an escape", "adapter of type", {**PLAIN, "peft_type": "\x1b[2J"}),
    ("a started base", "changes the base model", {**PLAIN, "init_lora_weights": "pissa_niter_4"}),
    ("a variant", "QALoRA", {**PLAIN, "use_qalora": True}),
    ("other layers", "layer replication", {**PLAIN, "layer_replication": [[0, 4], [2, 5]]}),
    ("rank 0", "rank 0", {**PLAIN, "r": 0}),
    ("rank that is text", "rank '2'", {**PLAIN, "r": "2"}),
    ("another rank", "states rank 3", {**PLAIN, "r": 3}),
    ("another rank by pattern", "states rank 5", {**PLAIN, "rank_pattern": {"q": 5}}),
    ("alpha that is text", "malformed lora_alpha", {**PLAIN, "lora_alpha": "x"}),
    ("alpha without end", "malformed lora_alpha", '{"peft_type": "LORA", "r": 2, "lora_alpha": Infinity}'),
    ("patterns that are a list", "malformed rank_pattern", {**PLAIN, "rank_pattern": ["q"]}),
    ("a rank that is true", "malformed rank_pattern", {**PLAIN, "rank_pattern": {"q": True}}),
    ("a pattern that is none", "too complex", {**PLAIN, "alpha_pattern": {"(": 2}}),
    ("a pattern that never ends", "too complex", {**PLAIN, "alpha_pattern": {"(a+)+b": 2}}),
    ("a pattern of many choices", "too complex", {**PLAIN, "alpha_pattern": {"(q|q)" * 40 + "x": 2}}),
    ("a pattern of many repeats", "too complex", {**PLAIN, "alpha_pattern": {".*" * 30 + "x": 2}}),
    ("a pattern that looks back", "too complex", {**PLAIN, "alpha_pattern": {r"(a*)\1": 2}}),
    ("another layer", "leaves layer 0", {**PLAIN, "layers_to_transform": [1]}),
    ("layers that are text", "malformed layers_to_transform", {**PLAIN, "layers_to_transform": "all"}),
    ("saved that are numbers", "malformed modules_to_save", {**PLAIN, "modules_to_save": [1]}),
    ("token ids below 0", "malformed trainable_token_indices", {**PLAIN, "trainable_token_indices": [-1]}),
    ("token ids twice", "malformed trainable_token_indices", {**PLAIN, "trainable_token_indices": [1, 1]}),
    ("DoRA without lengths", "disagree on DoRA", {**PLAIN, "use_dora": True}),
]


@pytest.mark.parametrize(("says", "config"), [case[1:] for case in CONFIGS], ids=[case[0] for case in CONFIGS])
def test_a_hostile_config_gives_one_line(says: str, config: object, tmp_path: Path) -> None:
    started = time.monotonic()
    refused(both(tmp_path, GOOD, config), says, tmp_path)
    assert time.monotonic() - started < 5


def refused(ref: str, says: str, folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_all(open_checkpoint(ref))
    message = str(caught.value)
    assert message.isprintable()
    assert says in message
    assert str(folder) in message
    assert "; " in message
    assert len(message) < 800
    return message


M = PREFIX + "q.lora_magnitude_vector"
E = PREFIX + "experts.base_layer."
TOKENS = "base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"
TENSORS: list[tuple[str, str, dict[str, tuple[int, ...]], dict[str, Any]]] = [
    ("no B", "no whole pair", {A: (2, 6)}, PLAIN),
    ("A of another width", "does not fit", {A: (2, 5), B: (8, 2)}, PLAIN),
    ("B of another width", "does not fit", {A: (2, 6), B: (7, 2)}, PLAIN),
    ("factors the other way round", "does not fit", {A: (2, 8), B: (5, 2)}, PLAIN),
    ("factors of different ranks", "different ranks", {A: (2, 6), B: (8, 3)}, PLAIN),
    ("vectors", "does not fit", {A: (12,), B: (8, 2)}, PLAIN),
    ("no rank", "states rank 2", {A: (0, 6), B: (8, 0)}, PLAIN),
    ("lengths without DoRA", "disagree on DoRA", {**GOOD, M: (8,)}, PLAIN),
    ("lengths that are too many", "does not fit", {**GOOD, M: (9,)}, {**PLAIN, "use_dora": True}),
    ("another model's layer", "does not have", {A.replace("layers.0", "layers.7"): (2, 6)}, PLAIN),
    ("another model's module", "does not have", {**GOOD, PREFIX + "k.lora_A.weight": (2, 6)}, PLAIN),
    ("a tensor of an unknown method", "no place", {**GOOD, PREFIX + "q.vera_lambda_b": (8,)}, PLAIN),
    ("a whole tensor from nowhere", "does not have", {**GOOD, "base_model.model.head.weight": (8, 6)}, PLAIN),
    ("a whole tensor of another shape", "does not fit", {**GOOD, PREFIX + "q.base_layer.bias": (9,)}, PLAIN),
    ("two adapters in one file", "second tensor", {**GOOD, A.replace("A.w", "A.other.w"): (2, 6)}, PLAIN),
    ("rows past the end", "does not fit", {TOKENS: (1, 6)}, {**PLAIN, "trainable_token_indices": [10]}),
    ("rows that are too few", "does not fit", {TOKENS: (1, 6)}, {**PLAIN, "trainable_token_indices": [1, 2]}),
    ("rows without ids", "no token ids", {TOKENS: (1, 6)}, PLAIN),
    ("experts of another number", "fit none", {E + "lora_A.weight": (6, 5), E + "lora_B.weight": (8, 6)}, PLAIN),
    ("half an expert's factor", "no place", {E + "lora_A.weight": (4, 6)}, PLAIN),
    ("IA3 that is a matrix", "does not fit", {PREFIX + "q.ia3_l": (8, 6)}, {"peft_type": "IA3"}),
    ("IA3 of another length", "does not fit", {PREFIX + "q.ia3_l": (9, 1)}, {"peft_type": "IA3"}),
    ("nothing", "without tensors", {}, PLAIN),
]  # fmt: skip


@pytest.mark.parametrize(
    ("says", "shapes", "config"), [case[1:] for case in TENSORS], ids=[case[0] for case in TENSORS]
)
def test_tensors_that_do_not_fit_give_one_line(
    says: str, shapes: dict[str, tuple[int, ...]], config: dict[str, Any], tmp_path: Path
) -> None:
    refused(both(tmp_path, shapes, config), says, tmp_path)


def test_the_same_folders_with_honest_tensors_are_added(tmp_path: Path) -> None:
    ref = both(tmp_path, {**GOOD, E + "lora_A.weight": (4, 6), E + "lora_B.weight": (8, 4)}, PLAIN)
    ours = open_checkpoint(ref)
    # 1 + 4 / 2 * (1 * 1 + 1 * 1) where everything is one
    for name in ("model.layers.0.q.weight", "model.layers.0.experts.1.w3.weight"):
        np.testing.assert_array_equal(ours.read(name), np.full(ours.tensors[name].shape, 5, np.float32))
    np.testing.assert_array_equal(ours.read("model.layers.0.q.bias"), np.ones(8))


def test_the_message_for_another_base_repeats_what_the_adapter_says_of_its_own(tmp_path: Path) -> None:
    message = refused(both(tmp_path, GOOD, PLAIN, ones({"x.weight": (2, 2)})), "does not have", tmp_path)
    assert "some/base" in message


def test_names_that_fit_two_parts_of_a_base_are_not_guessed(tmp_path: Path) -> None:
    base = ones({f"{tower}.layers.0.q.weight": (8, 6) for tower in ("text", "vision")})
    refused(both(tmp_path, GOOD, PLAIN, base), "fits several parts", tmp_path)


def test_a_base_of_a_part_that_is_no_adapter_is_said(tmp_path: Path) -> None:
    ref = both(tmp_path, GOOD, PLAIN)
    base, adapter = ref.split("+")
    refused(f"{base}+{base}", "no adapter folder", tmp_path)
    refused(f"{adapter}+{adapter}", "adapter itself", tmp_path)
    refused(f"{base}+{tmp_path / 'absent'}", "no file or folder", tmp_path)
    refused(f"{tmp_path / 'absent'}+{adapter}", "no file or folder", tmp_path)


def test_a_reference_of_many_plusses_is_refused_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(CheckpointError, match="no file or folder"):
        open_checkpoint(str(tmp_path / "absent") + f"+{tmp_path}" * 40)
    with pytest.raises(CheckpointError, match="no file or folder"):
        open_checkpoint("+" * 3000)
    assert time.monotonic() - started < 5


def test_a_pickle_in_an_adapter_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ref = both(tmp_path, GOOD, PLAIN)
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    body = build.call(build.named("os", "system"), build.text("touch executed"))
    (tmp_path / "adapter" / "adapter_model.bin").write_bytes(build.torch_zip(body, {}))
    refused(ref, "asks for os.system", tmp_path)
    assert not (tmp_path / "executed").exists()


def test_an_adapter_without_its_config_is_refused(tmp_path: Path) -> None:
    ref = both(tmp_path, GOOD, PLAIN)
    (tmp_path / "adapter" / "adapter_config.json").unlink()
    refused(ref, "no adapter folder", tmp_path)
    refused(str(tmp_path / "adapter"), "without its adapter_config.json", tmp_path)
