"""A client of the server in this process: its environment, and the constants that huggingface_hub fixes on import."""

from __future__ import annotations

from pathlib import Path

import pytest

from .server import HubServer


def at_home(monkeypatch: pytest.MonkeyPatch, server: HubServer, folder: Path) -> None:
    """Have the Hub's client, and kinprint, use a server and caches in a folder, without a token."""
    from huggingface_hub import constants

    for name, value in server.environment(folder).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HF_TOKEN", "")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hf" / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(folder / "hf" / "token"))


def entries(folder: Path) -> list[Path]:
    """Return the entries of the block cache."""
    blocks = folder / "kinprint" / "blocks"
    return sorted(blocks.iterdir()) if blocks.is_dir() else []


def leftovers(folder: Path) -> list[str]:
    """Return what lies in the caches and is neither an entry of blocks, whole by its journal, nor a whole record."""
    found: list[str] = []
    for path in sorted([*(folder / "kinprint").rglob("*"), *(folder / "hf").rglob("*")]):
        inside = path.relative_to(folder).as_posix()
        if path.is_file() and not inside.startswith(("kinprint/revisions/", "kinprint/listings/")):
            known = inside.startswith("kinprint/blocks/") and path.name in {"data", "journal"}
            if not known or (path.name == "data" and not _journalled(path)):
                found.append(inside)
        elif path.is_file() and (path.suffix != ".json" or path.name.startswith(".")):
            found.append(inside)
    return found


def _journalled(data: Path) -> bool:
    """Tell whether all that is not zero in an entry is listed in its journal with its digest."""
    import hashlib

    content = bytearray(data.read_bytes())
    journal = data.parent / "journal"
    for line in journal.read_text().splitlines() if journal.exists() else ():
        start, length, digest = line.split()
        block = content[int(start) : int(start) + int(length)]
        if block.strip(b"\0") and hashlib.sha256(block).hexdigest() != digest:
            return False
        content[int(start) : int(start) + int(length)] = bytes(len(block))
    return not content.strip(b"\0")
