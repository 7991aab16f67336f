"""Figures by matplotlib: the same bytes twice, text that stays text, axes of a notebook, and the command."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from figured import comparison, deep, layer_map, match, verdict, whole

from kinprint.errors import MissingExtraError, UsageError
from kinprint.report.figures import KINDS, figure
from kinprint.report.html import page
from kinprint.report.plots import STYLE, image, plot
from kinprint.types import Comparison

matplotlib = pytest.importorskip("matplotlib")
Sheet = pytest.importorskip("matplotlib.figure").Figure

KINPRINT = Path(sys.executable).with_name("kinprint")
HOSTILE = "$\\frac{1}{0}$ <script>alert(1)</script>"


@pytest.mark.parametrize("kind", list(KINDS))
def test_the_same_figure_gives_the_same_bytes(kind: str) -> None:
    made = figure(kind, whole())
    for suffix, head in (("svg", b"<?xml"), ("png", b"\x89PNG\r\n")):
        first = image(made, suffix)
        assert first.startswith(head)
        assert image(made, suffix) == first


def test_a_users_settings_change_no_file_and_stay_as_they_were() -> None:
    made = figure("sigmas", whole())
    plain = image(made, "svg")
    with matplotlib.rc_context({"font.size": 20.0, "text.parse_math": True, "axes.facecolor": "red"}):
        assert image(made, "svg") == plain
        assert matplotlib.rcParams["font.size"] == 20.0
        assert matplotlib.rcParams["text.parse_math"]


def test_names_are_text_and_no_mathematics_and_no_markup() -> None:
    held: dict[str, Any] = json.loads(whole().model_dump_json())
    for one in held["methods"]:
        for table in one["tables"]:
            table["columns"] = [name.replace("attn.q", HOSTILE) for name in table["columns"]]
            table["rows"] = [[HOSTILE if cell == "norm.attn" else cell for cell in row] for row in table["rows"]]
    hostile = Comparison.model_validate(held)
    for kind in ("sigmas", "gains", "parts"):
        text = image(figure(kind, hostile), "svg").decode()
        assert "$\\frac" in text
        assert "<script" not in text
        assert image(figure(kind, hostile), "png")


def laid_out(sheet: Any) -> None:
    """Let a figure place its parts, as it does when it is written."""
    pytest.importorskip("matplotlib.backends.backend_agg").FigureCanvasAgg(sheet).draw()


def texts(sheet: Any) -> str:
    found = sheet.findobj(lambda one: hasattr(one, "get_text"))
    return "\n".join(str(one.get_text()) for one in found)


def test_titles_state_the_finding_and_axes_have_names() -> None:
    sheet = whole().plot_layers()
    assert isinstance(sheet, Sheet)
    said = texts(sheet).replace("\n", " ")
    assert "2 of 3 layers come from layers of the base" in said
    for name in ("layer of the suspect", "layer of the base", "similarity"):
        assert name in said
    image_drawn = sheet.axes[0].get_images()[0].get_array()
    assert image_drawn[2, 1] == pytest.approx(0.8)
    assert bool(image_drawn.mask[1, 2])  # not measured


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_comparison_draws_each_kind_and_a_page(kind: str) -> None:
    held = whole()
    sheet = getattr(held, f"plot_{kind}")()
    assert isinstance(sheet, Sheet)
    assert len(sheet.axes) >= len(figure(kind, held).panels)
    assert held.to_html() == page(held)


def test_a_legend_names_each_thing_once() -> None:
    legend = whole().plot_spectra().axes[0].get_legend()
    assert sorted(one.get_text() for one in legend.get_texts()) == ["base", "edge, base", "edge, suspect", "suspect"]


def test_axes_that_are_given_are_drawn_on() -> None:
    own = Sheet()
    axes = own.subplots(1, 2)
    assert whole().plot_place(axes) is own
    assert all(axis.lines for axis in axes)
    alone = Sheet().subplots()
    assert whole().plot_layers(alone) is alone.get_figure()
    assert "2 of 3 layers" in alone.get_title(loc="left") + alone.get_title()
    with pytest.raises(UsageError, match="gains has 3 panels and 1 axes were given: give one for each"):
        whole().plot_gains(alone)


@pytest.mark.parametrize("made", [deep(100), comparison(verdict(layer_map(match(0, 0), table=[[0.5]], columns=1)))])
def test_a_hundred_layers_and_a_single_one_are_drawn_with_names_apart(made: Comparison) -> None:
    sheet = plot(figure("layers", made))
    laid_out(sheet)
    boxes = [one.get_window_extent() for one in sheet.axes[0].get_xticklabels() if one.get_text()]
    assert all(left.x1 <= right.x0 for left, right in itertools.pairwise(boxes))
    assert len(image(figure("parts", made), "png")) > 1000


def test_no_text_leaves_the_sheet() -> None:
    for kind in KINDS:
        sheet = plot(figure(kind, whole()))
        laid_out(sheet)
        width, height = sheet.canvas.get_width_height()
        for one in sheet.findobj(matplotlib.text.Text):
            box = one.get_window_extent()
            if one.get_visible() and one.get_text().strip() and box.width:
                assert box.x0 >= -1, (kind, one.get_text())
                assert box.x1 <= width + 1, (kind, one.get_text())
                assert box.y1 <= height + 1, (kind, one.get_text())


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'kinprint\[plot\]'"):
        whole().plot_layers()


def test_nothing_that_compares_or_writes_a_page_loads_matplotlib() -> None:
    code = (
        "import sys; import kinprint.api, kinprint.cli, kinprint.types, kinprint.report.html, kinprint.report.figures, "
        "kinprint.report.plots; assert not {name for name in sys.modules if name.startswith('matplotlib')}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_mathematics_is_off_wherever_text_is_drawn() -> None:
    assert STYLE["text.parse_math"] is False
    assert STYLE["text.usetex"] is False


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("kept") / "r.json"
    path.write_text(whole(HOSTILE).model_dump_json(), "utf-8")
    return path


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [KINPRINT, "plot", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_command_writes_what_the_function_gives(kept: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"f.{suffix}"
    ran = run("place", kept, "-o", out)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert out.read_bytes() == image(figure("place", whole(HOSTILE)), suffix)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("map", "r.json", "-o", "f.svg"), 2, "unknown figure 'map': choose from place, layers"),
        (("layers", "r.json", "-o", "f.pdf"), 2, "figures are written as .svg or .png"),
        (("layers", "bare.json", "-o", "f.svg"), 2, "nothing to draw for layers: there is no map of layers"),
        (("layers", "none.json", "-o", "f.svg"), 5, "cannot be read"),
        (("layers", "broken.json", "-o", "f.svg"), 5, "is no result of compare"),
        (("layers", "r.json", "-o", "none/f.svg"), 2, "cannot write"),
    ],
)
def test_what_cannot_be_drawn_is_one_line_and_no_file(
    kept: Path, tmp_path: Path, arguments: tuple[str, ...], code: int, said: str
) -> None:
    (tmp_path / "r.json").write_bytes(kept.read_bytes())
    (tmp_path / "bare.json").write_text(comparison(None).model_dump_json(), "utf-8")
    (tmp_path / "broken.json").write_text("{}", "utf-8")
    ran = run(*(tmp_path / one if "." in one else one for one in arguments))
    assert ran.returncode == code, ran.stderr
    assert said in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert not [path for path in tmp_path.rglob("*") if path.suffix not in ("", ".json")]
