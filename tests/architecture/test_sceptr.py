"""SCEPTR's encoders: names as published, and a forward pass of our own that the generated transformations must keep.

Axes: T = tokens, F = features, D = residual stream, U = MLP units, H = heads, E = coordinates of one head.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from handmade import Headers, Shapes, filled, without

from kinprint.architecture import view
from kinprint.checkpoint import Array, MemoryCheckpoint
from kinprint.errors import CheckpointError
from kinprint.transform import ModelState, preserve

STACK = "_self_attention_stack._self_attention_stack."
PROJECTED = "_self_attention_stack._standard_stack._self_attention_stack."
SINUSOIDS = "_token_embedder.position_embedding.position_embedding_matrix"
HEADS = 4
KEPT = ["residual-permutation", "ffn-permutation", "kv-group-permutation", "vo-gauge", "qk-gauge"]


def config(heads: int = HEADS, layers: int = 2, width: int = 8) -> dict[str, Any]:
    sizes = {"nhead": heads, "num_layers": layers, "d_model": width}
    return {"model": {"self_attention_stack": {"class": "SelfAttentionStack", "initargs": sizes}}}


def encoder(prefix: str, width: int, layers: int) -> Shapes:
    shapes: Shapes = {}
    for layer in range(layers):
        at = f"{prefix}layers.{layer}."
        shapes |= {
            f"{at}self_attn.in_proj_weight": (3 * width, width),
            f"{at}self_attn.in_proj_bias": (3 * width,),
            f"{at}self_attn.out_proj.weight": (width, width),
            f"{at}linear1.weight": (4 * width, width),
            f"{at}linear1.bias": (4 * width,),
            f"{at}linear2.weight": (width, 4 * width),
        }
        vectors = (
            "self_attn.out_proj.bias",
            "linear2.bias",
            "norm1.weight",
            "norm1.bias",
            "norm2.weight",
            "norm2.bias",
        )
        shapes |= {f"{at}{name}": (width,) for name in vectors}
    head = "_mlm_token_prediction_projector.projector."
    return {**shapes, f"{head}weight": (20, width), f"{head}bias": (20,)}


def sceptr(width: int = 8, layers: int = 2) -> Shapes:
    """One-hot features: 22 tokens, the place in the loop, 6 loops."""
    return {
        "_token_embedder._token_embedding._token_embeddings": (23, 22),
        "_token_embedder._compartment_embedding._token_embeddings": (7, 6),
        "_self_attention_stack._initial_projector.weight": (width, 29),
        **encoder(PROJECTED, width, layers),
    }


def blosum() -> Shapes:
    return {
        **without(sceptr(), "_token_embedding."),
        "_token_embedder._blosum_embedding._blosum_embeddings": (23, 20),
        "_token_embedder._blosum_embedding._special_token_embeddings.weight": (3, 20),
        "_self_attention_stack._initial_projector.weight": (8, 27),
    }


def left_aligned() -> Shapes:
    return {
        "_token_embedder.token_embedding.weight": (23, 8),
        SINUSOIDS: (11, 8),
        "_token_embedder.compartment_embedding.weight": (7, 8),
        **encoder(STACK, 8, 2),
    }


@pytest.mark.parametrize(
    ("shapes", "embedded"),
    [
        (sceptr(), {"embed.input"}),
        (blosum(), {"embed.input", "embed.special"}),
        (left_aligned(), {"embed.token", "embed.position", "embed.type"}),
    ],
)
def test_every_way_of_embedding_is_recognised_whole(shapes: Shapes, embedded: set[str]) -> None:
    model = view(Headers(shapes, config(), dtype="F32"))
    assert (model.family.name, model.family.norm, model.family.placement) == ("sceptr", "layer", "post")
    assert (model.coverage, model.unmapped) == (1.0, ())
    assert {role for role in model.roles if role.startswith("embed.")} == embedded
    assert [model.shape(f"attn.{part}", 1) for part in "qkvo"] == [(8, 8)] * 4


@pytest.mark.parametrize(("width", "layers", "heads"), [(8, 2, 4), (16, 3, 8), (128, 4, 8)])
def test_any_width_is_recognised_and_the_heads_come_from_the_config(width: int, layers: int, heads: int) -> None:
    sizes = view(Headers(sceptr(width, layers), config(heads, layers, width))).geometry
    assert (sizes.hidden, sizes.layers, sizes.ffn) == (width, layers, 4 * width)
    assert (sizes.heads, sizes.kv_heads, sizes.head_dim, sizes.inferred) == (heads, heads, width // heads, ())


def test_a_config_of_another_width_is_refused() -> None:
    with pytest.raises(CheckpointError, match="config says hidden = 16, the tensors have 8"):
        view(Headers(sceptr(), config(width=16)))


def test_constants_are_no_parameters_but_sinusoids_in_the_stream_must_move_with_it() -> None:
    assert len(view(Headers(sceptr(), config())).ignored) == 2
    assert len(view(Headers(blosum(), config())).ignored) == 2
    left = view(Headers(left_aligned(), config()))
    assert (left.ignored, left.tensor_name("embed.position")) == ({}, SINUSOIDS)


def test_another_torch_encoder_is_not_taken_for_one() -> None:
    """Where its norms stand is written nowhere in it: torch's default is taken, and nothing is folded or declared."""
    shapes = {name.replace("_self_attention_stack.", "encoder."): shape for name, shape in left_aligned().items()}
    found = view(Headers(shapes, config()))
    assert (found.family.name, found.family.placement) == ("generic", "post")
    assert not any(place.part.reads for place in found.parts.values())
    assert found.family.exchangeable("residual") is not None


def test_exact_tests_are_left_to_a_stream_without_sinusoids() -> None:
    features, left = (view(Headers(shapes, config())).family for shapes in (sceptr(), left_aligned()))
    assert features.exchangeable("residual") is None
    assert "sinusoids" in str(left.exchangeable("residual"))
    assert features.exchangeable("ffn") is None
    assert features.together("ffn")
    assert not features.together("residual")


# -- what the axes promise -----------------------------------------------------------------------------------------


def drawn(shapes: Shapes) -> dict[str, Array]:
    """Weights small enough that attention looks at more than one token; float64, to tell rounding from change."""
    return {stored: array.astype(np.float64) * 0.5 for stored, array in filled(shapes).items()}


def normed(x_TD: Array, tensors: Mapping[str, Array], name: str) -> Array:
    centred_TD = x_TD - x_TD.mean(axis=1, keepdims=True)
    scaled_TD = centred_TD / np.sqrt((centred_TD**2).mean(axis=1, keepdims=True) + 1e-5)
    return scaled_TD * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]


def attended(x_TD: Array, tensors: Mapping[str, Array], at: str) -> Array:
    size, width = x_TD.shape
    qkv_TD = x_TD @ tensors[f"{at}.in_proj_weight"].T + tensors[f"{at}.in_proj_bias"]
    q_HTE, k_HTE, v_HTE = qkv_TD.reshape(size, 3, HEADS, width // HEADS).transpose(1, 2, 0, 3)
    raw_HTT = q_HTE @ k_HTE.transpose(0, 2, 1) / math.sqrt(width // HEADS)
    scores_HTT = np.exp(raw_HTT - raw_HTT.max(axis=2, keepdims=True))
    mixed_HTE = scores_HTT / scores_HTT.sum(axis=2, keepdims=True) @ v_HTE
    joined_TD = mixed_HTE.transpose(1, 0, 2).reshape(size, width)
    return joined_TD @ tensors[f"{at}.out_proj.weight"].T + tensors[f"{at}.out_proj.bias"]


def logits(tensors: Mapping[str, Array], prefix: str) -> Array:
    """Return what the masked amino acids are thought to be, [T, 20], for ten inputs."""
    projector = tensors.get("_self_attention_stack._initial_projector.weight")
    if projector is not None:
        x_TD = np.random.default_rng(5).standard_normal((10, projector.shape[1])) @ projector.T
    else:
        x_TD = tensors["_token_embedder.token_embedding.weight"][:10] + tensors[SINUSOIDS][1:]
        x_TD = x_TD + tensors["_token_embedder.compartment_embedding.weight"][np.arange(10) % 7]
    for layer in range(2):
        at = f"{prefix}layers.{layer}."
        x_TD = normed(x_TD + attended(x_TD, tensors, f"{at}self_attn"), tensors, f"{at}norm1")
        units_TU = np.maximum(x_TD @ tensors[f"{at}linear1.weight"].T + tensors[f"{at}linear1.bias"], 0)
        x_TD = normed(
            x_TD + units_TU @ tensors[f"{at}linear2.weight"].T + tensors[f"{at}linear2.bias"], tensors, f"{at}norm2"
        )
    head = "_mlm_token_prediction_projector.projector."
    return x_TD @ tensors[f"{head}weight"].T + tensors[f"{head}bias"]


@pytest.mark.parametrize(("shapes", "prefix"), [(sceptr(), PROJECTED), (left_aligned(), STACK)])
@pytest.mark.parametrize("name", KEPT)
def test_logits_stay_and_weights_move(shapes: Shapes, prefix: str, name: str) -> None:
    before = drawn(shapes)
    state = ModelState.from_view(view(MemoryCheckpoint(before, config=config())))
    moved = preserve(state, [name], np.random.default_rng(3)).checkpoint(np.float64)
    after = {stored: np.asarray(moved.read(stored)) for stored in moved.tensors}
    assert after.keys() == before.keys()
    np.testing.assert_allclose(logits(after, prefix), logits(before, prefix), atol=1e-9)
    at = f"{prefix}layers.1."
    changed = "linear2.weight" if name == "ffn-permutation" else "self_attn.out_proj.weight"
    if name == "qk-gauge":
        changed = "self_attn.in_proj_weight"
    assert not np.allclose(after[at + changed], before[at + changed])


def test_sinusoids_left_where_they_were_would_change_the_logits() -> None:
    before = drawn(left_aligned())
    state = ModelState.from_view(view(MemoryCheckpoint(before, config=config())))
    moved = preserve(state, ["residual-permutation"], np.random.default_rng(3)).checkpoint(np.float64)
    after = {stored: np.asarray(moved.read(stored)) for stored in moved.tensors}
    assert not np.allclose(logits({**after, SINUSOIDS: before[SINUSOIDS]}, STACK), logits(before, STACK), atol=0.01)
