"""Kinds of derivation that take layers or widths away where calibration text says that they matter least."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from pydantic import Field

from kinprint.errors import UsageError
from kinprint.shapes import Float64, Int64
from kinprint.transform import ModelState
from kinprint.transform.cutting import with_groups, with_layers, with_residual, with_units
from kinprint.zoo import calibration, networks
from kinprint.zoo.kinds import Context, Kind, Settings
from kinprint.zoo.masks import learned_masks
from kinprint.zoo.model import Model
from kinprint.zoo.training_kinds import FurtherTraining, Healing, further_trained

# -- depth ---------------------------------------------------------------------------------------------------------


class DepthCut(Settings):
    """Layers taken away by ShortGPT's block influence.

    Attributes:
        count: Layers to take away.
        corpus: Name of the calibration text.
        rows: Rows of that text, each as long as the context.
    """

    count: int = Field(default=2, ge=1)
    corpus: str = "stdlib-code"
    rows: int = Field(default=32, ge=1)


def shortened(model: Model, settings: DepthCut, context: Context) -> Model:
    """Return a model without the layers that change the residual stream least.

    Influences are measured once, on the whole model, as in the paper. Of layers with the same influence the first goes.

    Source: Men et al., ShortGPT (arXiv 2403.03853), section 3.

    Raises:
        UsageError: No layer would be left, or a tensor has no role in a family table.
        MissingExtraError: torch or transformers is not installed.
    """
    rows_BT = calibration.calibration_rows(model, context.text(settings.corpus), rows=settings.rows, rng=context.rng)
    influence_L = block_influence(model, rows_BT)
    if settings.count >= influence_L.size:
        raise UsageError(
            f"depth-cut-shortgpt: cannot take away {settings.count} of {influence_L.size} layers: lower count"
        )
    kept = sorted(np.argsort(influence_L, kind="stable")[settings.count :].tolist())
    return model.with_state(with_layers(model.state(), kept))


def block_influence(model: Model, rows_BT: Int64[np.ndarray, "B T"]) -> Float64[np.ndarray, " L"]:
    """Return how much each layer turns the residual stream: 1 less the mean cosine of what goes in and comes out.

    0 for a layer that only rescales the stream. Source: ShortGPT, equation 1.

    Args:
        model: The model.
        rows_BT: Tokens of the calibration text.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    with networks.reproducible() as torch, torch.no_grad():
        module = networks.load(model)
        layers = calibration.layers(module)
        cosines: list[list[Any]] = [[] for _ in layers]

        def hear(found: list[Any], layer: Any, inputs: Any, named: dict[str, Any], output: Any) -> None:  # noqa: ANN401
            del layer
            before: Any = inputs[0] if inputs else named["hidden_states"]
            after: Any = output if hasattr(output, "double") else output[0]
            # float64: an influence is the small rest when a cosine close to 1 is taken from 1.
            found.append(torch.cosine_similarity(before.double(), after.double(), dim=-1))

        for layer, found in zip(layers, cosines, strict=True):
            layer.register_forward_hook(partial(hear, found), with_kwargs=True)
        calibration.run(module, torch.from_numpy(rows_BT))
        return np.array([1.0 - torch.cat(found).mean().item() for found in cosines])


# -- width ---------------------------------------------------------------------------------------------------------


class WidthCut(FurtherTraining):
    """Widths taken away by learnt masks. Shares are rounded down to whole coordinates; 1 cuts nothing.

    Attributes:
        residual: Share of the residual stream's coordinates that stays, the same ones everywhere.
        ffn: Share of each MLP's units that stays.
        groups: Share of each layer's key/value heads that stays, with the query heads that use them.
        corpus: Name of the text on which the masks are trained.
        steps: Updates of the masks.
        learning_rate: Rate of the masks.
        warmup: Updates until the shares are asked for in full.
    """

    residual: float = Field(default=0.75, gt=0, le=1)
    ffn: float = Field(default=0.75, gt=0, le=1)
    groups: float = Field(default=1.0, gt=0, le=1)
    corpus: str = "stdlib-code"
    steps: int = Field(default=200, ge=1)
    learning_rate: float = Field(default=0.1, gt=0)
    warmup: int = Field(default=40, ge=1)


def narrowed(model: Model, settings: WidthCut, context: Context) -> Model:
    """Return a model without the residual coordinates, MLP units and key/value heads that learnt masks close first.

    How the masks differ from Sheared LLaMA's: :mod:`kinprint.zoo.masks`. What stays keeps its weights; repair is a kind
    of its own, ``heal``.

    Raises:
        UsageError: All shares are 1, or a width of this family cannot be cut.
        MissingExtraError: torch or transformers is not installed.
    """
    asked: dict[str, float] = {"residual": settings.residual, "ffn": settings.ffn, "groups": settings.groups}
    shares = {axis: share for axis, share in asked.items() if share < 1}
    if not shares:
        raise UsageError("width-cut-sheared: every share is 1 and nothing is cut: lower residual, ffn or groups")
    training, seed, state = settings.training(context), int(context.rng.integers(2**31)), model.state()

    def tell(step: int, loss: float) -> None:
        context.tell(f"masks, step {step} of {settings.steps}, loss {loss:.2f}", step)

    if state.geometry.experts and settings.ffn < 1:
        raise UsageError("width-cut-sheared: the MLPs of this model are mixtures of experts: use ffn=1")
    # First, with any choice, for the faults that it finds: the masks take long.
    _cut(state, {axis: _anything(state, axis) for axis in shares}, shares)
    odds = learned_masks(model, shares, training, context.text(settings.corpus), seed=seed, tell=tell)
    return model.with_state(_cut(state, odds, shares))


def _cut(state: ModelState, odds: dict[str, Float64[np.ndarray, "rows masks"]], shares: dict[str, float]) -> ModelState:
    kept = {axis: [_largest(row, shares[axis], axis) for row in rows] for axis, rows in odds.items()}
    if "residual" in kept:
        state = with_residual(state, kept["residual"][0])
    if "ffn" in kept:
        state = with_units(state, {f"ffn.{layer}": units for layer, units in enumerate(kept["ffn"])})
    if "groups" in kept:
        state = with_groups(state, dict(enumerate(kept["groups"])))
    return state


def _anything(state: ModelState, axis: str) -> Float64[np.ndarray, "rows masks"]:
    sizes = {"residual": state.geometry.hidden, "ffn": state.geometry.ffn, "groups": state.geometry.kv_heads}
    return np.zeros((1 if axis == "residual" else state.geometry.layers or 0, sizes[axis] or 0))


def _largest(odds_K: Float64[np.ndarray, " K"], share: float, axis: str) -> list[int]:
    # 1e-9: 0.29 * 100 is 28.999..., and 29 are meant.
    count = max(1, math.floor(share * odds_K.size + 1e-9))
    if count >= odds_K.size:
        raise UsageError(f"width-cut-sheared: {axis}={share:g} of {odds_K.size} cuts nothing: lower it, or set it to 1")
    return sorted(np.argsort(-odds_K, kind="stable")[:count].tolist())


# -- repair --------------------------------------------------------------------------------------------------------


class Repair(Healing):
    """Training after a cut, on the text of pre-training."""

    steps: int = Field(default=300, ge=0)


KINDS: tuple[Kind, ...] = (
    Kind("depth-cut-shortgpt", "layers that change the stream least taken away (ShortGPT)", DepthCut, shortened),
    Kind("width-cut-sheared", "residual, MLP and head widths cut by learnt masks (Sheared LLaMA)", WidthCut, narrowed),
    Kind("heal", "further training that repairs a cut, on the text of pre-training", Repair, further_trained),
)
