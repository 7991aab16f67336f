"""What the documentation site needs beside its pages: files of the repository that they link to, and formulas.

On a Git host a page may link to any file of the repository. The site holds pages only, so every such file becomes one
under ``repository/``: Markdown as it is, other text as a listing. Links are turned there. A link that leads nowhere is
left alone, and the strict build fails on it.

Formulas are written as fenced ``math`` blocks, which Git hosts render; here they become MathML, which browsers know
without a script.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
SHOWN_AS = {".py": "python", ".toml": "toml", ".yaml": "yaml", ".yml": "yaml", ".txt": "text", "": "text"}
"""Files that become listings, by suffix, with the language that colours them."""

ALWAYS = ("ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "README.md")
"""Files outside ``docs`` that the navigation names."""

FENCED = re.compile(r"^(```.*?^```)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(#[^)\s]*)?(?=\))")
MATH = re.compile(r"^```math\n(.*?)^```", re.DOTALL | re.MULTILINE)


def uri(path: Path) -> str:
    """Return the place in the site's sources of a file of the repository.

    Example:
        >>> uri(DOCS / "methods.md"), uri(ROOT / "Makefile")
        ('methods.md', 'repository/Makefile.md')
    """
    listing = path.suffix in SHOWN_AS
    if path.is_relative_to(DOCS) and not listing:
        return path.relative_to(DOCS).as_posix()
    return f"repository/{path.relative_to(ROOT).as_posix()}{'.md' if listing else ''}"


def target(page: Path, link: str) -> Path | None:
    """Return the file that a link on a page leads to, or None where it leads out of the repository or nowhere."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return None
    path = (page.parent / link).resolve()
    if path.is_dir():
        path /= "README.md"
    return path if path.is_file() and path.is_relative_to(ROOT) else None


def outside_code(markdown: str, change: Callable[[str], str]) -> str:
    """Change what stands outside of fenced blocks."""
    return "".join(part if at % 2 else change(part) for at, part in enumerate(FENCED.split(markdown)))


def linked(page: Path) -> list[Path]:
    """Return the files of the repository that a page links to."""
    text = "".join(FENCED.split(page.read_text(encoding="utf-8"))[::2])
    return [path for link, _ in LINK.findall(text) if (path := target(page, link)) is not None]


def turned(markdown: str, page: Path) -> str:
    """Return a page with its links as the site needs them."""

    def turn(found: re.Match[str]) -> str:
        path = target(page, found[1])
        if path is None:
            return found[0]
        away = os.path.relpath(uri(path), PurePosixPath(uri(page)).parent)
        return away + (found[2] or "")

    return outside_code(markdown, lambda text: LINK.sub(turn, text))


def formula(latex: str) -> str:
    """Return a formula as MathML.

    Raises:
        PluginError: The formula has a command that the converter does not know: it would stand there as it is.
    """
    made = convert(latex.strip(), display="block")
    if unknown := re.search(r"\\[A-Za-z]+", made):
        raise PluginError(f"formula {latex.strip()!r}: {unknown[0]} cannot be drawn; write it otherwise")
    return f'<div class="formula">{made}</div>'


def with_formulas(markdown: str) -> str:
    """Return a page with its formulas drawn."""
    return MATH.sub(lambda found: formula(found[1]), markdown)


def listing(path: Path) -> str:
    """Return a file as a page."""
    name = path.relative_to(ROOT).as_posix()
    # More backticks than any line of a source begins with.
    return f"# {name}\n\n``````{SHOWN_AS[path.suffix]}\n{path.read_text(encoding='utf-8')}\n``````\n"


def wanted() -> list[Path]:
    """Return every file outside the site's own sources that a page links to, also by way of another one."""
    found: dict[Path, None] = {}
    todo = [*DOCS.rglob("*.md"), *(ROOT / name for name in ALWAYS)]
    while todo:
        page = todo.pop()
        if uri(page).startswith("repository/"):
            found[page] = None
        todo += (
            [path for path in linked(page) if path not in found and uri(path).startswith("repository/")]
            if (page.suffix == ".md")
            else []
        )
    return sorted(found)


# -- what mkdocs calls ---------------------------------------------------------------------------------------------


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add what pages link to."""
    for path in wanted():
        if path.suffix in SHOWN_AS:
            files.append(File.generated(config, uri(path), content=listing(path)))
        else:
            files.append(File.generated(config, uri(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn a page's links, and draw its formulas."""
    del config, files
    source = page.file.src_uri
    if source.startswith("repository/"):
        path = ROOT / source.removeprefix("repository/")
        return turned(markdown, path) if path.is_file() else markdown
    return with_formulas(turned(markdown, DOCS / source))


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Drop what docstrings say to another renderer: of ``:func:`compare``` the name alone."""
    del page, config, files
    return re.sub(r":(?:func|class|data|mod|meth|attr):(?=<code)", "", html)
