"""Layers and widths taken away where calibration text says that they matter least."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from kinprint.errors import UsageError
from kinprint.transform.cutting import with_groups, with_units
from kinprint.transform.sizes import resized
from kinprint.zoo import networks
from kinprint.zoo.model import Model
from kinprint.zoo.recipes import Form
from kinprint.zoo.structured import KINDS, DepthCut, WidthCut, block_influence, narrowed, shortened
from kinprint.zoo.train import held_out_loss, held_out_rows
from support.small import FORMS, context, drawn, text, trained


def with_idle_layer(model: Model, layer: int) -> Model:
    """A layer that adds nothing to the stream."""
    idle = [f"model.layers.{layer}.self_attn.o_proj.weight", f"model.layers.{layer}.mlp.down_proj.weight"]
    return replace(model, weights={**model.weights, **{name: np.zeros_like(model.weights[name]) for name in idle}})


AXES = {"residual": {"residual"}, "ffn": {"ffn"}, "groups": {"query", "key", "value", "context"}}


def widened(model: Model, what: str) -> Model:
    """Twice the residual coordinates, MLP units or key/value heads; the first half is new and adds nothing."""
    rng, state = np.random.default_rng(0), model.state()

    def pad(array: np.ndarray, position: int, key: object) -> np.ndarray:
        role = str(key).partition("@")[0]
        axis = state.axes(key)[position].partition(".")[0]  # type: ignore[arg-type]
        silent = {"residual": {"embed.token", "attn.o", "mlp.down"}, "ffn": {"mlp.down"}, "context": {"attn.o"}}
        new = np.zeros_like(array) if role in silent.get(axis, set()) else 0.3 * rng.standard_normal(array.shape)
        return np.concatenate([np.ones_like(array) if role.startswith("norm.") else new, array], axis=position)

    for axis in state.axis_names():
        if axis.partition(".")[0] in AXES[what]:
            state = state.mapped(axis, pad)
    sizes = {"residual": {"hidden": 32}, "ffn": {"ffn": 32}, "groups": {"heads": 4, "kv_heads": 2}}
    return model.with_state(resized(state, {"head_dim": 8, **sizes[what]}))  # type: ignore[dict-item]


def shapes(model: Model) -> dict[str, tuple[int, ...]]:
    return {name: array.shape for name, array in model.weights.items()}


def test_a_layer_that_adds_nothing_has_no_influence_and_goes_first() -> None:
    model = with_idle_layer(drawn(layers=3), 1)
    influence = block_influence(model, held_out_rows(model, text())[:2, :-1])
    # 1e-12: a cosine of a float32 vector with itself, in float64.
    assert abs(influence[1]) < 1e-12
    assert influence[[0, 2]].min() > 1e-3
    shorter = shortened(model, DepthCut(count=1, rows=2), context())
    assert shorter.config["num_hidden_layers"] == 2
    for new, old in ((0, 0), (1, 2)):
        name = "model.layers.{}.mlp.up_proj.weight"
        np.testing.assert_array_equal(shorter.weights[name.format(new)], model.weights[name.format(old)])


def test_influence_is_one_less_the_mean_cosine_of_neighbouring_hidden_states() -> None:
    model = drawn(layers=3)
    rows = held_out_rows(model, text())[:2, :-1]
    with networks.reproducible() as torch, torch.no_grad():
        outputs = networks.load(model)(input_ids=torch.from_numpy(rows), output_hidden_states=True)
        # The last of them is behind the final norm: it is no layer's output.
        states = [state.double().numpy() for state in outputs.hidden_states[:-1]]
    cosines = [
        (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1) for a, b in itertools.pairwise(states)
    ]
    # 1e-9: both in float64, from the same float32 states.
    np.testing.assert_allclose(block_influence(model, rows)[:2], [1 - cosine.mean() for cosine in cosines], atol=1e-9)


def test_taking_every_layer_away_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot take away 2 of 2 layers: lower count"):
        shortened(drawn(), DepthCut(count=2, rows=1), context())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_can_lose_a_layer(form: Form) -> None:
    shorter = shortened(drawn(form), DepthCut(count=1, rows=1), context())
    assert np.isfinite(held_out_loss(shorter, text()[-2000:]))


def test_masks_find_the_coordinates_of_the_stream_that_were_added() -> None:
    model, wide = trained(), widened(trained(), "residual")
    cut = narrowed(wide, WidthCut(residual=0.5, ffn=1, steps=100, warmup=20), context())
    for name, array in model.weights.items():
        # 1e-7: a float32 through float64 and back is the same.
        np.testing.assert_allclose(cut.weights[name], array, rtol=0, atol=1e-7, err_msg=name)


@pytest.mark.parametrize("what", ["ffn", "groups"])
def test_masks_keep_most_of_the_units_and_heads_that_the_model_needs(what: str) -> None:
    wide = widened(trained(), what)
    cut = narrowed(wide, WidthCut.model_validate({"residual": 1, "ffn": 1, what: 0.5, "steps": 100}), context())
    assert shapes(cut) == shapes(trained())
    state = wide.state()
    idle = with_units(state, {f"ffn.{layer}": range(16) for layer in (0, 1)})
    idle = with_groups(state, {0: [0], 1: [0]}) if what == "groups" else idle
    needed, learnt, wrong = (held_out_loss(model, text()) for model in (wide, cut, wide.with_state(idle)))
    # A quarter: losses are 0.32 with all, 0.44 and 0.49 with the masks' choice, 2.3 and 1.3 with the idle half alone.
    assert learnt - needed < (wrong - needed) / 4


def test_healing_brings_some_of_the_loss_back() -> None:
    cut = narrowed(trained(), WidthCut(steps=5, warmup=2), context())
    kind = next(kind for kind in KINDS if kind.name == "heal")
    healed = kind.apply(cut, kind.settings.model_validate({"steps": 20}), context())
    assert held_out_loss(healed, text()) < held_out_loss(cut, text()) - 0.1


def test_the_same_seed_cuts_to_the_same_bits() -> None:
    settings = WidthCut(steps=3, warmup=2)
    assert len({narrowed(drawn(), settings, context()).content_digest for _ in range(2)}) == 1


@pytest.mark.parametrize(
    ("form", "shares", "reason"),
    [
        ("gpt_neox", {}, "the size of its heads is its width over their number"),
        ("gpt2", {"ffn": 1}, "the size of its heads is its width over their number"),
        ("mixtral", {}, "mixtures of experts: use ffn=1"),
        ("olmo2", {}, "not read through RMSNorms alone: use residual=1"),
        ("llama", {"residual": 1, "ffn": 1}, "every share is 1"),
        ("llama", {"groups": 0.5}, "groups=0.5 of 1 cuts nothing"),
    ],
)
def test_a_width_that_cannot_be_cut_is_a_usage_error(form: Form, shares: dict[str, float], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        narrowed(drawn(form), WidthCut(**shares, steps=1), context())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("form", "shares"),
    [("qwen3", {}), ("gpt_neox", {"residual": 1}), ("gpt2", {"residual": 1}), ("mixtral", {"ffn": 1})],
)
def test_other_forms_lose_what_they_can(form: Form, shares: dict[str, float]) -> None:
    narrower = narrowed(drawn(form), WidthCut(**shares, steps=1), context())  # type: ignore[arg-type]
    sizes = [sum(array.size for array in model.weights.values()) for model in (narrower, drawn(form))]
    assert sizes[0] < sizes[1]
    assert np.isfinite(held_out_loss(narrower, text()[-2000:]))
