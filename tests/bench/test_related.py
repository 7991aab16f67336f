"""Related pairs as the command makes them: derived on the spot, set against their base, and written for the package."""

from __future__ import annotations

from pathlib import Path

import pytest
from untrained import write_zoo

from kinprint.bench.related import FILE, KIN, Kin, related
from kinprint.errors import UsageError
from kinprint.evidence.matched import PROCEDURE
from kinprint.evidence.related import GROUPS, Related
from kinprint.zoo.derive import Chain
from kinprint.zoo.manifest import manifest_bytes, read_manifest
from kinprint.zoo.model import put

FEW = (
    Kin("cut or rounded", "base", ("prune-magnitude:share=0.5",)),
    Kin("cut or rounded", "child", ("depth-cut:count=1", "noise:share=0.1")),
    Kin("trained or merged", "base", ("merge-linear:others=stranger,weight=0.5",)),
)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_zoo(tmp_path_factory.mktemp("made"))


def test_each_pair_says_what_was_done_and_is_as_large_as_what_is_left(zoo: Path, tmp_path: Path) -> None:
    told: list[str] = []
    made = related(zoo, tmp_path, kin=FEW, progress=lambda what, done, total: told.append(f"{done}/{total} {what}"))
    assert [pair.suspect for pair in made.pairs] == [
        "child",
        "m0 + prune-magnitude:share=0.5",
        "child + depth-cut:count=1 + noise:share=0.1",
        "m0 + merge-linear:others=stranger,weight=0.5",
    ]
    assert told[1] == "1/4 m0 + prune-magnitude:share=0.5"
    assert {pair.base for pair in made.pairs} == {"m0"}
    sizes = [pair.sizes["units"] for pair in made.pairs]
    assert sizes[0] == pytest.approx(1, abs=1e-3)  # the zoo's child is the same weights
    assert 0.5 < sizes[1] < 1
    assert sizes[3] < sizes[1]
    assert Related.model_validate_json((tmp_path / FILE).read_bytes()) == made
    assert made.procedure == PROCEDURE


def test_every_kind_can_be_had_and_every_group_is_named() -> None:
    assert {one.group for one in KIN} == set(GROUPS)
    for one in KIN:
        assert Chain.parse(one.kinds).keeps_weights, one.kinds
    assert len(set(KIN)) == len(KIN)


def test_a_suite_without_a_lineage_or_without_a_stranger_is_refused(zoo: Path, tmp_path: Path) -> None:
    whole = read_manifest(zoo)
    assert whole is not None
    for kept, said in (([0, 1], "no model with a child"), ([0, -1], "no stranger to m0")):
        part = whole.model_copy(update={"models": tuple(whole.models[at] for at in kept)})
        put(tmp_path / "zoo.json", manifest_bytes(part))
        with pytest.raises(UsageError, match=said):
            related(tmp_path, tmp_path / "out", kin=())
    with pytest.raises(UsageError, match="holds no built suite"):
        related(tmp_path / "nothing", tmp_path / "out", kin=())
