"""A budget bounds what a request may cost before it is sent, worked out by hand."""

from __future__ import annotations

import pytest

from kinprint.behaviour.budget import TEMPLATE_TOKENS, Budget, Meter
from kinprint.behaviour.openai_api import COMPLETIONS, Answer, Question
from kinprint.errors import UsageError

ASKED = Question(COMPLETIONS, {}, "ten bytes!", 5)


def test_a_request_may_cost_its_bytes_its_template_and_its_limit() -> None:
    meter = Meter(Budget(prices=(1e6, 1e6)))
    assert meter.start(ASKED) == 10 + TEMPLATE_TOKENS + 5


def test_a_template_that_was_seen_is_allowed_for_from_then_on() -> None:
    meter = Meter(Budget(prices=(1e6, 1e6)))
    meter.answered(ASKED, Answer("", None, 500, 2), meter.start(ASKED))
    assert meter.spent.cost == 502
    assert meter.start(ASKED) == 500 + 5


def test_what_was_lost_counts_and_what_was_refused_does_not() -> None:
    meter = Meter(Budget(max_cost=200.0, prices=(1e6, 1e6)))
    most = meter.start(ASKED)
    assert meter.start(ASKED) == most
    with pytest.raises(UsageError, match="200 of it is left and the next request may cost 79"):
        meter.start(ASKED)
    meter.refused(most)
    meter.refused(most)
    assert meter.spent.cost == 0
    meter.lost(meter.start(ASKED))
    assert meter.spent.cost == most == 79


def test_an_answer_without_counts_costs_the_most_that_it_may() -> None:
    meter = Meter(Budget(prices=(1e6, 0.0)))
    meter.answered(ASKED, Answer("", None, 3, None), meter.start(ASKED))
    assert (meter.spent.cost, meter.spent.uncounted, meter.spent.prompt_tokens) == (74, 1, 0)
