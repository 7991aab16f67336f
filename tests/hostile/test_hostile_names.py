"""Names that no model has: absurd numbers, depths and repetitions end in a view or in one line, never in a crash."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "architecture"))

from handmade import Headers
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView, view
from kinprint.errors import CheckpointError

MANY = 2000
CASES: dict[str, dict[str, tuple[int, ...]]] = {
    "no word is known": {f"a{i}.b.weight": (8, 8) for i in range(MANY)},
    "every layer is of its own kind": {f"layers.{i}.x{i}.self_attn.q_proj.weight": (8, 8) for i in range(MANY)},
    "all in one layer": {f"layers.0.w{i}.weight": (8, 8) for i in range(MANY)},
    "numbers inside a layer": {f"layers.0.ffn.{i}.weight": (8, 8) for i in range(MANY)},
    "a stack for each tensor": {f"p{i}.layers.0.self_attn.q_proj.weight": (8, 8) for i in range(MANY)},
    "layers in layers": {f"layers.0.layers.{i}.layers.{i % 7}.q_proj.weight": (8, 8) for i in range(MANY)},
    "experts without end": {f"layers.0.mlp.experts.{i}.gate_proj.weight": (8, 8) for i in range(MANY)},
    "five axes": {f"layers.{i}.self_attn.q_proj.weight": (2, 2, 2, 2, 2) for i in range(MANY)},
    "axes of length 0": {f"layers.{i}.self_attn.q_proj.weight": (0, 8) for i in range(4)},
    "no axes": {f"layers.{i}.self_attn.q_proj.weight": () for i in range(4)},
    "the dots alone": {"....": (8, 8), "layers.0.": (8, 8), ".": (8,), "layers..0..weight": (8, 8)},
    "a gap": {f"layers.{i}.self_attn.q_proj.weight": (8, 8) for i in (0, 999_999)},
}


def read(shapes: dict[str, tuple[int, ...]], config: dict[str, object]) -> ModelView | None:
    """Return what is seen, or None where a fault is said."""
    try:
        return view(Headers(shapes, config))
    except CheckpointError as error:
        assert str(error).count("\n") == 0  # noqa: PT017 - one line is the promise
        return None


@pytest.mark.parametrize("shapes", CASES.values(), ids=CASES)
def test_absurd_names_end_in_a_view_or_in_one_line(shapes: dict[str, tuple[int, ...]]) -> None:
    model = read(shapes, {})
    assert model is None or model.coverage <= 1.0


KNOWN = ("layers", "layer", "0", "1", "17", "self_attn", "q_proj", "k_proj", "mlp", "gate_up_proj", "experts", "norm1")
RARE = ("kv_b_proj", "linear_attn", "A_log", "encoder", "decoder", "vision_tower", "weight", "bias", "indexer")
STRANGE = ("#", "{layer}", "a b", "\u00e9%", "")
words = st.sampled_from(KNOWN + RARE + STRANGE)
names = st.lists(words, min_size=1, max_size=7).map(".".join)
shapes_of = st.lists(st.integers(0, 9), max_size=4).map(tuple)
configs = st.dictionaries(
    st.sampled_from(["model_type", "num_attention_heads", "num_hidden_layers", "qk_rope_head_dim", "n_head", "alibi"]),
    st.one_of(st.sampled_from(["falcon", "gpt_oss", "deepseek_v3", "mamba", True]), st.integers(-1, 9)),
)


@given(st.dictionaries(names, shapes_of, max_size=12), configs)
@settings(deadline=None, max_examples=300, derandomize=True)
def test_any_mixture_of_known_words_ends_in_a_view_or_in_one_line(
    shapes: dict[str, tuple[int, ...]], config: dict[str, object]
) -> None:
    model = read(shapes, config)
    for key in () if model is None else model.parts:
        assert all(length >= 0 for length in model.shape(key.role, key.layer, key.expert))
