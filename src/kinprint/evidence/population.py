"""The innocents: sizes of pairs that are known to be independent, and the margins that follow from them.

A matched statistic has no p-value: all models trained on language share features, and strangers reach z = 17 in a test
whose tested cosine is .02. So each pair is set against a population of independent pairs. Their models are split in
two; pairs inside one half set the margin, pairs inside the other half report how often it is passed. No derived pair
has a say in either. The population ships as ``innocents.json`` and is made by ``kinprint bench innocents``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib import resources

from kinprint.types import Population, Record

SLACK = 2.0
"""The margin is this many times the largest size in the half that sets it."""

LEAST_MARGIN = 0.1
"""And never less than this, however small the sizes of strangers are in wide models."""

STATISTICS = ("heads", "units", "layer heads", "layer units", "embedding", "tensors")
"""Sizes that have a margin: of the trunk, of the single most alike layer, of the embedding, and of
matrices by content."""


class Innocent(Record):
    """One model of the population.

    Attributes:
        name: Its name in its suite, for people.
        source: Suite or package that it comes from.
        family: Its family table.
        width: Residual coordinates.
        layers: Layers.
        half: ``margin`` or ``report``.
    """

    name: str
    source: str
    family: str
    width: int
    layers: int
    half: str


class InnocentPair(Record):
    """Sizes of one independent pair; ``first`` and ``second`` are positions in the list of models."""

    first: int
    second: int
    sizes: dict[str, float]


class Innocents(Record):
    """The whole population.

    Attributes:
        version: Raised when the sizes change.
        procedure: Id of how the sizes were measured; a margin holds only for that.
        models: Every model.
        pairs: Pairs of models of one half. Pairs across the halves would tie them together and are left out.
    """

    version: int
    procedure: str
    models: tuple[Innocent, ...]
    pairs: tuple[InnocentPair, ...]

    def sizes(self, statistic: str, half: str) -> list[float]:
        """Return the sizes of one statistic in one half."""
        return [
            pair.sizes[statistic]
            for pair in self.pairs
            if statistic in pair.sizes and self.models[pair.first].half == half
        ]

    def margin(self, statistic: str) -> float:
        """Return the size beyond which a pair counts as not innocent, from the half that sets it."""
        return max(LEAST_MARGIN, SLACK * max(self.sizes(statistic, "margin"), default=1.0))

    def report(self, statistic: str, widths: Sequence[int]) -> Population | None:
        """Return what the other half says about the margin, for models of these widths; None where no pair has it."""
        sizes = self.sizes(statistic, "report")
        if not sizes:
            return None
        models = [model for model in self.models if model.half == "report"]
        known = (min(model.width for model in models), max(model.width for model in models))
        beyond = [width for width in widths if not known[0] <= width <= known[1]]
        margin = self.margin(statistic)
        return Population(
            pairs=len(sizes),
            models=len(models),
            largest=max(sizes),
            passed=sum(size > margin for size in sizes),
            bound=min(1.0, 3 / len(sizes)),
            bound_disjoint=min(1.0, 3 / max(1, len(models) // 2)),
            widths=known,
            outside=None
            if not beyond
            else f"width {beyond[0]} is outside the population's {known[0]} to {known[1]}: the margin is extrapolated",
        )


@cache
def innocents() -> Innocents:
    """Return the population that ships with the package."""
    text = resources.files("kinprint.evidence").joinpath("innocents.json").read_text(encoding="utf-8")
    return Innocents.model_validate_json(text)


def among_innocents(statistic: str, size: float, widths: Sequence[int]) -> dict[str, object]:
    """Return the fields of evidence that say how a size stands among independent pairs.

    Args:
        statistic: One of ``STATISTICS``.
        size: Of this pair.
        widths: Of the two models.
    """
    population = innocents()
    margin = population.margin(statistic)
    return {"margin": margin, "population": population.report(statistic, widths), "beyond": size > margin}
