"""Adapters on their base: what PEFT's own ``merge_and_unload`` gives, and nothing else is changed."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinprint.checkpoint import Checkpoint, open_checkpoint

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

CLOSE = 1e-5
SIZES = {"vocab_size": 20, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """PEFT warns of tied embeddings, of Conv1D and of what it saves; none of it is about us."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def llama(*, tied: bool = False, bias: bool = False) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        **SIZES,
        num_key_value_heads=1,
        tie_word_embeddings=tied,
        attention_bias=bias,
        eos_token_id=None,
        bos_token_id=None,
    )
    model = transformers.LlamaForCausalLM(config)
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):  # which a new model has as zeros, and zeros hide changes
            parameter.data.add_(torch.randn_like(parameter))
    return model


def gpt2() -> Any:
    torch.manual_seed(0)
    ids = {"bos_token_id": 0, "eos_token_id": 0}
    return transformers.GPT2LMHeadModel(
        transformers.GPT2Config(vocab_size=20, n_embd=8, n_layer=2, n_head=2, n_positions=9, **ids)
    )


def mixtral() -> Any:
    torch.manual_seed(0)
    config = transformers.MixtralConfig(**SIZES, num_key_value_heads=1, num_local_experts=3)
    return transformers.MixtralForCausalLM(config)


def trained(model: Any, folder: Path, **settings: Any) -> tuple[dict[str, np.ndarray[Any, Any]], Any]:
    """Save a base and an adapter with random weights; return what PEFT merges them to."""
    model.save_pretrained(folder / "base")
    kind = settings.pop("config", peft.LoraConfig)
    wrapped = peft.get_peft_model(model, kind(**settings))
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    wrapped.save_pretrained(folder / "adapter")
    theirs = wrapped.merge_and_unload()
    return {name: values.detach().float().numpy() for name, values in theirs.state_dict().items()}, theirs


def opened(folder: Path) -> Checkpoint:
    return open_checkpoint(f"{folder / 'base'}+{folder / 'adapter'}")


def check(folder: Path, theirs: dict[str, np.ndarray[Any, Any]], *, changed: int) -> Checkpoint:
    """Compare every tensor with PEFT's, whole and by rows, and count those that differ from the base."""
    base, ours = open_checkpoint(folder / "base"), opened(folder)
    different = 0
    for name, info in ours.tensors.items():
        values = ours.read(name)
        assert np.abs(values - theirs[name]).max() < CLOSE, name
        assert values.shape == info.shape
        assert not values.flags.writeable
        for rows in (slice(1, 3), slice(None, None, 3), slice(-2, None), slice(0, 0), slice(None, None, -1)):
            np.testing.assert_allclose(ours.read(name, rows), values[rows], atol=1e-6, err_msg=name)
        different += name not in base.tensors or bool(np.any(base.read(name) != values))
        if name in base.tensors and np.array_equal(base.read(name), values):
            assert bytes(ours.raw(name)) == bytes(base.raw(name)), name
        else:
            assert len(ours.raw(name)) >= info.nbytes > (base.tensors[name].nbytes if name in base.tensors else 0)
    assert different == changed
    return ours


Q, V = "q_proj", "v_proj"
PLAIN: list[tuple[str, dict[str, Any], int]] = [
    ("lora", {"r": 2, "target_modules": [Q, V, "down_proj"]}, 6),
    (
        "rank and alpha patterns",
        {
            "r": 2,
            "lora_alpha": 5,
            "target_modules": [Q, V],
            "rank_pattern": {Q: 3, r"^model\.layers\.1\.self_attn\.v_proj": 1},
            "alpha_pattern": {r"layers.0.*": 7, V: 3},
        },
        4,
    ),
    ("rslora", {"r": 4, "lora_alpha": 3, "target_modules": [Q], "use_rslora": True}, 2),
    ("dora", {"r": 2, "target_modules": [Q, "embed_tokens"], "use_dora": True}, 3),
    ("modules to save", {"r": 2, "target_modules": [Q], "modules_to_save": ["lm_head", "embed_tokens"]}, 4),
    ("embeddings", {"r": 2, "target_modules": ["embed_tokens", "lm_head", Q]}, 4),
    ("some layers", {"r": 2, "target_modules": [Q], "layers_to_transform": [1]}, 1),
    ("token rows", {"target_modules": [Q], "trainable_token_indices": {"embed_tokens": [1, 3], "lm_head": [2]}}, 4),
    ("only token rows", {"config": peft.TrainableTokensConfig, "token_indices": [0, 19]}, 1),
    (
        "ia3",
        {
            "config": peft.IA3Config,
            "target_modules": ["k_proj", "down_proj"],
            "feedforward_modules": ["down_proj"],
        },
        4,
    ),
]


@pytest.mark.parametrize(("settings", "changed"), [case[1:] for case in PLAIN], ids=[case[0] for case in PLAIN])
def test_the_sum_is_what_peft_merges(settings: dict[str, Any], changed: int, tmp_path: Path) -> None:
    theirs, _ = trained(llama(), tmp_path, **settings)
    ours = check(tmp_path, theirs, changed=changed)
    assert ours.name == "base+adapter"
    assert ours.location == f"{tmp_path / 'base'}+{tmp_path / 'adapter'}"


@pytest.mark.parametrize("bias", ["lora_only", "all"])
def test_biases_that_were_trained_replace_those_of_the_base(bias: str, tmp_path: Path) -> None:
    theirs, _ = trained(llama(bias=True), tmp_path, r=2, target_modules=[Q], bias=bias)
    check(tmp_path, theirs, changed=4 if bias == "lora_only" else 10)


def test_a_bias_of_b_is_added_to_the_layer_s(tmp_path: Path) -> None:
    theirs, _ = trained(llama(bias=True), tmp_path, r=2, lora_alpha=3, target_modules=[Q], lora_bias=True)
    check(tmp_path, theirs, changed=4)


def test_ia3_scales_biases_of_outputs(tmp_path: Path) -> None:
    settings = {"config": peft.IA3Config, "target_modules": ["k_proj"], "feedforward_modules": []}
    theirs, _ = trained(llama(bias=True), tmp_path, **settings)
    check(tmp_path, theirs, changed=4)


@pytest.mark.parametrize("targets", [["c_attn", "c_proj", "c_fc"], ["c_attn", "wte"]], ids=["with square ones", "wte"])
@pytest.mark.parametrize("dora", [False, True], ids=["lora", "dora"])
def test_weights_that_lie_in_times_out_are_changed_as_they_lie(targets: list[str], dora: bool, tmp_path: Path) -> None:
    theirs, _ = trained(gpt2(), tmp_path, r=2, target_modules=targets, fan_in_fan_out=True, use_dora=dora)
    check(tmp_path, theirs, changed=8 if "c_fc" in targets else 3)


def test_square_ones_of_gpt2_are_told_by_their_names_where_the_config_is_wrong(tmp_path: Path) -> None:
    theirs, _ = trained(gpt2(), tmp_path, r=2, target_modules=["attn.c_proj"], fan_in_fan_out=True)
    edit(tmp_path / "adapter", fan_in_fan_out=False)
    check(tmp_path, theirs, changed=2)


TIED: list[tuple[str, dict[str, Any], int]] = [
    ("input", {"target_modules": ["embed_tokens"]}, 1),
    ("output", {"target_modules": ["lm_head", Q]}, 3),
    ("both", {"target_modules": ["lm_head", "embed_tokens"]}, 1),
    ("saved output", {"target_modules": [Q], "modules_to_save": ["lm_head"]}, 3),
    ("saved input", {"target_modules": [Q], "modules_to_save": ["embed_tokens"]}, 4),
    ("rows", {"target_modules": [Q], "trainable_token_indices": [4]}, 3),
]


@pytest.mark.parametrize(("settings", "changed"), [case[1:] for case in TIED], ids=[case[0] for case in TIED])
def test_tied_embeddings_change_as_they_do_in_peft(settings: dict[str, Any], changed: int, tmp_path: Path) -> None:
    theirs, _ = trained(llama(tied=True), tmp_path, r=2, **settings)
    ours = check(tmp_path, theirs, changed=changed)
    untied = not np.array_equal(theirs["lm_head.weight"], theirs["model.embed_tokens.weight"])
    assert ours.config["tie_word_embeddings"] is not untied
    assert ("lm_head.weight" in ours.tensors) is untied


def test_a_base_that_stores_both_of_two_tied_embeddings_has_both_changed(tmp_path: Path) -> None:
    theirs, _ = trained(llama(tied=True), tmp_path, r=2, target_modules=["embed_tokens"])
    base = open_checkpoint(tmp_path / "base")
    state = {name: torch.from_numpy(np.array(base.read(name))) for name in base.tensors}
    (tmp_path / "base" / "model.safetensors").unlink()
    torch.save({**state, "lm_head.weight": state["model.embed_tokens.weight"]}, tmp_path / "base" / "pytorch_model.bin")
    check(tmp_path, theirs, changed=2)


FUSED = ["mlp.experts.gate_up_proj", "mlp.experts.down_proj", "mlp.gate.weight"]


def apart(theirs: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Name fused experts as transformers saves them."""
    found: dict[str, np.ndarray[Any, Any]] = {}
    for name, values in theirs.items():
        stem = name.replace(".mlp.", ".block_sparse_moe.")
        if name.endswith("gate_up_proj"):
            half = values.shape[1] // 2
            for expert in range(values.shape[0]):
                found[stem.replace("gate_up_proj", f"{expert}.w1.weight")] = values[expert, :half]
                found[stem.replace("gate_up_proj", f"{expert}.w3.weight")] = values[expert, half:]
        elif name.endswith("experts.down_proj"):
            found |= {stem.replace("down_proj", f"{e}.w2.weight"): part for e, part in enumerate(values)}
        else:
            found[stem] = values
    return found


@pytest.mark.parametrize("targets", [FUSED, FUSED[:1], FUSED[1:2]], ids=["all", "gate_up", "down"])
def test_an_adapter_of_fused_experts_lands_on_experts_that_lie_apart(targets: list[str], tmp_path: Path) -> None:
    theirs, _ = trained(mixtral(), tmp_path, r=2, lora_alpha=3, target_modules=[Q], target_parameters=targets)
    per_layer = sum({"gate_up_proj": 6, "down_proj": 3, "weight": 1}[target.rpartition(".")[2]] for target in targets)
    check(tmp_path, apart(theirs), changed=2 * (1 + per_layer))


def test_an_adapter_of_fused_experts_lands_on_fused_ones(tmp_path: Path) -> None:
    model = mixtral()
    state = {name: values.clone() for name, values in model.state_dict().items()}
    theirs, _ = trained(
        model, tmp_path, r=2, target_modules=[Q], target_parameters=FUSED, rank_pattern={"experts.down_proj": 3}
    )
    for file in (tmp_path / "base").glob("model*"):
        file.unlink()
    torch.save(state, tmp_path / "base" / "pytorch_model.bin")
    check(tmp_path, theirs, changed=8)


def test_square_experts_are_told_apart_by_the_order_of_the_wrappers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes = {**SIZES, "intermediate_size": 8}
    model = transformers.MixtralForCausalLM(
        transformers.MixtralConfig(**sizes, num_key_value_heads=1, num_local_experts=2)
    )
    theirs, _ = trained(model, tmp_path, r=2, target_modules=[], target_parameters=FUSED[:2])
    check(tmp_path, apart(theirs), changed=12)


def edit(folder: Path, **settings: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def rename(folder: Path, change: Callable[[str], str], file: str = "model.safetensors") -> None:
    from safetensors.numpy import load_file, save_file

    save_file({change(name): values for name, values in load_file(folder / file).items()}, folder / file)


@pytest.mark.parametrize("shorter", [True, False], ids=["the base's are shorter", "the base's are longer"])
def test_names_that_differ_by_a_prefix_meet_and_the_note_says_so(shorter: bool, tmp_path: Path) -> None:
    theirs, _ = trained(llama(), tmp_path, r=2, target_modules=[Q])

    def change(name: str) -> str:
        return name.removeprefix("model.") if shorter else f"language_model.{name}"

    rename(tmp_path / "base", change)
    ours = check(tmp_path, {change(name): values for name, values in theirs.items()}, changed=2)
    assert any("names start with" in note for note in ours.notes)


def test_names_with_the_adapter_s_own_name_in_them_are_understood(tmp_path: Path) -> None:
    theirs, _ = trained(llama(), tmp_path, r=2, target_modules=[Q], modules_to_save=["lm_head"])
    rename(
        tmp_path / "adapter",
        lambda name: name.replace(".weight", ".default.weight").replace("lm_head.", "lm_head.modules_to_save."),
        "adapter_model.safetensors",
    )
    check(tmp_path, theirs, changed=3)


def test_an_old_adapter_in_a_torch_file_is_read(tmp_path: Path) -> None:
    theirs, _ = trained(llama(), tmp_path, r=2, target_modules=[Q])
    from safetensors.torch import load_file

    path = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(path), path.with_suffix(".bin"))
    path.unlink()
    check(tmp_path, theirs, changed=2)


def test_a_head_that_the_base_does_not_have_is_added(tmp_path: Path) -> None:
    trained(llama(), tmp_path, r=2, target_modules=[Q], modules_to_save=["lm_head"])
    rename(tmp_path / "base", lambda name: name)
    rename(tmp_path / "adapter", lambda name: name.replace("lm_head", "score"), "adapter_model.safetensors")
    edit(tmp_path / "adapter", modules_to_save=["score"])
    ours = opened(tmp_path)
    assert ours.tensors["score.weight"].shape == (20, 8)
    assert "score.weight: the adapter brings it, the model has none" in ours.notes


def test_embeddings_of_a_longer_vocabulary_replace_the_base_s(tmp_path: Path) -> None:
    trained(llama(), tmp_path, r=2, target_modules=[Q], modules_to_save=["embed_tokens"])
    from safetensors.numpy import load_file, save_file

    path = tmp_path / "adapter" / "adapter_model.safetensors"
    tensors = load_file(path)
    key = "base_model.model.model.embed_tokens.weight"
    save_file(tensors | {key: np.concatenate([tensors[key], tensors[key][:2]])}, path)
    (tmp_path / "adapter" / "vocab.txt").write_text("\n".join("abcdefghijklmnopqrstuv"))
    ours = opened(tmp_path)
    assert ours.read("model.embed_tokens.weight").shape == (22, 8)
    assert ours.vocabulary is not None
    assert len(ours.vocabulary) == 22


# -- references --------------------------------------------------------------------------------------------------------


def test_several_adapters_are_applied_one_after_the_other(tmp_path: Path) -> None:
    trained(llama(), tmp_path, r=2, target_modules=[Q])
    base = open_checkpoint(tmp_path / "base")
    name = "model.layers.0.self_attn.q_proj.weight"
    once = opened(tmp_path)
    twice = open_checkpoint(f"{tmp_path / 'base'}+{tmp_path / 'adapter'}+{tmp_path / 'adapter'}")
    delta = once.read(name) - base.read(name)
    np.testing.assert_allclose(twice.read(name) - base.read(name), 2 * delta, atol=1e-6)
    assert twice.name == "base+adapter+adapter"
    assert len({model.content_digest for model in (base, once, twice)}) == 3


def test_a_plus_in_the_name_of_a_path_is_part_of_it(tmp_path: Path) -> None:
    trained(llama(), tmp_path, r=2, target_modules=[Q])
    base, adapter = (tmp_path / "base").rename(tmp_path / "b+x"), (tmp_path / "adapter").rename(tmp_path / "a+adapter")
    assert open_checkpoint(base).name == "b+x"
    assert open_checkpoint(f"{base}+{adapter}").name == "b+x+a+adapter"


def test_the_digest_of_the_sum_notices_the_scale_the_tensors_and_the_base(tmp_path: Path) -> None:
    trained(llama(), tmp_path, r=2, target_modules=[Q])
    digests = [opened(tmp_path).content_digest]
    edit(tmp_path / "adapter", inference_mode=False)
    assert opened(tmp_path).content_digest == digests[0]
    edit(tmp_path / "adapter", lora_alpha=9)
    digests.append(opened(tmp_path).content_digest)
    path = tmp_path / "adapter" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    digests.append(opened(tmp_path).content_digest)
    assert len(set(digests)) == 3


def test_an_adapter_alone_opens_as_its_own_tensors_and_says_so(tmp_path: Path) -> None:
    trained(llama(), tmp_path, r=2, target_modules=[Q])
    edit(tmp_path / "adapter", base_model_name_or_path="somebody/base")
    alone = open_checkpoint(tmp_path / "adapter")
    assert len(alone.tensors) == 4
    assert alone.config["peft_type"] == "LORA"
    assert any("adapter alone" in note and "somebody/base" in note and "no evidence" in note for note in alone.notes)


# -- by hand -----------------------------------------------------------------------------------------------------------


def test_a_delta_worked_out_by_hand(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    for folder in ("base", "adapter"):
        (tmp_path / folder).mkdir()
    save_file({"layer.weight": np.array([[1, 2, 3], [4, 5, 6]], np.float32)}, tmp_path / "base" / "model.safetensors")
    factors = {
        "base_model.model.layer.lora_A.weight": np.array([[1, 0, 2]], np.float16),
        "base_model.model.layer.lora_B.weight": np.array([[10], [-1]], np.float16),
    }
    save_file(factors, tmp_path / "adapter" / "adapter_model.safetensors")
    settings = {"peft_type": "LORA", "r": 1, "lora_alpha": 2}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(settings))
    ours = opened(tmp_path)
    # s = 2 / 1; B A = [[10, 0, 20], [-1, 0, -2]]
    np.testing.assert_array_equal(ours.read("layer.weight"), [[21, 2, 43], [2, 5, 2]])
    assert (ours.tensors["layer.weight"].dtype, ours.tensors["layer.weight"].nbytes) == ("F32", 24 + 6 + 4)
