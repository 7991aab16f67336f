"""Memory of freed arrays goes back to the system while a command runs, and garbage is found."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np
from kinprint.cli.memory import LARGE_BYTES, return_large_blocks

def anonymous():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("RssAnon"))

return_large_blocks()
np.ones(4 * LARGE_BYTES, np.uint8)  # freed at once: by itself the C library would keep smaller blocks from now on
before = anonymous()
# Small arrays that stay lie between the large ones.
both = [(np.ones(LARGE_BYTES + 4096, np.uint8), np.ones(1 << 17, np.uint8)) for _ in range(30)]
kept = [small for _, small in both]
full = anonymous() - before
del both
print(full, anonymous() - before, sum(small.nbytes for small in kept), LARGE_BYTES)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="anonymous memory is read from /proc")
def test_large_arrays_are_returned_though_small_ones_between_them_stay() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True, timeout=60)
    full, left, small, large = map(int, done.stdout.split())
    assert full > 30 * large
    assert left < small + 2 * large


COLLECTED = """
import gc
import weakref
from kinprint.cli.memory import keep_garbage
from kinprint.cli.progress import showing_progress

class Node:
    pass

def circle():
    node = Node()
    node.itself = node
    return weakref.ref(node)

keep_garbage()
kept = circle()
many = [[] for _ in range(100_000)]
with showing_progress(quiet=True):
    made = circle()
    more = [[] for _ in range(100_000)]
    print(kept() is not None, made() is None, gc.isenabled())
"""


def test_garbage_is_left_alone_during_imports_and_collected_during_work() -> None:
    done = subprocess.run([sys.executable, "-c", COLLECTED], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["True", "True", "True"]
