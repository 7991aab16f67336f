"""One model stored in every way that people store models: the installed command calls all of them one model."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from checkpoint import packed
from e2e.stored import EXAMPLES, FORMATS, GPTQ, gptq, in_packed, made_up_for, model, noise
from kinprint.checkpoint import LocalFile, SafetensorsFile
from kinprint.types import Inspection, Verdict

COMMAND = Path(sys.executable).parent / "kinprint"


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def compared(suspect: Path, base: Path) -> Verdict:
    """The command's verdict, without what its methods measure beside it."""
    verdict = json.loads(run("compare", suspect, base, "--quick", "--json", "-").stdout)["verdict"]
    return Verdict.model_validate(verdict)


def half_widths(notes: tuple[str, ...], said: str) -> float:
    (note,) = [note for note in notes if said in note]
    found = re.search(r"at most (\d+\.\d+) half-widths", note)
    assert found is not None
    return float(found[1])


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_is_the_same_model_however_it_is_stored(name: str, tmp_path: Path) -> None:
    form = FORMATS[name]
    form.write(model(), tmp_path / "stored")
    verdict = compared(tmp_path / "stored", EXAMPLES / "base")
    assert (verdict.conclusion, verdict.relation) == ("identical", form.relation)
    if form.relation == "requantised":
        # Uniform in the interval leaves 0.58; the interval is judged from the decoded values.
        assert 0.35 < half_widths(verdict.reasons, "equal up to quantisation") < 0.75
    else:
        assert not any("quantisation" in note for note in verdict.reasons)
    shown = Inspection.model_validate_json(run("inspect", tmp_path / "stored", "--json", "-").stdout)
    assert (shown.model.coverage, shown.model.unmapped, shown.model.geometry.layers) == (1.0, (), 6)
    assert form.dtype in shown.dtypes


def test_rounding_that_makes_up_for_itself_is_derived_and_requantised(tmp_path: Path) -> None:
    in_packed(model(), tmp_path / "stored", pack=partial(gptq, change=noise), settings=GPTQ)
    verdict = compared(tmp_path / "stored", EXAMPLES / "base")
    assert (verdict.conclusion, verdict.relation) == ("derived", "requantised")
    # 2 of the noise and 0.58 of the rounding; clipping at the ends adds to it
    assert half_widths(verdict.evidence[0].notes, "makes up for its own errors") == pytest.approx(2.08, abs=0.1)


def test_gptq_itself_is_requantised(tmp_path: Path) -> None:
    in_packed(model(), tmp_path / "stored", pack=partial(gptq, change=made_up_for), settings=GPTQ)
    verdict = compared(tmp_path / "stored", EXAMPLES / "base")
    assert verdict.conclusion in ("identical", "derived")  # as the inputs correlate
    assert verdict.relation == "requantised"


def test_scales_that_awq_moves_into_the_norms_leave_it_derived(tmp_path: Path) -> None:
    """AWQ multiplies columns before it rounds them, and divides the gain before them."""
    tensors = model()
    rng = np.random.default_rng(3)
    for layer in range(6):
        stem = f"model.layers.{layer}."
        for norm, readers in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            scale_N = np.exp(0.5 * rng.standard_normal(96)).astype(np.float32)
            tensors[f"{stem}{norm}.weight"] /= scale_N
            for reader in readers:
                tensors[f"{stem}{reader}.weight"] *= scale_N
    FORMATS["awq"].write(tensors, tmp_path / "stored")
    verdict = compared(tmp_path / "stored", EXAMPLES / "base")
    assert (verdict.conclusion, verdict.relation) == ("derived", None)


@pytest.mark.parametrize("name", ["gguf q8_0", "compressed-tensors fp8", "gptq"])
def test_a_child_that_was_quantised_is_no_requantised_base(name: str, tmp_path: Path) -> None:
    FORMATS[name].write(model("child"), tmp_path / "stored")
    verdict = compared(tmp_path / "stored", EXAMPLES / "base")
    assert (verdict.conclusion, verdict.relation) == ("derived", None)


@pytest.mark.parametrize("name", ["gguf q4_0", "gptq", "bitsandbytes nf4", "fp8 in blocks", "nvfp4"])
def test_a_stranger_that_was_quantised_stays_a_stranger(name: str, tmp_path: Path) -> None:
    FORMATS[name].write(model("twin"), tmp_path / "stored")
    verdict = compared(tmp_path / "stored", EXAMPLES / "base")
    assert (verdict.conclusion, verdict.relation) == ("independent", None)


def test_two_quantisations_of_one_model_face_each_other(tmp_path: Path) -> None:
    for name in ("gguf q4_0", "gptq"):
        FORMATS[name].write(model(), tmp_path / name)
    verdict = compared(tmp_path / "gguf q4_0", tmp_path / "gptq")
    assert (verdict.conclusion, verdict.relation) == ("identical", "requantised")


# -- what is wrong is one line, and never a part of the model ----------------------------------------------------------


def edit(folder: Path, **changed: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))


def without(folder: Path, leaf: str) -> None:
    file = folder / "model.safetensors"
    stored = SafetensorsFile(LocalFile(file))
    kept = {name: np.array(stored.read(name, None)) for name in stored.tensors if not name.endswith(leaf)}
    assert 0 < len(kept) < len(stored.tensors)
    file.write_bytes(packed.safetensors_of(kept))


Damage = Callable[[Path], None]
FAULTS: dict[str, tuple[str, Damage, tuple[str, ...]]] = {
    "gptq without scales": ("gptq", lambda f: without(f, "scales"), ("qweight' is packed and has no scales", "fetch")),
    "awq without zeros": ("awq", lambda f: without(f, "qzeros"), ("qweight' is packed and has no qzeros", "fetch")),
    "int8 without scales": (
        "bitsandbytes int8", lambda f: without(f, "SCB"), ("has neither SCB nor quant_state beside it", "fetch"),
    ),
    "nf4 without scales": ("bitsandbytes nf4", lambda f: without(f, "absmax"), ("absmax' is missing", "fetch")),
    "fp8 without scales": ("fp8 in blocks", lambda f: without(f, "_inv"), ("has no scales beside it", "fetch")),
    "int4 without scales": (
        "compressed-tensors int4", lambda f: without(f, "weight_scale"), ("has no weight_scale beside it", "fetch"),
    ),
    "nvfp4 without its scale": ("nvfp4", lambda f: without(f, "_scale_2"), ("weight_scale_2 beside it", "fetch")),
    "mlx without scales": ("mlx", lambda f: without(f, "scales"), ("has no scales beside it", "fetch")),
    "mlx without a config": ("mlx", lambda f: (f / "config.json").unlink(), ("no config states", "config.json beside")),
    "wrong group size": (
        "gptq",
        lambda f: edit(f, quantization_config={**GPTQ, "group_size": 64}),
        ("8 groups for 256 columns", "groups of 64", "do not belong together"),
    ),
    "wrong bits": ("awq", lambda f: edit(f, quantization_config={"bits": 8}), ("holds 4 bits", "config says 8")),
    "wrong block": (
        "fp8 in blocks",
        lambda f: edit(f, quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64]}),
        ("blocks of [64, 64]", "do not belong together"),
    ),
    "a missing shard": (
        "safetensors in shards",
        lambda f: (f / "model-00002-of-00004.safetensors").unlink(),
        ("model-00002-of-00004.safetensors is missing", "fetch the missing file"),
    ),
    "a missing part": (
        "gguf f16 split",
        lambda f: sorted(f.glob("*.gguf"))[1].unlink(),
        ("2 of 3 is missing", "fetch the missing file"),
    ),
    "another model's depth": (
        "gptq", lambda f: edit(f, num_hidden_layers=8), ("says 8 layers, the checkpoint holds 6", "another model"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_what_is_missing_or_wrong_is_one_line_with_its_place_and_what_to_do(name: str, tmp_path: Path) -> None:
    form, damage, says = FAULTS[name]
    folder = tmp_path / "stored"
    FORMATS[form].write(model(), folder)
    damage(folder)
    lines = {
        run(*arguments, code=5).stderr
        for arguments in (("compare", folder, EXAMPLES / "base", "--quiet"), ("inspect", folder))
    }
    (line,) = lines
    assert line.count("\n") == 1
    for text in (str(folder), *says):
        assert text in line
