"""One cold process: its seconds, its peak of anonymous memory, and what it printed. Linux only.

RssAnon (pages that no file backs) is sampled every five milliseconds over the process and what it starts: workers are
counted, memory-mapped checkpoints are not.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.005
LOOK_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Run:
    """What one process took.

    Attributes:
        seconds: From its start to its end, interpreter and imports included.
        cpu_seconds: What it and what it started spent of the processor: on a busy machine the steadier number.
        peak_mb: Largest sum of RssAnon over the process and what it starts, in MB (1e6 bytes).
        code: Exit status; None where it was stopped for taking too long.
        out: Standard output.
        err: The end of standard error.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    code: int | None
    out: str
    err: str


def kinprint() -> str:
    """Return the installed command beside the running interpreter."""
    return str(Path(sys.executable).parent / "kinprint")


def cold(command: Sequence[str], *, env: Mapping[str, str] | None = None, timeout: float = 3600) -> Run:
    """Run a command in a process of its own and measure it.

    Args:
        command: Program and arguments.
        env: Variables on top of the caller's.
        timeout: Seconds after which it is stopped, with what it started.
    """
    with tempfile.TemporaryFile("w+b") as out, tempfile.TemporaryFile("w+b") as err:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        started = time.perf_counter()
        # A session of its own, so that what takes too long is stopped with its workers. Modules are compiled once, as
        # in every installed package, whatever the caller's shell says.
        variables = {**os.environ, **(env or {})}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        process = subprocess.Popen(command, stdout=out, stderr=err, env=variables, start_new_session=True)
        members, peak = _Members(process.pid), 0
        code: int | None = None
        while True:
            code = process.poll()
            if code is not None:
                break
            peak = max(peak, members.anonymous_kib())
            if time.perf_counter() - started > timeout:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                break
            time.sleep(SAMPLE_SECONDS)
        seconds = time.perf_counter() - started
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        out.seek(0)
        err.seek(0)
        printed, complained = (file.read().decode("utf-8", "replace") for file in (out, err))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(seconds, cpu, peak * 1024 / 1e6, code, printed, complained[-2000:])


class _Members:
    """The processes of one session, looked up four times a second: reading all of /proc takes milliseconds."""

    def __init__(self, leader: int) -> None:
        self._leader = leader
        self._known = [leader]
        self._looked = time.perf_counter()

    def anonymous_kib(self) -> int:
        """Return the sum of RssAnon in KiB; what has just ended counts 0."""
        if time.perf_counter() - self._looked > LOOK_SECONDS:
            self._known = [pid for pid in _processes() if _session(pid) == self._leader]
            self._looked = time.perf_counter()
        return sum(_rss_anon_kib(pid) for pid in self._known)


def _processes() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]


def _session(pid: int) -> int | None:
    """Return a process's session; None for one that has ended."""
    try:
        return os.getsid(pid)
    except OSError:
        return None


def _rss_anon_kib(pid: int) -> int:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")), 0)
