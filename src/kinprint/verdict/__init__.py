"""From evidence to a verdict: the plan of tests, the rule, and the sentences."""

from kinprint.evidence.records import ALPHA
from kinprint.verdict.decide import decide, untested
from kinprint.verdict.plan import Mode

__all__ = ["ALPHA", "Mode", "decide", "untested"]
