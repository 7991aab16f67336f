"""The models that premises are measured on: those of a zoo by name, and one real model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from functools import cached_property
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kinprint.architecture import ModelView, PartKey, view
from kinprint.bench.premises.records import Roster
from kinprint.checkpoint import Array, open_checkpoint
from kinprint.errors import CheckpointError, UsageError
from kinprint.transform import ModelState
from kinprint.zoo import corpus, networks
from kinprint.zoo.model import Model

Told = Callable[[str], None]
"""Hears, in a few words, what is being measured."""

SEED = 0

MATRICES = ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")
"""Roles of the matrices of a dense layer."""

REAL_TEXT_BYTES = 1 << 12
"""End of the text that is enough for a real model, whose every token costs a second of a hundred small ones."""


@dataclass(frozen=True, slots=True)
class Models:
    """A zoo's models by name.

    Attributes:
        folder: Holds one folder per model.
        roster: Which are used for what.
    """

    folder: Path
    roster: Roster

    def names(self) -> tuple[str, ...]:
        """Return every name of the roster, once."""
        r = self.roster
        groups = (r.children, r.laundered, r.twins, r.random_gains, r.upcycled, r.mixture, r.families, r.gauged)
        return tuple(dict.fromkeys((r.base, *(name for group in groups for name in group))))

    def present(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those names that the zoo has."""
        return tuple(name for name in names if (self.folder / name).is_dir())

    def absent(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return those names that the zoo lacks."""
        return tuple(name for name in names if not (self.folder / name).is_dir())

    def view(self, name: str) -> ModelView:
        """Open a model."""
        return view(open_checkpoint(self.folder / name))

    def read(self, name: str) -> Model:
        """Load a model."""
        return Model.read(self.folder / name)

    def missing_note(self, names: Iterable[str]) -> tuple[str, ...]:
        """Return a note that names what the zoo lacks, or nothing."""
        absent = self.absent(names)
        return (f"not in this zoo, so not measured: {', '.join(absent)}",) if absent else ()

    def text(self) -> bytes:
        """Return the text on which perplexity is measured."""
        return corpus.load(self.roster.text).content


@dataclass(frozen=True)
class Real:
    """One real model.

    Attributes:
        name: Of its file or folder.
        model: Its weights.
    """

    name: str
    model: Model

    @cached_property
    def state(self) -> ModelState:
        """Its parts by role."""
        return self.model.state()


def real_model(path: Path) -> Real:
    """Read a real model: a Hugging Face folder, a GGUF file, or a folder that holds one.

    Raises:
        UsageError: There are several GGUF files in the folder.
        CheckpointError: It cannot be read.
        MissingExtraError: It is GGUF and transformers is not installed.
    """
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.gguf"))
        if len(found) != 1:
            raise UsageError(
                f"{path} holds neither a config.json nor one GGUF file: name the model's own folder or file"
            )
        path = found[0]
    if path.suffix != ".gguf":
        return Real(path.name, Model.read(path))
    return Real(path.stem, _from_gguf(path))


def _from_gguf(path: Path) -> Model:
    """Let transformers translate names, order of rows, config and tokenizer to those of a Hugging Face folder."""
    # transformers' own bar ignores its switch, and progress is told by the caller.
    with networks.reproducible(), redirect_stderr(StringIO()), TemporaryDirectory() as scratch:
        transformers: Any = networks.extra("transformers")
        source: dict[str, Any] = {"gguf_file": path.name, "local_files_only": True}
        try:
            module = transformers.AutoModelForCausalLM.from_pretrained(path.parent, dtype="float32", **source)
            transformers.AutoTokenizer.from_pretrained(path.parent, **source).save_pretrained(scratch)
        except (OSError, ValueError) as error:
            first = (str(error).splitlines() or ["unreadable"])[0]
            raise CheckpointError(
                f"{path}: transformers cannot read it ({first}): give a Hugging Face folder"
            ) from error
        config: dict[str, Any] = module.config.to_dict()
        config.pop("quantization_config", None)
        tied = bool(config.get("tie_word_embeddings"))
        weights = {
            name: np.array(tensor.numpy())
            for name, tensor in module.state_dict().items()
            if not (tied and name == "lm_head.weight")
        }
        files = {file.name: file.read_bytes() for file in Path(scratch).iterdir()}
    return Model(config, weights, files)


def matrix_keys(state: ModelState, roles: Sequence[str] = MATRICES) -> dict[str, list[PartKey]]:
    """Return the dense matrices of a model by role, in order of layers; roles that it lacks are left out."""
    found = {role: [key for key in state.parts if key.role == role] for role in roles}
    return {role: sorted(keys, key=lambda key: key.layer or 0) for role, keys in found.items() if keys}


def some_layers(state: ModelState, layers: Sequence[int]) -> ModelState:
    """Return a model that keeps only some layers, numbered anew. Its function is not that of the whole.

    Raises:
        UsageError: The config does not say how many layers there are.
    """
    entry = next((key for key in state.family.geometry.get("layers", ()) if key in state.config), None)
    if entry is None:
        raise UsageError("the config does not say how many layers the model has: use one in Hugging Face layout")
    number = {old: new for new, old in enumerate(layers)}
    parts = {
        replace(key, layer=None if key.layer is None else number[key.layer]): array
        for key, array in state.parts.items()
        if key.layer is None or key.layer in number
    }
    geometry = replace(state.geometry, layers=len(number))
    return replace(state, parts=parts, geometry=geometry, config={**state.config, entry: len(number)})


def spread_layers(state: ModelState, count: int) -> list[int]:
    """Return some layers of a model, evenly spread from the first to the last."""
    total = state.geometry.layers or 1
    return sorted({round(place) for place in np.linspace(0, total - 1, min(count, total))})


def gaussian(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Draw a matrix of independent standard normal numbers."""
    drawn: Array = rng.standard_normal(shape)
    return drawn


def smallness(state: ModelState) -> str:
    """Return the caveat that a model's size calls for."""
    sizes = state.geometry
    return (
        f"a model of {sizes.layers} layers of width {sizes.hidden}: limits for large matrices are rough here, and what "
        "holds here need not hold at a thousand times the size"
    )
