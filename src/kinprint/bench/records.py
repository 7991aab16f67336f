"""What a benchmark writes down: cases, the numbers measured on them, and what ran."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from kinprint.types import Conclusion, Record

RESULT_VERSION = 1
"""Raised whenever a reader of a benchmark's JSON could be misled by the change."""

Label = Literal["derived", "unrelated", "shown"]
"""``shown`` pairs are measured and printed, and enter no rate: their label is a matter of definition."""

Category = Literal[
    "model fine-tuning",
    "adversarial transforms",
    "unstructured pruning",
    "structured pruning",
    "merging and expansion",
    "upcycling",
    "format",
    "vocabulary",
    "compositions",
    "unrelated",
    "hard negatives",
    "shared initialisation",
    "distillation",
    "untrained",
]
"""Kinds of pairs, in the order in which tables show them. The first six and ``unrelated`` are GhostSpec's (table 1)."""


class Case(Record):
    """One pair of models whose lineage is known.

    Attributes:
        suspect: Name of a model of the suite.
        base: Name of another.
        category: Row of the summary table.
        label: What is true.
        roots: The independent trainings behind the two models, sorted. Pairs that share one are not independent:
            thresholds, bootstrap and reports are split by it.
        base_roots: Those of the base alone: the group in which the pair is reported.
    """

    suspect: str
    base: str
    category: Category
    label: Label
    roots: tuple[str, ...]
    base_roots: tuple[str, ...]

    @property
    def name(self) -> str:
        """The pair as tables print it."""
        return f"{self.suspect} / {self.base}"


class Column(Record):
    """One number of one method: what a table has a column for.

    Attributes:
        method: Name in the registry, or of a peer.
        id: The method's id, with every setting that changes a number.
        value: Name of the value.
        kind: ``similarity`` is 1 for the same model, ``distance`` is 0 for the same.
        identical: What the method gives a model and itself, where that is fixed.
        headline: Whether it is the number that the method is known by: the first that it reports.
    """

    method: str
    id: str
    value: str
    kind: Literal["similarity", "distance"]
    identical: float | None
    headline: bool

    @property
    def name(self) -> str:
        """The column as tables print it."""
        return f"{self.method}: {self.value}"


class Cell(Record):
    """One number measured on one pair; without a value, the reason for it."""

    value: float | None
    reason: str | None = None


class Cost(Record):
    """What one method cost on one pair.

    Attributes:
        seconds: Wall time, with what the method must make for each of the two models.
        peak_mb: How far the resident size rose above that before the method ran, in MB (1e6 bytes), with pages of
            files that it mapped; None where not measurable.
    """

    seconds: float
    peak_mb: float | None


class PairVerdict(Record):
    """What kinprint concludes on one pair, as far as tables tell it.

    Attributes:
        conclusion: As in the verdict.
        headline: The verdict in a sentence.
        decided_by: The evidence that carries it.
        contrary: The strongest evidence against it; where nothing could be tested, why not.
        log10_p: Of the smallest p-value, held against alpha; None where no exact test ran.
        heads: Size of the matched heads of the trunk.
        units: Size of the matched units of the trunk.
        seen: Planted copies that were seen; None where none were planted.
        plantings: Copies planted.
        layers: For each layer of the suspect the number of the base's layer that it was matched with; None where
            there is no layer map.
    """

    conclusion: Conclusion
    headline: str
    decided_by: str | None = None
    contrary: str | None = None
    log10_p: float | None = None
    heads: float | None = None
    units: float | None = None
    seen: int | None = None
    plantings: int | None = None
    layers: tuple[int | None, ...] | None = None

    @property
    def accuses(self) -> bool:
        """Whether it says that the models are related."""
        return self.conclusion in ("identical", "derived")


class Row(Record):
    """One case with all that was measured on it.

    Attributes:
        case: The pair.
        cells: By the name of the column.
        costs: By the name of the method.
        verdict: What kinprint concludes; None where it was not asked.
        true_layers: For each layer of the suspect the base's layers from which it comes, from the recipes; None where
            they do not tell, or the verdict was not asked for.
    """

    case: Case
    cells: dict[str, Cell]
    costs: dict[str, Cost]
    verdict: PairVerdict | None = None
    true_layers: tuple[tuple[int, ...], ...] | None = None


def categories(rows: Iterable[Row]) -> list[tuple[Category, Label]]:
    """Return the kinds of pairs that occur, in the order in which tables show them."""
    order: tuple[Category, ...] = get_args(Category)
    labels: tuple[Label, ...] = get_args(Label)
    held = {(row.case.category, row.case.label) for row in rows}
    return [(category, label) for category in order for label in labels if (category, label) in held]


class Run(Record):
    """What ran, so that somebody else can run it again.

    Attributes:
        kinprint: Version.
        commit: Git commit of the code, or None outside a checkout.
        dirty: Whether the checkout had changes; None outside one.
        versions: Python and the libraries that decide the numbers.
        cpu: The processor's name.
        blas: The BLAS library and its threads.
        seeds: Of the bootstrap and of whatever else is drawn.
        methods: Method ids.
        zoo: Digest of the manifest's models: names and content digests.
        jobs: Processes at work.
        seconds: Wall time of the whole run, without what a cache already held.
    """

    kinprint: str
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    cpu: str
    blas: str
    seeds: dict[str, int]
    methods: tuple[str, ...]
    zoo: str
    jobs: int
    seconds: float


class Interval(Record):
    """A number with its bootstrap interval (95 per cent, resampling whole roots); None where it does not exist."""

    value: float | None
    low: float | None = None
    high: float | None = None


class Rates(Record):
    """How one column separates derived from unrelated pairs.

    Abstaining earns nothing: a derived pair that the column cannot measure counts as the least similar of all, and an
    unrelated one does not count.

    Attributes:
        column: Name of the column.
        derived: Number of derived pairs.
        unrelated: Number of unrelated pairs that had a value.
        measured: Share of all pairs of both labels that had a value.
        auc: Area under the ROC curve.
        partial_auc: The same up to a false-positive rate of 1 per cent, standardised (McClish): 0.5 is chance.
        tpr_at_1_fpr: Share of derived pairs found at the strictest threshold that accuses at most 1 per cent of
            the unrelated.
        max_f1: Highest F1 over thresholds, chosen on the same pairs, as the papers do.
        max_f1_threshold: That threshold, in the column's own units and direction.
        held_out_f1: F1 where each base model's pairs are judged by the threshold that was best on all pairs that
            share no root with it.
        held_out_fpr: False-positive rate of the same.
        held_out_tpr: True-positive rate of the same.
        mahalanobis: Distance between the means of the two groups in units of their pooled spread.
    """

    column: str
    derived: int
    unrelated: int
    measured: float
    auc: Interval
    partial_auc: Interval
    tpr_at_1_fpr: Interval
    max_f1: Interval
    max_f1_threshold: float | None
    held_out_f1: float | None
    held_out_fpr: float | None
    held_out_tpr: float | None
    mahalanobis: float | None


class BenchResult(Record):
    """A benchmark as run.

    Attributes:
        result_version: Version of this record.
        suite: Name of the suite.
        cases_version: Version of the list of cases.
        columns: What was measured.
        rows: One per case.
        rates: One per column: on all pairs that count.
        rates_hard: The same with hard negatives as the only unrelated pairs.
        run: What ran.
        notes: What the reader must know.
    """

    result_version: int = RESULT_VERSION
    suite: str
    cases_version: int
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    rates: tuple[Rates, ...]
    rates_hard: tuple[Rates, ...]
    run: Run
    notes: tuple[str, ...] = ()
