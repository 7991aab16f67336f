"""Whether queries, keys and values are what attention takes, and the output projection takes what it gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from causal_compare import CLOSE, Examined, before, behind, close, linear, normed, owner, parallel, plain
from causal_trace import Trace, Values

from kinprint.architecture import ModelView, PartKey


def _layers(model: ModelView) -> Iterator[tuple[str, int]]:
    """Yield the kinds of attention that a model has, with their layers."""
    for kind in ("attn", "cross"):
        seen = {layer for part in ("q", "k", "v", "q_b", "o") for layer in model.layers(f"{kind}.{part}")}
        yield from ((kind, layer) for layer in sorted(seen))


def _home(model: ModelView, kind: str, layer: int) -> str:
    """Return the path of the module that computes attention: what the owners of q, k, v or o have in common."""
    roles = [f"{kind}.{part}" for part in ("q", "k", "v", "q_b", "kv_a", "q_a")]
    held = [role for role in roles if PartKey(role, layer) in model.parts] or [f"{kind}.o"]
    names = [model.tensor_name(role, layer) for role in held]
    # A module's weight stands one level below the module that calls it, a bare parameter in it.
    paths = [name.split(".")[: -2 if name.endswith((".weight", ".bias")) else -1] for name in names]
    common = list(zip(*paths, strict=False))
    same = [len(set(words)) == 1 for words in common]
    return ".".join(words[0] for words in common[: same.index(False) if False in same else len(same)])


def attention(found: Examined, model: ModelView, seen: Trace) -> None:
    """Queries, keys and values are what attention is given, and the output projection takes heads in order."""
    for kind, layer in _layers(model):
        home = _home(model, kind, layer)
        if home not in seen.inputs:
            continue  # never run: a tower, or a layer that one token does not reach
        calls = [one for one in seen.attention if one.path and (home + ".").startswith(one.path + ".")]
        calls += [one for one in seen.attention if one.path.startswith(home + ".")]
        if seen.attention and not calls:
            found.note("qkv", f"{kind}@{layer} is claimed of {home}, which calls no attention")
            continue
        taken = [([one.query], [one.key], [one.value]) for one in calls]
        context = calls[0].context if calls else None
        heads = calls[0].heads if calls else model.geometry.heads or 1
        products = [one for one in seen.products if one.path == home]
        products = products or [one for one in seen.products if one.path.startswith(home + ".")]
        if not calls and products:  # scores are queries times keys; the last product is with the values
            scores = products[:-1] or products
            taken = [([one.left for one in scores], [one.right for one in scores], [products[-1].right])]
            context = products[-1].result
        _projections(found, model, seen, kind, layer, taken, heads)
        _output(found, model, seen, kind, layer, context)


def _projections(
    found: Examined,
    model: ModelView,
    seen: Trace,
    kind: str,
    layer: int,
    taken: list[tuple[list[Values], list[Values], list[Values]]],
    heads: int,
) -> None:
    """Compare each projection with what attention took, and never with what it took in another place."""
    offsets = [one.detach().numpy().reshape(-1) for one in _own(seen, model, kind, layer)]
    widths = {one.size // heads for call in taken for one in call[0] if one.size % heads == 0}
    for slot, part in enumerate("qkv"):
        role = f"{kind}.{part}"
        factored = PartKey(role, layer) not in model.parts
        if factored and not model.has(f"{kind}.{part}_b", layer):
            continue
        at = "" if factored else owner(model, role, layer)
        if at and at not in seen.inputs:
            continue
        wanted = linear(model, role, layer, seen.inputs[at]) if at else _factored(found, model, seen, part, layer)
        if wanted is None:
            continue
        rope = f"{kind}.{part}_rope"
        moved: list[Values | None] = [None]
        if model.has(rope, layer) and owner(model, rope, layer) in seen.inputs:
            turned = linear(model, rope, layer, seen.inputs[owner(model, rope, layer)])
            moved = [turned, *behind(seen, turned)]

        def matches(place: int, wanted: Values = wanted, moved: list[Values | None] = moved, part: str = part) -> bool:
            given = [one for call in taken for one in call[place]]
            return any(
                _same(model, part, layer, one, start, turn, heads, widths)
                for one in given
                for start in (wanted, *(wanted + one for one in offsets if one.size == wanted.size))
                for turn in moved
            )

        if matches(slot):
            found.note("qkv")
        elif at and plain(model, role, layer) and close(seen.outputs[at], wanted) and not any(map(matches, range(3))):
            found.note("qkv")
            found.weak += 1
        else:
            found.note("qkv", f"{role}@{layer} is not what attention takes")


def _own(seen: Trace, model: ModelView, kind: str, layer: int) -> list[Any]:
    """Return the parameters that the attention module holds besides its matrices: what XLNet adds to its queries."""
    module = seen.module.get_submodule(_home(model, kind, layer))
    return [one for one in module.parameters(recurse=False) if one.dim() < 3]


def _same(
    model: ModelView,
    part: str,
    layer: int,
    found: Values,
    wanted: Values,
    turned: Values | None,
    heads: int,
    widths: set[int],
) -> bool:
    """Return whether attention was given a projection, its norm, or each key/value head several times."""
    if turned is not None:
        return _same_turned(found, wanted, turned, heads)
    widths = widths | {model.geometry.head_dim or wanted.size, wanted.size}
    norm = f"norm.{part}" if part in "qk" else ""
    for one in (wanted, *(one for size in widths for one in normed(model, norm, layer, wanted, size))):
        if parallel(found, one):
            return True
        if found.size != one.size and found.size % one.size == 0:
            for size in widths:
                if one.size % size == 0:
                    repeated = np.repeat(one.reshape(-1, size), found.size // one.size, axis=0).reshape(-1)
                    if parallel(found, repeated):
                        return True
    return False


def _same_turned(found: Values, wanted: Values, turned: Values, heads: int) -> bool:
    """Return whether heads are a part without positions and one with, in either order, the latter in any pairing."""
    if found.size % heads or wanted.size % heads:
        return False
    by_head, still = found.reshape(heads, -1), wanted.reshape(heads, -1)
    width = by_head.shape[1] - still.shape[1]
    if width <= 0 or turned.size not in (width, heads * width):
        return False
    moving = np.broadcast_to(turned.reshape(-1, width), (heads, width))  # keys share theirs
    pairings = (moving, moving.reshape(heads, width // 2, 2).swapaxes(1, 2).reshape(heads, -1))
    orders = [np.concatenate(pair, axis=1) for one in pairings for pair in ((still, one), (one, still))]
    return any(parallel(found, one.reshape(-1)) for one in orders)


def _factored(found: Examined, model: ModelView, seen: Trace, part: str, layer: int) -> Values | None:
    """Return a projection through its factors, each compared with the module that holds it."""
    down, rank = ("attn.q_a", "norm.q_rank") if part == "q" else ("attn.kv_a", "norm.kv_rank")
    up = f"attn.{part}_b"
    if model.has(down, layer) and model.has(rank, layer):
        inside = seen.inputs.get(owner(model, down, layer))
        between = seen.inputs.get(owner(model, rank, layer))
        if inside is not None and between is not None:
            right = close(between, linear(model, down, layer, inside))
            found.note("qkv", "" if right else f"{down}@{layer} is not what its norm takes")
            gain = model.gain(rank, layer)
            made = between / np.sqrt((between**2).mean() + 1e-12) * gain
            right = parallel(seen.outputs[owner(model, rank, layer)], made)
            found.note("qkv", "" if right else f"{rank}@{layer} is not the norm's gain")
            product = model.array(f"attn.{part}", layer)
            composed = model.array(up, layer) * gain @ model.array(down, layer)
            right = close(product.reshape(-1).astype(np.float64), composed.reshape(-1))
            found.note("qkv", "" if right else f"attn.{part}@{layer} is not the product of its factors")
    inside = seen.inputs.get(owner(model, up, layer))
    return None if inside is None else linear(model, up, layer, inside)


def _output(found: Examined, model: ModelView, seen: Trace, kind: str, layer: int, context: Values | None) -> None:
    """The output projection takes the heads in order, and gives what its module gives."""
    role = f"{kind}.o"
    if not model.has(role, layer) or owner(model, role, layer) not in seen.inputs:
        return
    at = owner(model, role, layer)
    inside, outside = seen.applied.get(model.tensor_name(role, layer), (seen.inputs[at], seen.outputs[at]))
    if not close(outside, linear(model, role, layer, inside)):
        found.note("o", f"{role}@{layer} does not give what its module gives")
    elif context is None or context.size != inside.size or not _in_order(seen, at, inside, context):
        # No head can be told from another; where the tensor is the module's own the order is its own too.
        found.weak += 1
        found.note("o", "" if plain(model, role, layer) else f"{role}@{layer} does not take the heads in order")
    else:
        found.note("o")


def _in_order(seen: Trace, at: str, inside: Values, context: Values) -> bool:
    """Return whether a projection takes what attention gave, perhaps through a norm or a gate."""
    sources = [inside, *before(seen, at, inside)]
    if any(parallel(one, context) for one in sources):
        return True
    zeros = np.abs(context) == 0  # those of the first heads stay where they were when something multiplies them
    return bool(zeros.any()) and any(
        np.abs(one[zeros]).max() <= CLOSE < np.abs(one[~zeros]).min(initial=1.0) * 1e6
        for one in sources
        if one.shape == context.shape
    )
