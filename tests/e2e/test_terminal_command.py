"""The installed command in a terminal of a given width, as a person sees it."""

from __future__ import annotations

import fcntl
import json
import os
import re
import runpy
import shutil
import struct
import subprocess
import sys
import termios
from functools import cache
from pathlib import Path

import pytest
from rich.cells import cell_len

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = Path(sys.executable).parent / "kinprint"
ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07)")
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-7]m")
SCREEN = 24

pytestmark = pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo-terminal")


def environment(**changed: str) -> dict[str, str]:
    unset = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERM", "PYTHONIOENCODING", "LANG", "LC_ALL")
    kept = {name: value for name, value in os.environ.items() if name not in unset}
    return {**kept, "TERM": "xterm-256color", "LC_ALL": "C.UTF-8", **changed}


def in_terminal(
    width: int, *arguments: str | Path, bars: bool = False, env: dict[str, str] | None = None, code: int = 0
) -> str:
    """Run the command with stdout on a terminal (or with stderr, for ``bars``) and return all that it got."""
    mine, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", SCREEN, width, 0, 0))
    other = subprocess.DEVNULL
    out, err = (other, theirs) if bars else (theirs, other)
    with subprocess.Popen([COMMAND, *arguments], stdout=out, stderr=err, env=env or environment()) as process:
        os.close(theirs)
        seen = b""
        try:
            while piece := os.read(mine, 65536):
                seen += piece
        except OSError:  # how Linux says that the other end is closed
            pass
        assert process.wait(timeout=120) == code
    os.close(mine)
    return seen.decode().replace("\r\n", "\n")


def piped(*arguments: str | Path, env: dict[str, str], code: int = 0) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, env=env, timeout=120, check=False)
    assert done.returncode == code, done.stderr
    assert b"Traceback" not in done.stderr
    return done


@cache
def shown(width: int, suspect: str, *options: str) -> str:
    control = ("--control", EXAMPLES / "twin") if suspect != "twin" else ()
    return in_terminal(width, "compare", EXAMPLES / suspect, EXAMPLES / "base", *control, *options)


def words(text: str) -> set[str]:
    return set(re.split(r"[\s;,.:()]+", ESCAPE.sub("", text)))


WIDE = 400


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize(("suspect", "options"), [("twin", ()), ("child", ("--details",))])
def test_no_width_cuts_a_line_or_breaks_a_word(width: int, suspect: str, options: tuple[str, ...]) -> None:
    plain = ESCAPE.sub("", shown(width, suspect, *options))
    assert max(map(cell_len, plain.splitlines())) <= width
    # Whatever a terminal with room for everything says is said, but for lines of marks, rules, and long ids and paths.
    marks = re.compile(r"[─◆▁▂▃▄▅▆▇█·]|/|=|[][]|^[-0-9^,|]*$")
    told = {word for word in words(shown(WIDE, suspect, *options)) if not marks.search(word) and len(word) < 24}
    if width < 120:
        told -= {"evidence", "hypothesis", "null", "verdict", "defeat", "what", "could", "method", "control", "pair"}
    assert told - words(plain) == set()


@pytest.mark.parametrize("suspect", ["child", "laundered", "twin"])
def test_verdict_reasons_and_place_are_on_one_screen(suspect: str) -> None:
    screen = ESCAPE.sub("", shown(80, suspect)).splitlines()[:SCREEN]
    assert screen[0].startswith(("DERIVED", "INDEPENDENT"))
    assert any(line.startswith("because") for line in screen)
    assert any(line.startswith("place    heads") and "◆" in line for line in screen)
    assert any(line.startswith("         units") and "◆" in line for line in screen)


def test_columns_says_how_wide_a_terminal_is_that_does_not() -> None:
    text = in_terminal(0, "inspect", EXAMPLES / "base", env=environment(COLUMNS="60"))
    assert max(map(len, ESCAPE.sub("", text).splitlines())) <= 60


def test_the_word_of_the_verdict_is_coloured_unless_that_is_not_wanted() -> None:
    arguments = ("compare", EXAMPLES / "child", EXAMPLES / "base", "--quick")
    assert COLOUR.search(in_terminal(80, *arguments))
    assert not COLOUR.search(in_terminal(80, *arguments, "--no-color"))
    assert not COLOUR.search(in_terminal(80, *arguments, env=environment(NO_COLOR="1")))
    assert "\x1b" not in in_terminal(80, *arguments, env=environment(TERM="dumb"))


def test_an_encoding_without_blocks_gets_ascii_and_a_name_that_it_lacks_in_escapes(tmp_path: Path) -> None:
    folder = tmp_path / "한국어"
    shutil.copytree(EXAMPLES / "child", folder)
    done = piped("compare", folder, EXAMPLES / "base", env=environment(PYTHONIOENCODING="ascii"))
    text = done.stdout.decode("ascii")
    assert re.search(r"^place    heads  0\.99\d  0 [.:;=+*%#_|^@]{48} 1$", text, flags=re.MULTILINE)
    assert "\\ud55c\\uad6d\\uc5b4" in text
    piped("compare", folder, EXAMPLES / "base", "--quick", env=environment(LC_ALL="C", LANG="C"))
    made = piped(
        "compare", folder, EXAMPLES / "base", "--quick", "--json", "-", env=environment(PYTHONIOENCODING="ascii")
    )
    assert json.loads(made.stdout.decode("utf-8"))["suspect"]["name"] == "한국어"


def test_quiet_prints_nothing_but_errors_and_still_writes_what_was_asked_for(tmp_path: Path) -> None:
    arguments = ("compare", EXAMPLES / "laundered", EXAMPLES / "base", "--quick", "--quiet")
    target, page = tmp_path / "result.json", tmp_path / "result.html"
    done = piped(*arguments, "--json", target, "--html", page, "--fail-on", "derived", env=environment(), code=3)
    assert (done.stdout, done.stderr) == (b"", b"")
    assert json.loads(target.read_text())["verdict"]["conclusion"] == "derived"
    assert page.exists()
    assert json.loads(piped(*arguments, "--json", "-", env=environment()).stdout)["verdict"]["conclusion"] == "derived"
    assert in_terminal(80, *arguments) == ""
    assert in_terminal(80, *arguments, bars=True) == ""
    wrong = piped("compare", "no-such-model", EXAMPLES / "base", "--quiet", env=environment(), code=5)
    assert wrong.stdout == b""
    assert wrong.stderr.count(b"\n") == 1


# -- bars --------------------------------------------------------------------------------------------------------------


def frames(text: str) -> list[str]:
    """Return the lines that were drawn, one over the other."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", ESCAPE.sub("", text)) if line.strip()]


@pytest.mark.parametrize("width", [40, 80])
def test_a_bar_counts_the_steps_of_the_plan_on_one_line_and_leaves_nothing(width: int) -> None:
    text = in_terminal(width, "compare", EXAMPLES / "twin", EXAMPLES / "base", bars=True)
    drawn = [line for line in frames(text) if "kinprint:" not in line]
    assert max(map(cell_len, drawn)) <= width
    counted = [(int(done), int(total)) for line in drawn for done, total in re.findall(r"(\d+) of (\d+) ", line)]
    assert counted == sorted(counted, key=lambda pair: pair[0])
    assert counted[0] == (0, 22)
    assert any("units in stored order" in line for line in drawn) or width < 80
    assert any("planting" in line for line in drawn)
    assert ("left" in text) == (width == 80)
    # Erased: the last thing written after the last frame clears its line.
    assert re.search(r"\x1b\[2K(\x1b\[\?25h)?[^\w]*$", text)


def test_a_bar_has_no_colour_where_none_is_wanted_and_nothing_moves_on_a_dumb_terminal() -> None:
    arguments = ("compare", EXAMPLES / "child", EXAMPLES / "base", "--quick")
    assert not COLOUR.search(in_terminal(80, *arguments, "--no-color", bars=True))
    assert "\x1b" not in in_terminal(80, *arguments, bars=True, env=environment(TERM="dumb"))


def test_hostile_names_reach_a_bar_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "\x1b]0;title\x07[red]x"
    shutil.copytree(EXAMPLES / "twin", folder)
    text = in_terminal(120, "compare", EXAMPLES / "child", EXAMPLES / "base", "--control", folder, bars=True)
    assert "\x1b]0;" not in text
    assert "\x07" not in text
    assert "[red]x" in text


# -- the documents -----------------------------------------------------------------------------------------------------


def example(page: str) -> list[str]:
    """Return the first block of a page, without the line of the command."""
    (block, *_) = re.findall(
        r"```\n(\$ kinprint compare examples/laundered examples/base\n.*?)```", page, flags=re.DOTALL
    )
    return block.splitlines()[1:]


def masked(line: str) -> str:
    return re.sub(r"\d\.\d+", "#", line)


@pytest.mark.parametrize("name", ["README.md", "README.ko.md"])
def test_the_example_of_a_readme_is_what_the_command_prints(name: str) -> None:
    """Every stretch of lines between two ``...`` stands in the output as it is, in this order."""
    width = runpy.run_path(str(ROOT / "docs" / "reference" / "make_tables.py"))["WIDTH"]
    text = in_terminal(width, "compare", Path("examples/laundered"), Path("examples/base"))
    printed = list(map(masked, ESCAPE.sub("", text).splitlines()))
    lines, at = example((ROOT / name).read_text(encoding="utf-8")), 0
    assert len(lines) > 8
    for line in lines:
        if line == "...":
            continue
        where = printed.index(masked(line), at)
        assert where == at or lines[lines.index(line) - 1] == "...", line
        at = where + 1
