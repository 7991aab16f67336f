"""The tables in the documentation are what the program prints."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from kinprint.zoo.derive import KINDS, Chain
from kinprint.zoo.suites import SUITES

ROOT = Path(__file__).parents[1]
TABLES = runpy.run_path(str(ROOT / "docs" / "reference" / "make_tables.py"))["TABLES"]
PAGES = {
    "declarations": "methods.md",
    "families": "architectures.md",
    "case-study": "case-studies/solar-vs-glm.md",
    "verdicts": "case-studies/solar-vs-glm.md",
}


MAKE_ZOO = ROOT / "docs" / "reference" / "make_zoo.py"
ZOO = runpy.run_path(str(MAKE_ZOO))


def numbers(text: str) -> list[float]:
    return [float(found) for found in re.findall(r"(?<=\| )-?\d+\.\d{4}(?= \|)", text)]


@pytest.mark.parametrize("name", list(PAGES))
def test_a_table_in_the_documentation_is_the_programs(name: str) -> None:
    made = TABLES[name]()
    header = made.splitlines()[0]
    page = (ROOT / "docs" / PAGES[name]).read_text()
    shown = page[page.index(header) :].split("\n\n", 1)[0] + "\n"
    # Floats differ in the last places between processors; everything else is compared to the letter.
    assert re.sub(r"-?\d+\.\d{4}", "#", shown) == re.sub(r"-?\d+\.\d{4}", "#", made)
    assert numbers(shown) == pytest.approx(numbers(made), abs=2e-4)


def test_the_verdict_on_the_first_screen_is_the_programs() -> None:
    page = (ROOT / "README.md").read_text()
    shown = page[page.index("DERIVED") :].split("```", 1)[0]
    assert page[: page.index(shown)].count("\n") < 15
    made = TABLES["readme"]()
    assert re.sub(r"\d\.\d+", "#", shown) == re.sub(r"\d\.\d+", "#", made), "run: make_tables.py readme"
    found = [[float(number) for number in re.findall(r"\d\.\d+", text)] for text in (shown, made)]
    assert found[0] == pytest.approx(found[1], abs=0.02)


def test_the_tables_of_the_zoos_page_are_the_programs() -> None:
    page = (ROOT / "docs" / "zoo.md").read_text()
    assert ZOO["filled"](page) == page, "run: make tables"


def test_the_tables_of_what_is_read_are_what_the_tests_find() -> None:
    # Every class is built and run for it, once in a process: the tests of architectures share what was found.
    pytest.importorskip("torch")
    coverage = runpy.run_path(str(ROOT / "docs" / "reference" / "make_coverage.py"))
    page = (ROOT / "docs" / "architectures.md").read_text(encoding="utf-8")
    if coverage["installed"]() not in page:
        pytest.skip(f"the page is of another release than {coverage['installed']()}")
    assert coverage["filled"](page) == page, "run: python docs/reference/make_coverage.py"
    with pytest.raises(ValueError, match="do not agree on totals"):
        coverage["filled"](page.replace("begin: totals", "begin: total"))


@pytest.mark.parametrize(("table", "names"), [("kinds", KINDS), ("suites", SUITES)])
def test_the_zoos_page_names_everything_that_can_be_made(table: str, names: dict[str, object]) -> None:
    assert re.findall(r"^\| `([^`]+)`", ZOO["TABLES"][table](), flags=re.MULTILINE) == list(names)


def test_a_page_that_lacks_a_table_is_refused() -> None:
    page = (ROOT / "docs" / "zoo.md").read_text()
    with pytest.raises(ValueError, match="do not agree on kinds"):
        ZOO["filled"](page.replace("begin: kinds", "begin: kind"))


def test_the_tables_of_the_zoos_page_need_no_torch() -> None:
    code = (
        "import runpy, sys; sys.modules.update(dict.fromkeys(('torch', 'transformers', 'peft', 'sklearn', 'yaml')));"
        f"made = runpy.run_path({str(MAKE_ZOO)!r}); [table() for table in made['TABLES'].values()]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["README.md", "docs/zoo.md"])
def test_every_kind_in_an_example_command_can_be_had(name: str) -> None:
    commands = re.findall(r"^kinprint zoo derive [A-Za-z/]+ .*", (ROOT / name).read_text(), flags=re.MULTILINE)
    chains = [re.findall(r"(?:-k|--kind) (\S*[a-z0-9])", command) for command in commands if "[" not in command]
    assert chains
    for words in chains:
        Chain.parse(words)


def test_links_between_pages_lead_somewhere() -> None:
    pages = [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("examples/*.md"),
        *ROOT.glob("benchmarks/**/*.md"),
    ]
    assert len(pages) > 8
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_korean_readme_has_every_link_and_command_of_the_english_one() -> None:
    english, korean = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.ko.md"))
    for pattern in (r"\]\(([^)]+)\)", r"^(?:kinprint|pip|make) [^#\n]*\b", r"`(--[a-z]+)", r"^\| `\[[^|]*\|"):
        found = set(re.findall(pattern, english, flags=re.MULTILINE)) - {"README.ko.md"}
        assert len(found) > 3
        assert found - set(re.findall(pattern, korean, flags=re.MULTILINE)) == set()


def test_the_python_example_of_the_readme_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    code = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert code
    for block in code:
        exec(compile(block, "README.md", "exec"), {})
    assert "ghostspec-mse" in capsys.readouterr().out


def test_the_package_offers_what_it_promises() -> None:
    import kinprint
    import kinprint.fingerprints

    for name in kinprint.__all__:
        assert getattr(kinprint, name) is not None
    model = kinprint.open(ROOT / "examples" / "base")
    made = kinprint.fingerprint(model, methods=["layernorm"])
    assert [name.split("/")[0] for name in made.fingerprints] == ["norm-gains"]


def test_every_published_pair_has_one_of_ours_beside_it_that_the_suite_holds() -> None:
    from kinprint.zoo.suites import SUITES

    published = runpy.run_path(str(ROOT / "docs" / "reference" / "published.py"))
    names = {recipe.name for recipe in SUITES["tiny"].recipes}
    assert all(set(pair.split(" / ")) <= names for *_, pair in published["GHOSTSPEC"])


def test_the_benchmark_page_has_every_table_filled() -> None:
    page = (ROOT / "docs" / "benchmark.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- begin: (\S+) -->(.*?)<!-- end: \1 -->", page, re.DOTALL)
    assert len(blocks) > 10
    assert [name for name, content in blocks if "|" not in content and not content.strip().startswith("- ")] == []
