"""``kinprint watermark`` as a user runs it, on text that a shipped model wrote with a key and without one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kinprint.behaviour.loading import load_module, load_tokenizer

BASE = Path(__file__).parents[2] / "examples" / "base"
KINPRINT = Path(sys.executable).with_name("kinprint")
KEY = {"scheme": "kgw", "label": "test", "hashing_key": 15485863, "greenlist_ratio": 0.25, "bias": 8.0}

torch = pytest.importorskip("torch", reason="the [torch] extra is not installed")


def written(marked: bool) -> str:
    from transformers import GenerationConfig, WatermarkingConfig

    module, checkpoint = load_module(BASE, device="cpu", dtype="float32")
    tokenizer = load_tokenizer(BASE)
    mark = WatermarkingConfig(greenlist_ratio=0.25, bias=8.0, hashing_key=15485863, seeding_scheme="lefthash")
    settings = GenerationConfig(
        do_sample=True, max_new_tokens=100, pad_token_id=0, watermarking_config=mark if marked else None
    )
    ids = torch.tensor([tokenizer("The ")["input_ids"]])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        said = module.generate(ids, attention_mask=torch.ones_like(ids), generation_config=settings)
    checkpoint.close()
    return tokenizer.decode(said[0, ids.shape[1] :])


def kinprint(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [KINPRINT, "watermark", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )


def statistics(found: Any) -> dict[str, float]:
    return {value["name"]: value["value"] for value in found["values"]}


def test_a_marked_text_is_told_from_one_that_was_not(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY), "utf-8")
    found: dict[bool, dict[str, float]] = {}
    for marked in (True, False):
        text, out = tmp_path / f"{marked}.txt", tmp_path / f"{marked}.json"
        text.write_text(written(marked), "utf-8")
        ran = kinprint(text, "--key", tmp_path / "key.json", "--tokenizer", BASE, "--json", out)
        assert ran.returncode == 0, ran.stderr
        assert "15485863" not in ran.stdout + out.read_text("utf-8")  # the key is shown nowhere
        found[marked] = statistics(json.loads(out.read_text("utf-8")))
    assert found[True]["log10 p"] < -6
    assert found[True]["log10 p by rank"] == pytest.approx(-2.0)
    assert found[False]["log10 p"] > -3


def test_what_is_no_key_and_what_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY | {"hashing_key": "x"}), "utf-8")
    (tmp_path / "good.json").write_text(json.dumps(KEY), "utf-8")
    text = tmp_path / "text.txt"
    text.write_text("The number one.", "utf-8")
    for arguments in ((text, "--key", tmp_path / "key.json"), (tmp_path / "none.txt", "--key", tmp_path / "good.json")):
        ran = kinprint(*arguments, "--tokenizer", BASE)
        assert ran.returncode == 5
        assert ran.stderr.count("\n") == 1
        assert not ran.stdout


def test_a_text_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    (tmp_path / "key.json").write_text(json.dumps(KEY), "utf-8")
    (tmp_path / "long.txt").write_text("word " * (1 << 20), "utf-8")
    ran = kinprint(tmp_path / "long.txt", "--key", tmp_path / "key.json", "--tokenizer", BASE)
    assert ran.returncode == 2
    assert "longer than 4 MiB" in ran.stderr
    assert ran.stderr.count("\n") == 1
