"""What stands beside the language model in one checkpoint: towers for images and sound, encoders, heads looking ahead.

Each is judged on its own: a copied vision tower says nothing about the language model that it was put in front of.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kinprint.architecture.family import skeleton
from kinprint.architecture.geometry import config_tables
from kinprint.architecture.lexicon import lexicon
from kinprint.checkpoint import Checkpoint

AHEAD = "mtp"
"""Layers beyond the config's depth that predict further tokens (DeepSeek-V3's and GLM-4.5's multi-token prediction)."""

ENCODER = "encoder"

_ALONE = frozenset({"v", "a", "mm"})
"""Words that name a component only where a name begins with them (GGUF)."""

_MOST_STACKS = 16
_AHEAD_NAMES = frozenset({"eh_proj", "enorm", "hnorm", "shared_head", "nextn"})
_DEPTH = ("num_hidden_layers", "n_layer", "num_layers")


def split(checkpoint: Checkpoint) -> tuple[frozenset[str], Mapping[str, frozenset[str]]]:
    """Return the tensors of the language model, and those of each component.

    What would leave no layer to the language model is none: a vision tower that lies alone is what is to be judged.
    """
    words = {word: title for title, entries in lexicon().components.items() for word in entries}
    apart = {name: skeleton(name) for name in checkpoint.tensors}
    layered = {name for name, (_, numbers) in apart.items() if numbers}
    found: dict[str, set[str]] = {}
    titles: dict[str, str | None] = {}
    for name, (text, _) in apart.items():
        # Words are the same wherever only numbers differ, and a mixture has thousands of such names.
        if text not in titles:
            titles[text] = _title(name, words)
        if (title := titles[text]) is not None:
            found.setdefault(title, set()).add(name)
    trunk = set(checkpoint.tensors).difference(*found.values())
    encoder = _encoder(trunk & layered, trunk) if any("encoder" in text for text in titles) else set[str]()
    if encoder:
        found[ENCODER] = encoder
    ahead = _ahead(checkpoint, trunk - encoder, apart)
    if ahead:
        found.setdefault(AHEAD, set()).update(ahead)
    for title, names in _further_stacks(checkpoint, trunk - encoder - ahead, apart).items():
        found.setdefault(title, set()).update(names)
    trunk = set(checkpoint.tensors).difference(*found.values())
    if not trunk & layered:
        return frozenset(checkpoint.tensors), {}
    return frozenset(trunk), {title: frozenset(names) for title, names in sorted(found.items())}


def config_of(config: Mapping[str, Any], title: str) -> Mapping[str, Any]:
    """Return what a config says of one component: its own table, or for encoders and further layers the rest of it."""
    for key in (f"{title}_config", f"{title}_tower_config", f"{title}_encoder_config"):
        if isinstance(config.get(key), Mapping):
            return config[key]
    if title == ENCODER:
        kept = {key: value for key, value in config.items() if not key.startswith("decoder_") and key not in _DEPTH}
        heads = config.get("encoder_attention_heads")
        return kept if heads is None else {**kept, "num_attention_heads": heads}
    if title == AHEAD:
        return {key: value for key, value in config.items() if key not in _DEPTH}
    return {}


def _title(name: str, words: Mapping[str, str]) -> str | None:
    path = name.split(".")[:-1]
    for position, word in enumerate(path):
        if word in words and (word not in _ALONE or position == 0):
            return words[word]
    return None


def _encoder(layered: set[str], trunk: set[str]) -> set[str]:
    """Return the encoder's tensors, where there are layers of an encoder and of a decoder."""
    paths = {name: name.split(".")[:-1] for name in trunk}
    if not all(any(side in paths[name] for name in layered) for side in ("encoder", "decoder")):
        return set()
    return {name for name, path in paths.items() if "encoder" in path and "decoder" not in path}


def _ahead(checkpoint: Checkpoint, trunk: set[str], apart: Mapping[str, tuple[str, tuple[int, ...]]]) -> set[str]:
    """Return the tensors of the layers beyond the config's depth, where they hold what only such layers have."""
    said = next(
        (table[key] for table in config_tables(checkpoint.config) for key in _DEPTH if type(table.get(key)) is int),
        None,
    )
    if said is None:
        return set()
    texts = {text for text in {text for text, _ in apart.values()} if set(text.split(".")) & _AHEAD_NAMES}
    if not texts:
        return set()
    layers = {apart[name][1][0] for name in trunk if apart[name][0] in texts and apart[name][1]}
    beyond = {layer for layer in layers if layer >= said}
    return {name for name in trunk if apart[name][1] and apart[name][1][0] in beyond}


def _by_text(names: Iterable[str], apart: Mapping[str, tuple[str, tuple[int, ...]]]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(apart[name][0], []).append(name)
    return found


def _further_stacks(
    checkpoint: Checkpoint, trunk: set[str], apart: Mapping[str, tuple[str, tuple[int, ...]]]
) -> Mapping[str, set[str]]:
    """Return the stacks of layers beside the largest one, under the word that tells them apart.

    Two paths that number layers of the same inner names are two models in one file (a patcher, a depth decoder).
    """
    stacks: dict[str, set[str]] = {}
    inner: dict[str, set[str]] = {}
    for text, names in _by_text(trunk, apart).items():
        path, layer, rest = text.partition(".#.")
        if layer and apart[names[0]][1]:
            stacks.setdefault(path, set()).update(names)
            inner.setdefault(path, set()).add(rest)
    if len(stacks) < 2:
        return {}
    sizes = {path: sum(checkpoint.tensors[name].size for name in names) for path, names in stacks.items()}
    largest = max(sizes, key=lambda path: (sizes[path], path))
    second = [path for path in stacks if path != largest and inner[path] & inner[largest]]
    found: dict[str, set[str]] = {}
    if len(second) > _MOST_STACKS:
        return found  # no list of models, but one that is numbered in another way
    for path in second:
        words = [word for word in path.split(".")[:-1] if word not in largest.split(".")]
        title = (words or path.split("."))[-1].lower()
        own = path.rpartition(".")[0] + "."
        beside = {name for name in trunk if own.count(".") > 1 and name.startswith(own) and not largest.startswith(own)}
        found.setdefault(title, set()).update(stacks[path] | beside)
    return found
