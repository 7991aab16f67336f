"""Wheels from a package index: the bytes are checked, and nothing leaves the target folder."""

from __future__ import annotations

import hashlib
import subprocess
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kinprint.errors import KinprintError
from kinprint.zoo import packages


def archive(path: Path, **files: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as made:
        for name, content in files.items():
            made.writestr(name.replace("__", "/"), content)
    return path


def test_a_folder_and_a_file_are_unpacked_without_what_is_above_them(tmp_path: Path) -> None:
    wheel = archive(tmp_path / "w.whl", **{"p__models__a__x.pt": b"x", "p__models__a__sub__y.json": b"y", "p__z": b"z"})
    packages.unpack(wheel, "p/models/a", tmp_path / "folder")
    assert (tmp_path / "folder" / "x.pt").read_bytes() == b"x"
    assert (tmp_path / "folder" / "sub" / "y.json").read_bytes() == b"y"
    assert len(list((tmp_path / "folder").rglob("*.*"))) == 2
    packages.unpack(wheel, "p/z", tmp_path / "file")
    assert [path.name for path in (tmp_path / "file").iterdir()] == ["z"]


def test_a_member_that_climbs_out_of_the_folder_is_not_unpacked(tmp_path: Path) -> None:
    wheel = archive(tmp_path / "w.whl", **{"p__..__..__evil": b"e", "p__good": b"g"})
    packages.unpack(wheel, "p", tmp_path / "deep" / "target")
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["w.whl", "good"]


def test_a_path_that_the_wheel_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(KinprintError, match="does not hold p/b"):
        packages.unpack(archive(tmp_path / "w.whl", p__a=b"a"), "p/b", tmp_path / "out")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """An index that serves one wheel; returns the commands that asked for it."""
    asked: list[list[str]] = []

    def serve(command: list[str], **_: Any) -> None:
        asked.append(command)
        archive(Path(command[command.index("--dest") + 1]) / "p-1.whl", p__a=b"a")

    monkeypatch.setenv("KINPRINT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(subprocess, "run", serve)
    return asked


def test_a_wheel_is_downloaded_once_and_never_installed(index: list[list[str]], tmp_path: Path) -> None:
    archive(tmp_path / "same.whl", p__a=b"a")
    sha256 = hashlib.sha256((tmp_path / "same.whl").read_bytes()).hexdigest()
    first = packages.wheel("p", "1", sha256)
    assert packages.wheel("p", "1", sha256) == first
    assert len(index) == 1
    assert {"download", "--no-deps", "--only-binary=:all:"} <= set(index[0])


def test_a_wheel_with_other_bytes_is_refused_and_not_kept(index: list[list[str]], tmp_path: Path) -> None:
    with pytest.raises(KinprintError, match="it is not the one that this version of kinprint knows"):
        packages.wheel("p", "1", "0" * 64)
    assert len(index) == 1
    assert not list((tmp_path / "cache").rglob("*.whl"))


def test_without_a_network_the_fault_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(command: list[str], **_: Any) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="long\nERROR: no such host")

    monkeypatch.setenv("KINPRINT_CACHE", str(tmp_path))
    monkeypatch.setattr(subprocess, "run", fail)
    with pytest.raises(KinprintError, match=r"cannot download p==1 from the package index \(ERROR: no such host\)"):
        packages.wheel("p", "1", "0" * 64)
