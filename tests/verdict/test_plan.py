"""What the plan lets speak for what."""

from __future__ import annotations

from kinprint.evidence import exact_residual, exact_units
from kinprint.types import Evidence
from kinprint.verdict.plan import PLANNED, STAGES, about_the_trunk, share


def found(said: str, *, beyond: bool) -> Evidence:
    statement = exact_units.statement("stored") if said == "units" else exact_residual.statement(said)
    return Evidence(
        name=statement.name,
        id=statement.id,
        rung=1,
        status="measured",
        null=statement.null,
        defeats=statement.defeats,
        log10_p=-40.0 if beyond else -0.3,
        log10_floor=-100.0,
        carries=said != "embeddings",
        beyond=beyond,
    )


def test_coordinates_do_not_convict_the_layers_of_a_model_that_shares_the_embedding() -> None:
    evidence = [found(name, beyond=True) for name in ("units", "stored", "matched", "embeddings")]
    units, stored, matched, embeddings = about_the_trunk(evidence)
    assert (units, embeddings) == (evidence[0], evidence[3])
    for one in (stored, matched):
        assert not one.carries
        assert not one.beyond
        assert "embedding is shared" in one.notes[-1]


def test_coordinates_speak_where_the_embedding_is_another() -> None:
    evidence = [found("stored", beyond=True), found("embeddings", beyond=False)]
    assert about_the_trunk(evidence) == evidence


def test_all_shares_together_are_less_than_alpha() -> None:
    spent = sum(share(stage) * len(tests) for stage, tests in enumerate(STAGES, start=1))
    assert spent == 0.875
    assert sum(len(tests) for tests in STAGES) == PLANNED
