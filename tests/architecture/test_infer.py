"""Roles from shapes and repetition: names may be anything, and what shapes cannot tell is left open or said."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Iterable
from typing import Any

import pytest
from handmade import Headers, Shapes, llama_shapes, moe_shapes, without
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import CASES
from unnamed import (
    by_skeleton,
    fairseq_shapes,
    family_of,
    headers,
    matrices,
    nonsense,
    read,
    roles,
    scrambled,
    torch_shapes,
    transformers_shapes,
    truth,
    unnumbered,
    unscrambled,
)

from kinprint.architecture import UNKNOWN, Family
from kinprint.architecture.family import INFERRED
from kinprint.architecture.inference import infer, inferred_names, inferred_notes
from kinprint.architecture.recognise import view as recognised

ORDER_ALONE = {"attn.q", "attn.k", "attn.v"}
OPT: dict[str, Any] = {
    "vocab_size": 41,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "ffn_dim": 20,
    "max_position_embeddings": 16,
    "word_embed_proj_dim": 24,
}
READ_RIGHT = (
    "llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2", "gemma3", "olmo2", "exaone4", "gpt2", "gpt_bigcode",
    "gpt_neox", "bert", "bert-mlm", "bert-pretraining", "bert-classifier", "mixtral", "qwen2_moe", "qwen3_moe",
    "olmoe", "glm4_moe",
)  # fmt: skip
SOME_DENSE = {"qwen2_moe", "qwen3_moe", "glm4_moe"}
"""In their two layers nothing repeats."""


def of(case: str) -> tuple[Shapes, dict[str, Any]]:
    found = CASES[case]
    return transformers_shapes(found.model, found.config, **found.settings)


# -- what is read --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", READ_RIGHT)
def test_matrices_play_the_roles_that_their_family_table_gives_them(case: str) -> None:
    shapes, config = of(case)
    assert matrices(unscrambled(shapes, config)) == truth(shapes, config)


@pytest.mark.parametrize("case", [case for case in READ_RIGHT if case not in SOME_DENSE])
def test_layers_are_found_in_the_order_of_the_file_where_no_name_has_a_number(case: str) -> None:
    shapes, config = of(case)
    found = unnumbered(shapes)
    assert found is not None
    assert matrices(found) == truth(shapes, config)


def test_numbered_experts_are_found_where_no_name_has_a_number() -> None:
    listed = moe_shapes(4).items()
    layers = [f".layers.{layer}." for layer in range(4)]
    shapes = without(moe_shapes(4), ".layers.") | {name: shape for at in layers for name, shape in listed if at in name}
    found = unnumbered(shapes)
    assert found is not None
    assert matrices(found) == truth(shapes, {"num_attention_heads": 4})


def test_layers_of_which_nothing_repeats_are_not_found_without_numbers() -> None:
    assert unnumbered(of("qwen2_moe")[0]) is None


@pytest.mark.parametrize("hidden", [False, True])
def test_opts_order_of_projections_is_read_as_the_common_one_and_said(hidden: bool) -> None:
    shapes, config = transformers_shapes("OPTForCausalLM", "OPTConfig", **OPT)
    found = unnumbered(shapes) if hidden else unscrambled(shapes, config)
    assert found is not None
    known = truth(shapes, config)
    assert known.keys() == matrices(found).keys()
    for name, parts in known.items():
        if {role.removesuffix(".bias") for role, _, _ in parts} <= ORDER_ALONE:
            assert {role.removesuffix(".bias") for role, _, _ in found[name]} <= ORDER_ALONE
        else:
            assert set(found[name]) == parts
    notes = inferred_notes(family_of(shapes))
    assert "attn.q, attn.k, attn.v and attn.o have one shape and are told apart by their order" in notes


def test_torchs_encoder_has_fused_attention_and_a_plain_mlp() -> None:
    found = unscrambled(torch_shapes("encoder"))
    fused = (("attn.q", 1, None), ("attn.k", 1, None), ("attn.v", 1, None))
    assert found["layers.1.self_attn.in_proj_weight"] == fused
    assert found["layers.1.self_attn.in_proj_bias"] == tuple((f"{role}.bias", *at) for role, *at in fused)
    assert found["layers.2.self_attn.out_proj.weight"] == (("attn.o", 2, None),)
    assert found["layers.0.linear1.weight"] == (("mlp.up", 0, None),)
    assert found["layers.0.linear2.bias"] == (("mlp.down.bias", 0, None),)
    assert not any(".norm" in name for name in found)  # before or behind the additions: nothing tells
    assert family_of(torch_shapes("encoder")).norm == "layer"


def test_of_torchs_encoder_and_decoder_the_larger_is_read_and_its_second_attention_is_to_another_stream() -> None:
    found = unscrambled(torch_shapes("both"))
    assert all(name.startswith("decoder.layers.") for name in found)
    assert [part[0] for part in found["decoder.layers.2.self_attn.in_proj_weight"]] == ["attn.q", "attn.k", "attn.v"]
    assert [part[0] for part in found["decoder.layers.2.multihead_attn.in_proj_weight"]] == [
        "cross.q", "cross.k", "cross.v",
    ]  # fmt: skip
    assert found["decoder.layers.2.multihead_attn.out_proj.weight"] == (("cross.o", 2, None),)


def test_fairseqs_encoder_is_read_with_its_position_table_and_its_output() -> None:
    found = unscrambled(fairseq_shapes())
    at = "encoder.sentence_encoder."
    assert found[f"{at}embed_tokens.weight"] == (("embed.token", None, None),)
    assert found[f"{at}embed_positions.weight"] == (("embed.position", None, None),)
    assert found["encoder.lm_head.weight"] == (("unembed", None, None),)
    assert found[f"{at}layers.1.fc1.weight"] == (("mlp.up", 1, None),)
    assert found[f"{at}layers.1.fc2.weight"] == (("mlp.down", 1, None),)
    assert found[f"{at}layers.1.self_attn.out_proj.bias"] == (("attn.o.bias", 1, None),)


def test_norms_are_placed_where_they_stand_before_attention() -> None:
    found = unscrambled(of("gpt2")[0])
    assert found["transformer.h.1.ln_1.weight"] == (("norm.attn", 1, None),)
    assert found["transformer.h.1.ln_2.bias"] == (("norm.mlp.bias", 1, None),)
    assert found["transformer.ln_f.weight"] == (("norm.final", None, None),)
    family = family_of(of("gpt2")[0])
    (fused,) = [rule for rule in family.tensor if len(rule.parts) == 3 and not rule.vector]
    assert (family.norm, fused.layout, fused.parts[0].reads) == ("layer", "in-out", "norm.attn")


def test_a_file_that_was_sorted_by_name_is_read_in_that_order() -> None:
    shapes = llama_shapes()
    for layer in range(2):
        shapes |= {f"model.layers.{layer}.self_attn.{name}_proj.weight": (8, 8) for name in "qo"}
        shapes |= {f"model.layers.{layer}.self_attn.{name}_proj.weight": (4, 8) for name in "kv"}
    found = unscrambled(dict(sorted(shapes.items())))
    assert matrices(found) == truth(shapes, {"num_attention_heads": 4})


def test_embedding_and_output_are_told_apart_by_their_order_and_that_is_said() -> None:
    shapes = fairseq_shapes()
    said = "embed.token and unembed have one shape and are told apart by their order"
    assert inferred_notes(family_of(shapes))[-1] == said
    assert not any("embed" in note for note in inferred_notes(family_of(without(shapes, "lm_head"))))
    by_name = inferred_notes(family_of(dict(sorted(llama_shapes().items()))))
    assert by_name[-1] == "unembed and embed.token have one shape and are told apart by their order"


# -- one answer worked out by hand ---------------------------------------------------------------------------------


def test_a_layer_worked_out_by_hand() -> None:
    """Width 8 is in all seven matrices; 16 is read and written once (q, o), 12 read twice and written once (MLP)."""
    shapes: Shapes = {}
    for layer in range(2):
        listed = ((8,), (16, 8), (4, 8), (4, 8), (8, 16), (8,), (12, 8), (12, 8), (8, 12))
        shapes |= {f"x.{layer}.y{at}": shape for at, shape in enumerate(listed)}
    family = family_of(shapes)
    assert [part[0] for name, parts in roles(family, shapes).items() for part in parts if name.startswith("x.1.")] == [
        "attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down", "norm.attn", "norm.mlp",
    ]  # fmt: skip
    assert (family.name, family.labels, family.ffn, family.norm) == (INFERRED, {}, "gated", "rms")
    assert inferred_notes(family) == (
        "2 layers, counted by what repeats with the same shapes",
        "width 8, the length that most of their matrices share",
        "attn.k and attn.v have one shape and are told apart by their order",
        "mlp.gate and mlp.up have one shape and are told apart by their order",
        "norms taken to stand before attention and MLP",
    )


def test_experts_numbered_or_stacked_are_told_with_their_router() -> None:
    found = unscrambled(moe_shapes())
    assert found["model.layers.1.mlp.experts.2.up_proj.weight"] == (("moe.up", 1, 2),)
    assert found["model.layers.1.mlp.gate.weight"] == (("moe.router", 1, None),)
    stacked = {name: shape for name, shape in moe_shapes().items() if ".experts." not in name}
    for layer in range(2):
        stacked[f"model.layers.{layer}.mlp.experts.gate_up_proj"] = (3, 8, 12)
        stacked[f"model.layers.{layer}.mlp.experts.down_proj"] = (3, 6, 8)
    family = family_of(scrambled(stacked))
    (rule,) = [rule for rule in family.tensor if len(rule.parts) == 2]
    assert (rule.stacked, rule.layout, [part.role for part in rule.parts]) == (True, "in-out", ["moe.gate", "moe.up"])


def test_the_layout_of_a_plain_mlp_is_told_by_its_biases_alone() -> None:
    shapes: Shapes = {}
    for layer in range(2):
        at = f"x.{layer}."
        shapes |= {f"{at}{word}.w": (8, 8) for word in "abcd"}
        shapes |= {f"{at}e.w": (8, 12), f"{at}f.w": (12, 8)}
    assert roles(read(shapes), shapes)["x.0.e.w"][0][0] == "mlp.down"
    assert any("outputs first" in note for note in inferred_notes(family_of(shapes)))
    turned = shapes | {f"x.{layer}.e.b": (12,) for layer in range(2)}
    assert roles(read(turned), turned)["x.0.e.w"][0][0] == "mlp.up"
    assert not any("outputs first" in note for note in inferred_notes(family_of(turned)))


# -- what it ignores -----------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30, derandomize=True)
@given(salt=st.text(max_size=8), case=st.sampled_from(["llama", "moe", "torch", "fairseq"]))
def test_words_have_no_part_in_it(salt: str, case: str) -> None:
    shapes = {
        "llama": llama_shapes,
        "moe": moe_shapes,
        "torch": lambda: torch_shapes("both"),
        "fairseq": fairseq_shapes,
    }[case]()
    hidden = scrambled(shapes, salt)
    expected = roles(read(shapes), shapes)
    assert expected
    assert roles(read(hidden), hidden) == {nonsense(name, salt): parts for name, parts in expected.items()}


def gated(name: str, layers: int, ffn: int, width: int = 8) -> Shapes:
    """Layers of a norm, whose length tells the width, and a gated MLP."""
    listed = (("n", (width,)), ("g", (ffn, width)), ("u", (ffn, width)), ("d", (width, ffn)))
    return {name.format(layer=layer, word=word): shape for layer in range(layers) for word, shape in listed}


def named_in(order: Iterable[str], shapes: Shapes) -> Family | None:
    """What is read of tensors in one order whose names come in another."""
    return infer(by_skeleton({name: shapes[name] for name in order}), headers(shapes), {})


@pytest.mark.parametrize("layout", ["{name}.{layer}.{word}", "{name}{word}.{layer}"])
@pytest.mark.parametrize("names", ["ab", "ba"])
def test_of_two_equal_stacks_the_first_in_the_file_is_read_whatever_their_names(layout: str, names: str) -> None:
    first, second = (layout.replace("{name}", name) for name in names)
    two, three = gated(first, layers=2, ffn=20, width=12), gated(second, layers=3, ffn=20)  # 1464 elements each
    for shapes, name in ((two | three, first), (three | two, second)):
        family = family_of(shapes)
        assert {rule.name for rule in family.tensor} == {name.format(layer="{layer}", word=word) for word in "ngud"}
        assert named_in(reversed(shapes), shapes) == family


@settings(deadline=None, max_examples=30, derandomize=True)
@given(data=st.data(), shapes=st.sampled_from([llama_shapes(), moe_shapes(), fairseq_shapes()]))
def test_the_order_of_names_has_no_part_in_it(data: st.DataObject, shapes: Shapes) -> None:
    order = data.draw(st.permutations(list(shapes)))
    assert named_in(order, shapes) == family_of(shapes)
    hidden = {f"t_{at}": shape for at, shape in enumerate(shapes.values())}
    found = inferred_names(by_skeleton(hidden), headers(hidden))
    again = inferred_names(
        by_skeleton({name: hidden[name] for name in data.draw(st.permutations(list(hidden)))}), headers(hidden)
    )
    assert found is not None
    assert again is not None
    assert list(again.items()) == list(found.items())


@pytest.mark.parametrize(
    "extra",
    [("alone", (7, 5)), ("alone", ()), ("alone", (3, 1, 4, 1, 5)), ("alone.weight", (8,) * 2), ("a.0.b", (4, 4))],
)
def test_an_unrelated_tensor_changes_no_role(extra: tuple[str, tuple[int, ...]]) -> None:
    shapes = llama_shapes()
    more = {**shapes, extra[0]: extra[1]}
    assert roles(read(more), more) == roles(read(shapes), shapes)


def test_numbers_may_stand_anywhere_in_names() -> None:
    shapes = llama_shapes(4)
    moved = {f"w{name.replace('.', '_')}": shape for name, shape in shapes.items()}
    assert read(moved) is None
    renamed = inferred_names(by_skeleton(moved), headers(moved))
    assert renamed is not None
    seen = {new: moved[old] for old, new in renamed.items()}
    back = {renamed[f"w{name.replace('.', '_')}"]: name for name in shapes}
    assert {back[name]: parts for name, parts in roles(read(seen), seen).items()} == roles(read(shapes), shapes)
    behind: Shapes = {}
    for name, shape in shapes.items():
        words = name.split(".")
        behind[".".join([*words[3:], words[2]]) if words[1] == "layers" else name] = shape
    assert sorted(part[0] for parts in roles(read(behind), behind).values() for part in parts) == sorted(
        part[0] for parts in roles(read(shapes), shapes).values() for part in parts
    )


def test_numbers_may_stand_at_the_end_of_words_that_tell_the_matrices_apart() -> None:
    shapes = llama_shapes(4)
    moved = {re.sub(r"^model.layers.(\d+).(.*)", r"\2_\1", name).replace(".", "_"): name for name in shapes}
    seen = {name: shapes[moved[name]] for name in sorted(moved)}
    renamed = inferred_names(by_skeleton(seen), headers(seen))
    assert renamed is not None
    numbered = {new: shapes[moved[old]] for old, new in renamed.items()}
    found = roles(read(numbered), numbered)
    assert {old for old, new in renamed.items() if new in found} > {f"mlp_gate_proj_weight_{at}" for at in range(4)}
    assert found[renamed["mlp_down_proj_weight_3"]] == (("mlp.down", 3, None),)


def test_layers_listed_matrix_by_matrix_are_found() -> None:
    order = list(dict.fromkeys(name.split(".", 3)[3] for name in llama_shapes(5) if ".layers." in name))
    by_matrix = {f"model.layers.{layer}.{word}": None for word in order for layer in range(5)}
    shapes = {name: llama_shapes(5)[name] for name in ("model.embed_tokens.weight", *by_matrix)}
    found = unnumbered(shapes)
    assert found is not None
    assert found["model.layers.3.self_attn.v_proj.weight"] == (("attn.v", 3, None),)
    assert found["model.layers.4.mlp.gate_proj.weight"] == (("mlp.gate", 4, None),)


# -- what it notices -----------------------------------------------------------------------------------------------


def played(shapes: Shapes) -> set[str]:
    """Roles that matrices have."""
    return {part[0] for parts in matrices(roles(read(shapes), shapes)).values() for part in parts}


@pytest.mark.parametrize(
    "shapes",
    [
        {},
        llama_shapes(1),
        without(llama_shapes(), "q_proj", "gate_proj", "up_proj"),
        {f"x.{layer}.{word}": shape for layer in range(3) for word, shape in (("a", (4, 8)), ("b", (8, 4)))},
        {f"x.{layer}.w": (8, 8) for layer in range(3)},
        {f"x.{layer}.{word}": (8, 8) for layer in range(3) for word in "abcde"},
    ],
    ids=["nothing", "one layer", "too few matrices", "adapters", "one matrix", "five squares"],
)
def test_what_is_no_stack_of_layers_has_no_family(shapes: Shapes) -> None:
    assert read(shapes) is None
    assert inferred_names(by_skeleton(shapes), headers(shapes)) is None


def test_a_file_in_random_order_is_left_alone() -> None:
    shapes = list(llama_shapes(6).values())
    random.Random(1).shuffle(shapes)
    hidden = {f"t_{at}": shape for at, shape in enumerate(shapes)}
    assert inferred_names(by_skeleton(hidden), headers(hidden)) is None


def test_a_third_matrix_of_the_shape_of_k_and_v_leaves_attention_without_roles() -> None:
    shapes = llama_shapes(ffn=40) | {f"model.layers.{layer}.self_attn.r_proj.weight": (8, 8) for layer in range(2)}
    assert played(shapes) == {"embed.token", "unembed", "mlp.gate", "mlp.up", "mlp.down"}


def test_a_state_space_block_is_no_gated_mlp() -> None:
    shapes: Shapes = {}
    for layer in range(3):
        at = f"x.{layer}."
        shapes |= {f"{at}in": (64, 16), f"{at}conv": (32, 1, 4), f"{at}x": (12, 32), f"{at}out": (16, 32)}
    assert read(shapes) is None


@pytest.mark.parametrize("more", [{"conv": (12, 1, 4)}, {"x": (5, 12)}], ids=["a convolution", "a second reader"])
def test_what_shares_an_mlps_own_length_takes_its_roles(more: Shapes) -> None:
    shapes = llama_shapes(ffn=12)
    beside = {f"model.layers.{layer}.{word}": shape for layer in range(2) for word, shape in more.items()}
    assert played(shapes) - played(shapes | beside) == {"mlp.gate", "mlp.up", "mlp.down"}


def fused(layers: int = 3) -> Shapes:
    """Four query heads and one of k and v in one tensor of 4 * 4 + 2 * 4 rows, and a gated MLP that holds more."""
    mlp = gated("x.{layer}.{word}", layers, ffn=32)
    return mlp | {f"x.{at}.{word}": shape for at in range(layers) for word, shape in (("i", (24, 8)), ("o", (8, 16)))}


def test_fused_attention_beside_two_more_of_one_shape_or_other_rows_in_another_layer_has_no_roles() -> None:
    mlp = {"mlp.gate", "mlp.up", "mlp.down"}
    assert played(fused()) == mlp | {"attn.q", "attn.k", "attn.v", "attn.o"}
    assert played(fused() | {f"x.{layer}.{word}": (4, 8) for layer in range(3) for word in "kv"}) == mlp
    assert played(fused() | {"x.2.i": (32, 8), "x.2.o": (8, 16)}) == mlp


def test_experts_with_gaps_or_of_which_layers_have_more_or_fewer_have_no_roles() -> None:
    experts = {"moe.gate", "moe.up", "moe.down"}
    assert experts <= played(moe_shapes())
    assert not experts & played(without(moe_shapes(), "mlp.experts.1."))
    assert not experts & played(without(moe_shapes(), "layers.1.mlp.experts.2.", "layers.1.mlp.gate"))


def test_heads_that_the_config_contradicts_leave_attention_without_roles() -> None:
    shapes = llama_shapes(ffn=40)
    assert "attn.q" in {part[0] for parts in roles(read(shapes, {"n_head": 4}), shapes).values() for part in parts}
    family = read(shapes, {"n_head": 7})
    assert family is not None
    found = {part.role for rule in family.tensor for part in rule.parts}
    assert not any(role.startswith("attn.") for role in found)
    assert "mlp.gate" in found
    assert read(shapes, {"n_layer": 3}) is None


def test_norms_on_both_sides_and_norms_as_long_as_all_heads_get_no_role() -> None:
    for case in ("gemma2", "olmo2", "olmoe"):
        found = {part[0] for parts in unscrambled(of(case)[0]).values() for part in parts}
        assert not {"norm.attn", "norm.mlp", "norm.final"} & found
    assert {"norm.attn", "norm.q", "norm.k"} <= {
        part[0] for parts in unscrambled(of("qwen3")[0]).values() for part in parts
    }


@pytest.mark.parametrize("name", ["x.{layer}.w", "x.#.w", "{p}w", "x.0.{expert}", "", ".", "0", "0.0", "x.00.w"])
def test_names_that_spell_the_signs_of_tables_do_no_harm(name: str) -> None:
    shapes = {**llama_shapes(), name: (8, 8)}
    assert roles(read(shapes), shapes) == roles(read(llama_shapes()), llama_shapes())


def test_one_number_in_two_spellings_leaves_the_tensor_without_a_role() -> None:
    shapes = {**llama_shapes(), "model.layers.01.mlp.up_proj.weight": (12, 8)}
    found = roles(read(shapes), shapes)
    assert "model.layers.1.mlp.up_proj.weight" not in found
    assert found["model.layers.1.self_attn.q_proj.weight"] == (("attn.q", 1, None),)


@settings(deadline=None, max_examples=150, derandomize=True)
@given(
    st.dictionaries(
        st.one_of(
            st.text(alphabet="ab01.{}#_", max_size=8), st.builds("x.{}.{}".format, st.integers(0, 3), st.text("abc"))
        ),
        st.lists(st.sampled_from([0, 1, 2, 4, 8, 12, 2**62]), max_size=5).map(tuple),
        max_size=24,
    )
)
def test_nothing_is_raised_whatever_names_and_shapes(shapes: Shapes) -> None:
    read(shapes, {"num_attention_heads": 2})
    renamed = inferred_names(by_skeleton(shapes), headers(shapes))
    assert renamed is None or len(set(renamed.values())) == len(shapes)


def test_two_names_never_become_one() -> None:
    shapes: Shapes = {}
    for layer in range(3):
        shapes |= {f"x{layer}.a": (12, 8), f"x{layer}a": (12, 8), f"x{layer}.b": (12, 8), f"x{layer}.c": (8, 12)}
        shapes[f"x{layer}.n"] = (8,)
    renamed = inferred_names(by_skeleton(shapes), headers(shapes))
    assert renamed is not None
    assert renamed["x1.a"] != renamed["x1a"]


def test_the_time_grows_with_the_tensors_and_not_with_their_square() -> None:
    def seconds(count: int) -> float:
        rng = random.Random(0)
        shapes = {f"x.{at % 40}.w{at}": (8 * rng.randrange(1, 30), 8) for at in range(count)}
        names, tensors = by_skeleton(shapes), headers(shapes)
        started = time.process_time()
        infer(names, tensors, {})
        inferred_names(names, tensors)
        return time.process_time() - started

    seconds(100)
    assert seconds(6_000) < 15 * max(seconds(1_000), 0.02)  # 6 times the tensors; a square would be 36 times


def test_a_family_that_names_speak_for_has_no_such_notes() -> None:
    assert inferred_notes(UNKNOWN) == ()
    assert inferred_notes(recognised(Headers(llama_shapes(), {})).family) == ()
