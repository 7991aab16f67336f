"""The documentation site builds without a warning, holds every page, and needs nothing from outside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest
from built_site import ROOT, Page, build, outside, outside_addresses, pages

DOCS = ROOT / "docs"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    found = build(ROOT, out)
    assert found.returncode == 0, found.stderr
    assert "WARNING" not in found.stderr + found.stdout
    return out


@pytest.fixture(scope="module")
def built(site: Path) -> Mapping[Path, Page]:
    return pages(site)


def test_every_link_and_anchor_of_the_site_leads_somewhere(built: Mapping[Path, Page]) -> None:
    checked = 0
    for page in built.values():
        if page.file.name == "404.html":  # it is shown at any address, and so links from the root
            continue
        for link in page.links:
            if outside(link) or link.startswith("mailto:"):
                continue
            file, anchor = page.place(link)
            assert file.is_file(), f"{page.file.name}: {link}"
            if anchor and file in built and not anchor.startswith("__"):
                assert anchor in built[file].anchors, f"{page.file.name}: {link}"
            checked += 1
    assert checked > 1000


def test_nothing_on_a_page_is_loaded_from_elsewhere(site: Path, built: Mapping[Path, Page]) -> None:
    for page in built.values():
        assert page.loaded, page.file.name
        assert [address for address in page.loaded if outside(address)] == []
        # The theme's script would fetch this library for diagrams, and for nothing else.
        assert 'class="mermaid"' not in page.file.read_text(encoding="utf-8")
    for sheet in site.rglob("*.css"):
        assert list(outside_addresses(sheet.read_text(encoding="utf-8"))) == [], sheet.name


def test_what_pages_load_is_part_of_the_site(built: Mapping[Path, Page]) -> None:
    for page in built.values():
        if page.file.name != "404.html":
            for address in page.loaded:
                assert page.place(address)[0].is_file(), f"{page.file.name}: {address}"


def test_the_navigation_holds_every_page(site: Path, built: Mapping[Path, Page]) -> None:
    start = built[site / "index.html"]
    reached = {start.place(link)[0] for link in start.navigation if not outside(link)} | {site / "index.html"}
    for source in DOCS.rglob("*.md"):
        path = source.relative_to(DOCS).with_suffix(".html")
        made = site / (path.with_name("index.html") if path.name == "README.html" else path)
        assert made in reached, f"{source.name} is not in the navigation of mkdocs.yml"


def test_files_of_the_repository_that_pages_link_to_are_pages(built: Mapping[Path, Page], site: Path) -> None:
    source = built[site / "repository" / "src" / "kinprint" / "methods" / "layernorm.py.html"]
    assert "def compare" in re.sub(r"<[^>]*>", "", source.file.read_text(encoding="utf-8"))
    assert (site / "repository" / "ARCHITECTURE.html").is_file()


def test_every_formula_became_mathml(site: Path) -> None:
    drawn = 0
    for source in [*DOCS.glob("*.md"), *DOCS.glob("methods/*.md")]:
        count = source.read_text(encoding="utf-8").count("\n```math\n")
        made = (site / source.relative_to(DOCS).with_suffix(".html")).read_text(encoding="utf-8")
        assert made.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == count, source.name
        assert "language-math" not in made
        drawn += count
    assert drawn > 20


# -- what must fail --------------------------------------------------------------------------------------------------

SMALL = """\
INHERIT: whole.yml
plugins: [search]
nav: [index.md]
"""


def small(folder: Path, text: str, *, more: Mapping[str, str] | None = None) -> Path:
    """Write a site of one page with the real settings and the real hook."""
    (folder / "docs" / "reference").mkdir(parents=True)
    shutil.copyfile(ROOT / "mkdocs.yml", folder / "whole.yml")
    shutil.copyfile(DOCS / "reference" / "site_hook.py", folder / "docs" / "reference" / "site_hook.py")
    shutil.copytree(DOCS / "assets", folder / "docs" / "assets")
    (folder / "mkdocs.yml").write_text(SMALL)
    for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        (folder / name).write_text(f"# {name}\n")
    (folder / "docs" / "index.md").write_text(f"# Start\n\n{text}\n")
    for name, content in (more or {}).items():
        (folder / name).write_text(content)
    return folder


def test_a_page_that_links_to_the_repository_builds(tmp_path: Path) -> None:
    text = "[a](../README.md), [b](#start), [c](../code.py)\n\n```\n[no link](gone.md)\n```"
    found = build(small(tmp_path, text, more={"code.py": "x = 1\n"}), tmp_path / "out")
    assert found.returncode == 0, found.stderr
    made = (tmp_path / "out" / "index.html").read_text()
    assert 'href="repository/index.html"' in made
    assert 'href="repository/code.py.html"' in made


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](gone.md)", "gone.md"),
        ("[a](../GONE.md)", "GONE.md"),
        ("[a](#gone)", "#gone"),
        ("[a](../README.md#gone)", "#gone"),
        ("[a](/absolute.md)", "absolute"),
        ("![a](images/gone.svg)", "gone.svg"),
        ("```math\n\\nosuchcommand{x}\n```", "nosuchcommand"),
    ],
)
def test_a_dead_link_fails_the_build(tmp_path: Path, text: str, complaint: str) -> None:
    found = build(small(tmp_path, text), tmp_path / "out")
    assert found.returncode != 0
    assert complaint in found.stderr


def test_a_page_that_the_navigation_lacks_fails_the_build(tmp_path: Path) -> None:
    found = build(small(tmp_path, "", more={"docs/other.md": "# Other\n"}), tmp_path / "out")
    assert found.returncode != 0
    assert "other.md" in found.stderr


# -- on a Git host ---------------------------------------------------------------------------------------------------


def slugs(markdown: str) -> set[str]:
    """Return the anchors that Git hosts give a page's headings."""
    text = re.sub(r"^```.*?^```", "", markdown, flags=re.DOTALL | re.MULTILINE)
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).strip().replace(" ", "-")
        number = next(n for n in range(100) if (f"{slug}-{n}" if n else slug) not in found)
        found.add(f"{slug}-{number}" if number else slug)
    return found


def test_every_anchor_holds_on_a_git_host_too() -> None:
    checked = 0
    for page in (*ROOT.glob("*.md"), *DOCS.rglob("*.md")):
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
        for path, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
            target = page.parent / path if path else page
            assert anchor in slugs(target.read_text(encoding="utf-8")), f"{page.name}: {path}#{anchor}"
            checked += 1
    assert checked > 20
