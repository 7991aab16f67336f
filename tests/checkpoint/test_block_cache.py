"""The cache of blocks: what it believes after a crash or damage, how it stays small, and that users do not disturb."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kinprint.checkpoint.remote.cache import BlockCache, user_folder
from kinprint.errors import CheckpointError, UsageError

KEY = ("somewhere", "file", "version")
SIZE = 1 << 20


@pytest.fixture
def cache(tmp_path: Path) -> BlockCache:
    return BlockCache(tmp_path, 10**9)


def listed(cache: BlockCache, key: tuple[str, ...] = KEY) -> list[tuple[int, int, bool]]:
    """What a fresh look at an entry finds: start, end, and whether it is intact."""
    entry = cache.entry(key, SIZE)
    found = [(extent.start, extent.end, entry.intact(extent)) for extent in entry.extents()]
    entry.close()
    return found


def only(folder: Path) -> Path:
    (path,) = (folder / "blocks").iterdir()
    return path


def test_what_was_written_is_there_at_the_next_look(cache: BlockCache) -> None:
    entry = cache.entry(KEY, SIZE)
    entry.write(4096, b"abc" * 1000)
    assert bytes(entry.bytes[4096:4102]) == b"abcabc"
    entry.close()
    assert listed(cache) == [(4096, 7096, True)]
    assert listed(cache, ("somewhere", "file", "another version")) == []


def test_a_block_that_changed_on_the_disk_is_not_believed(cache: BlockCache, tmp_path: Path) -> None:
    entry = cache.entry(KEY, SIZE)
    entry.write(0, b"a" * 100)
    entry.write(100, b"b" * 100)
    entry.close()
    with (only(tmp_path) / "data").open("r+b") as data:
        data.seek(150)
        data.write(b"!")
    assert listed(cache) == [(0, 100, True), (100, 200, False)]


@pytest.mark.parametrize("torn", [b"200 100 ", b"200 100 00\n", b"\xff\xfe\n", b"200 -1 " + b"0" * 64 + b"\n"])
def test_a_crash_between_data_and_journal_loses_that_block_only(torn: bytes, cache: BlockCache, tmp_path: Path) -> None:
    entry = cache.entry(KEY, SIZE)
    entry.write(0, b"a" * 100)
    entry.close()
    with (only(tmp_path) / "journal").open("ab") as journal:
        journal.write(torn)
    assert listed(cache) == [(0, 100, True)]


def test_a_journal_that_leads_out_of_the_file_is_not_believed(cache: BlockCache, tmp_path: Path) -> None:
    cache.entry(KEY, SIZE).close()
    (only(tmp_path) / "journal").write_text(f"{SIZE - 10} 20 {'0' * 64}\n5 0 {'0' * 64}\n")
    assert listed(cache) == []


def test_a_file_of_another_length_starts_anew(cache: BlockCache, tmp_path: Path) -> None:
    entry = cache.entry(KEY, SIZE)
    entry.write(0, b"a" * 100)
    entry.close()
    os.truncate(only(tmp_path) / "data", 50)
    assert listed(cache) == []
    assert (only(tmp_path) / "data").stat().st_size == SIZE


def test_two_users_see_each_other_s_blocks(cache: BlockCache, tmp_path: Path) -> None:
    first, second = cache.entry(KEY, SIZE), BlockCache(tmp_path, 10**9).entry(KEY, SIZE)
    first.write(0, b"a" * 100)
    assert [extent.start for extent in second.extents()] == [0]
    second.write(100, b"b" * 100)
    assert [extent.start for extent in first.extents()] == [0, 100]
    assert list(first.extents()) == []
    first.close()
    second.close()


def test_the_longest_unused_go_first_and_never_what_is_in_use(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 250_000)
    held = cache.entry(("held",), SIZE)
    for number, name in enumerate(("held", "old", "older", "new")):
        entry = held if name == "held" else cache.entry((name,), SIZE)
        entry.write(0, os.urandom(100_000))
        path = next(p for p in (tmp_path / "blocks").iterdir() if (p / "data").stat().st_ino == _inode(entry))
        os.utime(path, (number, {"held": 0, "older": 1, "old": 2, "new": 3}[name]))
        if entry is not held:
            entry.close()
    cache.trim()
    assert listed(cache, ("old",)) == listed(cache, ("older",)) == []
    assert len(listed(cache, ("new",))) == len(listed(cache, ("held",))) == 1
    assert bytes(held.bytes[:100_000]).count(0) < 1000
    held.close()
    assert not [path for path in (tmp_path / "blocks").iterdir() if path.name.startswith(".")]


def _inode(entry: object) -> int:
    return (entry._path / "data").stat().st_ino  # type: ignore[attr-defined]


def test_a_process_that_holds_an_entry_keeps_another_from_removing_it(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from kinprint.checkpoint.remote.cache import BlockCache\n"
        "entry = BlockCache(Path(sys.argv[1]), 10**9).entry(('held',), 1 << 20); entry.write(0, b'a' * 100_000)\n"
        "print('ready', flush=True); sys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdin=pipe, stdout=pipe) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == b"ready\n"
        small = BlockCache(tmp_path, 1)
        small.trim()
        assert len(list((tmp_path / "blocks").iterdir())) == 1
        other.stdin.close()
        other.wait()
        small.trim()
        assert list((tmp_path / "blocks").iterdir()) == []


def test_room_is_made_while_writing(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1_000_000)
    for number in range(30):
        entry = cache.entry((str(number),), SIZE)
        entry.write(0, os.urandom(100_000))
        entry.close()
    held = sum((path / "data").stat().st_blocks * 512 for path in (tmp_path / "blocks").iterdir())
    assert held <= 1_200_000


def test_records_are_kept_whole_or_not_at_all(cache: BlockCache, tmp_path: Path) -> None:
    cache.keep("listings", ("a",), {"files": {"x": [1]}})
    assert cache.record("listings", ("a",)) == {"files": {"x": [1]}}
    assert cache.record("listings", ("b",)) is None
    (path,) = (tmp_path / "listings").iterdir()
    path.write_text('{"files": ')
    assert cache.record("listings", ("a",)) is None
    path.write_text("[]")
    assert cache.record("listings", ("a",)) is None


@pytest.mark.parametrize(
    ("text", "limit"), [("", 20 * 10**9), ("500", 500), ("3GB", 3 * 10**9), ("2 mb", 2 * 10**6), ("7kB", 7000)]
)
def test_the_environment_places_and_sizes_the_cache(
    text: str, limit: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KINPRINT_CACHE_SIZE", text)
    monkeypatch.setenv("KINPRINT_CACHE", str(tmp_path / "mine"))
    cache = BlockCache.of_environment()
    assert (cache.folder, cache.limit) == (tmp_path / "mine", limit)
    monkeypatch.delenv("KINPRINT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert BlockCache.of_environment().folder == user_folder()


@pytest.mark.parametrize("text", ["much", "-1", "1.5GB", "5 apples"])
def test_a_size_that_is_none_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINPRINT_CACHE_SIZE", text)
    with pytest.raises(UsageError, match="give a number of bytes"):
        BlockCache.of_environment()


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = BlockCache(tmp_path / "file", 10**9)
    with pytest.raises(CheckpointError, match="name another folder by KINPRINT_CACHE"):
        cache.entry(KEY, SIZE)
    cache.keep("listings", ("a",), {})  # small records are no reason to fail
    assert cache.record("listings", ("a",)) is None


def test_a_full_disk_says_what_to_do(cache: BlockCache, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = cache.entry(KEY, SIZE)

    def full(path: Path, *mode: object, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(CheckpointError, match="No space left"):
        entry.write(0, b"a" * 10)
    monkeypatch.undo()
    assert list(entry.extents()) == []
    entry.close()


def test_an_open_entry_takes_one_descriptor_and_arrays_keep_it_from_removal(tmp_path: Path) -> None:
    cache = BlockCache(tmp_path, 1)
    descriptors = Path("/proc/self/fd")
    gc.collect()  # what earlier tests left open is closed before it is counted
    before = len(list(descriptors.iterdir())) if descriptors.is_dir() else 0
    entry = cache.entry(KEY, SIZE)
    entry.write(0, b"a" * 100_000)
    if before:
        assert len(list(descriptors.iterdir())) == before + 1
    held = entry.bytes[:10]
    entry.close()
    cache.trim()
    assert (bytes(held), len(list((tmp_path / "blocks").iterdir()))) == (b"a" * 10, 1)
    del held
    cache.trim()
    assert list((tmp_path / "blocks").iterdir()) == []
