"""Adapters on their base and mixtures of experts, as the installed command judges them."""

from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from e2e.stored import CONFIG, EXAMPLES, FORMATS, bf16, model
from kinprint.api import open_model
from kinprint.architecture import ModelView
from kinprint.checkpoint import Array, open_checkpoint, write_safetensors
from kinprint.transform import ModelState, preserve
from kinprint.transform.upcycling import upcycled
from kinprint.types import ComponentVerdict, Inspection, Verdict

COMMAND = Path(sys.executable).parent / "kinprint"
BASE = EXAMPLES / "base"
SAME_PLACES = [(layer, layer) for layer in range(6)]


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def compared(suspect: str | Path, base: str | Path, *options: str) -> Verdict:
    """The command's verdict."""
    found = json.loads(run("compare", suspect, base, "-m", "layernorm", *options, "--json", "-").stdout)["verdict"]
    return Verdict.model_validate(found)


def component(verdict: Verdict, name: str) -> ComponentVerdict:
    return next(part for part in verdict.components if part.component == name)


# -- adapters ----------------------------------------------------------------------------------------------------------

TARGETS = ("q_proj", "v_proj", "down_proj")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LoRA of rank 4 on three projections of each layer, about a tenth as large; products are exact in float32."""
    folder = tmp_path_factory.mktemp("adapters") / "adapter"
    folder.mkdir()
    rng, factors = np.random.default_rng(0), dict[str, Array]()
    for name, weight_MN in model().items():
        if name.split(".")[-2] in TARGETS:
            stem = f"base_model.model.{name.removesuffix('.weight')}"
            rows, columns = weight_MN.shape
            factors[f"{stem}.lora_A.weight"] = rng.integers(-1, 2, (4, columns)).astype(np.float32)
            factors[f"{stem}.lora_B.weight"] = (rng.integers(-2, 3, (rows, 4)) / 256).astype(np.float32)
    assert len(factors) == 2 * 3 * 6
    write_safetensors(folder / "adapter_model.safetensors", factors)
    settings = {
        "peft_type": "LORA", "r": 4, "lora_alpha": 4, "target_modules": list(TARGETS),
        "base_model_name_or_path": "somebody/some-base",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))
    return folder


def test_a_base_with_its_adapter_is_the_model_that_peft_merges(
    adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    torch, transformers, peft = (pytest.importorskip(name) for name in ("torch", "transformers", "peft"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft asks transformers for an attribute by its old name
        base = transformers.AutoModelForCausalLM.from_pretrained(BASE, dtype=torch.float32)
        merged = peft.PeftModel.from_pretrained(base, adapter).merge_and_unload()
    tensors = {name: values.detach().numpy() for name, values in merged.state_dict().items()}
    write_safetensors(tmp_path / "merged", bf16(tensors), config=CONFIG)
    verdict = compared(f"{BASE}+{adapter}", tmp_path / "merged")
    assert (verdict.conclusion, verdict.relation) == ("identical", "rounded")
    without = compared(BASE, tmp_path / "merged")
    assert (without.conclusion, without.relation) == ("derived", None)
    assert "39 are in the base byte for byte" in without.evidence[0].notes[0]


def test_a_base_with_an_adapter_stays_a_stranger_to_strangers(adapter: Path) -> None:
    verdict = compared(f"{BASE}+{adapter}", EXAMPLES / "twin")
    assert (verdict.conclusion, verdict.relation) == ("independent", None)


def test_an_adapter_alone_clears_nobody_and_names_its_lead(adapter: Path) -> None:
    done = run("compare", adapter, BASE, "--fail-on", "derived", "--json", "-", code=4)
    found = json.loads(done.stdout)
    verdict = Verdict.model_validate(found["verdict"])
    assert verdict.conclusion == "not_comparable"
    (note,) = [note for note in found["suspect"]["notes"] if "adapter alone" in note]
    assert "somebody/some-base" in note
    assert "no evidence" in note
    assert "MODEL+ADAPTER" in note
    text = run("compare", adapter, BASE).stdout
    assert "somebody/some-base" in text
    assert "somebody/some-base" in run("inspect", adapter).stdout


def test_an_adapter_lies_on_a_base_that_gptq_quantised(adapter: Path, tmp_path: Path) -> None:
    FORMATS["gptq"].write(model(), tmp_path / "quantised")
    shown = run("inspect", f"{tmp_path / 'quantised'}+{adapter}").stdout
    assert "GPTQ:4" in shown
    verdict = compared(f"{tmp_path / 'quantised'}+{adapter}", f"{BASE}+{adapter}")
    assert verdict.conclusion == "derived"
    notes = verdict.evidence[0].notes
    # 7 projections of 6 layers are quantised, and 3 of those are changed
    assert any(note.startswith("24 more are equal up to quantisation") for note in notes)
    assert compared(f"{tmp_path / 'quantised'}+{adapter}", EXAMPLES / "twin").conclusion == "independent"


def test_an_adapter_of_another_shape_is_one_line(adapter: Path, tmp_path: Path) -> None:
    small = {name: values[:48] if values.ndim == 1 else values[:48, :48] for name, values in model().items()}
    write_safetensors(tmp_path / "small", bf16(small))
    for arguments in (("inspect",), ("compare", BASE)):
        line = run(*arguments, f"{tmp_path / 'small'}+{adapter}", code=5).stderr
        assert line.count("\n") == 1
        assert "somebody/some-base" in line


# -- mixtures ----------------------------------------------------------------------------------------------------------


def state_of(path: Path) -> ModelState:
    opened = open_model(path)
    assert isinstance(opened, ModelView)
    return ModelState.from_view(opened)


def saved(state: ModelState, folder: Path) -> Path:
    made = state.checkpoint(ml_dtypes.bfloat16)
    write_safetensors(folder, {name: made.read(name) for name in made.tensors}, config=made.config)
    return folder


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The base upcycled to 4 experts a layer, each with noise of a twentieth."""
    made = upcycled(state_of(BASE), experts=4, active=2, noise=0.05, rng=np.random.default_rng(0))
    return saved(made, tmp_path_factory.mktemp("mixtures") / "mixture")


def places(verdict: Verdict) -> list[tuple[int, int | None]]:
    assert verdict.layer_map is not None
    assert all(layer.derived for layer in verdict.layer_map.layers)
    return [(layer.suspect, layer.base) for layer in verdict.layer_map.layers]


def test_a_mixture_is_derived_from_the_dense_model_that_it_was_made_of(mixture: Path) -> None:
    verdict = compared(mixture, BASE)
    assert verdict.conclusion == "derived"
    assert places(verdict) == SAME_PLACES
    experts = component(verdict, "experts")
    assert experts.conclusion == "derived"
    assert "size 0.99" in experts.reason


def test_the_dense_model_and_its_mixture_are_derived_the_other_way_round_too(mixture: Path) -> None:
    verdict = compared(BASE, mixture)
    assert verdict.conclusion == "derived"
    assert places(verdict) == SAME_PLACES


def test_the_mixture_of_a_stranger_is_a_stranger(mixture: Path) -> None:
    verdict = compared(mixture, EXAMPLES / "twin")
    assert verdict.conclusion == "independent"
    assert component(verdict, "experts").conclusion == "independent"


def test_experts_in_another_order_are_matched_and_the_order_is_told(mixture: Path, tmp_path: Path) -> None:
    moved = preserve(state_of(mixture), ["expert-permutation"], np.random.default_rng(1))
    verdict = compared(saved(moved, tmp_path / "moved"), mixture)
    assert (verdict.conclusion, verdict.relation) == ("derived", None)
    assert component(verdict, "experts").conclusion == "derived"
    assert "size 1.000" in component(verdict, "experts").reason
    assert any("stand under another role or in another layer" in note for note in verdict.evidence[0].notes)
    assert verdict.contrary is not None
    assert "experts in another order" in verdict.contrary


def test_a_quick_verdict_on_mixtures_says_nothing_of_experts_that_were_not_matched(mixture: Path) -> None:
    verdict = compared(mixture, BASE, "--quick")
    assert verdict.conclusion == "derived"
    assert [part.component for part in verdict.components] == ["trunk", "embedding"]


def test_a_mixture_without_one_expert_s_matrix_is_one_line(mixture: Path, tmp_path: Path) -> None:
    stored = open_checkpoint(mixture)
    lost = "model.layers.2.block_sparse_moe.experts.3.w2.weight"
    tensors = {name: stored.read(name) for name in stored.tensors if name != lost}
    assert len(tensors) == len(stored.tensors) - 1
    write_safetensors(tmp_path / "short", tensors, config=stored.config)
    lines = {
        run(*arguments, code=5).stderr
        for arguments in (("inspect", tmp_path / "short"), ("compare", tmp_path / "short", BASE, "--quiet"))
    }
    (line,) = lines
    assert line.count("\n") == 1
    for text in (str(tmp_path / "short"), "layer 2 has no moe.down of expert 3", "a shard is missing"):
        assert text in line


def test_experts_that_lie_apart_are_the_fused_ones(tmp_path: Path) -> None:
    torch, transformers = (pytest.importorskip(name) for name in ("torch", "transformers"))
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(
        vocab_size=96, hidden_size=32, intermediate_size=48, moe_intermediate_size=24, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, num_experts=5, num_experts_per_tok=2,
        max_position_embeddings=64,
    )  # fmt: skip
    made = transformers.Qwen3MoeForCausalLM(config).bfloat16()
    made.save_pretrained(tmp_path / "apart")
    fused = tmp_path / "fused"
    fused.mkdir()
    torch.save(made.state_dict(), fused / "pytorch_model.bin")
    (fused / "config.json").write_text((tmp_path / "apart" / "config.json").read_text())
    shown = [
        Inspection.model_validate_json(run("inspect", folder, "--json", "-").stdout)
        for folder in (tmp_path / "apart", fused)
    ]
    assert [one.model.geometry.experts for one in shown] == [5, 5]
    assert [one.model.coverage for one in shown] == [1.0, 1.0]
    for suspect, base in ((tmp_path / "apart", fused), (fused, tmp_path / "apart")):
        verdict = compared(suspect, base)
        assert (verdict.conclusion, verdict.relation) == ("identical", "same")
