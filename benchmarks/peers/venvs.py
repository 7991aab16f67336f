"""A virtual environment per peer, made once and reused.

None of it touches the environment that kinprint runs in, and a peer that cannot be installed is left out with a line
that says why.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from known import CPU_TORCH, CPU_TORCH_INDEX, Peer

STAMP = "kinprint-peer.json"
"""Written last, so an environment without it is unfinished."""


class UnavailableError(Exception):
    """A peer cannot be run here; the message says why, in one line."""


@dataclass(frozen=True, slots=True)
class Venv:
    """A finished environment.

    Attributes:
        python: Its interpreter.
        version: Version of Python.
        asked: What pip was asked for.
        packages: Installed versions by name.
        megabytes: Size on disk, in MB (1e6 bytes).
    """

    python: str
    version: str
    asked: tuple[str, ...]
    packages: dict[str, str]
    megabytes: int


def ensure(peer: Peer, folder: Path, *, torch: str | None) -> Venv:
    """Return the peer's environment below a folder, and make it first where there is none.

    Args:
        peer: What to install.
        folder: Where all peers' environments live.
        torch: PyTorch as pip should get it. None takes what a finished environment holds, and a CPU build in a new one.

    Raises:
        UnavailableError: There is no Python for it, or pip failed.
    """
    home = folder / peer.name
    kept = _finished(home)
    if kept is not None and set(_wanted(peer, torch)) <= set(kept.asked):
        return kept
    if home.exists() and not (home / "pyvenv.cfg").exists():
        raise UnavailableError(f"{home} exists and is no virtual environment: name another folder with --venvs")
    interpreter = find_python(peer.python)
    _run([interpreter, "-m", "venv", "--clear", str(home)], "python -m venv failed")
    python = home / "bin" / "python"
    asked = _wanted(peer, torch or CPU_TORCH)
    if peer.torch:
        _install_torch(python, asked[-1])
    _run([str(python), "-m", "pip", "install", "--quiet", *asked], f"pip could not install {peer.name}")
    return _stamp(home, python, asked)


def find_python(oldest: tuple[int, int]) -> str:
    """Return the oldest interpreter that is new enough: prebuilt libraries exist for it sooner than for a newer one.

    The running one is looked at first, then PATH, then pyenv's versions.

    Raises:
        UnavailableError: There is none.
    """
    found: dict[tuple[int, int], str] = {}
    for candidate in (sys.executable, *_on_path(), *_in_pyenv()):
        version = _version(candidate)
        if version is not None and version >= oldest:
            found.setdefault(version, candidate)
    if not found:
        raise UnavailableError(f"it needs Python {oldest[0]}.{oldest[1]} or newer, and none is on PATH or in pyenv")
    return found[min(found)]


def _wanted(peer: Peer, torch: str | None) -> tuple[str, ...]:
    """Return what pip is asked for, PyTorch last."""
    return (*peer.requirements, torch) if peer.torch and torch else peer.requirements


def _on_path() -> list[str]:
    """Return the interpreters that PATH offers."""
    names = re.compile(r"python3(\.\d+)?")
    folders = [Path(entry) for entry in os.environ.get("PATH", "").split(os.pathsep) if Path(entry).is_dir()]
    return [str(file) for folder in folders for file in sorted(folder.iterdir()) if names.fullmatch(file.name)]


def _in_pyenv() -> list[str]:
    """Return the interpreters that pyenv has built."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    return [str(file) for file in sorted(root.glob("versions/3.*/bin/python"))]


def _version(interpreter: str) -> tuple[int, int] | None:
    """Return an interpreter's version; None where it does not run (pyenv's shims) or cannot make environments."""
    code = "import ensurepip, sys, venv; print(*sys.version_info[:2])"
    try:
        done = subprocess.run([interpreter, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if done.returncode:
        return None
    major, minor = done.stdout.split()
    return int(major), int(minor)


def _install_torch(python: Path, torch: str) -> None:
    """Install PyTorch; where its CPU build cannot be had, say what the alternative costs instead of taking it."""
    index = ["--extra-index-url", CPU_TORCH_INDEX] if "+cpu" in torch else []
    done = _pip(python, "--retries", "1", "--timeout", "30", *index, torch)
    if done.returncode == 0:
        return
    if not index:
        raise UnavailableError(f"pip could not install {torch}: {_last_line(done.stderr)}")
    public = torch.removesuffix("+cpu")
    raise UnavailableError(
        f"pip found no {torch} here (looked in {CPU_TORCH_INDEX}); --torch {public} takes PyPI's build with CUDA, "
        f"which also runs on a CPU: about 2.7 GB to download and 5 GB on disk"
    )


def _pip(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run pip install inside an environment."""
    command = [str(python), "-m", "pip", "install", "--quiet", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


def _run(command: Sequence[str], fault: str) -> None:
    """Run a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise UnavailableError(f"{fault}: {_last_line(done.stderr)}")


def _last_line(text: str) -> str:
    """Return the last line that says something."""
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else "no message"


def _finished(home: Path) -> Venv | None:
    """Return the environment that the stamp describes; None where it is missing, unreadable or its Python is gone."""
    try:
        stamp = json.loads((home / STAMP).read_text("utf-8"))
        venv = Venv(**{**stamp, "asked": tuple(stamp["asked"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return venv if shutil.which(venv.python) else None


def _stamp(home: Path, python: Path, asked: tuple[str, ...]) -> Venv:
    """Write down what was installed."""
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format", "json"], capture_output=True, text=True, check=True
    )
    version = subprocess.run(
        [str(python), "-c", "import platform; print(platform.python_version())"],
        capture_output=True,
        text=True,
        check=True,
    )
    venv = Venv(
        python=str(python),
        version=version.stdout.strip(),
        asked=asked,
        packages={package["name"]: package["version"] for package in json.loads(listed.stdout)},
        megabytes=round(sum(file.lstat().st_size for file in home.rglob("*")) / 1e6),
    )
    (home / STAMP).write_text(json.dumps(asdict(venv), indent=2) + "\n", "utf-8")
    return venv
