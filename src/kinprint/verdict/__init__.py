"""From evidence to a verdict: the plan of tests and of reading, the rule, and the sentences."""

from kinprint.evidence.records import ALPHA
from kinprint.verdict.decide import decide, untested
from kinprint.verdict.meter import READING, Meter, Progress
from kinprint.verdict.plan import Mode
from kinprint.verdict.reading import Limits, a_layer, look_bytes, size, total_bytes

__all__ = [
    "ALPHA",
    "READING",
    "Limits",
    "Meter",
    "Mode",
    "Progress",
    "a_layer",
    "decide",
    "look_bytes",
    "size",
    "total_bytes",
    "untested",
]
