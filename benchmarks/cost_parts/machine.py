"""What the numbers are measured on."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import numpy as np  # noqa: F401 - so that its BLAS is listed
import scipy.linalg  # noqa: F401 - loads scipy's own BLAS, which is then listed
from threadpoolctl import threadpool_info

SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "OPENBLAS_CORETYPE", "MKL_NUM_THREADS")


def describe() -> str:
    """Return processor, memory, kernel, libraries and settings of the BLAS in one line. Settings are never changed."""
    settings = [f"{name}={os.environ[name]}" for name in SETTINGS if name in os.environ]
    parts = [
        _field("/proc/cpuinfo", "model name") or platform.machine(),
        f"{os.cpu_count()} cores",
        f"{_memory_gib():.0f} GiB of memory",
        f"{platform.system()} {platform.release()}",
        f"Python {platform.python_version()}",
        *(f"{name} {version(name)}" for name in ("numpy", "scipy", "ml_dtypes", "kinprint")),
        *sorted({_blas(pool) for pool in threadpool_info() if pool["user_api"] == "blas"}),
        *settings,
    ]
    return ", ".join(parts)


def _blas(pool: dict[str, object]) -> str:
    return f"{pool['internal_api']} {pool['version']} ({pool.get('architecture')}, {pool['num_threads']} threads)"


def commit() -> str:
    """Return the commit of the working tree, with a plus where it was changed since; empty without git."""
    folder = Path(__file__).parent
    try:
        done = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--untracked-files=no", "src"],
            cwd=folder.parents[1],
            capture_output=True,
            text=True,
        )
    except OSError:
        return ""
    return done.stdout.strip() + ("+" if changed.stdout.strip() else "")


def _field(file: str, name: str) -> str:
    path = Path(file)
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith(name)), "")


def _memory_gib() -> float:
    return float((_field("/proc/meminfo", "MemTotal") or "0 kB").split()[0]) / 2**20


def load() -> float:
    """Return how many processes wanted to run in the last minute."""
    return os.getloadavg()[0]
