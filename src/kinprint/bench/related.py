"""Sizes of related pairs, to be shown beside those of innocents: made by ``bench related``.

Derivations of many kinds are made on the spot from one trained model and its child, written as ``zoo derive`` writes
them, and set against the model that they come from. One small lineage says what such a size looks like; it says nothing
about how often a kind is found (``bench tiny`` does), and no verdict rests on it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kinprint.alignment.trunk import Trunk
from kinprint.architecture import view
from kinprint.bench.lines import model_path
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import UsageError
from kinprint.evidence.matched import PROCEDURE, measure
from kinprint.evidence.pair import Pair
from kinprint.evidence.related import GROUPS, Related, RelatedPair
from kinprint.linalg.threads import one_thread
from kinprint.zoo.derive import Chain, derive
from kinprint.zoo.manifest import Manifest, ModelEntry, read_manifest
from kinprint.zoo.model import Model, put

FILE = "related.json"
VERSION = 1
SEED = 0
DIGITS = 6

Told = Callable[[str, int, int], None]
Start = Literal["base", "child"]


@dataclass(frozen=True, slots=True)
class Kin:
    """A derivation: from what it starts and the kinds that it goes through; ``child`` and ``stranger`` are models."""

    group: str
    start: Start
    kinds: tuple[str, ...]


REWRITTEN, CUT, TRAINED = GROUPS

KIN = (
    *(
        Kin(REWRITTEN, start, kinds)
        for start in ("base", "child")
        for kinds in (
            ("residual-permutation",),
            ("residual-rotation", "norm-gain-replacement"),
            ("ffn-permutation", "ffn-rescaling"),
            ("kv-group-permutation", "query-head-permutation", "vo-gauge", "qk-gauge"),
        )
    ),
    *(
        Kin(CUT, "base", (kind,))
        for kind in (
            "prune-magnitude:share=0.5", "prune-magnitude:share=0.8", "quantise:scheme=int8", "quantise:scheme=q4",
            "noise:share=0.1", "noise:share=0.5", "depth-cut:count=2", "depth-cut:count=4", "depth-upscale",
            "reorder-blocks", "width-cut-ffn:keep=0.5", "width-cut-heads:keep=0.5", "width-cut-residual:keep=0.75",
            "upcycle:experts=4", "embedding-reinit",
        )
    ),
    *(
        Kin(TRAINED, "base", kinds)
        for kinds in (
            ("fine-tune:steps=200",), ("continued-pretraining:steps=200",), ("lora-merge:steps=100",),
            ("depth-cut:count=2", "heal:steps=200"), ("merge-linear:others=child",), ("merge-slerp:others=child",),
            ("merge-linear:others=stranger,weight=0.3",), ("merge-linear:others=stranger,weight=0.5",),
        )
    ),
)  # fmt: skip
"""Every derivation that is made, beside the models that the suite holds already."""


def related(zoo: Path, output: Path, *, kin: Sequence[Kin] = KIN, progress: Told | None = None) -> Related:
    """Derive models from a suite's first lineage, measure each against its base, and write ``related.json``.

    Args:
        zoo: Folder of a built suite: of a model, a child of it, and a stranger. ``examples`` is one.
        output: Folder to write to.
        kin: What to derive.
        progress: Called before each pair.

    Raises:
        UsageError: The folder holds no built suite, or one without such models.
        MissingExtraError: The torch extra is not installed, which checks and trains.
    """
    manifest = read_manifest(zoo)
    if manifest is None:
        raise UsageError(f"{zoo} holds no built suite: run 'kinprint zoo build' first")
    entries = _lineage(manifest)
    paths = {name: model_path(zoo, entry) for name, entry in entries.items()}
    base = Trunk(view(open_checkpoint(paths["base"])))
    own = [Kin(TRAINED, "child", ()), *kin]
    pairs: list[RelatedPair] = []
    with one_thread():
        for done, one in enumerate(own):
            name = " + ".join((entries[one.start].name, *one.kinds))
            if progress is not None:
                progress(name, done, len(own))
            with tempfile.TemporaryDirectory() as folder:
                suspect = _made(one, paths, Path(folder))
                pair = Pair(Trunk(view(open_checkpoint(suspect))), base)
                sizes = {} if pair.obstacle is not None else measure(pair).all()
            held = {name: round(sizes[name], DIGITS) for name in ("heads", "units") if name in sizes}
            pairs.append(RelatedPair(suspect=name, base=entries["base"].name, group=one.group, sizes=held))
    found = Related(version=VERSION, procedure=PROCEDURE, suite=manifest.suite, pairs=tuple(pairs))
    output.mkdir(parents=True, exist_ok=True)
    put(output / FILE, (found.model_dump_json(indent=1) + "\n").encode())
    return found


def _lineage(manifest: Manifest) -> dict[str, ModelEntry]:
    """Return the first model that has a child, that child, and the first model that shares no root with them."""
    children = [one for one in manifest.models if one.parent is not None]
    by_name = {one.name: one for one in manifest.models}
    base, child = next(
        (
            (by_name[one.parent], one)
            for one in children
            if one.parent in by_name and by_name[one.parent].parent is None
        ),
        (None, None),
    )
    if base is None or child is None:
        raise UsageError(f"the suite {manifest.suite} holds no model with a child: take the suite examples")
    stranger = next((one for one in manifest.models if not set(one.roots) & {*base.roots, *child.roots}), None)
    if stranger is None:
        raise UsageError(f"the suite {manifest.suite} holds no stranger to {base.name}: take the suite examples")
    return {"base": base, "child": child, "stranger": stranger}


def _made(one: Kin, paths: dict[str, Path], folder: Path) -> Path:
    """Return where the derived model is: written as it would be published, or as the suite holds it."""
    if not one.kinds:
        return paths[one.start]
    chain = Chain.parse(one.kinds)
    made = derive(Model.read(paths[one.start]), chain, seed=SEED, others=lambda name: Model.read(paths[name]))
    made.model.write(folder)
    return folder
