"""A remote file as a source of bytes: what is asked for is fetched once, kept in the cache, and handed out mapped."""

from __future__ import annotations

import threading
from bisect import bisect_left, insort
from collections.abc import Iterable
from concurrent.futures import Future
from functools import partial

from kinprint.checkpoint.faults import fault, network_fault
from kinprint.checkpoint.intervals import Intervals, Range, joined
from kinprint.checkpoint.remote.cache import BlockCache, Extent
from kinprint.checkpoint.remote.limits import Limits
from kinprint.checkpoint.remote.transfer import RemoteBytes, receive
from kinprint.checkpoint.remote.workers import workers_of
from kinprint.checkpoint.source import ByteSource, Pending, settle

BLOCK_BYTES = 1 << 14
"""Ranges are rounded to these."""

GAP_BYTES = 1 << 16
"""Ranges this close are fetched as one: a request costs as much as so many bytes."""

PIECE_BYTES = 1 << 22
"""Longest range of one request, so that several connections share a large one."""

HEAD_BYTES = 1 << 16
"""What the first look at a file fetches: most headers are shorter."""

AHEAD_BYTES = 1 << 21
"""Most that is read ahead of small views that follow each other, as those of a long header do."""


class RemoteFile(ByteSource):
    """One remote file. Views wait until their bytes are there; the cache's map is handed out without a copy."""

    def __init__(self, remote: RemoteBytes, cache: BlockCache, limits: Limits, *, offline: str | None = None) -> None:
        """Open the cache's entry; nothing is fetched.

        Args:
            remote: Where the bytes come from.
            cache: Where they are kept.
            limits: Patience.
            offline: Why nothing may be fetched; None if it may.

        Raises:
            CheckpointError: The cache cannot be written.
        """
        self.name, self.where, self.size = remote.name, remote.where, remote.size
        self._remote = remote
        self._limits = limits
        self._offline = offline
        self._entry = cache.entry(remote.key, remote.size)
        self._lock = threading.RLock()
        self._stop = threading.Event()
        self._there = Intervals()
        self._listed: list[tuple[int, int, Extent]] = []
        self._flying: list[tuple[int, int, Future[None]]] = []
        self._fetched = 0
        self._reached, self._ahead = 0, 0

    def view(self, offset: int, length: int) -> memoryview:
        """Fetch what is missing of a range, and return it; see :meth:`ByteSource.view`."""
        self._open_still()
        self.check(offset, length)
        end = offset + length
        while not self._has(offset, end):
            settle(self._request([(offset, self._end_ahead(offset, end))], urgent=True))
        with self._lock:
            self._open_still()
            self.note(offset, length)
            return self._entry.bytes[offset:end]

    def request(self, ranges: Iterable[Range]) -> Pending:
        """Begin to fetch what is missing; see :meth:`ByteSource.request`."""
        return self._request(ranges, urgent=False)

    def close(self) -> None:
        """Break off what is under way and give the cache's entry free."""
        with self._lock:
            self._stop.set()
            for _, _, future in self._flying:
                future.cancel()
            self._entry.close()

    @property
    def bytes_fetched(self) -> int:
        """How many bytes of this file came over the network so far."""
        return self._fetched

    def _has(self, start: int, end: int) -> bool:
        with self._lock:
            return self._there.covers(start, end)

    def _request(self, ranges: Iterable[Range], *, urgent: bool) -> list[Future[None]]:
        wanted: list[Range] = []
        for start, end in ranges:
            self.check(start, end - start)
            if start < end:
                first = start // BLOCK_BYTES * BLOCK_BYTES
                wanted.append((first, min(-(-end // BLOCK_BYTES) * BLOCK_BYTES, self.size)))
        begun: list[Future[None]] = []
        with self._lock:
            self._open_still()
            self._read_journal()
            for start, end in joined(wanted, GAP_BYTES):
                for gap in self._there.gaps(start, end):
                    begun.extend(self._begin(*gap, urgent=urgent))
        return begun

    def _begin(self, start: int, end: int, *, urgent: bool) -> list[Future[None]]:
        """Begin what brings a missing range: wait for who fetches it already, read it from the cache, or fetch it."""
        begun: list[Future[None]] = []
        on_the_way = Intervals()
        for first, last, future in self._flying:
            if first < end and last > start and not future.done():
                on_the_way.add(first, last)
                begun.append(future)
        for first, last in on_the_way.gaps(start, end):
            known = Intervals()
            for extent in self._take_listed(first, last):
                known.add(extent.start, extent.end)
                begun.append(self._submit(extent.start, extent.end, partial(self._prove, extent), urgent))
            for left, right in known.gaps(first, last):
                for piece in range(left, right, PIECE_BYTES):
                    beyond = min(piece + PIECE_BYTES, right)
                    begun.append(self._submit(piece, beyond, partial(self._load, piece, beyond), urgent))
        return begun

    def _submit(self, start: int, end: int, task: partial[None], urgent: bool) -> Future[None]:
        future = workers_of(self._remote.host).submit(task, urgent=urgent)
        self._flying.append((start, end, future))
        future.add_done_callback(self._landed)
        return future

    def _landed(self, future: Future[None]) -> None:
        with self._lock:
            self._flying = [entry for entry in self._flying if entry[2] is not future]

    def _load(self, start: int, end: int) -> None:
        """Fetch a range into the cache; of one that is broken off, the blocks that came."""
        if self._offline is not None:
            raise network_fault(self.where, f"bytes {start} to {end} are in no cache", self._offline)
        content = bytearray()
        try:
            receive(self._remote, start, end, content, self._limits, self._stop)
        except BaseException:
            whole = len(content) // BLOCK_BYTES * BLOCK_BYTES
            if whole:
                self._store(start, memoryview(content)[:whole])
            raise
        finally:
            self._count(len(content))
        if (start, end) == (0, self.size):
            self._remote.check(bytes(content))
        self._store(start, memoryview(content))

    def _store(self, start: int, content: memoryview) -> None:
        if not self._stop.is_set():
            self._entry.write(start, content)
            with self._lock:
                self._there.add(start, start + len(content))

    def _count(self, received: int) -> None:
        with self._lock:
            self._fetched += received

    def _prove(self, extent: Extent) -> None:
        """Believe a block of the cache if it has its digest, and fetch it again if not."""
        if self._entry.intact(extent):
            with self._lock:
                self._there.add(extent.start, extent.end)
        else:
            self._load(extent.start, extent.end)

    def _read_journal(self) -> None:
        for extent in self._entry.extents():
            if self._there.covers(extent.start, extent.end):
                continue
            # A later line stands for the earlier ones that it covers: what was damaged was fetched again.
            self._take_listed(extent.start, extent.end, inside=True)
            insort(self._listed, (extent.start, extent.end, extent), key=lambda entry: entry[0])

    def _take_listed(self, start: int, end: int, *, inside: bool = False) -> list[Extent]:
        """Take the unproven blocks that overlap a range, or lie inside it, off the list."""
        first = bisect_left(self._listed, start - PIECE_BYTES, key=lambda entry: entry[0])
        last = bisect_left(self._listed, end, key=lambda entry: entry[0])
        taken = [
            extent
            for begin, stop, extent in self._listed[first:last]
            if (begin >= start and stop <= end if inside else stop > start)
        ]
        kept = [entry for entry in self._listed[first:last] if entry[2] not in taken]
        self._listed[first:last] = kept
        return taken

    def _end_ahead(self, offset: int, end: int) -> int:
        """Return how far to fetch for a view: further for the first one, and for small ones that follow each other."""
        with self._lock:
            start = self._there.gaps(offset, end)[0][0] if not self._there.covers(offset, end) else end
            if self._offline is not None:
                return end
            if offset == 0 and not self._there.total:
                self._ahead = HEAD_BYTES
            elif start - BLOCK_BYTES < self._reached <= start and end - start <= GAP_BYTES + BLOCK_BYTES:
                self._ahead = min(max(2 * self._ahead, HEAD_BYTES), AHEAD_BYTES)
            else:
                self._ahead = 0
            self._reached = min(max(end, start + self._ahead), self.size)
            return self._reached

    def _open_still(self) -> None:
        if self._stop.is_set():
            raise fault(self.where, "was closed", "open the checkpoint again")
