"""Model Provenance Testing: what it ignores and notices, answers by hand, and p-values that are not too small."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from jaxtyping import Float64, Int64

from kinprint.behaviour.agreement import Discordant, compare, discordant, holm, log10_tail, same
from kinprint.behaviour.black_box import NextToken
from kinprint.behaviour.endpoint import Endpoint
from kinprint.errors import UsageError
from kinprint.types import MethodResult
from support.openai_server import OpenAIServer, at_home
from support.toy_model import Toy

PROMPTS = [f"Prompt number {place} asks for" for place in range(200)]


@dataclass
class Fixed:
    """A model whose next tokens are listed; an empty one is not told."""

    name: str
    tokens: Sequence[str]
    sampled: bool = False

    @property
    def identity(self) -> str:
        return self.name

    def next_tokens(self, prompts: Sequence[str], *, most: int = 20) -> list[NextToken]:
        told = [NextToken(((token, -0.5),) if token else (), sampled=self.sampled) for token in self.tokens]
        return told[: len(prompts)]

    def answers(self, prompts: Sequence[str], *, most: int = 32) -> list[str]:
        raise AssertionError("agreement asks for next tokens alone")


def number(result: MethodResult, name: str) -> float:
    found = {value.name: value.value for value in (*result.values, *result.controls)}[name]
    assert found is not None
    return found


def toys(*, kept: float, controls: int = 3) -> tuple[Toy, Toy, list[Toy]]:
    base = Toy(seed=0)
    return Toy(seed=100, parent=base, kept=kept), base, [Toy(seed=1 + place) for place in range(controls)]


# -- what it ignores and notices -----------------------------------------------------------------------------------


def test_a_model_that_keeps_some_of_the_bases_answers_is_noticed() -> None:
    for kept, most in ((1.0, -40.0), (0.3, -10.0)):
        result = compare(*toys(kept=kept), PROMPTS)
        assert number(result, "log10 p") < most
        assert number(result, "log10 p, every doubt for the controls") < most
        assert number(result, "agreement with the base") >= kept - 0.1
        assert "the suspect agrees more often than with every control" in (result.values[1].note or "")


def test_a_stranger_is_not_noticed() -> None:
    result = compare(*toys(kept=0.0), PROMPTS)
    assert number(result, "log10 p") > -2
    assert "not more often" in (result.values[1].note or "")


def test_a_child_of_a_control_is_not_noticed_as_one_of_the_base() -> None:
    base, control = Toy(seed=0), Toy(seed=1)
    child = Toy(seed=100, parent=control, kept=0.5)
    result = compare(child, base, [control, Toy(seed=2)], PROMPTS)
    assert number(result, "log10 p") == 0
    assert number(result, "agreement with the nearest control") > 0.4


def test_the_order_of_prompts_and_controls_and_repeated_prompts_change_nothing() -> None:
    suspect, base, controls = toys(kept=0.3)
    result = compare(suspect, base, controls, PROMPTS)
    other = compare(suspect, base, controls[::-1], [*PROMPTS[::-1], *PROMPTS])
    assert [value.value for value in result.values] == [value.value for value in other.values]
    assert "200 repeated prompts count once" in other.notes


def test_spaces_around_a_token_are_a_matter_of_spelling() -> None:
    suspect, base = Fixed("suspect", [" Paris", "\n", " a"]), Fixed("base", ["Paris", "\n", "a"])
    result = compare(suspect, base, [Fixed("control", ["Lyon", " ", "A"])], list("123"))
    assert number(result, "agreement with the base") == 1
    assert number(result, "agreement with the nearest control") == 0


def test_through_an_api_the_finding_is_that_of_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(monkeypatch)
    suspect, base, controls = toys(kept=0.4)
    near = compare(suspect, base, controls, PROMPTS[:60])
    with OpenAIServer(suspect, logprobs=("chat/completions",)) as served, Endpoint(served.url, "toy") as endpoint:
        far = compare(endpoint, base, controls, PROMPTS[:60])
    assert far.values == near.values


# -- by hand -------------------------------------------------------------------------------------------------------


def test_six_prompts_by_hand() -> None:
    suspect = Fixed("suspect", list("aaaaaaaa"))
    base = Fixed("base", list("aaaaabab"))  # agrees on 0-4 and 6
    control = Fixed("control", list("bbbbbaab"))  # agrees on 5 and 6
    result = compare(suspect, base, [control], [str(place) for place in range(8)])
    # Of the eight prompts 0-4 speak for the base, 5 for the control: P(X >= 5), X ~ Binomial(6, 1/2), is 7/64.
    assert number(result, "log10 p") == pytest.approx(math.log10(7 / 64), abs=1e-12)
    assert number(result, "agreement with the base") == 6 / 8
    assert number(result, "agreement with the nearest control") == 2 / 8
    assert result.tables[0].rows[0][:5] == ("control", 6 / 8, 2 / 8, 5, 1)


def test_three_controls_by_hand() -> None:
    suspect = Fixed("suspect", ["a"] * 10)
    base = Fixed("base", ["a"] * 10)
    controls = [Fixed(f"control {agree}", ["a"] * agree + ["b"] * (10 - agree)) for agree in (3, 1, 5)]
    result = compare(suspect, base, controls, [str(place) for place in range(10)])
    # Discordant: 7, 9 and 5, all for the base. Holm: 3/2^9, then 2/2^7, then 1/2^5.
    assert [row[6] for row in result.tables[0].rows] == pytest.approx(
        [math.log10(2 / 2**7), math.log10(3 / 2**9), math.log10(1 / 2**5)], abs=1e-12
    )
    assert number(result, "log10 p") == pytest.approx(-5 * math.log10(2), abs=1e-12)


def test_a_control_whose_tokens_begin_alike_has_the_benefit_of_the_doubt() -> None:
    suspect, base = Fixed("suspect", [" international"] * 8), Fixed("base", [" international"] * 8)
    result = compare(suspect, base, [Fixed("control", [" inter"] * 8)], [str(place) for place in range(8)])
    assert number(result, "log10 p") == pytest.approx(-8 * math.log10(2), abs=1e-12)
    assert number(result, "log10 p, every doubt for the controls") == 0


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (0, 5), (5, 5), (3, 5), (700, 1000), (501, 1000)])
def test_the_tail_is_that_of_scipy(successes: int, trials: int) -> None:
    if trials:
        stats: Any = import_module("scipy.stats")
        known = stats.binomtest(successes, trials, 0.5, alternative="greater").pvalue
        assert log10_tail(successes, trials) == pytest.approx(math.log10(known), abs=1e-9)
    else:
        assert log10_tail(successes, trials) == 0


def test_no_p_value_is_0() -> None:
    assert log10_tail(20_000, 20_000) == pytest.approx(-20_000 * math.log10(2), rel=1e-12)


def test_holm_never_orders_p_values_otherwise_and_never_passes_1() -> None:
    ps = np.random.default_rng(0).uniform(size=40)
    adjusted = holm([math.log10(p) for p in ps])
    assert max(adjusted) == 0
    order = np.argsort(ps)
    assert all(np.diff(np.array(adjusted)[order]) >= 0)
    assert all(after >= math.log10(before) for after, before in zip(adjusted, ps, strict=True))


# -- calibration ---------------------------------------------------------------------------------------------------


def log10_ps_of(tokens_RNM: Int64[np.ndarray, "R N M"]) -> Float64[np.ndarray, "R C"]:
    """Return the p-value of each run and control; the first two columns are suspect and base."""
    base_RN1 = tokens_RNM[..., :1] == tokens_RNM[..., 1:2]
    control_RNC = tokens_RNM[..., :1] == tokens_RNM[..., 2:]
    ours_RC, theirs_RC = (base_RN1 & ~control_RNC).sum(axis=1), (~base_RN1 & control_RNC).sum(axis=1)
    for place in range(ours_RC.shape[1]):
        words = tokens_RNM[0].astype(str).tolist()
        assert discordant(words, 2 + place, same) == Discordant(int(ours_RC[0, place]), int(theirs_RC[0, place]))
    tail = functools.cache(log10_tail)
    pairs = zip(ours_RC.ravel().tolist(), (ours_RC + theirs_RC).ravel().tolist(), strict=True)
    return np.array([tail(successes, trials) for successes, trials in pairs]).reshape(ours_RC.shape)


@pytest.mark.parametrize("shared", [0.0, 0.5], ids=["independent models", "base and control alike"])
def test_under_the_null_p_values_are_not_too_small(shared: float) -> None:
    """Suspect, base and control draw from 4 tokens; base and control copy a common model on some of the prompts."""
    rng = np.random.default_rng(7)
    runs, prompts = 20_000, 100
    tokens = rng.integers(4, size=(runs, prompts, 3))
    common = rng.integers(4, size=(runs, prompts, 1))
    tokens[..., 1:] = np.where(rng.uniform(size=(runs, prompts, 2)) < shared, common, tokens[..., 1:])
    log10_ps = log10_ps_of(tokens)
    for alpha in (0.2, 0.05, 0.01):
        share = float((log10_ps <= math.log10(alpha)).mean())
        # Three standard deviations of a share over that many runs.
        assert share <= alpha + 3 * math.sqrt(alpha * (1 - alpha) / runs)
        assert share >= alpha / 4, "an exact test of counts is a little too careful, not blind"


def test_with_several_controls_the_family_wise_error_rate_holds() -> None:
    rng = np.random.default_rng(11)
    runs, controls = 10_000, 4
    adjusted = [holm(row) for row in log10_ps_of(rng.integers(4, size=(runs, 60, 2 + controls))).tolist()]
    for chosen in (min, max):
        share = np.mean([chosen(row) <= math.log10(0.05) for row in adjusted])
        assert share <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / runs)


# -- edges ---------------------------------------------------------------------------------------------------------


def test_without_a_control_or_a_prompt_nothing_is_measured() -> None:
    suspect, base, controls = toys(kept=1.0)
    assert "no control" in (compare(suspect, base, [], PROMPTS).reason or "")
    assert "no prompt" in (compare(suspect, base, controls, []).reason or "")
    silent = Fixed("silent", [""] * 200)
    assert compare(suspect, base, [silent], PROMPTS).status == "not_applicable"


def test_a_prompt_that_one_model_does_not_answer_is_left_out_for_all() -> None:
    suspect, base = Fixed("suspect", list("aaaa")), Fixed("base", list("aaaa"), sampled=True)
    control = Fixed("control", ["b", "", "b", "b"])
    result = compare(suspect, base, [control], list("1234"))
    assert number(result, "log10 p") == pytest.approx(-3 * math.log10(2), abs=1e-12)
    assert any(note.startswith("1 of 4 prompts left out") for note in result.notes)
    assert any("no log-probabilities" in note for note in result.notes)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -1.0, float("nan")])
def test_an_alpha_that_is_no_rate_is_refused(alpha: float) -> None:
    with pytest.raises(UsageError, match="alpha"):
        compare(*toys(kept=0.0), PROMPTS, alpha)


def test_a_control_that_is_one_of_the_pair_is_refused() -> None:
    suspect, base, _ = toys(kept=0.5)
    for control in (suspect, base):
        with pytest.raises(UsageError, match="the suspect or the base itself"):
            compare(suspect, base, [control], PROMPTS)


def test_what_it_says_is_about_agreement_and_names_what_defeats_it() -> None:
    text = " ".join(compare(*toys(kept=0.5), PROMPTS).notes)
    for word in ("H0", "exchangeable", "distillation", "same data", "variations of a few"):
        assert word in text
    assert Discordant(0, 0).log10_p == 0
