"""A quantised checkpoint as the unquantised one that it was made from: same names, same shapes, rounded values.

Source of each scheme: its module.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from kinprint.checkpoint.base import Array, Checkpoint, Codec, TensorInfo, Wanted
from kinprint.checkpoint.parts import enclosing
from kinprint.checkpoint.quantised import awq, bnb, compressed, fp4, fp8, gptq, mlx
from kinprint.checkpoint.quantised.packed import Packed
from kinprint.checkpoint.quantised.refuse import check_rest
from kinprint.checkpoint.quantised.stored import Settings, Stored, read_settings

Finder = Callable[[Stored, Settings], Iterator[Packed]]

SCHEMES: tuple[Finder, ...] = (
    gptq.find, awq.find, bnb.find, compressed.find, mlx.find, fp4.find, fp8.find,
)  # fmt: skip
"""Every scheme that is decoded."""

OF_ACTIVATIONS = frozenset(
    {"input_scale", "input_zero_point", "input_global_scale", "output_scale", "output_zero_point", "k_scale"}
    | {"v_scale", "q_scale", "kv_scale", "act_scale", "activation_scale", "qscale_act", "input_scale_ub"}
    | {"weight_format", "weight_g_idx", "g_idx", "weight_zero_point", "prob_output_scale"}
)
"""Last parts of names of scales of activations and caches, and of what describes a packed weight."""


INPUT_SCALES = "pre_quant_scale"


class DecodedCheckpoint(Checkpoint):
    """A checkpoint whose packed tensors are read as float32; all others pass through."""

    def __init__(self, checkpoint: Checkpoint, groups: Sequence[Packed], left_out: Sequence[str]) -> None:
        """Show each group as one tensor.

        Args:
            checkpoint: As stored.
            groups: What is packed.
            left_out: Stored tensors that are no parameters.

        Raises:
            CheckpointError: Two groups, or a group and a stored tensor, have one name.
        """
        self.name, self.location, self.format = checkpoint.name, checkpoint.location, checkpoint.format
        self.config = checkpoint.config
        self.revision, self.file_digests = checkpoint.revision, checkpoint.file_digests
        self.notes = (*checkpoint.notes, *_notes(groups, left_out))
        self._stored = checkpoint
        self._groups = _by_name(checkpoint, groups)
        hidden = {member for group in groups for member in group.members[1:]} | set(left_out)
        first = {group.members[0]: group for group in groups}
        self.tensors: Mapping[str, TensorInfo] = {}
        for name, info in checkpoint.tensors.items():
            group = first.get(name)
            if group is not None:
                self.tensors[group.name] = _header(checkpoint, group)
            elif name not in hidden:
                self.tensors[name] = info

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis; packed ones as float32. See :meth:`Checkpoint.read`."""
        info = self.tensors[name]
        group = self._groups.get(name)
        if group is None:
            return self._stored.read(name, rows)
        first, last, step = (rows or slice(None)).indices(info.shape[0])
        wanted = range(first, last, step)
        if not wanted:
            values = group.read(0, 0)
        else:
            values = group.read(min(wanted[0], wanted[-1]), max(wanted[0], wanted[-1]) + 1)[::step]
        values.flags.writeable = False
        return values

    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor; of a packed one, those of all that it is made of, in a fixed order."""
        group = self._groups.get(name)
        if group is None:
            return self._stored.raw(self.tensors[name].name)
        return memoryview(b"".join(self._stored.raw(member) for member in group.members))

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the stored bytes of some rows; packed ones do not lie apart, so that all of them are read."""
        if name in self._groups:
            return super().raw_rows(name, first, last)
        return self._stored.raw_rows(name, first, last)

    def fetch(self, wanted: Iterable[Wanted]) -> None:
        """Fetch the stored tensors, or rows of them, that reads will decode; see :meth:`Checkpoint.fetch`."""
        stored: list[Wanted] = []
        for name, rows in wanted:
            group = self._groups.get(name)
            if group is None:
                stored.append((self.tensors[name].name, rows))
                continue
            first, last, _ = (0, group.shape[0], 1) if rows is None else enclosing(rows, group.shape[0])
            stored.extend(group.needs(first, last))
        self._stored.fetch(stored)

    @property
    def bytes_read(self) -> int:
        """How many different bytes of the stored files were handed out so far."""
        return self._stored.bytes_read

    @property
    def bytes_fetched(self) -> int:
        """How many bytes came over a network so far."""
        return self._stored.bytes_fetched

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id; see :meth:`Checkpoint.vocabulary`."""
        return self._stored.vocabulary

    def close(self) -> None:
        """Release the files. Arrays already handed out stay valid."""
        self._stored.close()


_PLAIN = frozenset({"F64", "F32", "F16", "BF16"})
"""Dtypes that pack nothing: every scheme has tensors of others."""


def decoded(checkpoint: Checkpoint) -> Checkpoint:
    """Return a checkpoint with every packed group of tensors as one floating tensor under its unquantised name.

    Only headers are read, and the few bytes that state the shape of a packed tensor.

    Args:
        checkpoint: As stored.

    Returns:
        The same object where nothing is quantised.

    Raises:
        CheckpointError: It is quantised by a scheme that is not decoded, or its tensors contradict each other or the
            config.
    """
    if checkpoint.format == "gguf":
        return checkpoint
    settings = read_settings(checkpoint.config, checkpoint.location)
    if settings.method is None and all(info.dtype in _PLAIN for info in checkpoint.tensors.values()):
        return checkpoint
    stored = Stored(checkpoint)
    groups = [_with_inputs_scaled(stored, group) for scheme in SCHEMES for group in scheme(stored, settings)]
    claimed = {member for group in groups for member in group.members}
    check_rest(stored, claimed, settings)
    if not groups:
        return checkpoint
    left_out = [
        name for name, info in checkpoint.tensors.items() if name not in claimed and _of_activations(name, info)
    ]
    return DecodedCheckpoint(checkpoint, groups, left_out)


def _with_inputs_scaled(stored: Stored, group: Packed) -> Packed:
    """Return a group with the vector multiplied in by which its inputs are scaled before the packed matrix.

    AWQ as modelopt writes it: the matrix was divided by the vector before it was rounded, so that their product is the
    weight. Source: nvidia-modelopt, ``pre_quant_scale`` of a quantizer's buffers.

    Raises:
        CheckpointError: The vector has not one entry for each input.
    """
    name = group.name.removesuffix("weight") + INPUT_SCALES
    info = stored.first(name)
    if info is None or not group.name.endswith(".weight") or not info.floating:
        return group
    columns = group.shape[-2] if group.transposed else group.shape[-1]
    if info.shape != (columns,):
        raise stored.fault(name, f"has shape {list(info.shape)}, the packed matrix has {columns} inputs")

    def decode(first: int, last: int) -> Array:
        return group.decode(first, last) * stored.array(name).astype(np.float32)

    return replace(group, members=(*group.members, name), decode=decode)


def _of_activations(name: str, info: TensorInfo) -> bool:
    return name.rsplit(".", 1)[-1] in OF_ACTIVATIONS and sum(length != 1 for length in info.shape) < 2


def _by_name(checkpoint: Checkpoint, groups: Sequence[Packed]) -> Mapping[str, Packed]:
    stored = Stored(checkpoint)
    found: dict[str, Packed] = {}
    owner: dict[str, str] = {}
    for group in groups:
        if group.name in found or (group.name in checkpoint.tensors and group.name not in group.members):
            raise stored.fault(group.name, "is there twice, packed and unpacked", "keep one of them")
        found[group.name] = group
        for member in group.members:
            if owner.setdefault(member, group.name) != group.name:
                raise stored.fault(member, f"belongs to {owner[member]} and to {group.name}", "keep one of them")
    return found


def _header(checkpoint: Checkpoint, group: Packed) -> TensorInfo:
    parts = [checkpoint.tensors[member] for member in group.members]
    size = sum(part.nbytes for part in parts)
    return TensorInfo(group.name, str(group.codec), group.shape, size, parts[0].file, group.codec)


def _notes(groups: Sequence[Packed], left_out: Sequence[str]) -> Iterator[str]:
    for codec, count in Counter(group.codec for group in groups).items():
        yield f"decoded {_count(count)} of {_described(codec)}"
    if left_out:
        yield f"left out {_count(len(left_out))} that scale activations or describe packed weights"


def _count(tensors: int) -> str:
    return "1 tensor" if tensors == 1 else f"{tensors} tensors"


def _described(codec: Codec) -> str:
    groups = f", groups of {codec.block}" if codec.block else ""
    return f"{codec.scheme} ({codec.bits} bits{groups})"
