"""Small models of several families with random weights, made from the family tables alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kinprint.alignment.trunk import Trunk
from kinprint.architecture import Geometry, ModelView, PartKey, Rule
from kinprint.architecture.family import Family, families
from kinprint.checkpoint import Array
from kinprint.evidence.pair import Pair
from kinprint.transform import PRESERVING, ModelState, preserve
from kinprint.types import Evidence

LOG10_ALPHA = -6.0

_PLAIN = ("attn.q.bias", "attn.k.bias", "attn.v.bias", "attn.o.bias", "mlp.gate.bias", "mlp.up.bias", "mlp.down.bias")
_NORMED = ("norm.q", "norm.k")
_DENSE = ("mlp.gate", "mlp.up", "mlp.down")
FORMS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "llama": ("llama", (*_PLAIN, *_NORMED)),
    "qwen3": ("llama", _PLAIN),
    "mixtral": ("mixtral", (*_PLAIN, *_NORMED, *_DENSE)),
    "qwen2_moe": ("qwen2_moe", (*_PLAIN, *_NORMED, *_DENSE, "moe.router.bias")),
    "gpt2": ("gpt2", ()),
    "gpt_neox": ("gpt_neox", ()),
    "bert": ("bert", ()),
}
"""For each form its family and the roles of the table that it lacks."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of a small model; more tokens than coordinates, or a fit on tokens would leave directions open."""

    layers: int = 3
    hidden: int = 24
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 6
    ffn: int = 40
    experts: int = 3
    vocab: int = 96

    def axis(self, name: str) -> int:
        """Return the length of an axis of a family table."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        lengths: dict[str, int] = {"residual": self.hidden, "vocab": self.vocab, "position": 32, "type": 2}
        lengths |= {"head": self.head_dim, "query": queries, "context": queries, "key": keys, "value": keys}
        lengths |= {"ffn": self.ffn, "expert-ffn": self.ffn, "shared-ffn": self.ffn, "shared-gate": 1}
        lengths |= {"expert": self.experts}
        return lengths[name.split(".", maxsplit=1)[0]]


def random(
    form: str = "llama", seed: int = 0, *, sizes: Sizes | None = None, decay: float = 0.5, **changed: int
) -> ModelState:
    """Return a model with a residual stream of its own spectrum and layers of their own scales.

    Args:
        form: One of ``FORMS``.
        seed: Of everything.
        sizes: Its sizes; without grouped queries where the form has none.
        decay: Standard deviations of the directions of the stream fall as 1 / rank^decay; 0 for none.
        changed: Sizes that differ.
    """
    family_name, lacking = FORMS[form]
    size = replace(sizes or Sizes(), **changed)
    if form in ("gpt2", "gpt_neox", "bert"):
        size = replace(size, kv_heads=size.heads, hidden=size.heads * size.head_dim)
    family = next(family for family in families() if family.name == family_name and not family.archs)
    mixture = "moe" in form or form == "mixtral"
    rng = np.random.default_rng(seed)
    stream = _stream(rng, size.hidden, decay)
    rules = _rules(family, lacking)
    parts: dict[PartKey, Array] = {}
    for role, rule in rules.items():
        for layer in range(size.layers) if "layer" in rule.slots else [None]:
            for expert in range(size.experts) if "expert" in rule.slots else [None]:
                parts[PartKey(role, layer, expert)] = _drawn(rng, rule, role, size, stream)
    return ModelState(
        family=family,
        prefix=family.prefixes[0],
        geometry=Geometry(
            layers=size.layers,
            hidden=size.hidden,
            heads=size.heads,
            kv_heads=size.kv_heads,
            head_dim=size.head_dim,
            ffn=size.ffn,
            experts=size.experts if mixture else None,
            vocab=size.vocab,
        ),
        config=_config(form, size, mixture=mixture),
        parts=parts,
        rules=rules,
        extra={},
    )


def _rules(family: Family, lacking: tuple[str, ...]) -> dict[str, Rule]:
    """Return one rule for each role: the first spelling, with a tensor for each expert."""
    found: dict[str, Rule] = {}
    for rule in family.tensor:
        roles = [part.role for part in rule.parts]
        fits = not rule.stacked and not any(r in found or r in lacking or r.startswith("head.") for r in roles)
        found |= dict.fromkeys(roles, rule) if fits else {}
    return found


def _config(form: str, size: Sizes, *, mixture: bool) -> dict[str, Any]:
    said: dict[str, Any] = {"model_type": form, "num_attention_heads": size.heads, "n_head": size.heads}
    if size.kv_heads != size.heads or form not in ("gpt2", "gpt_neox", "bert"):
        said |= {"num_key_value_heads": size.kv_heads, "head_dim": size.head_dim}
    return said | ({"num_local_experts": size.experts, "num_experts": size.experts} if mixture else {})


def _stream(rng: np.random.Generator, hidden: int, decay: float) -> Array:
    turn = np.linalg.qr(rng.standard_normal((hidden, hidden)))[0]
    return turn * np.arange(1, hidden + 1) ** -decay @ turn.T


def _drawn(rng: np.random.Generator, rule: Rule, role: str, size: Sizes, stream: Array) -> Array:
    part = next(part for part in rule.parts if part.role == role)
    if not part.input:
        drawn = rng.standard_normal(size.axis(part.out))
        return 0.1 * drawn if role.endswith("bias") else np.exp(0.3 * drawn)
    drawn = np.exp(0.3 * rng.standard_normal()) * rng.standard_normal((size.axis(part.out), size.axis(part.input)))
    if part.out == "residual":
        return stream @ drawn
    return drawn @ stream


# -- changes -------------------------------------------------------------------------------------------------------


def allowed(state: ModelState) -> list[str]:
    """Return every function-preserving transformation that a model allows."""
    return [name for name, transform in PRESERVING.items() if transform.obstacle(state) is None]


def disguised(state: ModelState, seed: int = 1, names: Iterable[str] | None = None) -> ModelState:
    """Return a model after function-preserving transformations, all that it allows unless some are named."""
    return preserve(state, allowed(state) if names is None else names, np.random.default_rng(seed))


def noisy(state: ModelState, scale: float, seed: int = 1) -> ModelState:
    """Return a model with Gaussian noise on every part, ``scale`` times the part's own standard deviation."""
    rng = np.random.default_rng(seed)
    moved: dict[PartKey, Array] = {
        key: array + scale * array.std() * rng.standard_normal(array.shape) for key, array in state.parts.items()
    }
    return state.updated(moved)


def changed(state: ModelState, role: str, value: Any, layer: int | None = None) -> ModelState:
    """Return a model with one role set to a value, in one layer or in all."""
    keys = [key for key in state.parts if key.role == role and layer in (None, key.layer)]
    assert keys
    return state.updated({key: np.full_like(state.parts[key], value) for key in keys})


def relabelled(view: ModelView, **labels: str) -> ModelView:
    """Return a view whose family table declares other things of its label groups."""
    family = view.family.model_copy(update={"labels": {**view.family.labels, **labels}})
    return replace(view, family=family)


def pair(suspect: ModelState, base: ModelState) -> Pair:
    """Return the pair of two states, at double precision."""
    return Pair.of(suspect.view(np.float64), base.view(np.float64))


class Reader:
    """Views of models of one shape: recognised once, since that costs more than a test on a tiny model."""

    def __init__(self, like: ModelState) -> None:
        self._view = like.view(np.float64)
        self._names = set(self._view.checkpoint.tensors)

    def trunk(self, state: ModelState) -> Trunk:
        """Return the layers of a model of the same shape."""
        checkpoint = state.checkpoint(np.float64)
        assert set(checkpoint.tensors) == self._names
        return Trunk(replace(self._view, checkpoint=checkpoint))


def p_of(found: Evidence) -> float:
    """Return the p-value of a test that ran."""
    assert found.status == "measured", found.reason
    assert found.log10_p is not None
    return 10.0**found.log10_p


def assert_uniform(p_values: Iterable[float]) -> None:
    """Assert that as many p-values are at most .1, and at most .5, as of uniform ones in all but 1 of 10,000 cases."""
    found = np.array(list(p_values))
    for level in (0.1, 0.5):
        at_most, count = int((found <= level).sum()), len(found)
        chances = [math.comb(count, k) * level**k * (1 - level) ** (count - k) for k in range(count + 1)]
        assert min(sum(chances[: at_most + 1]), sum(chances[at_most:])) > 5e-5, (level, at_most, count)
