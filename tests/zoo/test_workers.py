"""Worker processes end with the one that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kinprint.zoo.workers import workers

PARENT = """
import os, sys, time
from pathlib import Path
from kinprint.zoo.workers import workers

def note(folder):
    Path(folder, str(os.getpid())).touch()
    time.sleep(600)

if __name__ == "__main__":
    with workers(2) as pool:
        for future in [pool.submit(note, sys.argv[1]) for _ in range(2)]:
            future.result()
"""


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return (
        "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text() if Path(f"/proc/{pid}/status").exists() else True
    )


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT], ids=lambda how: how.name)
def test_no_worker_outlives_a_parent_that_is_killed(tmp_path: Path, how: signal.Signals) -> None:
    script, notes = tmp_path / "parent.py", tmp_path / "notes"
    script.write_text(PARENT)
    notes.mkdir()
    parent = subprocess.Popen([sys.executable, script, notes], stderr=subprocess.DEVNULL)
    waited = time.monotonic()
    while len(list(notes.iterdir())) < 2:
        assert time.monotonic() - waited < 60
        time.sleep(0.05)
    parent.send_signal(how)
    parent.wait(timeout=60)
    pids = [int(note.name) for note in notes.iterdir()]
    waited = time.monotonic()
    while any(alive(pid) for pid in pids):
        assert time.monotonic() - waited < 60
        time.sleep(0.05)


def test_a_fault_in_a_worker_reaches_the_caller() -> None:
    with pytest.raises(ZeroDivisionError), workers(1) as pool:
        pool.submit(divmod, 1, 0).result()
