"""The page: every section, nothing but text from a checkpoint, and nothing that leaves the page."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from kinprint import api
from kinprint.report.html import page
from kinprint.report.html.markup import tag
from kinprint.report.html.words import error_rate
from kinprint.types import (
    Behaviour,
    Comparison,
    ControlPair,
    LayerMatch,
    MethodResult,
    ProbeInfo,
    Value,
)
from support.parsed import Parsed

EXAMPLES = Path(__file__).parents[2] / "examples"
KINPRINT = Path(sys.executable).with_name("kinprint")
HOSTILE = "<img src=x onerror=alert(1)>\u202e\x1b[31m\"'&"
SECTIONS = ["verdict", "models", "place", "layers", "parts", "evidence", "controls", "methods", "limits", "reproduce"]


@pytest.fixture(scope="module")
def derived() -> Comparison:
    return api.compare(EXAMPLES / "child", EXAMPLES / "base", controls=[EXAMPLES / "twin"])


@pytest.fixture(scope="module")
def independent() -> Comparison:
    return api.compare(EXAMPLES / "twin", EXAMPLES / "base")


def test_every_section_is_there_in_its_order_and_is_linked(derived: Comparison, independent: Comparison) -> None:
    for comparison, wanted in ((derived, SECTIONS), (independent, [*SECTIONS[:7], "power", *SECTIONS[7:]])):
        parsed = Parsed(page(comparison))
        assert parsed.sections() == wanted
        links = [attributes["href"] or "" for name, attributes in parsed.elements if name == "a"]
        assert [link for link in links if not link.startswith("#test-")] == ["#content", *(f"#{one}" for one in wanted)]
        assert {link[1:] for link in links} <= {attributes.get("id") for _, attributes in parsed.elements}


def test_the_verdict_stands_first_with_its_error_rate_and_all_evidence_follows(derived: Comparison) -> None:
    text = " ".join(Parsed(page(derived)).text)
    verdict = derived.verdict
    assert verdict is not None
    assert text.index("DERIVED") < text.index(verdict.headline) < text.rindex("What was compared")
    for one in verdict.evidence:
        for said in (one.name, one.null, one.defeats, one.id):
            assert said in text
    for model in (derived.suspect, derived.base, *derived.controls):
        assert model.content_digest is not None
        assert model.content_digest in text
    assert error_rate(verdict) in text
    assert "none of 300 independent pairs reaches that" in text


def test_planted_copies_and_what_is_not_excluded_are_told_where_models_are_independent(independent: Comparison) -> None:
    text = " ".join(Parsed(page(independent)).text)
    assert independent.verdict is not None
    assert independent.verdict.power is not None
    assert "300 of 300" in text
    assert all(one in text for one in independent.verdict.power.not_excluded)


def test_a_page_loads_nothing_and_runs_one_script_that_its_policy_knows(
    derived: Comparison, independent: Comparison
) -> None:
    found = page(derived)
    parsed = Parsed(found)
    assert {name for name, _ in parsed.elements}.isdisjoint(
        {"link", "img", "iframe", "object", "form", "base", "button"}
    )
    for _, attributes in parsed.elements:
        assert not [name for name in attributes if name.startswith("on") or name in ("src", "style", "srcset")]
        assert (attributes.get("href") or "#").startswith("#")
    policy = next(a["content"] or "" for _, a in parsed.elements if a.get("http-equiv") == "Content-Security-Policy")
    held = {name: re.findall(f"<{name}>(.*?)</{name}>", found, re.DOTALL) for name in ("style", "script")}
    known = {
        name: base64.b64encode(hashlib.sha256(texts[0].encode()).digest()).decode() for name, texts in held.items()
    }
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{known['style']}'; script-src 'sha256-{known['script']}'; "
        "require-trusted-types-for 'script'; trusted-types 'none'; base-uri 'none'; form-action 'none'"
    )
    assert [len(texts) for texts in held.values()] == [1, 1]
    assert "url(" not in held["style"][0]
    assert "@import" not in held["style"][0]
    assert f"<script>{held['script'][0]}</script>" in page(independent)


def test_the_script_is_small_and_makes_nothing_of_text() -> None:
    script = (resources.files("kinprint.report.html") / "page.js").read_text("utf-8")
    assert len(script.encode()) < 8_000
    for word in (
        "innerHTML",
        "outerHTML",
        "insertAdjacent",
        "document.write",
        "eval",
        "Function(",
        "fetch",
        "</",
        "<!--",
    ):
        assert word not in script
    assert re.findall(r"https?://[^\"]*", script) == ["http://www.w3.org/2000/svg"]


def named(comparison: Comparison, name: str) -> Comparison:
    """A comparison in which every text that a checkpoint may choose is hostile."""
    held: dict[str, Any] = json.loads(comparison.model_dump_json())
    for model in (held["suspect"], held["base"], *held["controls"]):
        model |= {"name": name, "location": name, "family": name, "notes": [name], "unmapped": [name]}
    held["verdict"] |= {"headline": name, "reasons": [name], "contrary": name, "alternatives": [name]}
    for one in (*held["verdict"]["evidence"], *held["methods"]):
        one |= {"notes": [name], "reason": name}
        for table in one["tables"]:
            table |= {"title": name, "columns": [name for _ in table["columns"]]}
    for third in held["verdict"]["third_models"]:
        third["control"] = name
    held["request"] |= {"component": name, "methods": [name], "device": name}
    held["environment"] |= {"system": name, "device": name}
    return Comparison.model_validate(held)


def test_a_name_of_any_length_is_short_in_headings_and_whole_where_it_is_told(derived: Comparison) -> None:
    found = page(named(derived, "x" * 10_000))
    title = re.search(r"<title>(.*?)</title>", found)
    assert title is not None
    assert len(title[1]) < 200
    assert found.count("x" * 10_000) >= 3
    assert len(found.encode()) < 3_000_000


def test_names_from_a_checkpoint_are_text_everywhere(derived: Comparison) -> None:
    plain, hostile = (Parsed(page(named(derived, name))) for name in ("plain", HOSTILE))
    assert [name for name, _ in hostile.elements] == [name for name, _ in plain.elements]
    assert [list(attributes) for _, attributes in hostile.elements] == [list(held) for _, held in plain.elements]
    text = "".join(hostile.text)
    assert "<img src=x onerror=alert(1)>" in text
    assert "\u202e" not in text
    assert "\x1b" not in text


def test_a_hundred_layers_and_as_many_experts_stay_small(derived: Comparison) -> None:
    held: dict[str, Any] = json.loads(derived.model_dump_json())
    layers = [
        LayerMatch(suspect=at, base=at, similarity=0.9, heads=0.8, units=0.7, derived=True).model_dump()
        for at in range(100)
    ]
    held["verdict"]["layer_map"]["layers"] = layers
    for one in (*held["verdict"]["evidence"], *held["methods"]):
        one["tables"] = [
            {**table, "rows": (table["rows"] * (12_800 // max(1, len(table["rows"])) + 1))[:12_800]}
            for table in one["tables"]
        ]
    found = page(Comparison.model_validate(held))
    assert len(found.encode()) < 3_000_000
    assert "12560 more rows are in the JSON" in found


def test_what_was_not_measured_leaves_its_section_out() -> None:
    comparison = api.compare(EXAMPLES / "child", EXAMPLES / "base", mode="quick")
    assert comparison.verdict is not None
    bare = comparison.model_copy(
        update={"verdict": comparison.verdict.model_copy(update={"layer_map": None, "components": (), "evidence": ()})}
    )
    assert Parsed(page(bare)).sections() == ["verdict", "models", "evidence", "limits", "reproduce"]
    assert "verdict" not in Parsed(page(comparison.model_copy(update={"verdict": None}))).sections()


def test_behaviour_stands_on_an_axis_of_its_own(derived: Comparison) -> None:
    value = Value(name="similarity", value=0.9, kind="similarity", identical=1.0)
    method = MethodResult(method="reef", id="reef/v1", status="measured", values=(value,))
    third = method.model_copy(update={"values": (value.model_copy(update={"value": 0.25}),)})
    behaviour = Behaviour(
        kinprint_version="0",
        suspect="s",
        base="b",
        suspect_identity="sha256:1",
        base_identity="sha256:2",
        probes=ProbeInfo(name="ours", licence="CC0", digest="sha256:3", asked=3, given=4),
        methods=(method,),
        control_pairs=(ControlPair(side="base", control=HOSTILE, methods=(third,)),),
        summary="By 1 of 1 methods the pair is closer.",
    )
    parsed = Parsed(page(derived.model_copy(update={"behaviour": behaviour})))
    text = " ".join(parsed.text)
    assert "behaviour" in parsed.sections()
    assert "enters no verdict" in text
    assert "0.9000" in text
    assert "0.2500" in text
    assert "3 of 4 probes of ours" in text


def test_elements_by_hand() -> None:
    assert (
        tag("a", "<", ["b", None, tag("br")], class_="x", data_y=None, x=1.50) == '<a class="x" x="1.5">&lt;b<br></a>'
    )


def test_every_test_is_a_row_with_its_numbers_and_a_way_to_its_details(derived: Comparison) -> None:
    assert derived.verdict is not None
    found = page(derived)
    rows = re.findall(r"<tr[^>]*><th scope=\"row\"><a href=\"#(test-\d+)\">(.*?)</tr>", found)
    assert [place for place, _ in rows] == [f"test-{at}" for at in range(len(derived.verdict.evidence))]
    for (place, row), one in zip(rows, derived.verdict.evidence, strict=True):
        assert row.startswith(one.name)
        assert f'id="{place}"' in found
        for value in (one.log10_p, one.size, one.margin):
            assert f'data-value="{"" if value is None else repr(value)}"' in row


# -- the command ---------------------------------------------------------------------------------------------------


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [KINPRINT, "report", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_a_kept_result_gives_the_page_that_compare_writes(tmp_path: Path) -> None:
    kept, page_file, again = tmp_path / "r.json", tmp_path / "p.html", tmp_path / "again.html"
    command = [
        KINPRINT,
        "compare",
        EXAMPLES / "child",
        EXAMPLES / "base",
        "--json",
        kept,
        "--html",
        page_file,
        "--quiet",
    ]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert report(kept, "-o", again).returncode == 0
    assert again.read_text("utf-8") == page_file.read_text("utf-8")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is no result of compare"),
        ("[" * 100_000, "is no result of compare"),
        ('{"schema_version": 2}', "is no result of compare"),
        ("<img src=x>", "is no result of compare"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_result_is_one_line_and_no_page(tmp_path: Path, content: str | None, said: str) -> None:
    given, out = tmp_path / "r.json", tmp_path / "p.html"
    if content is not None:
        given.write_text(content, "utf-8")
    ran = report(given, "-o", out)
    assert ran.returncode == 5
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not list(tmp_path.glob("*.html*"))


def test_another_layout_and_a_place_that_cannot_be_written_are_told(derived: Comparison, tmp_path: Path) -> None:
    kept = tmp_path / "r.json"
    kept.write_text(derived.model_copy(update={"schema_version": 1}).model_dump_json(), "utf-8")
    ran = report(kept, "-o", tmp_path / "p.html")
    assert (ran.returncode, ran.stderr.count("\n")) == (5, 1)
    assert "layout 1" in ran.stderr
    kept.write_text(derived.model_dump_json(), "utf-8")
    ran = report(kept, "-o", tmp_path / "none" / "p.html")
    assert (ran.returncode, ran.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("text", [HOSTILE, "</script><script>alert(1)</script>", "x" * 10_000])
def test_hostile_text_in_a_kept_result_makes_no_other_page(derived: Comparison, tmp_path: Path, text: str) -> None:
    kept, out, plain = tmp_path / "r.json", tmp_path / "p.html", Parsed(page(named(derived, "plain")))
    kept.write_text(named(derived, text).model_dump_json(), "utf-8")
    ran = report(kept, "-o", out)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    found = Parsed(out.read_text("utf-8"))
    assert [name for name, _ in found.elements if name in ("script", "style", "img")] == ["style", "script"]
    assert found.sections() == plain.sections()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.html", "r.json"]


def test_forged_numbers_are_one_line_or_a_page_and_no_fault_of_ours(derived: Comparison, tmp_path: Path) -> None:
    held: dict[str, Any] = json.loads(derived.model_dump_json())
    held["verdict"]["layer_map"]["layers"][0] |= {"base": 10**9, "heads": 1e308, "units": -1e308}
    held["suspect"]["geometry"] |= {"layers": -1, "hidden": 10**30}
    held["verdict"]["evidence"][1] |= {"size": -1e308, "log10_p": -1e308}
    kept, out = tmp_path / "r.json", tmp_path / "p.html"
    kept.write_text(json.dumps(held), "utf-8")
    ran = report(kept, "-o", out)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert not re.search(r'="[^"]*\b(nan|inf)\b', out.read_text("utf-8"))
    out.unlink()
    held["verdict"]["evidence"][1]["log10_p"] = 1e308
    kept.write_text(json.dumps(held), "utf-8")
    ran = report(kept, "-o", out)
    assert (ran.returncode, ran.stderr.count("\n")) == (5, 1)
    assert "no comparison gives" in ran.stderr
    assert not out.exists()
