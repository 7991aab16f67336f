"""The population as the command makes it: independent models, two halves, no pair across them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from untrained import MODELS, entry, manifest, untrained, write_zoo

from kinprint.bench.innocents import FILE, innocents
from kinprint.errors import UsageError
from kinprint.evidence.matched import PROCEDURE
from kinprint.evidence.population import Innocents
from kinprint.zoo.manifest import manifest_bytes
from kinprint.zoo.model import put


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def made(zoo: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Innocents, Path]:
    out = tmp_path_factory.mktemp("out")
    return innocents([zoo], out), out


def test_every_second_model_sets_the_margin_and_children_enter_nothing(made: tuple[Innocents, Path]) -> None:
    assert [model.name for model in made[0].models] == [f"m{at}" for at in range(MODELS)]
    assert [model.half for model in made[0].models] == ["margin", "report"] * (MODELS // 2)


def test_all_pairs_inside_a_half_are_measured_and_none_across(made: tuple[Innocents, Path]) -> None:
    half = MODELS // 2
    assert len(made[0].pairs) == 2 * half * (half - 1) // 2
    assert all((pair.first - pair.second) % 2 == 0 for pair in made[0].pairs)


def test_what_is_written_is_what_the_package_reads(made: tuple[Innocents, Path]) -> None:
    assert Innocents.model_validate_json((made[1] / FILE).read_bytes()) == made[0]
    assert made[0].procedure == PROCEDURE
    assert not list(made[1].glob("*.partial"))


def test_untrained_strangers_are_small(made: tuple[Innocents, Path]) -> None:
    for statistic in ("heads", "units", "embedding"):
        sizes = made[0].sizes(statistic, "margin") + made[0].sizes(statistic, "report")
        assert sizes
        assert abs(sum(sizes) / len(sizes)) < 0.15


def test_too_few_models_are_refused(tmp_path: Path) -> None:
    names = ("m0", "m1")
    for seed, name in enumerate(names):
        untrained(seed).write(tmp_path / name)
    entries = [entry(name, untrained(seed).content_digest) for seed, name in enumerate(names)]
    put(tmp_path / "zoo.json", manifest_bytes(manifest(*entries)))
    with pytest.raises(UsageError, match="fewer than 4 independent models"):
        innocents([tmp_path], tmp_path / "out")


def test_a_folder_without_a_zoo_is_refused_by_the_command(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).parent / "kinprint"), "bench", "innocents"]
    done = subprocess.run(
        [*command, "--zoo", str(tmp_path), "-o", str(tmp_path / "out")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "holds no built suite" in done.stderr
