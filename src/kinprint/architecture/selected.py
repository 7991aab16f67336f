"""Some tensors of a checkpoint, as a checkpoint of their own."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kinprint.checkpoint import Array, Checkpoint


class Selected(Checkpoint):
    """What a component holds; bytes and vocabulary are the whole checkpoint's."""

    def __init__(
        self, whole: Checkpoint, names: Iterable[str], *, title: str, config: Mapping[str, Any] | None = None
    ) -> None:
        """Select tensors by name; ``config`` stands in place of the whole checkpoint's."""
        kept = set(names)
        self.name = f"{whole.name}:{title}"
        self.location = whole.location
        self.format = whole.format
        self.config = whole.config if config is None else config
        self.notes = ()
        self.tensors = {name: info for name, info in whole.tensors.items() if name in kept}
        self._whole = whole

    def read(self, name: str, rows: slice | None = None) -> Array:
        """Return one tensor, or a range of its first axis; see :meth:`Checkpoint.read`."""
        return self._whole.read(name, rows)

    def raw(self, name: str) -> memoryview:
        """Return the stored bytes of one tensor."""
        return self._whole.raw(name)

    @property
    def vocabulary(self) -> tuple[str, ...] | None:
        """Token strings by id of the whole checkpoint."""
        return self._whole.vocabulary
