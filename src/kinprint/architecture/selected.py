"""A checkpoint seen otherwise: some of its tensors, or all of them under other names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from kinprint.checkpoint import Array, Checkpoint, Wanted


class _Through(Checkpoint):
    """Tensors of another checkpoint, each under a name of this one; bytes and vocabulary are the other's."""

    def __init__(self, whole: Checkpoint, stored: Mapping[str, str]) -> None:
        """See another checkpoint's tensors: ``stored`` gives the name in it of each that is seen."""
        self.location = whole.location
        self.format = whole.format
        self.revision, self.file_digests = whole.revision, whole.file_digests
        self._whole = whole
        self._stored = stored

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis; see :meth:`Checkpoint.read`."""
        return self._whole.read(self._stored[name], rows)

    def read_item(self, name: str, item: int, rows: slice) -> Array:
        """Return some rows of one item of the first axis; see :meth:`Checkpoint.read_item`."""
        return self._whole.read_item(self._stored[name], item, rows)

    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor."""
        return self._whole.raw(self._stored[name])

    def raw_rows(self, name: str, first: int, last: int) -> memoryview:
        """Return the stored bytes of a range of the first axis."""
        return self._whole.raw_rows(self._stored[name], first, last)

    def fetch(self, wanted: Iterable[Wanted]) -> None:
        """Fetch what reads will need; see :meth:`Checkpoint.fetch`."""
        self._whole.fetch(((self._stored[name], rows) for name, rows in wanted))

    @property
    def bytes_read(self) -> int:
        """How many different bytes of the whole checkpoint were handed out so far."""
        return self._whole.bytes_read

    @property
    def bytes_fetched(self) -> int:
        """How many bytes of the whole checkpoint came over a network so far."""
        return self._whole.bytes_fetched

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id of the whole checkpoint."""
        return self._whole.vocabulary


class Selected(_Through):
    """What a component holds."""

    def __init__(
        self, whole: Checkpoint, names: Iterable[str], *, title: str, config: Mapping[str, Any] | None = None
    ) -> None:
        """Select tensors by name; ``config`` stands in place of the whole checkpoint's."""
        kept = set(names)
        self.tensors = {name: info for name, info in whole.tensors.items() if name in kept}
        super().__init__(whole, {name: name for name in self.tensors})
        self.name = f"{whole.name}:{title}"
        self.config = whole.config if config is None else config
        self.notes = ()


class Renamed(_Through):
    """The same tensors under the names by which their layers can be counted; digests are the stored file's."""

    def __init__(self, whole: Checkpoint, names: Mapping[str, str]) -> None:
        """Rename tensors: ``names`` gives the new name of each, in the order in which they are listed."""
        super().__init__(whole, {new: old for old, new in names.items()})
        self.name = whole.name
        self.config = whole.config
        self.notes = whole.notes
        self.tensors = {new: replace(whole.tensors[old], name=new) for old, new in names.items()}

    @cached_property
    def header_digest(self) -> str:
        """Digest of the stored names, dtypes and shapes."""
        return self._whole.header_digest

    @cached_property
    def content_digest(self) -> str:
        """Digest of the stored file."""
        return self._whole.content_digest

    def close(self) -> None:
        """Release the files."""
        self._whole.close()
