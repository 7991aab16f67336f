"""What the names of an adapter's tensors mean, and which tensors of a base they are about.

PEFT's names start with ``base_model.model.``, and then follow the module tree of the model that was trained. The base
may have been saved from another class, so that all its names have a prefix more or less (``model.``, ``transformer.``);
one such difference is found and undone, if exactly one makes every tensor of the adapter fit.

Experts: transformers 5 trains them fused ([experts, out, in], ``mlp.experts.gate_up_proj``) and saves them apart
(``block_sparse_moe.experts.3.w1.weight``). Both are found.

Source: peft 0.21, utils/save_and_load.py and tuners_utils.py; transformers 5.24, conversion_mapping.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kinprint.checkpoint.base import Checkpoint, TensorInfo
from kinprint.checkpoint.faults import fault, shown
from kinprint.errors import CheckpointError

INPUTS = frozenset({"embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings"})
OUTPUTS = frozenset({"lm_head", "embed_out", "output"})
"""Last parts of the modules that embed tokens, and of those that score them."""

_PREFIX = "base_model.model."
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<factor>[AB])(\.[^.]+)?\.(?P<leaf>weight|bias)")
_EMBEDDING = re.compile(r"(?P<module>.+)\.lora_embedding_(?P<factor>[AB])(\.[^.]+)?")
_MAGNITUDE = re.compile(r"(?P<module>.+)\.lora_magnitude_vector(\.[^.]+){0,2}")
_TOKENS = re.compile(r"(?P<module>.+?)(\.token_adapter)?\.trainable_tokens_delta(\.[^.]+)?")
_IA3 = re.compile(r"(?P<module>.+)\.ia3_l(\.[^.]+)?")
_COPY = re.compile(r"\.(modules_to_save\.[^.]+|base_layer|token_adapter\.base_layer)(?=\.)")
_SPLIT = {"gate_up_proj": (("w1", "w3"), ("gate_proj", "up_proj")), "down_proj": (("w2",), ("down_proj",))}
ORDER = ("gate_up_proj", "down_proj")
"""The order in which transformers defines the fused parameters, and in which PEFT wraps them, inmost first."""

_MAX_DROPPED = 3


@dataclass(slots=True)
class Pieces:
    """The adapter's tensors for one module: the key of each by what it is (``A``, ``B``, ``magnitude``, ...)."""

    keys: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class Keys:
    """Every tensor of an adapter, sorted.

    Attributes:
        modules: Pieces by module and by how many ``base_layer`` its name has: of a module with several parameters that
            are changed, the inmost first.
        whole: Keys of tensors that replace one of the base, by that one's name; and whether they were trained
            (``modules_to_save``) or are a copy of the base's (``base_layer``).
    """

    modules: dict[tuple[str, int], Pieces] = field(default_factory=dict[tuple[str, int], Pieces])
    whole: dict[str, tuple[str, bool]] = field(default_factory=dict[str, tuple[str, bool]])


@dataclass(frozen=True, slots=True)
class Fused:
    """One parameter of all experts, fused or apart.

    Attributes:
        shape: [experts, rows, columns].
        whole: Name of the fused tensor, or None where experts lie apart.
        apart: For every expert, the names of the tensors that its rows lie in, first rows first.
    """

    shape: tuple[int, int, int]
    whole: str | None = None
    apart: tuple[tuple[str, ...], ...] = ()


def sort_keys(names: Iterable[str], where: str) -> Keys:
    """Sort an adapter's tensors by what they are.

    Raises:
        CheckpointError: Two are the same piece of one module, as when a file holds two adapters.
    """
    found = Keys()
    for key in names:
        name = key
        while name.startswith(_PREFIX):
            name = name.removeprefix(_PREFIX)
        name = name.removeprefix("base_model.")
        match, piece = _piece(name)
        if match is None:
            target = _COPY.sub("", name)
            taken = target in found.whole
            found.whole[target] = key, ".base_layer." not in name
        else:
            module = match["module"]
            plain = re.sub(r"\.base_layer(?=\.|$)", "", module)
            pieces = found.modules.setdefault((plain, module.count(".base_layer")), Pieces())
            taken = piece in pieces.keys
            pieces.keys[piece] = key
        if taken:
            raise fault(where, f"holds a second tensor for the place of {shown(key)}", "keep one adapter in a file")
    return found


def _piece(name: str) -> tuple[re.Match[str] | None, str]:
    """Return the match that tells the module, and what the tensor is."""
    for pattern, kind in ((_LORA, ""), (_EMBEDDING, "embedding_"), (_MAGNITUDE, "magnitude"), (_TOKENS, "tokens")):
        match = pattern.fullmatch(name)
        if match is not None:
            factor = match.groupdict().get("factor")
            leaf = match.groupdict().get("leaf")
            return match, f"{factor}_bias" if leaf == "bias" else kind + (factor or "")
    return _IA3.fullmatch(name), "ia3"


class Places:
    """Where an adapter's modules lie in a base."""

    def __init__(self, tensors: Mapping[str, TensorInfo], modules: Iterable[str], parameters: Iterable[str]) -> None:
        self._tensors = tensors
        self._parameters = tuple(parameters)
        self._modules = tuple(modules)
        self._holders = {part for name in tensors for part in _holders(name)}
        self.dropped, self.added = "", ""

    def find(self, where: str, base: str, lead: str) -> None:
        """Find the one prefix that the names differ by.

        Args:
            where: The adapter, for the message.
            base: The base's name, for the message.
            lead: What the message says of the base that the adapter names.

        Raises:
            CheckpointError: No prefix makes every module fit, or several do.
        """
        if not self._modules or self._fits("", ""):
            return
        longest = max(self._modules, key=lambda module: (module.count("."), len(module)))
        fitting: list[tuple[str, str]] = []
        for dropped, rest in _shortened(longest):
            ends = [(name, end) for name in self._holders for end in _spellings(rest) if _ends(name, end)]
            added = {name[: len(name) - len(end)] for name, end in ends}
            fitting.extend((dropped, prefix) for prefix in sorted(added) if self._fits(dropped, prefix))
            if fitting:
                break
        if len(fitting) == 1:
            self.dropped, self.added = fitting[0]
            return
        if fitting:
            raise fault(
                where, f"fits several parts of {base} ({', '.join(p for _, p in fitting[:3])})", "merge it with PEFT"
            )
        missing = next(module for module in self._modules if self.module(module) is None)
        raise fault(
            where,
            f"changes {shown(missing)}, which {base} does not have",
            f"give the model that it was trained on{lead}",
        )

    def module(self, name: str) -> str | None:
        """Return the base's name of a module; None if the base has no such module."""
        return self._locate(name, self.dropped, self.added)

    def tensor(self, name: str) -> str:
        """Return the base's name of a tensor, whether or not the base has it."""
        module, _, leaf = name.rpartition(".")
        if not module:
            return name
        found = self._locate(module, self.dropped, self.added)
        return f"{found or module}.{leaf}"

    def fused(self, module: str, where: str) -> dict[str, Fused]:
        """Return the parameters of all experts below a module, by name, that are stored fused or apart."""
        found: dict[str, Fused] = {}
        for name, info in self._tensors.items():
            head, _, leaf = name.rpartition(".")
            if head == module and len(info.shape) == 3:
                experts, rows, columns = info.shape
                found[leaf] = Fused((experts, rows, columns), whole=name)
        for leaf, spellings in _SPLIT.items():
            for parts in spellings:
                if leaf not in found and f"{module}.0.{parts[0]}.weight" in self._tensors:
                    found[leaf] = self._apart(module, parts, where)
        allowed = {name.rpartition(".")[2] for name in self._parameters}
        return {leaf: fused for leaf, fused in found.items() if not allowed or leaf in allowed}

    def parameter(self, module: str) -> str | None:
        """Return the matrix, not called ``weight``, that is changed in a module; None if there is none."""
        leaves = [name.rpartition(".")[2] for name in self._parameters]
        names = [f"{module}.{leaf}" for leaf in leaves]
        found = [name for name in names if name in self._tensors and len(self._tensors[name].shape) == 2]
        return found[0] if len(found) == 1 else None

    def _apart(self, module: str, parts: tuple[str, ...], where: str) -> Fused:
        """Return a parameter whose experts lie apart."""
        experts: list[tuple[str, ...]] = []
        while f"{module}.{len(experts)}.{parts[0]}.weight" in self._tensors:
            experts.append(tuple(f"{module}.{len(experts)}.{part}.weight" for part in parts))
        shapes = {self._tensors[name].shape if name in self._tensors else () for names in experts for name in names}
        shape = shapes.pop()
        if shapes or len(shape) != 2:
            raise fault(
                where, f"changes experts of {shown(module)} that are not all of one shape", "fetch the base again"
            )
        rows, columns = shape
        return Fused((len(experts), rows * len(parts), columns), apart=tuple(experts))

    def _fits(self, dropped: str, added: str) -> bool:
        """Tell whether every module lies somewhere, under one difference of prefixes."""
        return all(self._locate(module, dropped, added) is not None for module in self._modules)

    def _locate(self, module: str, dropped: str, added: str) -> str | None:
        """Return the base's name of a module under one difference of prefixes; a module that fits as it is stays."""
        changed = added + module.removeprefix(dropped) if module.startswith(dropped) else module
        for name in (changed, module):
            for spelled in _spellings(name):
                if spelled in self._holders:
                    return spelled
        return None


class Ties:
    """Which embeddings of a base are one tensor, as PEFT has them when it changes them.

    Attributes:
        outputs: Names of the output embeddings that the base stores.
        tied: Whether they are the input embedding: the base says so, or it stores none.
    """

    def __init__(self, base: Checkpoint) -> None:
        self._tensors = base.tensors
        self._inputs = [name for name in base.tensors if _embeds(name, INPUTS)]
        self.outputs = [name for name in base.tensors if _embeds(name, OUTPUTS)]
        self.tied = not self.outputs or base.config.get("tie_word_embeddings") is True

    def partner(self, name: str) -> str | None:
        """Return the base's tensor that is tied to an embedding; None if there is none."""
        if not self.tied or not _embeds(name, INPUTS | OUTPUTS):
            return None
        found = self._inputs if _embeds(name, OUTPUTS) else self.outputs
        return found[0] if len(found) == 1 else None

    def only_input(self, module: str) -> bool:
        """Tell whether a module is an output embedding that the base stores as its input embedding only."""
        return f"{module}.weight" not in self._tensors and self.partner(f"{module}.weight") is not None


def _embeds(name: str, kinds: frozenset[str]) -> bool:
    """Tell whether a tensor is the matrix of an embedding of some kinds."""
    module, _, leaf = name.rpartition(".")
    return leaf == "weight" and last(module) in kinds


def wrong_base(where: str, name: str, base: str, lead: str) -> CheckpointError:
    """Return the error for a tensor that has no place in the base."""
    return fault(
        where, f"holds {shown(name)}, which has no place in {base}", f"give the model that it was trained on{lead}"
    )


def last(module: str) -> str:
    """Return the last part of a module's name."""
    return module.rpartition(".")[2]


def _holders(name: str) -> list[str]:
    """Return the modules that a tensor lies in: its own, and of an expert's the one that holds all experts."""
    module = name.rpartition(".")[0]
    experts = re.fullmatch(r"(.+\.experts)\.\d+\.[^.]+", module)
    return [module, experts[1]] if experts is not None else [module]


def _spellings(module: str) -> tuple[str, ...]:
    """Return the names that transformers 5 and the files of older models have for one module."""
    return module, module.replace(".mlp.", ".block_sparse_moe.")


def _shortened(module: str) -> list[tuple[str, str]]:
    """Return what may be dropped from the front of a name, with the rest: nothing first, then one part, and so on.

    Numbers stay: without them, a layer would be found in the place of another one.
    """
    parts = module.split(".")
    number = next((place for place, part in enumerate(parts) if part.isdigit()), len(parts) - 1)
    count = min(_MAX_DROPPED, number)
    return [("".join(part + "." for part in parts[:n]), ".".join(parts[n:])) for n in range(count + 1)]


def _ends(name: str, rest: str) -> bool:
    """Tell whether a name is another one with a prefix before it that holds no number."""
    if name == rest:
        return True
    return name.endswith("." + rest) and not any(part.isdigit() for part in name[: -len(rest)].split("."))
