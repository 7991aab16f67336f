"""What a person sees in the terminal."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console

from kinprint.report.terminal import print_comparison, print_inspection
from kinprint.types import (
    Comparison,
    ControlPair,
    GeometryInfo,
    Inspection,
    MethodResult,
    ModelInfo,
    RoleSummary,
    Table,
    Value,
    Verdict,
)


def model(name: str, **changed: object) -> ModelInfo:
    facts = {
        "name": name,
        "location": name,
        "format": "memory",
        "family": "llama",
        "geometry": GeometryInfo(layers=2, hidden=8),
        "parameters": 1234,
        "coverage": 0.5,
        "header_digest": "sha256:0",
    }
    return ModelInfo.model_validate({**facts, **changed})


def method(shift: float = 0.0, roles: int = 4) -> MethodResult:
    names = ["attn.q", "attn.k", "attn.v", "attn.o", "mlp.up", "mlp.down"][:roles]
    values = [Value(name=f"{role} cosine", value=0.5 + shift, kind="similarity", identical=1.0) for role in names]
    controls = [Value(name=f"{role} cosine, shuffled", value=0.25, kind="similarity") for role in names]
    alone = Value(name="similarity", value=None, kind="similarity", reason="[red]too few layers")
    table = Table(title="by layer", columns=("layer", "cosine"), rows=((0, 0.125), (1, None)))
    return MethodResult(
        method="m",
        id="m/v1[seed=0]",
        status="measured",
        values=(*values, alone),
        controls=tuple(controls),
        tables=(table,),
    )


def shown(comparison: Comparison, *, width: int = 200, terminal: bool = False, details: bool = False) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None, highlight=False, markup=False)
    print_comparison(comparison, console, details=details)
    return out.getvalue()


def comparison(*methods: MethodResult, **changed: object) -> Comparison:
    pair = ControlPair(
        side="suspect", control="third", methods=tuple(m.model_copy(update={"tables": ()}) for m in methods)
    )
    facts = {
        "kinprint_version": "0",
        "status": "measured",
        "suspect": model("a"),
        "base": model("b"),
        "controls": (model("third"),),
        "methods": methods,
        "control_pairs": (pair,),
    }
    return Comparison.model_validate({**facts, **changed})


def row(text: str, label: str) -> list[str]:
    line = next(line for line in text.splitlines() if line.strip(" |").startswith(label))
    return [cell.strip() for cell in line.strip(" |").split("|")]


def test_roles_are_rows_and_controls_stand_beside_values() -> None:
    text = shown(comparison(method()))
    assert row(text, "attn.k") == ["attn.k", "0.5000", "0.2500", "0.5000"]
    assert "suspect vs C1" in text
    assert "control: cosine, shuffled" in text


def test_few_values_are_a_list_with_their_reading() -> None:
    text = shown(comparison(method(roles=1)))
    assert row(text, "attn.q cosine") == ["attn.q cosine", "0.5000", "1.0000", "0.5000", "similarity"]
    assert row(text, "similarity") == ["similarity", "-", "-", "-", "[red]too few layers"]


def test_details_add_the_tables_of_a_method() -> None:
    assert "by layer" not in shown(comparison(method()))
    assert "0.1250" in shown(comparison(method()), details=True)


def test_what_does_not_apply_says_why() -> None:
    absent = MethodResult(method="x", id="x/v1", status="not_applicable", reason="no role in common")
    assert "x/v1: not applicable: no role in common" in shown(comparison(absent, method()))
    nothing = comparison(absent, status="not_comparable", reason="nothing fits")
    assert "not comparable: nothing fits" in shown(nothing)


def test_the_verdict_stands_first_and_methods_say_that_they_do_not_enter_it() -> None:
    verdict = Verdict(conclusion="independent", headline="No trace.", alpha=1e-6, planned=8)
    text = shown(comparison(method(), verdict=verdict))
    assert "do not enter the verdict" in text
    assert text.index("INDEPENDENT  No trace.") < text.index("do not enter the verdict") < text.index("attn.k")
    assert "do not enter" not in shown(comparison(verdict=verdict))  # where no methods ran there is nothing to say


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_narrow_terminal_breaks_nothing(width: int) -> None:
    verdict = Verdict(conclusion="independent", headline="No trace.", alpha=1e-6, planned=8)
    found = comparison(method(), suspect=model("a", notes=("said while opening",)), verdict=verdict)
    text = shown(found, width=width, terminal=True, details=True)
    assert max(map(len, text.splitlines())) <= width
    words = set(re.split(r"[\s;,]+", text))
    assert {"attn.q", "opening", "shuffled", "C1", "cosine", "--control"} <= words


def test_a_terminal_ends_in_the_verdict_since_the_first_screen_has_run_past() -> None:
    verdict = Verdict(conclusion="independent", headline="No trace.", alpha=1e-6, planned=8)
    text = shown(comparison(method(), verdict=verdict), terminal=True)
    assert text.startswith("INDEPENDENT  No trace.\nsuspect  a: llama")
    assert text.endswith("\n\nINDEPENDENT  No trace.\n")
    assert shown(comparison(method(), verdict=verdict)).count("INDEPENDENT") == 1


def test_limits_and_the_command_stand_last() -> None:
    verdict = Verdict(conclusion="independent", headline="No trace.", alpha=1e-6, planned=8)
    text = shown(comparison(method(), verdict=verdict))
    places = [text.index(one) for one in ("suspect  a", "do not enter the verdict", "Limits and", "How to reproduce")]
    assert places == sorted(places)


@pytest.mark.parametrize("count", [3, 50])
def test_every_unmapped_tensor_is_listed_or_counted(count: int) -> None:
    found = Inspection(
        model=model("a", unmapped=tuple(f"odd.{i}" for i in range(count))),
        summary="s",
        tied=True,
        files=("f",),
        dtypes={"BF16": 5},
        roles=(RoleSummary(role="attn.q", parts=1, shape=(2, 3), dtypes=("BF16",), parameters=6),),
        ignored={"mask": "a constant"},
        bytes_total=10,
        bytes_compare=8,
    )
    out = io.StringIO()
    print_inspection(found, Console(file=out, width=120))
    text = out.getvalue()
    assert sum(line.startswith("no role: odd.") for line in text.splitlines()) == min(count, 40)
    assert ("no role: 10 more" in text) == (count == 50)
    assert "8 of 10 bytes" in text
    assert "ignored: mask (a constant)" in text


def test_rows_that_are_there_for_a_figure_are_printed_nowhere() -> None:
    table = Table(title="readable", columns=("a column as wide as the titles",), rows=((1,),))
    figure = table.model_copy(update={"title": "drawable", "plotted": True})
    for wanted, held in (("readable", table), ("drawable", figure)):
        result = MethodResult(method="m", id="m/v1", status="measured", tables=(held,))
        text = shown(comparison(result), details=True)
        assert (wanted in text) == (not held.plotted)
