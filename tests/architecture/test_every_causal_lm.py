"""Every causal language model of transformers: each matrix has a place, and the parts are what the modules compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
from causal import build, classes
from causal_checks import checkpoint, examine, hold
from causal_compare import CHECKS, Examined
from causal_trace import trace

from kinprint.architecture import ModelView, PartKey, Place, view
from kinprint.architecture.lexicon import lexicon

EXCEPTIONS: dict[str, str] = {
    "Inkling2ForCausalLM": "its published layout gives queries, keys and values norms of their own",
    "Inkling2LoopForCausalLM": "the same",
    "Zamba2ForCausalLM": "adapters of each place are added to the MLP that all places share",
    "ZayaForCausalLM": "queries and keys pass convolutions, and half of the values come from the token before",
}
"""Classes that fail a check, each with the reason. An entry whose class passes is an error."""

MOST_EXCEPTIONS = 0.05
"""Share of the classes that may be exceptions."""

MOST_WEAK = 0.05
"""Share of the classes some of whose projections may be compared with their own module only."""

each_class = pytest.mark.parametrize("name", [name for name in classes() if name not in EXCEPTIONS])


def complaints(name: str, check: str) -> list[str]:
    found = examine(name)
    assert found.done.get("mapped"), f"{name} was not examined"
    return found.complaints.get(check, [])


@each_class
def test_every_matrix_has_a_role_a_component_or_a_reason(name: str) -> None:
    assert complaints(name, "mapped") == []


@each_class
def test_what_save_pretrained_writes_has_the_same_parts(name: str) -> None:
    assert complaints(name, "saved") == []


@each_class
def test_queries_keys_and_values_are_what_attention_takes(name: str) -> None:
    assert complaints(name, "qkv") == []


@each_class
def test_output_projection_takes_query_heads_in_order(name: str) -> None:
    assert complaints(name, "o") == []


@each_class
def test_gate_up_and_down_compute_what_the_mlp_does(name: str) -> None:
    assert complaints(name, "mlp") == []


@each_class
def test_each_expert_computes_what_the_module_does(name: str) -> None:
    assert complaints(name, "experts") == []


# -- the exceptions, and how much is compared -----------------------------------------------------------------------


def test_exceptions_are_few_and_each_class_is_there() -> None:
    assert set(EXCEPTIONS) <= set(classes())
    assert len(EXCEPTIONS) <= MOST_EXCEPTIONS * len(classes())


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_each_exception_still_fails(name: str) -> None:
    try:
        found = examine(name)
    except ImportError:
        return  # a package that it needs is not installed
    assert found.complaints, f"{name} passes every check: take it off the list"


def test_hardly_any_projection_is_compared_with_its_own_module_only() -> None:
    weak = [name for name in classes() if name not in EXCEPTIONS and examine(name).weak]
    assert len(weak) <= MOST_WEAK * len(classes()), weak


def test_all_classes_but_those_without_attention_were_compared() -> None:
    found = [examine(name) for name in classes() if name not in EXCEPTIONS]
    for check, least in (("qkv", 0.9), ("o", 0.9), ("mlp", 0.7), ("experts", 0.25)):
        assert sum(check in one.done for one in found) >= least * len(found), check
    assert {check for one in found for check in one.done} == set(CHECKS)


# -- the checks can fail --------------------------------------------------------------------------------------------


def swapped(model: ModelView, one: str, two: str) -> ModelView:
    """Return a view that takes each of two roles for the other, with their biases."""
    other = {one: two, two: one, f"{one}.bias": f"{two}.bias", f"{two}.bias": f"{one}.bias"}
    parts: dict[PartKey, Place] = {
        replace(key, role=other.get(key.role, key.role)): place for key, place in model.parts.items()
    }
    return replace(model, parts=parts)


@pytest.mark.parametrize(
    ("name", "one", "two", "check"),
    [
        ("LlamaForCausalLM", "attn.k", "attn.v", "qkv"),
        ("GPTNeoXForCausalLM", "attn.q", "attn.k", "qkv"),
        ("GPT2LMHeadModel", "attn.k", "attn.v", "qkv"),
        ("BloomForCausalLM", "attn.q", "attn.v", "qkv"),
        ("DeepseekV3ForCausalLM", "attn.k_b", "attn.v_b", "qkv"),
        ("LlamaForCausalLM", "mlp.gate", "mlp.up", "mlp"),
        ("Phi3ForCausalLM", "mlp.gate", "mlp.up", "mlp"),
        ("MixtralForCausalLM", "moe.gate", "moe.up", "experts"),
        ("GptOssForCausalLM", "moe.gate", "moe.up", "experts"),
    ],
)
def test_two_parts_taken_for_each_other_are_noticed(name: str, one: str, two: str, check: str) -> None:
    module, config = build(name)
    seen = trace(module)
    model = view(checkpoint(module, config))
    right, wrong = Examined(name), Examined(name)
    hold(right, model, seen)
    hold(wrong, swapped(model, one, two), seen)
    assert check not in right.complaints
    assert check in wrong.complaints


@pytest.mark.parametrize(("name", "role"), [("GPTNeoXForCausalLM", "attn.q"), ("CodeGenForCausalLM", "attn.q")])
def test_blocks_instead_of_heads_are_noticed(name: str, role: str) -> None:
    module, config = build(name)
    seen = trace(module)
    model = view(checkpoint(module, config))
    split = model.parts[PartKey(role, 0)].rule
    blocks = split.model_copy(update={"split": "blocks"})
    parts = {key: replace(place, rule=blocks) if place.rule == split else place for key, place in model.parts.items()}
    found = Examined(name)
    hold(found, replace(model, parts=parts), seen)
    assert "qkv" in found.complaints


def test_nothing_is_declared_of_a_model_type_that_no_class_stands_for() -> None:
    found = [examine(name) for name in classes() if name not in EXCEPTIONS]
    assert set(lexicon().known) <= {said for one in found for said in (one.family, one.model_type)}
