"""Exact tests on independent models: p-values are uniform, whatever the basis and whatever was done to the models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from evidence.models import LOG10_ALPHA, Reader, Sizes, assert_uniform, disguised, p_of, random
from kinprint.alignment.basis import Basis, BasisKind
from kinprint.evidence import exact_experts, exact_groups, exact_residual, exact_units
from kinprint.evidence.pair import Pair
from kinprint.linalg.permutation import permutation_test
from kinprint.transform.cutting import with_layers
from kinprint.types import Evidence

SEEDS = 150
SMALL = Sizes(layers=1, hidden=12, heads=5, kv_heads=5, head_dim=3, ffn=16, experts=4, vocab=24)
FLAT = Sizes(layers=1, hidden=8, heads=5, kv_heads=5, head_dim=2, ffn=8, vocab=16)
"""So few units that no basis is fitted on them."""

FOUR = (0, 0, 0, 0)
"""Order of layers of a model made deeper."""

IN_A_BASIS: dict[str, Callable[[Pair, Basis, str, float], Evidence]] = {
    "units": exact_units.test,
    "groups": exact_groups.test,
    "experts": exact_experts.test,
}
KINDS: tuple[BasisKind, ...] = ("stored", "tokens", "units")
ROWS = ("stored", "matched", "embeddings")


def everything(found: Pair, kinds: Sequence[BasisKind]) -> dict[tuple[str, str], float]:
    """Return the p-value of every exact test in some bases."""
    p_values: dict[tuple[str, str], float] = {}
    for kind in kinds:
        basis = found.basis(kind)
        assert isinstance(basis, Basis)
        p_values |= {(name, kind): p_of(test(found, basis, kind, LOG10_ALPHA)) for name, test in IN_A_BASIS.items()}
    return p_values | {("residual", rows): p_of(exact_residual.test(found, rows, LOG10_ALPHA)) for rows in ROWS}


@pytest.fixture(scope="module")
def strangers() -> dict[tuple[str, str], list[float]]:
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    reader = Reader(random("mixtral", sizes=SMALL))
    for seed in range(SEEDS):
        two = (reader.trunk(random("mixtral", 2 * seed + side, sizes=SMALL)) for side in (0, 1))
        for key, p_value in everything(Pair(*two), KINDS).items():
            found[key].append(p_value)
    return found


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", IN_A_BASIS)
def test_independent_models_have_uniform_p_values(
    name: str, kind: str, strangers: dict[tuple[str, str], list[float]]
) -> None:
    assert len(strangers[name, kind]) == SEEDS
    assert_uniform(strangers[name, kind])


@pytest.mark.parametrize("rows", ROWS)
def test_coordinates_of_independent_models_have_uniform_p_values(
    rows: str, strangers: dict[tuple[str, str], list[float]]
) -> None:
    assert_uniform(strangers["residual", rows])


@pytest.fixture(scope="module")
def renumbered() -> dict[tuple[str, str], list[float]]:
    base = random("mixtral", 0, sizes=SMALL)
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    reader, orders = (
        Reader(base),
        ("residual-permutation", "ffn-permutation", "kv-group-permutation", "expert-permutation"),
    )
    there = reader.trunk(base)
    for seed in range(50):
        copy = Pair(reader.trunk(disguised(base, seed, orders)), there)
        for key, p_value in everything(copy, ["tokens"]).items():
            found[key].append(p_value)
    return found


@pytest.mark.parametrize("key", [*((name, "tokens") for name in IN_A_BASIS), *(("residual", rows) for rows in ROWS)])
def test_a_renumbered_copy_passes_unnoticed_as_each_test_says_of_itself(
    key: tuple[str, str], renumbered: dict[tuple[str, str], list[float]]
) -> None:
    # No permutation of two things or more is drawn as the identity, so the smallest p-values are a little rarer.
    assert_uniform(renumbered[key])


# -- layers that are copies of each other --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def deepened() -> dict[tuple[str, str], list[float]]:
    """P-values of independent models of which one, the other or both were made deeper by repeating their layer."""
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    once = random("llama", sizes=FLAT)
    readers = Reader(once), Reader(with_layers(once, FOUR))
    for seed in range(100):
        states = [random("llama", 2 * seed + side, sizes=FLAT) for side in (0, 1)]
        mine, theirs = ((readers[0].trunk(s), readers[1].trunk(with_layers(s, FOUR))) for s in states)
        assert mine[1].repeats
        assert not mine[0].repeats
        for who, models in (
            ("suspect", Pair(mine[1], theirs[0])),
            ("base", Pair(mine[0], theirs[1])),
            ("both", Pair(mine[1], theirs[1])),
        ):
            basis = models.basis("stored")
            assert isinstance(basis, Basis)
            found["groups", who].append(p_of(exact_groups.test(models, basis, "stored", LOG10_ALPHA)))
        found["units", "both"].append(p_of(exact_units.test(models, basis, "stored", LOG10_ALPHA)))
        naive = permutation_test([table for _, table in exact_groups.score_tables(models, basis)])
        assert naive is not None
        found["naive", "both"].append(10.0**naive.log10_p)
    return found


@pytest.mark.parametrize(
    ("name", "who"), [("groups", "suspect"), ("groups", "base"), ("groups", "both"), ("units", "both")]
)
def test_repeated_layers_leave_p_values_of_independent_models_uniform(
    name: str, who: str, deepened: dict[tuple[str, str], list[float]]
) -> None:
    assert_uniform(deepened[name, who])


def test_as_if_every_layer_were_numbered_for_itself_repeated_layers_would_accuse_innocents(
    deepened: dict[tuple[str, str], list[float]],
) -> None:
    # One in a hundred by chance; four copies of a layer say the same thing four times.
    naive = deepened["naive", "both"]
    assert np.mean(np.array(naive) <= 0.01) > 0.05
    with pytest.raises(AssertionError):
        assert_uniform(naive)
