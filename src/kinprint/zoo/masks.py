"""Masks over residual coordinates, MLP units and key/value heads, learnt while the weights stand still.

Source: Xia et al., Sheared LLaMA (arXiv 2310.06694), section 2.1: hard-concrete masks (Louizos et al., arXiv
1712.01312), one over the residual stream of the whole model and one per layer over units and heads, trained on the
model's own loss with Lagrange multipliers that pull the expected share of open masks to what is to be kept. Unlike in
the paper, weights are not trained at the same time, masks over whole layers are left out, training is a few hundred
steps instead of 3,200, and a head is masked together with those that share its keys and values.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kinprint.architecture import PartKey
from kinprint.errors import UsageError
from kinprint.shapes import Float64
from kinprint.transform import ModelState
from kinprint.zoo import networks
from kinprint.zoo.model import Model
from kinprint.zoo.train import Training, next_token_loss, training_tokens

_STRETCH = (-0.1, 1.1)
_TEMPERATURE = 2 / 3
"""Hard-concrete constants of Louizos et al., section 4; Sheared LLaMA has the same."""

_MULTIPLIER_RATE = 1.0
"""Learning rate of the Lagrange multipliers, as in Sheared LLaMA's code."""


@dataclass(slots=True)
class _Masks:
    """Masks of one kind: [rows, masks], a row per layer, or one row for the whole model.

    Attributes:
        odds: Logarithms of the odds that are trained.
        share: What is to be kept.
        multipliers: Lagrange multipliers [2, rows], of the excess and of its square.
        open: The masks of this step.
    """

    odds: Any
    share: float
    multipliers: Any
    open: Any = None

    def draw(self, torch: Any) -> None:  # noqa: ANN401
        """Draw the masks of a step."""
        low, high = _STRETCH
        noise = torch.logit(torch.rand_like(self.odds), eps=1e-6)
        self.open = (torch.sigmoid((noise + self.odds) / _TEMPERATURE) * (high - low) + low).clamp(0.0, 1.0)

    def closed(self, row: int, place: Any, inputs: Any) -> Any:  # noqa: ANN401
        """Mask the inputs of a module; a head is a block of neighbouring inputs under one mask."""
        del place
        block = inputs[0].shape[-1] // self.open.shape[1]
        return (inputs[0] * self.open[row].repeat_interleave(block), *inputs[1:])

    def rescaled(self, place: Any, inputs: Any, output: Any) -> Any:  # noqa: ANN401
        """Let a norm divide by the mean square over the open coordinates: after the cut there are no others."""
        del place, inputs
        # At least one: the root of nothing has no gradient.
        return output * self.open[0].mean().clamp(min=1 / self.open.shape[1]).sqrt()

    def penalty(self, torch: Any, progress: float) -> Any:  # noqa: ANN401
        """Return what the multipliers ask for the excess over a share that falls from 1 to its target."""
        low, high = _STRETCH
        expected = torch.sigmoid(self.odds - _TEMPERATURE * math.log(-low / high)).mean(dim=1)
        excess = expected - (1 - (1 - self.share) * progress)
        return (self.multipliers[0] * excess + self.multipliers[1] * excess**2).sum()


def learned_masks(
    model: Model,
    shares: Mapping[str, float],
    training: Training,
    text: bytes,
    *,
    seed: int,
    tell: Callable[[int, float], None],
) -> dict[str, Float64[np.ndarray, "rows masks"]]:
    """Train masks and return the logarithms of their odds: the larger, the more the model needs what is behind.

    Args:
        model: The model. Its weights do not change.
        shares: Share to keep by kind of mask, ``residual``, ``ffn`` or ``groups``; what is not named has no masks.
        training: Steps, batch, rate of the masks, and the steps until the shares are asked for in full (its warm-up).
        text: What the loss is measured on.
        seed: Seed of the masks that are drawn at each step.
        tell: Hears the step and its loss.

    Raises:
        UsageError: The model has no parts that such masks could stand before.
        MissingExtraError: torch or transformers is not installed.
    """
    tokens_N, context = training_tokens(model, text), model.context
    starts_SB = np.random.default_rng(training.seed_data).integers(
        0, tokens_N.size - context, size=(training.steps, training.batch)
    )
    with networks.reproducible() as torch:
        torch.manual_seed(seed)
        module, state = networks.load(model).requires_grad_(requires_grad=False), model.state()
        masks = {axis: _masked(torch, module, state, axis, share) for axis, share in shares.items()}
        down = torch.optim.Adam([kind.odds for kind in masks.values()], lr=training.learning_rate)
        up = torch.optim.Adam([kind.multipliers for kind in masks.values()], lr=_MULTIPLIER_RATE, maximize=True)
        for step, starts_B in enumerate(starts_SB):
            for kind in masks.values():
                kind.draw(torch)
            rows_BT = np.stack([tokens_N[start : start + context + 1] for start in starts_B])
            found = next_token_loss(module, torch.from_numpy(rows_BT))
            progress = min(1.0, (step + 1) / training.warmup)
            asked = found + sum(kind.penalty(torch, progress) for kind in masks.values())
            down.zero_grad()
            up.zero_grad()
            asked.backward()
            down.step()
            up.step()
            tell(step + 1, found.item())
        return {axis: np.asarray(kind.odds.detach().double().numpy()) for axis, kind in masks.items()}


def _masked(torch: Any, module: Any, state: ModelState, axis: str, share: float) -> _Masks:  # noqa: ANN401
    """Put masks of one kind into a module."""
    places = _places(module, state, axis)
    geometry = state.geometry
    sizes = {"residual": geometry.hidden, "ffn": geometry.ffn, "groups": geometry.kv_heads}
    rows = 1 if axis == "residual" else len(places)
    kind = _Masks(
        odds=torch.nn.Parameter(0.01 * torch.randn(rows, sizes[axis])),
        share=share,
        multipliers=torch.nn.Parameter(torch.zeros(2, rows)),
    )
    for number, place in enumerate(places):
        row = 0 if axis == "residual" else number
        place.register_forward_pre_hook(partial(kind.closed, row))
        if axis == "residual":
            place.register_forward_hook(kind.rescaled)
    return kind


def _places(module: Any, state: ModelState, axis: str) -> list[Any]:  # noqa: ANN401
    """Return the modules whose inputs are masked: norms, or the matrices that write what units and heads say."""
    if axis == "residual":
        if state.family.norm != "rms" or state.family.placement != "pre":
            raise UsageError(
                f"width-cut-sheared: the residual stream of a {state.family.name} model is not read through RMSNorms "
                "alone: use residual=1"
            )
        keys = [key for key, _ in state.along("residual") if key.role.startswith("norm.")]
    else:
        role = "mlp.down" if axis == "ffn" else "attn.o"
        keys = sorted((key for key in state.parts if key.role == role), key=lambda key: key.layer or 0)
        if len(keys) != state.geometry.layers:
            raise UsageError(f"width-cut-sheared: not every layer has one {role}: use {axis}=1")
    return [module.get_submodule(_name(state, key)) for key in keys]


def _name(state: ModelState, key: PartKey) -> str:
    stored = state.rules[key.role].name.replace("{p}", state.prefix).format(layer=key.layer)
    return stored.removesuffix(".weight")
