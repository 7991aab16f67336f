"""Verdicts on architectures of every kind: another random start is a stranger, a noisy copy is a child.

All classes: ``python benchmarks/families.py``.
"""

from __future__ import annotations

import pytest
from causal_families import judged

CLASSES = {
    "latent attention, mixture": "DeepseekV3ForCausalLM",
    "interleaved experts": "GptOssForCausalLM",
    "queries with a gate, linear attention": "Qwen3NextForCausalLM",
    "state space alone": "MambaForCausalLM",
    "state space and attention": "JambaForCausalLM",
    "one mixer a layer": "NemotronHForCausalLM",
    "layers with heads of their own": "Gemma4ForCausalLM",
    "two blocks a layer": "LongcatFlashForCausalLM",
    "experts in rows": "DbrxForCausalLM",
    "parallel block, fused by head": "BloomForCausalLM",
    "fused and gated": "Phi3ForCausalLM",
    "factorised embeddings": "ElectraForCausalLM",
    "receptance": "RwkvForCausalLM",
}


@pytest.mark.parametrize("name", CLASSES.values(), ids=CLASSES)
def test_another_random_start_is_independent_and_a_noisy_copy_derived(name: str) -> None:
    assert judged(name)[1:] == ("independent", "derived")
