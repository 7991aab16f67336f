"""What an ``adapter_config.json`` says about how an adapter's tensors are to be added.

Patterns in it are regular expressions from a file that nobody vouches for, and Python's matcher can be made to run for
ever: only patterns that cannot do so are matched, which those that people write are.

Source: peft 0.21, tuners/lora/config.py and utils/other.py (``get_pattern_key``).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kinprint.checkpoint.faults import fault, natural, shown
from kinprint.errors import CheckpointError

KINDS = ("LORA", "IA3", "TRAINABLE_TOKENS")
"""Values of ``peft_type`` that are added; the others change the forward pass, or are added in ways of their own."""

PATTERN_CHARS = 300
MODULE_CHARS = 200
MAX_REPEATS = 2
"""What a pattern may cost: matching takes at most the module's length to the power of the repeats and one."""

_MERGE = "merge it with PEFT (merge_and_unload) and give the merged model"
_REFUSED = {
    "use_qalora": "QALoRA",
    "kasa_config": "KaSA",
    "alora_invocation_tokens": "aLoRA",
    "arrow_config": "Arrow",
    "monteclora_config": "MonteCLoRA",
    "use_bdlora": "BD-LoRA",
    "layer_replication": "layer replication",
}
"""Settings that make something else than a sum of B A."""

_CHANGE_THE_BASE = re.compile(r"(pissa|olora|corda|loftq|lora_ga).*")


@dataclass(frozen=True, slots=True)
class AdapterConfig:
    """The settings that decide how tensors are added.

    Attributes:
        kind: ``LORA``, ``IA3`` or ``TRAINABLE_TOKENS``.
        where: File, for messages.
        rank: Rank of modules that no pattern names; None where the method has none.
        alpha: Numerator of the scale, for the same modules.
        ranks: Ranks by pattern, in order.
        alphas: Numerators by pattern.
        root: Whether the scale is alpha / sqrt(rank), not alpha / rank.
        dora: Whether rows are set to a stored length after the addition.
        fan_in_fan_out: Whether weights are said to lie [in, out].
        saved: Modules whose tensors replace those of the base.
        layers: Numbers of the layers that are changed; None for all.
        tokens: Rows of embeddings that are replaced: for every embedding, or by the end of its module's name.
        parameters: Names of parameters that are changed although they are no module's ``weight``.
    """

    kind: str
    where: str
    rank: int | None
    alpha: float
    ranks: Mapping[str, float]
    alphas: Mapping[str, float]
    root: bool
    dora: bool
    fan_in_fan_out: bool
    saved: tuple[str, ...]
    layers: frozenset[int] | None
    tokens: Mapping[str, tuple[int, ...]]
    parameters: tuple[str, ...]

    def scale(self, module: str, rank: int) -> float:
        """Return what B A is multiplied by.

        Args:
            module: Name of the module, without PEFT's own prefix.
            rank: Rank that the shapes of its tensors show.

        Raises:
            CheckpointError: The config states another rank.
        """
        stated = self._by_pattern(self.ranks, module, float(self.rank or 0))
        if stated != rank:
            raise fault(
                self.where,
                f"states rank {stated:g} for {shown(module)}, but its tensors have rank {rank}",
                "config and tensors are of different adapters: fetch both again",
            )
        alpha = self._by_pattern(self.alphas, module, self.alpha)
        return alpha / (math.sqrt(rank) if self.root else rank)

    def rows(self, module: str) -> tuple[int, ...]:
        """Return the rows that are replaced in one embedding.

        Raises:
            CheckpointError: The config states none.
        """
        for name, rows in self.tokens.items():
            if not name or module == name or module.endswith("." + name):
                return rows
        raise fault(self.where, f"states no token ids for {shown(module)}", "config and tensors do not belong together")

    def _by_pattern(self, patterns: Mapping[str, float], module: str, default: float) -> float:
        """Return the value of the first pattern that the end of a module's name matches."""
        for pattern, value in patterns.items():
            if re.match(rf"(.*\.)?({pattern})$", module[-MODULE_CHARS:]):
                return value
        return default


def parse(config: Mapping[str, Any], where: str) -> AdapterConfig:
    """Check and read a parsed ``adapter_config.json``.

    Raises:
        CheckpointError: The method is one that is not added, or a setting is malformed.
    """
    kind = config.get("peft_type")
    if kind not in KINDS:
        raise fault(where, f"is an adapter of type {shown(kind)}, which is not applied here", _MERGE)
    for key, name in _REFUSED.items():
        if config.get(key):
            raise fault(where, f"uses {name} ({key}), which is not applied here", _MERGE)
    started = config.get("init_lora_weights")
    if isinstance(started, str) and _CHANGE_THE_BASE.fullmatch(started):
        raise fault(where, f"was started with {shown(started)}, which changes the base model too", _MERGE)
    rank = config.get("r", 8) if kind == "LORA" else None
    if kind == "LORA" and (not natural(rank) or rank == 0):
        raise fault(where, f"states the rank {shown(rank)}", "damaged: fetch it again")
    return AdapterConfig(
        kind=str(kind),
        where=where,
        rank=rank,
        alpha=_number(config.get("lora_alpha", 8), "lora_alpha", where),
        ranks=_patterns(config.get("rank_pattern"), "rank_pattern", where),
        alphas=_patterns(config.get("alpha_pattern"), "alpha_pattern", where),
        root=config.get("use_rslora") is True,
        dora=config.get("use_dora") is True,
        fan_in_fan_out=config.get("fan_in_fan_out") is True,
        saved=_texts(config.get("modules_to_save"), "modules_to_save", where),
        layers=_layers(config.get("layers_to_transform"), where),
        tokens=_tokens(config, where),
        parameters=_texts(config.get("target_parameters"), "target_parameters", where),
    )


def _number(value: object, key: str, where: str) -> float:
    """Return a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e30:
        raise _malformed(key, where)
    return float(value)


def _texts(value: object, key: str, where: str) -> tuple[str, ...]:
    """Return a list of texts; none for null."""
    values: Sequence[object] = cast("list[object]", value) if isinstance(value, list) else [value]
    texts = [entry for entry in values if isinstance(entry, str)]
    if value is not None and len(texts) != len(values):
        raise _malformed(key, where)
    return tuple(texts)


def _patterns(value: object, key: str, where: str) -> dict[str, float]:
    """Return numbers by pattern, once no pattern can run for ever."""
    if value is not None and not isinstance(value, dict):
        raise _malformed(key, where)
    found: dict[str, float] = {}
    for pattern, number in cast("dict[str, object]", value or {}).items():
        if not _harmless(pattern):
            raise fault(
                where, f"holds the pattern {shown(pattern)} in {key}, which is too complex to be matched", _MERGE
            )
        found[pattern] = _number(number, key, where)
    return found


def _harmless(pattern: str) -> bool:
    """Tell whether a regular expression is valid and cheap: few repeats, none of a group, no look-around."""
    plain = re.sub(r"\\.|\[[^\]]*\]", "x", pattern)
    costly = len(pattern) > PATTERN_CHARS or len(re.findall(r"[*+?{]", plain)) > MAX_REPEATS
    if costly or re.search(r"\)[*+?{]|\(\?", plain) or re.search(r"\\\d", pattern) or plain.count("(") > MAX_REPEATS:
        return False
    try:
        re.compile(rf"(.*\.)?({pattern})$")
    except (re.error, OverflowError, RecursionError):
        return False
    return True


def _layers(value: object, where: str) -> frozenset[int] | None:
    """Return the numbers of the changed layers; None for all."""
    if value is None:
        return None
    values = cast("list[object]", value) if isinstance(value, list) else [value]
    numbers = [entry for entry in values if natural(entry)]
    if len(numbers) != len(values):
        raise _malformed("layers_to_transform", where)
    return frozenset(numbers)


def _tokens(config: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    """Return the replaced rows by the end of the embedding's name; under an empty name, for any embedding."""
    key = "token_indices" if config.get("peft_type") == "TRAINABLE_TOKENS" else "trainable_token_indices"
    value: object = config.get(key)
    lists = cast("dict[str, object]", value if isinstance(value, dict) else {"": value} if value is not None else {})
    found: dict[str, tuple[int, ...]] = {}
    for name, rows in lists.items():
        values = cast("list[object]", rows) if isinstance(rows, list) else [None]
        numbers = [entry for entry in values if natural(entry)]
        if len(numbers) != len(values) or len(set(numbers)) != len(numbers):
            raise _malformed(key, where)
        found[name] = tuple(numbers)
    return found


def _malformed(key: str, where: str) -> CheckpointError:
    """Return the error for a setting of another type than PEFT writes."""
    return fault(where, f"has a malformed {key}", "damaged: fetch the adapter again")
