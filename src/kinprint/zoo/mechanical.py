"""Kinds of derivation that compute new weights from old ones, without training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import numpy as np
from pydantic import BeforeValidator, Field

from kinprint.errors import UsageError
from kinprint.transform import PRESERVING, ModelState, preserve
from kinprint.transform.cutting import (
    strongest_groups,
    strongest_residual,
    strongest_units,
    with_groups,
    with_layers,
    with_residual,
    with_units,
)
from kinprint.transform.damaging import Scheme, noised, prune_magnitude, quantised
from kinprint.transform.merging import linear, slerp, task_arithmetic, ties
from kinprint.transform.upcycling import upcycled
from kinprint.transform.vocabulary import vocabulary_rows, with_more_tokens, with_new_embedding, with_tokens
from kinprint.zoo.kinds import Context, Kind, Settings, listed
from kinprint.zoo.model import Model
from kinprint.zoo.tokens import frequent_ids, tokenizer_cut, tokenizer_extended

Layers = Annotated[tuple[int, ...], BeforeValidator(listed)]
Names = Annotated[tuple[str, ...], BeforeValidator(listed)]
Share = Annotated[float, Field(gt=0, le=1)]

Change = Callable[[ModelState, Any, np.random.Generator], ModelState]

# -- depth ---------------------------------------------------------------------------------------------------------


class DepthCut(Settings):
    """Layers dropped.

    Attributes:
        drop: Which layers go; where none is named, ``count`` of them that end where the last quarter begins. The deep
            layers before the last change the stream least (ShortGPT, arXiv 2403.03853, section 3.1).
        count: How many go; a quarter where it is None.
    """

    drop: Layers = ()
    count: int | None = Field(default=None, ge=1)


class Order(Settings):
    """Old layers in their new order.

    Attributes:
        order: Which old layer stands at each place; the kind's own choice where none is named.
    """

    order: Layers = ()


def _depth_cut(state: ModelState, settings: DepthCut, _: np.random.Generator) -> ModelState:
    depth, quarter = _depth(state), _quarter(state)
    end = depth - quarter
    count = quarter if settings.count is None else settings.count
    drop = settings.drop or tuple(range(end - count, end))
    if not set(drop) <= set(range(depth)):
        raise UsageError(f"cannot drop layers {_plus(drop)} of {depth}: name some from 0 to {depth - 1}")
    return with_layers(state, [layer for layer in range(depth) if layer not in drop])


def _depth_upscale(state: ModelState, settings: Order, _: np.random.Generator) -> ModelState:
    depth, quarter = _depth(state), _quarter(state)
    order = settings.order or (*range(depth - quarter), *range(quarter, depth))
    if len(order) <= depth:
        raise UsageError(f"depth-upscale: {len(order)} layers are no more than the {depth} there are: name more")
    return with_layers(state, order)


def _reorder(state: ModelState, settings: Order, rng: np.random.Generator) -> ModelState:
    depth = _depth(state)
    order = settings.order or _shuffled(depth, rng)
    if sorted(order) != list(range(depth)):
        raise UsageError(f"reorder-blocks: {_plus(order)} is no order of {depth} layers: name each from 0 once")
    return with_layers(state, order)


def _shuffled(count: int, rng: np.random.Generator) -> tuple[int, ...]:
    """Draw an order that is not the old one, where there is another."""
    order = tuple(int(place) for place in rng.permutation(count))
    return order if count < 2 or order != tuple(range(count)) else _shuffled(count, rng)


def _depth(state: ModelState) -> int:
    return state.geometry.layers or 0


def _quarter(state: ModelState) -> int:
    return max(1, round(_depth(state) / 4))


def _plus(numbers: tuple[int, ...]) -> str:
    return "+".join(str(number) for number in numbers)


# -- width ---------------------------------------------------------------------------------------------------------


class WidthCut(Settings):
    """Coordinates dropped, those with the smallest norm.

    Attributes:
        keep: Share that stays.
    """

    keep: Share = 0.75


class HeadsCut(WidthCut):
    """Key/value heads dropped with the query heads that share them, those with the smallest norm."""

    keep: Share = 0.5


# -- every weight --------------------------------------------------------------------------------------------------


class Pruning(Settings):
    """Weights set to zero.

    Attributes:
        share: Share of each matrix of attention and MLP.
    """

    share: float = Field(default=0.5, ge=0, lt=1)


class Noise(Settings):
    """Gaussian noise on every matrix.

    Attributes:
        share: Its standard deviation, as a share of the matrix's own.
    """

    share: float = Field(default=0.05, gt=0)


class Quantisation(Settings):
    """Weights rounded to few levels, stored as the rounded numbers.

    Attributes:
        scheme: ``int8`` and ``q4`` in blocks of 32 (llama.cpp's Q8_0 and Q4_0), ``int8-channel`` by rows.
    """

    scheme: Scheme = "int8"


class Upcycling(Settings):
    """A mixture of experts from a dense model.

    Attributes:
        experts: Experts in each layer.
        active: Experts that each token is sent to.
        noise: Standard deviation of the noise on each expert's matrices, as a share of their own.
    """

    experts: int = Field(default=4, ge=2)
    active: int = Field(default=2, ge=1)
    noise: float = Field(default=0.0, ge=0)


def _upcycled(state: ModelState, settings: Upcycling, rng: np.random.Generator) -> ModelState:
    return upcycled(state, experts=settings.experts, active=settings.active, noise=settings.noise, rng=rng)


# -- merges --------------------------------------------------------------------------------------------------------


class Linear(Settings):
    """A weighted mean.

    Attributes:
        others: Models to merge with.
        weight: Share of all others together, divided evenly among them.
    """

    others: Names = Field(min_length=1)
    weight: float = Field(default=0.5, ge=0, le=1)


class Slerp(Settings):
    """Spherical interpolation.

    Attributes:
        others: The other model.
        t: How far to go towards it, 0 to 1.
    """

    others: Names = Field(min_length=1, max_length=1)
    t: float = Field(default=0.5, ge=0, le=1)


class TaskArithmetic(Settings):
    """Task vectors added.

    Attributes:
        others: Further models to merge, and last the base that the task vectors of all of them start from.
        weight: What each task vector is multiplied by.
    """

    others: Names = Field(min_length=1)
    weight: float = 0.5


class Ties(Settings):
    """Task vectors trimmed, their signs elected, and the mean of those that agree added.

    Attributes:
        others: Further models to merge, and last the base that the task vectors of all of them start from.
        density: Share of each task vector that stays (the paper keeps 0.2).
        scale: What the merged task vector is multiplied by.
    """

    others: Names = Field(min_length=2)
    density: Share = 0.2
    scale: float = 1.0


def _linear(models: list[ModelState], settings: Linear) -> ModelState:
    share = settings.weight / (len(models) - 1)
    return linear(models, [1 - settings.weight, *[share] * (len(models) - 1)])


def _merging(merge: Callable[[list[ModelState], Any], ModelState]) -> Callable[[Model, Any, Context], Model]:
    def apply(model: Model, settings: Any, context: Context) -> Model:  # noqa: ANN401 - settings of one of the merges
        states = [model.state(), *(context.model(name).state() for name in settings.others)]
        return model.with_state(merge(states, settings))

    return apply


# -- vocabulary ----------------------------------------------------------------------------------------------------


class VocabularyCut(Settings):
    """Rare tokens dropped, the others renumbered in their order.

    Attributes:
        keep: How many stay: the most frequent, and all special tokens.
        corpus: Name of the text in which they are counted.
    """

    keep: int = Field(default=128, ge=1)
    corpus: str = "stdlib-code"


class VocabularyExtension(Settings):
    """Tokens added, which start as the mean of the old ones with a little noise.

    Attributes:
        tokens: How many.
    """

    tokens: int = Field(default=64, ge=1)


def _vocabulary_cut(model: Model, settings: VocabularyCut, context: Context) -> Model:
    state = model.state()
    ids = frequent_ids(model, context.text(settings.corpus), settings.keep, rows=vocabulary_rows(state))
    return tokenizer_cut(model.with_state(with_tokens(state, ids)), ids)


def _vocabulary_extended(model: Model, settings: VocabularyExtension, context: Context) -> Model:
    state = model.state()
    rows = vocabulary_rows(state)
    strings = [f"<added_{rows + number}>" for number in range(settings.tokens)]
    return tokenizer_extended(model.with_state(with_more_tokens(state, strings, context.rng)), strings, first=rows)


# -- the table -----------------------------------------------------------------------------------------------------


def _changing(change: Change) -> Callable[[Model, Any, Context], Model]:
    def apply(model: Model, settings: Any, context: Context) -> Model:  # noqa: ANN401 - settings of one of the kinds
        return model.with_state(change(model.state(), settings, context.rng))

    return apply


def _preserving(name: str) -> Callable[[Model, Settings, Context], Model]:
    return _changing(lambda state, _, rng: preserve(state, [name], rng))


KINDS: tuple[Kind, ...] = (
    Kind("prune-magnitude", "the smallest weights of each matrix set to zero", Pruning, _changing(
        lambda state, settings, _: prune_magnitude(state, settings.share))),
    Kind("depth-cut", "whole layers dropped", DepthCut, _changing(_depth_cut)),
    Kind("depth-upscale", "layers repeated (by default as SOLAR: the first three quarters, then the last three)",
        Order, _changing(_depth_upscale)),
    Kind("reorder-blocks", "layers in another order (by default shuffled)", Order, _changing(_reorder)),
    Kind("width-cut-residual", "coordinates of the residual stream dropped", WidthCut, _changing(
        lambda state, settings, _: with_residual(state, strongest_residual(state, settings.keep)))),
    Kind("width-cut-ffn", "units of every MLP and expert dropped", WidthCut, _changing(
        lambda state, settings, _: with_units(state, strongest_units(state, settings.keep)))),
    Kind("width-cut-heads", "key/value heads dropped with their query heads", HeadsCut, _changing(
        lambda state, settings, _: with_groups(state, strongest_groups(state, settings.keep)))),
    Kind("merge-linear", "weighted mean with other models", Linear, _merging(_linear)),
    Kind("merge-slerp", "spherical interpolation with another model", Slerp, _merging(
        lambda states, settings: slerp(states[0], states[1], settings.t))),
    Kind("merge-ties", "TIES merge of task vectors; the last of the others is their base", Ties, _merging(
        lambda states, settings: ties(states[-1], states[:-1], density=settings.density, scale=settings.scale))),
    Kind("merge-task-arithmetic", "task vectors added; the last of the others is their base", TaskArithmetic, _merging(
        lambda states, settings: task_arithmetic(states[-1], states[:-1], [settings.weight] * (len(states) - 1)))),
    Kind("upcycle", "a mixture of experts, each a copy of the dense MLP", Upcycling, _changing(_upcycled)),
    Kind("quantise", "weights rounded to 8 or 4 bits", Quantisation, _changing(
        lambda state, settings, _: quantised(state, settings.scheme))),
    Kind("noise", "Gaussian noise on every matrix", Noise, _changing(
        lambda state, settings, rng: noised(state, settings.share, rng))),
    Kind("vocab-cut", "rare tokens dropped", VocabularyCut, _vocabulary_cut),
    Kind("vocab-extend", "tokens added", VocabularyExtension, _vocabulary_extended),
    Kind("embedding-reinit", "token embedding and output matrix drawn anew", Settings, _changing(
        lambda state, _, rng: with_new_embedding(state, rng))),
    *(
        Kind(name, transform.summary, Settings, _preserving(name), preserving=True)
        for name, transform in PRESERVING.items()
    ),
)  # fmt: skip
"""Every kind that needs no training. What heals a cut is a kind of its own."""
