"""One remote file: which ranges it fetches, that each is fetched once, and that a cut anywhere changes nothing."""

from __future__ import annotations

import hashlib
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.checkpoint.remote.cache import BlockCache
from kinprint.checkpoint.remote.file import BLOCK_BYTES, GAP_BYTES, HEAD_BYTES, PIECE_BYTES, RemoteFile
from kinprint.checkpoint.remote.limits import Limits
from kinprint.checkpoint.remote.transfer import Interrupted, RemoteBytes
from kinprint.checkpoint.source import fetch_together
from kinprint.errors import CheckpointError, NetworkError

QUICK = Limits(attempts=4, wait=0.001)
CONTENT = np.random.default_rng(0).bytes(9_000_000)


class Scripted(RemoteBytes):
    """A file that breaks off before given bytes, each once."""

    def __init__(self, content: bytes = CONTENT, cuts: tuple[int, ...] = (), *, pause: float = 0.0) -> None:
        self.name = self.where = "scripted"
        self.host = f"scripted-{id(self)}"
        self.size = len(content)
        self.key = ("scripted", hashlib.sha256(content).hexdigest())
        self.asked: list[tuple[int, int]] = []
        self.at_once = self.most_at_once = 0
        self._content = content
        self._cuts = set(cuts)
        self._pause = pause
        self._lock = threading.Lock()

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        with self._lock:
            self.asked.append((start, end))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            cut = min((cut for cut in self._cuts if start <= cut < end), default=None)
            self._cuts.discard(cut if cut is not None else -1)
        try:
            time.sleep(self._pause)
            stop = end if cut is None else cut
            for place in range(start, stop, 100_000):
                yield self._content[place : min(place + 100_000, stop)]
            if cut is not None:
                raise Interrupted("cut")
        finally:
            with self._lock:
                self.at_once -= 1


def opened(folder: Path, remote: Scripted, limits: Limits = QUICK) -> RemoteFile:
    return RemoteFile(remote, BlockCache(folder, 10**9), limits)


def test_the_first_look_takes_a_head_and_later_ones_what_is_missing(tmp_path: Path) -> None:
    remote = Scripted()
    file = opened(tmp_path, remote)
    assert bytes(file.view(0, 8)) == CONTENT[:8]
    assert bytes(file.view(8, 60_000)) == CONTENT[8:60_008]
    assert remote.asked == [(0, HEAD_BYTES)]
    assert bytes(file.view(5_000_001, 10)) == CONTENT[5_000_001:5_000_011]
    start = 5_000_001 // BLOCK_BYTES * BLOCK_BYTES
    assert remote.asked[1:] == [(start, start + BLOCK_BYTES)]
    assert (file.bytes_read, file.bytes_fetched) == (60_018, HEAD_BYTES + BLOCK_BYTES)
    file.close()


def test_neighbours_are_fetched_as_one_and_long_ranges_in_pieces(tmp_path: Path) -> None:
    remote = Scripted()
    file = opened(tmp_path, remote)
    near, far = BLOCK_BYTES + GAP_BYTES, 3 * BLOCK_BYTES + 2 * GAP_BYTES + 1
    file.fetch([(far, far + 10), (0, 10), (near, near + 10)])
    first_of_far = far // BLOCK_BYTES * BLOCK_BYTES
    assert sorted(remote.asked) == [(0, near + BLOCK_BYTES), (first_of_far, first_of_far + BLOCK_BYTES)]
    remote.asked.clear()
    file.fetch([(0, file.size)])
    assert max(end - start for start, end in remote.asked) <= PIECE_BYTES
    assert len(remote.asked) == 4  # between the two, and behind them 8.8 MB in three pieces
    assert file.bytes_fetched == file.size
    assert hashlib.sha256(file.view(0, file.size)).digest() == hashlib.sha256(CONTENT).digest()
    file.close()


def test_small_views_that_follow_each_other_are_read_ahead(tmp_path: Path) -> None:
    remote = Scripted()
    file = opened(tmp_path, remote)
    for place in range(0, 4_000_000, 4096):
        assert bytes(file.view(place, 4096)) == CONTENT[place : place + 4096]
    assert len(remote.asked) < 12
    assert file.bytes_fetched < 7_000_000
    file.close()


def test_many_threads_fetch_each_byte_once_and_few_at_a_time(tmp_path: Path) -> None:
    remote = Scripted(pause=0.01)
    file = opened(tmp_path, remote)
    draw = random.Random(0)
    spans = [(start, start + draw.randrange(1, 300_000)) for start in draw.choices(range(8_000_000), k=60)]
    with ThreadPoolExecutor(16) as pool:
        waits = [pool.submit(file.fetch, [span]) for span in spans[:30]]
        views = [pool.submit(lambda span: bytes(file.view(span[0], span[1] - span[0])), span) for span in spans[30:]]
        for wait in waits:
            wait.result()
        for span, found in zip(spans[30:], views, strict=True):
            assert found.result() == CONTENT[slice(*span)]
    fetched = sorted(remote.asked)
    assert all(end <= start for (_, end), (start, _) in pairwise(fetched))
    assert remote.most_at_once <= 8
    file.close()


def test_what_one_reader_fetched_another_finds_and_proves(tmp_path: Path) -> None:
    first = opened(tmp_path, Scripted())
    first.fetch([(0, 1_000_000), (3_000_000, 3_000_010)])
    remote = Scripted()
    second = opened(tmp_path, remote)
    assert bytes(second.view(0, 1_000_000)) == CONTENT[:1_000_000]
    assert bytes(second.view(3_000_000, 10)) == CONTENT[3_000_000:3_000_010]
    assert (remote.asked, second.bytes_fetched) == ([], 0)
    first.fetch([(6_000_000, 6_100_000)])  # while the second is open
    second.view(6_000_000, 100_000)
    assert remote.asked == []
    first.close()
    second.close()


def test_a_block_that_changed_on_the_disk_is_fetched_again_and_only_once(tmp_path: Path) -> None:
    first = opened(tmp_path, Scripted())
    first.fetch([(0, 100_000), (2_000_000, 2_000_010)])
    first.close()
    (data,) = tmp_path.glob("blocks/*/data")
    with data.open("r+b") as file:
        file.seek(50_000)
        file.write(b"damage")
    for expected in (1, 0):
        remote = Scripted()
        again = opened(tmp_path, remote)
        assert bytes(again.view(0, 100_000)) == CONTENT[:100_000]
        assert bytes(again.view(2_000_000, 10)) == CONTENT[2_000_000:2_000_010]
        assert len(remote.asked) == expected
        again.close()


@settings(max_examples=40, deadline=None)
@given(cuts=st.lists(st.integers(0, 999_999), max_size=6, unique=True), fatal=st.integers(0, 999_999))
def test_a_transfer_cut_at_any_byte_resumes_to_the_same_digest(cuts: list[int], fatal: int) -> None:
    content = CONTENT[:1_000_000]
    with TemporaryDirectory() as folder:
        # First one that is given up at its first cut, then others that go on where a cut was.
        once = opened(Path(folder), Scripted(content, (fatal,)), Limits(attempts=1))
        with pytest.raises(NetworkError, match="did not come: cut"):
            once.fetch([(0, len(content))])
        once.close()
        (entry,) = Path(folder).glob("blocks/*")
        assert {path.name for path in entry.iterdir()} <= {"data", "journal"}
        remote = Scripted(content, tuple(cuts))
        file = opened(Path(folder), remote, Limits(attempts=8, wait=0.0))
        assert hashlib.sha256(file.view(0, len(content))).digest() == hashlib.sha256(content).digest()
        # What came before the first cut was kept in whole blocks.
        kept = fatal // BLOCK_BYTES * BLOCK_BYTES
        assert file.bytes_fetched == len(content) - kept
        file.close()


def test_a_cut_goes_on_at_the_byte_where_it_was(tmp_path: Path) -> None:
    remote = Scripted(cuts=(123_456,))
    file = opened(tmp_path, remote)
    file.fetch([(0, 1_000_000)])
    assert remote.asked == [(0, 1_015_808), (123_456, 1_015_808)]
    assert file.bytes_fetched == 1_015_808
    file.close()


class Endless(Scripted):
    """Sends more than it is asked for, or one byte a try, for ever."""

    def __init__(self, chunk: bytes) -> None:
        super().__init__()
        self.key = ("endless", chunk.hex())  # an entry of its own
        self._chunk = chunk

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        self.asked.append((start, end))
        if len(self._chunk) == 1:
            yield self._chunk
            raise Interrupted("one byte")
        while True:
            yield self._chunk


def test_more_than_was_asked_for_is_a_lie_and_is_not_kept(tmp_path: Path) -> None:
    remote = Endless(b"x" * 50_000)
    file = opened(tmp_path, remote)
    with pytest.raises(NetworkError, match="sends more than bytes 0 to 65536"):
        file.view(0, 10)
    assert len(remote.asked) == 1
    file.close()


def test_a_server_that_sends_a_byte_a_try_is_given_up(tmp_path: Path) -> None:
    remote = Endless(b"x")
    file = opened(tmp_path, remote)
    with pytest.raises(NetworkError, match="did not come: one byte"):
        file.view(0, 10)
    assert len(remote.asked) == QUICK.attempts
    file.close()


class Dripping(Scripted):
    """Sends a few bytes now and then, and never ends a try."""

    def stream(self, start: int, end: int) -> Iterator[bytes]:
        self.asked.append((start, end))
        for place in range(start, end, 10):
            time.sleep(0.02)
            yield self._content[place : place + 10]


def test_a_server_that_drips_is_given_up(tmp_path: Path) -> None:
    remote = Dripping()
    file = opened(tmp_path, remote, Limits(attempts=2, wait=0.0, progress_seconds=0.05))
    with pytest.raises(NetworkError, match=r"less than 16384 bytes came in 0\.05 seconds"):
        file.view(0, 10)
    assert len(remote.asked) == 2
    file.close()


def test_a_closed_file_breaks_off_what_is_under_way_and_keeps_arrays(tmp_path: Path) -> None:
    remote = Scripted(pause=0.05)
    file = opened(tmp_path, remote)
    held = file.view(0, 100)
    pending = file.request([(0, file.size)])
    file.close()
    assert all(future.cancelled() or future.exception(5) for future in pending)
    assert bytes(held) == CONTENT[:100]
    for call in (lambda: file.view(0, 1), lambda: file.fetch([(0, 1)])):
        with pytest.raises(CheckpointError, match="was closed"):
            call()


@pytest.mark.parametrize("span", [(-1, 5), (9_000_000, 1), (0, 9_000_001), (5, -1)])
def test_ranges_outside_of_the_file_are_refused(span: tuple[int, int], tmp_path: Path) -> None:
    remote = Scripted()
    file = opened(tmp_path, remote)
    with pytest.raises(CheckpointError, match="ends at byte 9000000"):
        file.view(*span)
    assert remote.asked == []
    file.close()


def test_an_empty_file_and_an_empty_range_take_no_request(tmp_path: Path) -> None:
    remote, empty = Scripted(), Scripted(b"")
    file, nothing = opened(tmp_path, remote), opened(tmp_path, empty)
    assert bytes(file.view(100, 0)) == bytes(nothing.view(0, 0)) == b""
    file.fetch([(7, 7)])
    assert remote.asked == empty.asked == []
    file.close()
    nothing.close()


def test_a_failure_of_one_file_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    good, bad = opened(tmp_path, Scripted()), opened(tmp_path, Endless(b"x"))
    with pytest.raises(NetworkError, match="one byte"):
        fetch_together([(good, (0, 10)), (bad, (0, 10))])
    assert bytes(good.view(0, 10)) == CONTENT[:10]
    bad.close()
    good.close()


def test_without_a_network_only_what_is_cached_is_handed_out(tmp_path: Path) -> None:
    first = opened(tmp_path, Scripted())
    first.fetch([(0, 10)])
    remote = Scripted()
    file = RemoteFile(remote, BlockCache(tmp_path, 10**9), QUICK, offline="it is off")
    assert bytes(file.view(0, 10)) == CONTENT[:10]
    with pytest.raises(NetworkError, match=r"bytes \d+ to \d+ are in no cache; it is off"):
        file.view(4_000_000, 1)
    assert remote.asked == []
    first.close()
    file.close()
