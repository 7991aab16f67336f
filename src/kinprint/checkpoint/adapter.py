"""Adapters of PEFT on their base: a lazy checkpoint whose reads add what the adapter adds.

The result is what ``merge_and_unload`` of PEFT gives, in float32 and without rounding back to the base's dtype; that
includes what it does to tied embeddings, where a change of one changes both. Only the rows asked for are computed.
An adapter names its base in its config; that is a lead, and whether shapes and names fit is all that is checked.

Ignores how the adapter was trained, dropout, and the names of its targets: its tensors say what it changes. Square
experts are read as PEFT 0.19 and later store them.

Source: peft 0.21, tuners/{lora,ia3,trainable_tokens}; Hu et al. 2021 (arXiv:2106.09685), eq. 3; Liu et al.
2024 (arXiv:2402.09353), eq. 5 (DoRA); Kalajdzievski 2023 (arXiv:2312.03732) (rsLoRA).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kinprint.checkpoint.adapter_changes import Change, Read, Replaced
from kinprint.checkpoint.adapter_config import parse
from kinprint.checkpoint.adapter_names import INPUTS, last
from kinprint.checkpoint.adapter_plan import Plan, plan
from kinprint.checkpoint.base import Array, Checkpoint, TensorInfo, Wanted
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.folder import ADAPTER_CONFIG, ADAPTER_FILES, adapter_set
from kinprint.checkpoint.formats import open_part
from kinprint.checkpoint.jsonfile import read_object
from kinprint.checkpoint.parts import Part
from kinprint.checkpoint.places import Place
from kinprint.checkpoint.source import fetch_together
from kinprint.checkpoint.vocabulary import folder_vocabulary

CONFIG_BYTES = 16_000_000
"""Longest ``adapter_config.json`` that is read."""


def merged(base: Checkpoint, place: Place) -> Checkpoint:
    """Return a base with an adapter added to it.

    Args:
        base: The model that the adapter was trained on, or another one that has the same names and shapes; it may
            itself be merged. Only its ``read`` is used, so that it may be quantised.
        place: Folder with ``adapter_config.json`` and ``adapter_model.safetensors`` or ``.bin``; or that file.

    Returns:
        The lazy sum. Changed tensors are float32 (those that are replaced, of the adapter's dtype), all others the
        base's.

    Raises:
        CheckpointError: This is no adapter, its method is not applied here, it cannot be believed, or it does not fit
            the base: a tensor of it has no place there, or another shape.
    """
    files = place.files
    chosen = adapter_set(files) if place.file is None or place.file in ADAPTER_FILES else None
    if chosen is None:
        raise fault(
            place.location,
            "is no adapter folder",
            f"a + joins a model and a folder with {ADAPTER_CONFIG} and tensors",
        )
    if "peft_type" in base.config:
        raise fault(base.location, "is an adapter itself", "put the model before it: MODEL+ADAPTER+ADAPTER")
    config = read_object(files.source(ADAPTER_CONFIG), max_bytes=CONFIG_BYTES)
    settings = parse(config, files.where(ADAPTER_CONFIG))
    part = open_part(files, chosen.files[0])
    named = config.get("base_model_name_or_path")
    lead = f" (its config names {shown(named)})" if isinstance(named, str) and named else ""
    return _Merged(base, part, place, plan(base, part, settings, lead), settings.kind, lead)


class _Merged(Checkpoint):
    """A base and what an adapter does to its tensors."""

    def __init__(self, base: Checkpoint, part: Part, place: Place, made: Plan, kind: str, lead: str) -> None:
        self._base = base
        self._part = part
        self._place = place
        self._changes = made.changes
        self._same_as = made.same_as
        self.name = f"{base.name}+{place.name}"
        self.location = f"{base.location}+{place.location}"
        self.format = base.format
        self.config: Mapping[str, Any] = {**base.config, **({"tie_word_embeddings": False} if made.untied else {})}
        count = f"{len(made.changes)} tensors of the model were changed by its {len(part.tensors)}"
        self.notes = (*base.notes, *part.notes, f"adapter {place.name} ({kind}): {count}{lead}", *made.notes)
        self.tensors = {name: self._info(name) for name in (*base.tensors, *made.new)}
        self._resized = any(
            name in base.tensors and self.tensors[name].shape != base.tensors[name].shape and _embeds(name)
            for name in made.changes
        )

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis; see :meth:`Checkpoint.read`."""
        changes = self._changes.get(name)
        if changes is None:
            return self._base.read(self._same_as.get(name, name), rows)
        first = rows
        if rows is not None:
            start, stop, step = rows.indices(self.tensors[name].shape[0])
            if step < 0:
                return self.read(name)[rows]
            first = slice(start, max(start, stop), step)
        values = self._after(name, changes)(first)
        # A replaced tensor comes as the adapter stores it, in its own map, read-only already.
        if values.flags.writeable:
            values.flags.writeable = False
        return values

    def raw(self, name: str) -> memoryview:
        """Return the base's bytes, then those of the adapter's tensors and settings that change them."""
        changes = self._changes.get(name)
        if changes is None:
            return self._base.raw(self._same_as.get(name, name))
        pieces = [bytes(self._base.raw(name))] if name in self._base.tensors else []
        for change in changes:
            pieces.extend(bytes(self._part.raw(source)) for source in change.sources)
            pieces.append(f"{type(change).__name__} {change.settings}".encode())
        return memoryview(b"".join(pieces))

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings of the base, or of the adapter's folder where it brings embeddings of another length."""
        ours = folder_vocabulary(self._place.files) if self._resized and self._place.file is None else None
        return ours or self._base.vocabulary

    def fetch(self, wanted: Iterable[Wanted]) -> None:
        """Fetch the base's rows and all of the adapter's tensors that change them; see :meth:`Checkpoint.fetch`."""
        of_base: list[Wanted] = []
        of_part: dict[str, None] = {}
        for name, rows in wanted:
            changes = self._changes.get(name, ())
            stored = name if changes else self._same_as.get(name, name)
            if stored in self._base.tensors:
                of_base.append((stored, rows))
            of_part |= dict.fromkeys(source for change in changes for source in change.sources)
        self._base.fetch(of_base)
        fetch_together(span for source in of_part for span in self._part.spans(source, None))

    @property
    def bytes_read(self) -> int:
        """How many different bytes of both were handed out so far."""
        return self._base.bytes_read + self._place.files.bytes_read

    @property
    def bytes_fetched(self) -> int:
        """How many bytes of both came over a network so far."""
        return self._base.bytes_fetched + self._place.files.bytes_fetched

    def close(self) -> None:
        """Release the files of both. Arrays already handed out stay valid."""
        self._base.close()
        self._place.files.close()

    def _after(self, name: str, changes: tuple[Change, ...]) -> Read:
        """Return what reads a tensor after all its changes."""

        def base(rows: slice | None) -> Array:
            return self._base.read(name, rows)

        def after(before: Read, change: Change) -> Read:
            return lambda rows: change.apply(before, rows)

        read: Read = base
        for change in changes:
            read = after(read, change)
        return read

    def _info(self, name: str) -> TensorInfo:
        """Return the header of one tensor of the sum."""
        changes = self._changes.get(name)
        if changes is None:
            info = self._base.tensors[self._same_as.get(name, name)]
            return TensorInfo(name, info.dtype, info.shape, info.nbytes, info.file, info.codec)
        before = self._base.tensors.get(name)
        ours = [self._part.tensors[source] for change in changes for source in change.sources]
        replaced = self._part.tensors[changes[0].sources[0]] if isinstance(changes[0], Replaced) else None
        shaped = replaced or before or ours[0]
        dtype = replaced.dtype if replaced is not None and len(changes) == 1 else "F32"
        nbytes = sum(info.nbytes for info in ours) + (before.nbytes if before is not None else 0)
        return TensorInfo(name, dtype, shaped.shape, nbytes, (before or shaped).file)


def _embeds(name: str) -> bool:
    """Tell whether a tensor is an input embedding."""
    return last(name.rpartition(".")[0]) in INPUTS
