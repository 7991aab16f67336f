"""Pictures: what they say, that they are whole, and that drawing them changes nothing else."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from bench.made import column, pair, pairs, result
from kinprint.bench import plots
from kinprint.bench.plots import write_plots
from kinprint.bench.records import BenchResult
from kinprint.errors import MissingExtraError

NAMES = ["distributions.png", "distributions.svg", "heatmap.png", "heatmap.svg", "roc.png", "roc.svg"]


def small() -> BenchResult:
    columns = [
        column("a$b$: s"),
        column("n: d", kind="distance", identical=0.0),
        column("n: detail", headline=False),
    ]
    rows = [
        pair("derived", {"a$b$: s": 0.9, "n: d": 0.0, "n: detail": 0.9}),
        pair("derived", {"a$b$: s": 0.7, "n: d": "too wide", "n: detail": 0.9}, category="format"),
        pair("unrelated", {"a$b$: s": 0.5, "n: d": 2.0, "n: detail": 0.1}),
        pair("unrelated", {"a$b$: s": 0.8, "n: d": 1e6, "n: detail": 0.1}, category="hard negatives"),
        pair("shown", {"a$b$: s": 0.85, "n: d": 3.0, "n: detail": 0.5}),
    ]
    return result(columns, rows, suite="made <up>")


def texts(path: Path) -> list[str]:
    return re.findall(r"<text[^>]*>([^<]*)</text>", path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn") / "made"
    assert sorted(path.name for path in write_plots(small(), folder)) == NAMES
    return folder


def test_folder_holds_the_pictures_and_nothing_half_done(drawn: Path) -> None:
    assert sorted(path.name for path in drawn.iterdir()) == NAMES
    assert (drawn / "roc.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["roc", "heatmap", "distributions"])
def test_every_headline_column_and_the_suite_are_named_as_they_are(drawn: Path, name: str) -> None:
    held = texts(drawn / f"{name}.svg")
    assert "a$b$: s" in held
    assert "n: d" in held
    assert not any("detail" in text for text in held)
    assert any("made &lt;up&gt;" in text for text in held)


def test_curves_carry_both_areas(drawn: Path) -> None:
    held = texts(drawn / "roc.svg")
    # 0.9 beats 0.5 and 0.8, 0.7 beats 0.5 alone: 3/4, and 1/2 against 0.8; the distance misses its blank: 1/2.
    assert held.count("all unrelated: AUC 0.750") == 1
    assert held.count("hard negatives: AUC 0.500") == 2
    assert held.count("all unrelated: AUC 0.500") == 1


def test_heat_map_shows_the_area_by_category_and_the_share_of_the_innocent_accused(drawn: Path) -> None:
    figure = plots._heatmap(small(), small().columns[:1])
    shown = [[text.get_text() for text in axis.texts] for axis in figure.axes]
    # Fine-tuning (0.9) beats both; format (0.7) one of two. Highest F1, 4/5, from 0.7 on: of the innocent 0.8 is above.
    assert shown == [["1.00", "0.50"], ["0.00", "1.00"], ["1.00"]]
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["model fine-tuning", "format"]


def test_blank_values_are_counted_and_the_threshold_is_drawn(drawn: Path) -> None:
    figure = plots._distributions(small(), [small().columns[1]])
    (axis,) = (axis for axis in figure.axes if axis.get_visible())
    assert [text.get_text() for text in axis.texts] == ["1\nblank"]
    assert axis.get_xlabel() == "distance; threshold 1"
    assert axis.get_xscale() == "symlog"
    marks = [line.get_xdata() for line in axis.get_lines() if line.get_marker() == "o"]
    assert [float(x) for held in marks for x in np.asarray(held)] == [0.0, 2.0, 1e6, 3.0]


def test_same_result_gives_the_same_bytes_whatever_the_caller_has_set(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    with mpl.rc_context({"font.size": 30.0, "svg.hashsalt": "other"}):
        write_plots(small(), tmp_path)
        assert (mpl.rcParams["font.size"], mpl.rcParams["svg.hashsalt"]) == (30.0, "other")
    for name in NAMES:
        assert (tmp_path / name).read_bytes() == (drawn / name).read_bytes(), name
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("label", ["derived", "shown"])
def test_one_class_is_drawn_without_curves(label: str, tmp_path: Path) -> None:
    write_plots(result([column()], [pair(label, 0.5)]), tmp_path)
    assert "all unrelated: no curve" in texts(tmp_path / "roc.svg")
    assert "similarity; no threshold" in texts(tmp_path / "distributions.svg")


def test_a_method_that_abstains_or_never_varies_is_drawn(tmp_path: Path) -> None:
    columns = [column("m: blank"), column("m: constant")]
    rows = [pair(label, {"m: blank": None, "m: constant": 0.5}) for label in ("derived", "derived", "unrelated")]
    write_plots(result(columns, rows), tmp_path)
    held = texts(tmp_path / "roc.svg")
    assert (held.count("all unrelated: no curve"), held.count("all unrelated: AUC 0.500")) == (1, 1)


def test_no_headline_or_no_pair_no_picture(tmp_path: Path) -> None:
    assert write_plots(result([column(headline=False)], pairs([0.5], [0.1])), tmp_path / "new") == []
    assert write_plots(result([column()], []), tmp_path / "new") == []
    assert not (tmp_path / "new").exists()


def test_failure_leaves_the_old_picture_whole(tmp_path: Path) -> None:
    class Broken:
        def savefig(self, path: Path, **_: object) -> None:
            path.write_bytes(b"half")
            raise OSError("disk full")

    (tmp_path / "roc.svg").write_bytes(b"old")
    with pytest.raises(OSError, match="disk full"):
        plots._write(Broken(), tmp_path / "roc.svg", "svg")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("roc.svg", b"old")]


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in {"matplotlib", *(name for name in sys.modules if name.startswith("matplotlib."))}:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=r"kinprint\[bench\]"):
        write_plots(small(), tmp_path)
