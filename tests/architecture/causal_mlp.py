"""Whether gate, up and down compute what MLPs and experts do."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from causal import library
from causal_compare import Examined, before, close, linear, owner, plain
from causal_trace import Trace, Values

from kinprint.architecture import ModelView


def _activations(module: Any, path: str) -> list[Callable[[Any], Any]]:
    """Return the activations of the module at a path, of those around it, and else every one of transformers."""
    functions = library("transformers.activations").ACT2FN
    found: list[Callable[[Any], Any]] = []
    words = path.split(".")
    for end in (len(words), len(words) - 1, len(words) - 2):
        part = module.get_submodule(".".join(words[:end])) if end > 0 else module
        for one in (part, *part.children()):
            named: dict[str, Any] = {**vars(one), **dict(one.named_children())}
            found += [value for key, value in named.items() if "act" in key and callable(value)]
    return found or [functions[name] for name in ("silu", "gelu", "gelu_new", "gelu_pytorch_tanh", "relu", "relu2")]


def _hidden(module: Any, path: str, gate: Values | None, up: Values) -> Iterator[Values]:
    """Yield what may stand between the matrices of an MLP: an activation, times the other half where it is gated."""
    torch = library("torch")
    given = [torch.from_numpy(np.asarray(one, dtype=np.float32))[None] for one in (gate, up) if one is not None]
    for act in _activations(module, path):
        for taken in (given[:1], given):
            with torch.no_grad(), suppress(TypeError, ValueError, RuntimeError):  # named so, and no function of these
                turned = act(*taken)
                if isinstance(turned, torch.Tensor) and turned.numel() == up.size:
                    values = turned[0].numpy().astype(np.float64)
                    yield values if gate is None or len(taken) == 2 else values * up
    if gate is not None:
        yield gate / (1 + np.exp(-1.702 * gate)) * (up + 1)  # gpt-oss


def _computes(
    model: ModelView, seen: Trace, kind: str, layer: int, taken: Values, given: Values, expert: int | None = None
) -> bool:
    """Return whether gate, up and down of one MLP make of what it took what it gave."""
    first, last = (owner(model, f"{kind}.{part}", layer, expert) for part in ("up", "down"))
    up = linear(model, f"{kind}.up", layer, taken, expert)
    gated = model.has(f"{kind}.gate", layer, expert)
    gate = linear(model, f"{kind}.gate", layer, taken, expert) if gated else None
    between = [seen.inputs[last], *before(seen, last, seen.inputs[last])] if first != last else []
    for hidden in _hidden(seen.module, last, gate, up):
        if not between and close(given, linear(model, f"{kind}.down", layer, hidden, expert)):
            return True
        if any(close(one, hidden) for one in between):
            return close(given, linear(model, f"{kind}.down", layer, seen.inputs[last], expert))
    return False


def dense(found: Examined, model: ModelView, seen: Trace) -> None:
    """Gate, up and down of dense MLPs and shared experts, between what their modules took and gave."""
    for kind in ("mlp", "moe.shared"):
        for layer in sorted({*model.layers(f"{kind}.up"), *model.layers(f"{kind}.down")}):
            ends = [model.has(f"{kind}.{part}", layer) for part in ("up", "down")]
            if not any(ends):
                continue  # experts, numbered
            if not all(ends):
                found.note("mlp", f"{kind}@{layer} has only one of up and down")
                continue
            first, last = owner(model, f"{kind}.up", layer), owner(model, f"{kind}.down", layer)
            if first in seen.inputs and last in seen.outputs:
                right = _computes(model, seen, kind, layer, seen.inputs[first], seen.outputs[last])
                if not right and _scaled(model, seen, kind, layer):
                    right = True
                    found.weak += 1
                found.note("mlp", "" if right else f"{kind}@{layer} does not compute what the module does")


def _scaled(model: ModelView, seen: Trace, kind: str, layer: int) -> bool:
    """Return whether an MLP scales its units by vectors of its own, and each matrix is what its module computes."""
    home = seen.module.get_submodule(owner(model, f"{kind}.down", layer).rpartition(".")[0])
    if not any(True for _ in home.parameters(recurse=False)):
        return False
    roles = [f"{kind}.{part}" for part in ("gate", "up", "down") if model.has(f"{kind}.{part}", layer)]
    ends = [(role, owner(model, role, layer)) for role in roles]
    return all(
        plain(model, role, layer) and close(seen.outputs[at], linear(model, role, layer, seen.inputs[at]))
        for role, at in ends
    )


def experts(found: Examined, model: ModelView, seen: Trace) -> None:
    """Gate, up and down of each expert, by calling the module with that expert chosen."""
    values = 0.3 * np.random.default_rng(5).standard_normal(model.geometry.hidden or 1).astype(np.float32)
    for kind in ("moe", "moe.shared"):
        for layer in model.layers(f"{kind}.up"):
            experts = model.experts(f"{kind}.up", layer)
            paths = {owner(model, f"{kind}.{part}", layer, one) for part in ("up", "down") for one in experts}
            if experts and len(paths) == 1:
                path = next(iter(paths))
                for expert in experts:
                    made = call_expert(seen.module, path, expert, len(experts), values)
                    right = made is not None and _computes(model, seen, kind, layer, values, made, expert)
                    found.note("experts", "" if right else f"{kind}@{layer}#{expert} is not what {path} computes")
            elif experts:  # two modules, whose first row belongs to whichever expert was chosen
                first, last = owner(model, f"{kind}.up", layer, 0), owner(model, f"{kind}.down", layer, 0)
                if first in seen.inputs and last in seen.outputs:
                    ends = seen.inputs[first], seen.outputs[last]
                    right = any(_computes(model, seen, kind, layer, *ends, expert) for expert in experts)
                    found.note("experts", "" if right else f"{kind}@{layer} does not compute what its modules do")


def call_expert(module: Any, path: str, expert: int, count: int, values: Values) -> Values | None:
    """Return what one expert makes of a vector, or None where its module is called in no known way."""
    torch = library("torch")
    given = torch.from_numpy(values)[None]
    while path:
        part = module.get_submodule(path)
        wanted = len(inspect.signature(part.forward).parameters)
        with torch.no_grad():
            if wanted == 3:  # tokens, the experts chosen for each (two, for some drop an axis of one), their weights
                chosen = torch.tensor([[expert, (expert + 1) % count]])
                return part(given, chosen, torch.tensor([[1.0, 0.0]])).reshape(-1, values.size)[0].numpy()
            if wanted == 2:  # tokens, weights of all experts
                return part(given, torch.eye(count)[expert][None]).reshape(-1, values.size)[0].numpy()
            if wanted == 1:  # the tokens once for each expert
                return part(given.repeat(count, 1)).reshape(count, -1)[expert].numpy()
        path = path.rpartition(".")[0]
    return None
