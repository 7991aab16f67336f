"""Which change an adapter makes to which tensor of a base: every one of its tensors is placed, or it is an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from kinprint.checkpoint.adapter_changes import Added, Change, LowRank, Replaced, Rows, Scaled
from kinprint.checkpoint.adapter_config import AdapterConfig
from kinprint.checkpoint.adapter_experts import expert_changes, fits, order_of
from kinprint.checkpoint.adapter_names import (
    INPUTS,
    OUTPUTS,
    Places,
    Ties,
    last,
    sort_keys,
    wrong_base,
)
from kinprint.checkpoint.base import Array, Checkpoint
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.parts import Part
from kinprint.errors import CheckpointError

CONV1D = frozenset({"c_attn", "c_proj", "c_fc", "q_attn"})
"""GPT-2's modules whose weights lie [in, out]; asked only where shapes do not tell."""

_LAYER = re.compile(r"(?:^|\.)(\d+)(?:\.|$)")


@dataclass(slots=True)
class Plan:
    """What an adapter does.

    Attributes:
        changes: The steps for each tensor of the sum, in order.
        new: Names of tensors that the base does not have.
        same_as: For a new tensor that is one of the base's under another name, that one.
        untied: Whether output and input embedding, tied in the base, are two tensors after it.
        notes: What a reader must know.
    """

    changes: dict[str, tuple[Change, ...]] = field(default_factory=dict[str, tuple[Change, ...]])
    new: list[str] = field(default_factory=list[str])
    same_as: dict[str, str] = field(default_factory=dict[str, str])
    untied: bool = False
    notes: list[str] = field(default_factory=list[str])


def plan(base: Checkpoint, part: Part, settings: AdapterConfig, lead: str) -> Plan:
    """Place every tensor of an adapter.

    Raises:
        CheckpointError: A tensor has no place, or does not fit the one that it has.
    """
    return _Planner(base, part, settings, lead).made()


class _Planner:
    """Places tensors one module after the other."""

    def __init__(self, base: Checkpoint, part: Part, settings: AdapterConfig, lead: str) -> None:
        self._base = base
        self._part = part
        self._settings = settings
        self._lead = lead
        self._where = part.source.where
        self._keys = sort_keys(part.tensors, self._where)
        self._ties = Ties(base)
        modules = [module for module, _ in self._keys.modules if not self._ties.only_input(module)]
        whole = [name.rpartition(".")[0] for name in self._keys.whole if not self._may_be_new(name)]
        wanted = dict.fromkeys([*modules, *(module for module in whole if not self._ties.only_input(module))])
        self._places = Places(base.tensors, wanted, settings.parameters)
        self._plan = Plan()

    def made(self) -> Plan:
        """Return the whole plan."""
        if not self._part.tensors:
            raise fault(self._where, "is an adapter without tensors", "fetch the adapter again")
        self._places.find(self._where, self._base.name, self._lead)
        if self._places.added or self._places.dropped:
            ours, theirs = self._places.dropped or "nothing", self._places.added or "nothing"
            self._plan.notes.append(f"the adapter's names start with {ours} where the model's start with {theirs}")
        for name, (key, trained) in self._keys.whole.items():
            self._place_whole(name, key, trained=trained)
        for (module, depth), pieces in self._keys.modules.items():
            self._place_module(module, depth, dict(pieces.keys))
        return self._plan

    # -- whole tensors ------------------------------------------------------------------------------------------------

    def _place_whole(self, name: str, key: str, *, trained: bool) -> None:
        """Place a tensor that replaces one of the base, or that the base does not have."""
        target = self._places.tensor(name)
        info = self._part.tensors[key]
        change = Replaced((key,), lambda rows: self._part.read(key, rows))
        known = self._base.tensors.get(target)
        module = target.rpartition(".")[0]
        if known is None and not trained and self._ties.partner(target) is not None:
            self._add(target, change)  # a copy of the tied embedding
            return
        if known is None and not self._may_be_new(name):
            raise wrong_base(self._where, key, self._base.name, self._lead)
        if known is not None and known.shape != info.shape:
            resized = last(module) in INPUTS | OUTPUTS and known.shape[1:] == info.shape[1:]
            if not resized:
                raise self._misfit(key, info.shape, target, known.shape)
            self._plan.notes.append(f"{target}: {known.shape[0]} rows became {info.shape[0]}")
        if trained:
            self._untie(target)
        if known is None:
            self._plan.new.append(target)
            self._plan.notes.append(f"{target}: the adapter brings it, the model has none")
        if trained:
            self._plan.changes[target] = (change,)
        else:
            self._add(target, change)

    def _untie(self, target: str) -> None:
        """Take note that one of two tied embeddings was trained alone, and keep the other as it was."""
        if last(target.rpartition(".")[0]) in OUTPUTS and target not in self._base.tensors:
            self._plan.untied = self._ties.partner(target) is not None
        elif last(target.rpartition(".")[0]) in INPUTS and self._ties.tied:
            head = "embed_out.weight" if ".embed_in." in f".{target}" else "lm_head.weight"
            if not self._ties.outputs and head not in self._keys.whole:
                self._plan.new.append(head)
                self._plan.same_as[head] = target
            self._plan.untied = True

    def _may_be_new(self, name: str) -> bool:
        """Tell whether a tensor belongs to a module that was trained whole, which the base need not have."""
        module = f".{name.rpartition('.')[0]}."
        return any(f".{saved}." in module for saved in self._settings.saved)

    # -- modules ------------------------------------------------------------------------------------------------------

    def _add(self, target: str, change: Change) -> None:
        """Add a change to a tensor and, since PEFT changes tied ones in place, to the one that is tied to it."""
        for name in (target, self._ties.partner(target)):
            if name is not None and name in self._base.tensors:
                self._plan.changes[name] = (*self._plan.changes.get(name, ()), change)

    def _place_module(self, module: str, depth: int, keys: dict[str, str]) -> None:
        """Place all pieces for one module."""
        layer = _LAYER.search(module)
        if self._settings.layers is not None and layer is not None and int(layer[1]) not in self._settings.layers:
            raise fault(
                self._where,
                f"changes {shown(module)}, but its config leaves layer {layer[1]} as it is",
                "config and tensors are of different adapters: fetch both again",
            )
        found = self._places.module(module) or module
        weight = f"{found}.weight"
        if weight not in self._base.tensors:
            weight = self._ties.partner(weight) or self._places.parameter(found) or weight
        if "tokens" in keys:
            self._place_tokens(module, weight, keys.pop("tokens"))
        if "ia3" in keys:
            self._place_ia3(found, weight, keys.pop("ia3"))
        if not keys:
            return
        if weight in self._base.tensors:
            self._place_low_rank(module, weight, keys)
        else:
            self._place_experts(module, found, depth, keys)

    def _place_low_rank(self, module: str, weight: str, keys: dict[str, str]) -> None:
        """Place A and B of a linear layer, an embedding or a convolution."""
        embedding = "embedding_A" in keys or "embedding_B" in keys
        a, b = (keys.pop(name, None) for name in (("embedding_A", "embedding_B") if embedding else ("A", "B")))
        magnitude, bias = keys.pop("magnitude", None), keys.pop("B_bias", None)
        if a is None or b is None or keys:
            raise fault(self._where, f"holds no whole pair of factors for {shown(module)}", "fetch the adapter again")
        if (magnitude is not None) != self._settings.dora:
            raise fault(
                self._where, f"and its config disagree on DoRA for {shown(module)}", "fetch config and tensors again"
            )
        shape, a_shape, b_shape = (self._base.tensors[weight].shape, self._shape(a), self._shape(b))
        if min(len(shape), len(a_shape), len(b_shape)) < 2:
            raise self._misfit(a, a_shape, weight, shape)
        rank, columns, outs = a_shape[0], int(np.prod(a_shape[1:])), b_shape[0]
        if int(np.prod(b_shape[1:])) != rank:
            raise fault(
                self._where, f"the factors of {shown(module)} have different ranks: {rank} and {b_shape[1]}", "damaged"
            )
        scale = self._settings.scale(self._pattern_name(module), rank)
        turned = embedding or self._lies_turned(module, shape, columns, outs)
        stored = (shape[0], int(np.prod(shape[1:])))
        if stored != ((columns, outs) if turned else (outs, columns)):
            raise self._misfit(a, a_shape, weight, shape)
        first, second = self._matrix(a, (rank, columns)), self._matrix(b, (outs, rank))
        left, right = (_turned(first), _turned(second)) if turned else (second, first)
        lengths = None
        if magnitude is not None:
            self._check_length(magnitude, stored[1] if turned else stored[0], weight)
            lengths = self._matrix(magnitude, (-1,))
        sources = tuple(key for key in (a, b, magnitude) if key is not None)
        self._add(weight, LowRank(sources, left, right, scale, lengths, by_column=turned))
        if bias is not None:
            self._place_bias(bias, weight, scale, outs)

    def _place_bias(self, key: str, weight: str, scale: float, outs: int) -> None:
        """Place the bias of B, which is added to the layer's own."""
        target = weight.removesuffix("weight") + "bias"
        if target not in self._base.tensors:
            raise wrong_base(self._where, key, self._base.name, self._lead)
        self._check_length(key, outs, target)
        self._add(target, Added((key,), self._matrix(key, (-1,)), scale))

    def _place_tokens(self, module: str, weight: str, key: str) -> None:
        """Place rows of an embedding."""
        if weight not in self._base.tensors:
            raise wrong_base(self._where, key, self._base.name, self._lead)
        rows, shape, ours = self._settings.rows(module), self._base.tensors[weight].shape, self._shape(key)
        if ours != (len(rows), *shape[1:]) or (rows and max(rows) >= shape[0]):
            raise self._misfit(key, ours, weight, shape)
        self._add(weight, Rows((key,), lambda: self._part.read(key, None), rows))

    def _place_ia3(self, module: str, weight: str, key: str) -> None:
        """Place IA3's factors: of the outputs, [out, 1], and then of the bias too; or of the inputs, [1, in]."""
        known = self._base.tensors.get(weight)
        ours = self._shape(key)
        if known is None:
            raise wrong_base(self._where, key, self._base.name, self._lead)
        shape = known.shape
        if len(ours) != 2 or len(shape) != 2 or 1 not in ours:
            raise self._misfit(key, ours, weight, shape)
        count, of_outputs = max(ours), ours[1] == 1
        turned = self._lies_turned(module, shape, *((count, 0) if not of_outputs else (0, count)))
        by_column = of_outputs == turned
        if shape[1 if by_column else 0] != count:
            raise self._misfit(key, ours, weight, shape)
        factors = self._matrix(key, (-1,))
        self._add(weight, Scaled((key,), factors, by_column))
        bias = weight.removesuffix("weight") + "bias"
        if of_outputs and bias in self._base.tensors:
            self._check_length(key, self._base.tensors[bias].size, bias)
            self._add(bias, Scaled((key,), factors, by_column=False))

    # -- experts ------------------------------------------------------------------------------------------------------

    def _place_experts(self, module: str, found: str, depth: int, keys: dict[str, str]) -> None:
        """Place A [rank x experts, in] and B [out, rank x experts] of one parameter of all experts."""
        a, b = keys.pop("A", None), keys.pop("B", None)
        parameters = self._places.fused(found, self._where)
        if a is None or b is None or keys or not parameters:
            raise wrong_base(self._where, next(iter([*keys.values(), a or b or module])), self._base.name, self._lead)
        a_shape, b_shape = self._shape(a), self._shape(b)
        fitting = {leaf: kept for leaf, kept in parameters.items() if fits(kept, a_shape, b_shape)}
        leaf = self._which(module, depth, sorted(fitting, key=order_of))
        if leaf is None:
            shapes = ", ".join(f"{leaf} {list(kept.shape)}" for leaf, kept in parameters.items())
            raise fault(
                self._where,
                f"A {list(a_shape)} and B {list(b_shape)} for {shown(module)} fit none of its parameters ({shapes})",
                f"give the model that it was trained on{self._lead}",
            )
        scale = self._settings.scale(f"{module}.{leaf}", a_shape[0] // fitting[leaf].shape[0])
        model_type = self._base.config.get("model_type")
        for name, change in expert_changes(self._part, a, b, fitting[leaf], scale, model_type):
            self._add(name, change)

    def _which(self, module: str, depth: int, fitting: list[str]) -> str | None:
        """Return which of the parameters that fit is meant: PEFT wraps them in order, so that depth tells."""
        if len(fitting) < 2:
            return fitting[0] if fitting else None
        depths = sorted((other for name, other in self._keys.modules if name == module), reverse=True)
        return fitting[depths.index(depth)] if len(depths) == len(fitting) else None

    def _pattern_name(self, module: str) -> str:
        """Return the name that patterns are matched with: the module's, or the parameter's if that is the target."""
        names = [f"{module}.{last(target)}" for target in self._settings.parameters]
        ends = [f".{target}" for target in self._settings.parameters]
        return next((name for name, end in zip(names, ends, strict=True) if f".{name}".endswith(end)), module)

    # -- shared -------------------------------------------------------------------------------------------------------

    def _lies_turned(self, module: str, shape: tuple[int, ...], columns: int, outs: int) -> bool:
        """Tell whether a weight lies [in, out]: by its shape, and of square ones by what config and name say.

        PEFT's setting alone does not tell: it is one for all modules of a model that may have both kinds.
        """
        if len(shape) != 2:
            return False
        if shape[0] != shape[1]:
            return shape[0] == columns or shape[1] == outs if 0 in (columns, outs) else shape == (columns, outs)
        gpt2 = str(self._base.config.get("model_type", "")) in {
            "gpt2",
            "openai-gpt",
            "imagegpt",
            "decision_transformer",
        }
        return last(module) not in OUTPUTS and (self._settings.fan_in_fan_out or (gpt2 and last(module) in CONV1D))

    def _shape(self, key: str) -> tuple[int, ...]:
        """Return the shape of one of the adapter's tensors."""
        return self._part.tensors[key].shape

    def _matrix(self, key: str, shape: tuple[int, ...]) -> Callable[[], Array]:
        """Return what reads a tensor of the adapter in another shape."""
        return lambda: self._part.read(key, None).reshape(shape)

    def _check_length(self, key: str, length: int, target: str) -> None:
        """Refuse a vector of another length than the axis that it belongs to."""
        if self._part.tensors[key].size != length:
            raise self._misfit(key, self._shape(key), target, self._base.tensors[target].shape)

    def _misfit(self, key: str, ours: tuple[int, ...], target: str, theirs: tuple[int, ...]) -> CheckpointError:
        """Return the error for a tensor that does not fit the base's."""
        return fault(
            self._where,
            f"tensor {shown(key)} of shape {list(ours)} does not fit {shown(target)} of shape {list(theirs)}",
            f"give the model that it was trained on{self._lead}",
        )


def _turned(read: Callable[[], Array]) -> Callable[[], Array]:
    """Return what reads the transpose."""
    return lambda: read().T
