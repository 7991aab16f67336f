"""What a model computes with while one token runs through it: inputs and outputs of modules, operands of attention."""

from __future__ import annotations

import inspect
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from causal import SIZES, library

Values = np.ndarray

_CROSS = re.compile(r"(encoder_attn|cross_?attn|cross_?attention)$", re.IGNORECASE)

KEPT = 1
"""Attention hands on zeros for the heads before this one, so that a gate or norm behind it cannot hide their order."""


@dataclass(frozen=True)
class Attention:
    """One call of an attention function: what it took, [heads x coordinates], and what it gave."""

    path: str
    query: Values
    key: Values
    value: Values
    context: Values
    heads: int


@dataclass(frozen=True)
class Product:
    """One product of two activations inside a module."""

    path: str
    left: Values
    right: Values
    result: Values


@dataclass
class Trace:
    """One token through one model.

    Attributes:
        module: The model.
        inputs: What each named submodule was given first, [features] of the token.
        outputs: What it returned then.
        attention: Calls of attention functions, where the model lets them be chosen.
        products: Products of activations, for models that compute attention by themselves.
        applied: What each parameter was multiplied with outside of any module of its own, and what that gave.
        fault: What ended the run early; empty where nothing did.
    """

    module: Any
    inputs: dict[str, Values] = field(default_factory=dict)
    outputs: dict[str, Values] = field(default_factory=dict)
    attention: list[Attention] = field(default_factory=list)
    products: list[Product] = field(default_factory=list)
    applied: dict[str, tuple[Values, Values]] = field(default_factory=dict)
    fault: str = ""


def trace(module: Any) -> Trace:
    """Send one token through a model. It stands at position 0, where rotary positions turn nothing."""
    found = _traced(module, {})
    if found.fault and "use_cache" in inspect.signature(module.forward).parameters:
        again = _traced(module, {"use_cache": False})  # a cache asks some configs what they do not say
        return again if not again.fault else found
    return found


def _traced(module: Any, more: dict[str, Any]) -> Trace:
    with warnings.catch_warnings(), ExitStack() as stack:
        warnings.simplefilter("ignore")
        torch = library("torch")
        found = Trace(module)
        running: list[str] = []
        _choose_attention(found)
        with suppress(AttributeError, ValueError):
            module.set_experts_implementation("eager")
        for path, part in module.named_modules():
            stack.callback(part.register_forward_pre_hook(_enter(found, running, path), with_kwargs=True).remove)
            stack.callback(part.register_forward_hook(_leave(found, running, path)).remove)
        stack.enter_context(_products(found, running))
        stack.enter_context(torch.no_grad())
        try:
            module(**_arguments(module), **more)
        except Exception as fault:  # any class may want what nothing here can guess: reported
            found.fault = f"{type(fault).__name__}: {str(fault)[:200]}"
    return found


def _arguments(module: Any) -> dict[str, Any]:
    """Return one token, and one vector for decoders that also look at an encoder."""
    torch = library("torch")
    known = inspect.signature(module.forward).parameters
    table = module.get_input_embeddings()
    books = len(table) if isinstance(table, torch.nn.ModuleList) else 1
    given: dict[str, Any] = {"input_ids": torch.full((books, 1), 7)}
    if "shared_kv_states" in known:  # a draft model, which looks at the keys and values of another
        shared = {"sliding_attention": SIZES["head_dim"], "full_attention": SIZES["global_head_dim"]}
        given["shared_kv_states"] = {kind: (torch.randn(1, 2, 1, wide),) * 2 for kind, wide in shared.items()}
        given["inputs_embeds"] = torch.randn(1, 1, 2 * SIZES["hidden_size"])
    if any(_CROSS.search(path) for path, _ in module.named_modules()):
        outside = torch.randn(1, 1, SIZES["hidden_size"])
        for name in ("encoder_hidden_states", "cross_attention_states", "encoder_outputs"):
            if name in known:
                given[name] = (outside,) if name == "encoder_outputs" else outside
    return given


def _choose_attention(found: Trace) -> None:
    """Let the model call a function that keeps what it is given, where it can be told to."""
    functions = library("transformers.modeling_utils").ALL_ATTENTION_FUNCTIONS
    masks = library("transformers.masking_utils")
    paths = {part: path for path, part in found.module.named_modules()}

    def attend(module: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> Any:
        heads = query.shape[1]
        context = value[:, :, :1].repeat_interleave(heads // value.shape[1], dim=1).transpose(1, 2).clone()
        context[:, :, : min(KEPT, heads - 1)] = 0
        context = context.expand(-1, query.shape[2], -1, -1)
        taken = [part[0, :, 0].reshape(-1).numpy().copy() for part in (query, key, value)]
        given = context[0, 0].reshape(-1).numpy().copy()
        found.attention.append(Attention(paths[module], taken[0], taken[1], taken[2], given, heads))
        return context, None

    functions.register("recorded", attend)
    masks.ALL_MASK_ATTENTION_FUNCTIONS.register("recorded", masks.eager_mask)
    if found.module._can_set_attn_implementation():
        found.module.set_attn_implementation("recorded")


def _first(values: Any) -> Any:
    """Return the first floating tensor of what a module takes or gives."""
    if hasattr(values, "is_floating_point"):
        return values if values.is_floating_point() else None
    if hasattr(values, "values"):
        values = list(values.values())
    if hasattr(values, "__iter__") and not isinstance(values, str):
        found: Iterator[Any] = map(_first, values)
        return next((one for one in found if one is not None), None)
    return None


def _token(tensor: Any) -> Values:
    rows = tensor.detach().reshape(-1, tensor.shape[-1]) if tensor.dim() and tensor.numel() else tensor.reshape(1, -1)
    return rows[0].detach().numpy().copy()


def _enter(found: Trace, running: list[str], path: str) -> Any:
    def hook(_: Any, given: Any, named: Any) -> None:
        running.append(path)
        tensor = _first(given)
        tensor = _first(named.get("hidden_states", named)) if tensor is None else tensor
        if tensor is not None:
            found.inputs.setdefault(path, _token(tensor))

    return hook


def _leave(found: Trace, running: list[str], path: str) -> Any:
    def hook(_: Any, given: Any, returned: Any) -> None:
        running.pop()
        tensor = _first(returned)
        if tensor is not None:
            found.outputs.setdefault(path, _token(tensor))

    return hook


_PRODUCTS = frozenset({"matmul", "__matmul__", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention"})


def _products(found: Trace, running: list[str]) -> Any:
    """Return a context that keeps the products of activations."""
    torch = library("torch")
    names = {id(one): name for name, one in found.module.named_parameters()}

    def values(tensor: Any) -> Values:
        return tensor.detach().reshape(-1).numpy().copy()

    class Keep(library("torch.overrides").TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            named: dict[str, Any] = kwargs or {}
            result = func(*args, **named)
            if getattr(func, "__name__", "") in _PRODUCTS and running:
                given: tuple[Any, ...] = (*args, *named.values())
                tensors = [one for one in given if isinstance(one, torch.Tensor)]
                tensors = tensors[:3] if func.__name__.startswith("scaled") else tensors[-2:]
                weights = [one for one in tensors if isinstance(one, torch.nn.Parameter)]
                if len(tensors) >= 2 and not weights:
                    for left, right in itertools.pairwise(tensors):  # three where queries, keys and values come at once
                        found.products.append(Product(running[-1], values(left), values(right), values(result)))
                elif len(tensors) == 2 and len(weights) == 1 and id(weights[0]) in names:
                    other = next(one for one in tensors if one is not weights[0])
                    found.applied.setdefault(names[id(weights[0])], (values(other), values(result)))
            return result

    return Keep()
