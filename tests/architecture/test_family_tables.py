"""The tables themselves, and how they inherit."""

from __future__ import annotations

import tomllib

import pytest
from pydantic import ValidationError

from kinprint.architecture import families
from kinprint.architecture.family import parse_family, rule_skeleton

SMALL = """
name = "small"
summary = "one matrix"
prefixes = [""]
requires = ["w.{layer}"]

[labels]
residual = "exchangeable"
kv = "heads slope by their number"

[geometry]
hidden = ["width"]

[[tensor]]
name = "w.{layer}"
role = "attn.q"
out = "query.{layer}"
in = "residual"

[[tensor]]
name = "g"
role = "norm.final"
out = "residual"
"""


def test_the_families_of_the_documentation_are_there() -> None:
    names = {table.name for table in families()}
    assert names >= {
        "llama",
        "gemma",
        "gemma2",
        "olmo2",
        "gpt2",
        "gpt_neox",
        "bert",
        "mixtral",
        "qwen2_moe",
        "qwen3_moe",
        "sceptr",
    }
    in_gguf = {arch for table in families() for arch in table.archs}
    assert in_gguf >= {"llama", "qwen2", "qwen3", "gemma2", "olmo2", "gpt2", "bert", "qwen2moe", "qwen3moe"}


def test_every_name_that_a_family_requires_is_mapped_by_it() -> None:
    for table in families():
        assert set(table.requires) <= {rule.name for rule in table.tensor}, table.name


def test_no_gain_that_stands_after_a_block_is_handed_on() -> None:
    for table in families():
        read = {part.reads for rule in table.tensor for part in rule.parts}
        assert not read & {"norm.attn_post", "norm.mlp_post", "norm.embed"}, table.name


def test_every_matrix_that_reads_the_stream_inside_a_prenorm_block_names_its_norm() -> None:
    for table in families():
        for rule in table.tensor:
            for part in rule.parts:
                inside = "{layer}" in rule.name and part.input == "residual"
                if table.placement != "post" and inside:
                    assert part.reads in ("norm.attn", "norm.mlp"), (table.name, part.role)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("summary", "sumary"),
        ('role = "attn.q"', 'role = "attn.query"'),
        ('in = "residual"', 'in = "residul"'),
        ('in = "residual"', 'in = "residual"\nscale = 2'),
        ('hidden = ["width"]', 'widht = ["width"]'),
        ('residual = "exchangeable"', 'residul = "exchangeable"'),
        ('residual = "exchangeable"', 'residual = "exchangable"'),
        ('residual = "exchangeable"', 'residual = ""'),
        ('requires = ["w.{layer}"]', 'requires = ["w.{layer}"]\nextends = "nobody"'),
        ('name = "g"', 'name = "w.{layer}"'),
        ('name = "w.{layer}"\nrole', 'name = "w"\nrole'),
        ('in = "residual"', 'in = "residual"\nreads = "norm.attn"'),
        ('in = "residual"', 'in = "residual"\nsplit = "per-group"'),
    ],
)
def test_a_table_with_a_slip_is_an_error(old: str, new: str) -> None:
    assert parse_family(SMALL).name == "small"
    assert old in SMALL
    with pytest.raises((ValidationError, ValueError)):
        parse_family(SMALL.replace(old, new))


def test_a_child_replaces_drops_and_adds_rules_and_keeps_the_rest() -> None:
    child = """
extends = "small"
name = "child"
drop = ["g"]

[[tensor]]
name = "w.{layer}"
role = "attn.q"
out = "query.{layer}"
in = "residual"
layout = "in-out"

[[tensor]]
name = "b"
role = "unembed.bias"
out = "vocab"
"""
    family = parse_family(child, {"small": tomllib.loads(SMALL)})
    assert [rule.name for rule in family.tensor] == ["w.{layer}", "b"]
    assert family.tensor[0].layout == "in-out"
    assert (family.summary, family.geometry["hidden"]) == ("one matrix", ("width",))


def test_a_group_is_exchangeable_where_declared_and_else_the_reason_is_given() -> None:
    small = parse_family(SMALL)
    assert small.exchangeable("residual") is None
    assert small.exchangeable("kv") == "heads slope by their number"
    assert small.exchangeable("ffn") == "not declared in the family table"


def test_a_child_declares_groups_beside_its_parents_and_over_them() -> None:
    child = 'extends = "small"\nname = "child"\n[labels]\nkv = "exchangeable"\nffn = "units are sorted"'
    family = parse_family(child, {"small": tomllib.loads(SMALL)})
    assert family.labels == {"residual": "exchangeable", "kv": "exchangeable", "ffn": "units are sorted"}


def test_every_shipped_table_declares_the_groups_that_it_has_tensors_of_and_no_other() -> None:
    for table in families():
        roles = {part.role for rule in table.tensor for part in rule.parts}
        there = {"ffn": "mlp.up", "kv": "attn.k", "expert": "moe.router"}
        assert set(table.labels) == {"residual", *(group for group, role in there.items() if role in roles)}, table.name


def test_shipped_tables_refuse_what_is_not_exchangeable() -> None:
    refused = {(table.name, group) for table in families() for group in table.labels if table.exchangeable(group)}
    # Upcycled experts, and fixed sinusoids (in one of SCEPTR's two tables).
    assert refused == {("qwen2_moe", "expert"), ("sceptr", "residual")}
    together = {(table.name, group) for table in families() for group in table.labels if table.together(group)}
    assert together == {("sceptr", "ffn"), ("sceptr", "kv")}


def test_a_child_cannot_drop_what_its_parent_lacks() -> None:
    with pytest.raises(ValueError, match="drops h, which small lacks"):
        parse_family('extends = "small"\nname = "child"\ndrop = ["h"]', {"small": tomllib.loads(SMALL)})


def test_keys_beside_a_name_are_shared_by_its_parts() -> None:
    fused = """
[[tensor]]
name = "gu"
in = "residual"
out = "vocab"
parts = [{ role = "unembed" }, { role = "embed.token" }]
"""
    rule = parse_family(SMALL + fused).tensor[-1]
    assert [(part.role, part.out, part.input) for part in rule.parts] == [
        ("unembed", "vocab", "residual"),
        ("embed.token", "vocab", "residual"),
    ]


def test_no_table_spells_one_tensor_twice_under_any_prefix() -> None:
    for table in families():
        for prefix in table.prefixes:
            spelled = [rule_skeleton(rule.name, prefix) for rule in table.tensor]
            assert len(set(spelled)) == len(spelled), table.name
