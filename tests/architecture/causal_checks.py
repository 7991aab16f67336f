"""Whether kinprint's parts are what a causal language model computes with, in what it holds and in what it writes."""

from __future__ import annotations

import re
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from causal import build, library
from causal_attention import attention
from causal_compare import Examined
from causal_mlp import dense, experts
from causal_trace import Trace, trace

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint, open_checkpoint
from kinprint.errors import KinprintError


@cache
def examine(name: str) -> Examined:
    """Build a class, run it, and hold kinprint's parts to it."""
    found = Examined(name)
    module, config = build(name)
    found.model_type = config.model_type
    seen = trace(module)
    found.fault = seen.fault
    try:
        model = view(checkpoint(module, config))
    except (KinprintError, ValueError, LookupError) as fault:  # the latter two are faults of the package
        found.note("mapped", f"not read: {fault}")
        return found
    found.family, found.coverage = model.family.name, model.coverage
    found.components = tuple(components(model))
    unmapped = missing(model)
    found.note("mapped", f"no place for {', '.join(unmapped[:4])} ({len(unmapped)})" if unmapped else "")
    _saved(found, module, model)
    hold(found, model, seen)
    return found


def checkpoint(module: Any, config: Any) -> MemoryCheckpoint:
    """Return a model's state dict, with tied tensors once."""
    tied = {target for target, source in module.all_tied_weights_keys.items() if target != source}
    arrays = {key: one.numpy() for key, one in module.state_dict().items() if key not in tied}
    return MemoryCheckpoint(arrays, config=config.to_dict())


def hold(found: Examined, model: ModelView, seen: Trace) -> None:
    """Hold a view to what the model was seen to compute."""
    for one in (model, *components(model).values()):
        attention(found, one, seen)
        dense(found, one, seen)
        experts(found, one, seen)
    _claimed(found, model, seen)


_PROJECTIONS = ("q", "k", "v", "q_a", "q_b", "kv_a", "k_b", "v_b")

_MLP = re.compile(r"(^|\.)(mlp|ffn|feed_forward|experts|shared_experts?|shared_mlp)$")


def _claimed(found: Examined, model: ModelView, seen: Trace) -> None:
    """Every module that calls attention has projections that kinprint knows, and every MLP its matrices."""
    held = {
        (key.role, place.tensor) for one in (model, *components(model).values()) for key, place in one.parts.items()
    }
    heads = {name for role, name in held if role in {f"{kind}.{p}" for kind in ("attn", "cross") for p in _PROJECTIONS}}
    units = {name for role, name in held if role in ("mlp.up", "moe.up", "moe.shared.up")}
    called: dict[int, set[str]] = {}  # layers may share one tensor, which is stored under one of its names
    for name, tensor in seen.module.named_parameters(remove_duplicate=False):
        called.setdefault(id(tensor), set()).add(name)
    for check, paths, names in (
        ("qkv", {one.path for one in seen.attention}, heads),
        ("mlp", {path for path in seen.inputs if _MLP.search(path) and "norm" not in path}, units),
    ):
        for path in sorted(paths):
            matrices = [one for one in seen.module.get_submodule(path).parameters() if one.dim() > 1]
            inside = any(called[id(one)] & names for one in matrices)
            inside |= any(path.startswith(name.rpartition(".")[0] + ".") for name in names)
            if len(matrices) > 1 and not inside:  # attention among the outputs of layers projects nothing
                found.note(check, f"{path} runs, and none of its tensors has such a role")


def components(model: ModelView) -> dict[str, ModelView]:
    """Return the views of what stands beside the language model."""
    return dict(getattr(model, "components", {}))


def missing(model: ModelView) -> list[str]:
    """Return the matrices that neither a model nor its components map or ignore."""
    placed = {place.tensor for one in (model, *components(model).values()) for place in one.parts.values()}
    placed |= {name for one in (model, *components(model).values()) for name in one.ignored}
    tensors = model.checkpoint.tensors
    matrices = (name for name in model.unmapped if tensors[name].floating and len(tensors[name].shape) > 1)
    return [name for name in matrices if name not in placed]


# -- what is written ------------------------------------------------------------------------------------------------


def _saved(found: Examined, module: Any, model: ModelView) -> None:
    """What save_pretrained writes, with the names that it restores, must hold the same parts."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library("transformers.utils.logging").disable_progress_bar()
        try:
            module.save_pretrained(folder)
        except Exception as fault:  # what transformers cannot save nobody can publish: reported
            found.layouts = ("modules",)
            found.fault = found.fault or f"save_pretrained: {type(fault).__name__}: {str(fault)[:120]}"
            return
        try:
            written = view(open_checkpoint(Path(folder)))
        except (KinprintError, ValueError, LookupError) as fault:
            found.note("saved", f"not read: {fault}")
            return
        same = set(written.checkpoint.tensors) == set(model.checkpoint.tensors)
        found.layouts = ("modules",) if same else ("modules", "saved")
        unmapped = missing(written)
        found.note("saved", f"no place for {', '.join(unmapped[:4])} ({len(unmapped)})" if unmapped else "")
        for title, one in (("", model), *components(model).items()):
            other = components(written).get(title) if title else written
            _same_parts(found, title, one, other)


_SAME_WRITTEN = ("attn.", "cross.", "mlp.", "moe.", "norm.", "embed.")
"""Roles that may not depend on how a model was saved. Other sequence mixers are split and joined on the way, a tied
output matrix is written once, and what has no role of its own is called as it is stored."""


def _same_parts(found: Examined, title: str, model: ModelView, written: ModelView | None) -> None:
    if written is None:
        found.note("saved", f"component {title} is missing")
        return
    lost = {key for key in model.parts if key not in written.parts and key.role.startswith(_SAME_WRITTEN)}
    if lost:
        found.note("saved", f"{title} lost {', '.join(sorted(map(str, lost))[:4])} ({len(lost)})")
    for key in (one for one in model.parts.keys() & written.parts.keys() if one.role.startswith(_SAME_WRITTEN)):
        at = (key.role, key.layer, key.expert)
        if not np.array_equal(model.stored(*at), written.stored(*at)):
            found.note("saved", f"{title} {key} differs from what is in the module")
