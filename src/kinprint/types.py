"""The records that cross boundaries: what a method measured, and a whole comparison.

They are pydantic models, so the JSON that ``--json`` writes and the published schema come from here.
A number that could not be computed is ``None`` with a reason beside it; NaN and Inf never appear.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

SCHEMA_VERSION = 2
"""Raised whenever a reader of the JSON could be misled by the change."""

Cell = str | int | float | None


class Record(BaseModel):
    """Frozen, closed base: an unknown field is an error, and NaN cannot be written."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class Value(Record):
    """One named number of a method.

    Attributes:
        name: What was measured, unique inside its method: ``similarity``, ``attn.q pearson``.
        value: The number; ``None`` when it could not be computed.
        kind: ``similarity`` is 1 for the same model, ``distance`` is 0 for the same, ``statistic`` is neither.
        identical: What the method gives a model compared with itself, where that is fixed.
        reason: Why ``value`` is ``None``.
        note: How to read the number, in a few words.
    """

    name: str
    value: float | None
    kind: Literal["similarity", "distance", "statistic"]
    identical: float | None = None
    reason: str | None = None
    note: str | None = None


class Table(Record):
    """Details of one method, as rows under named columns. ``title`` says what a row is.

    Attributes:
        title: What a row is.
        columns: Names.
        rows: One cell for each column.
        plotted: Whether the rows are there for a figure: a person would look at that, and not at them.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    plotted: bool = False


class MethodResult(Record):
    """What one method measured on one pair.

    Attributes:
        method: Name in the registry.
        id: Name, version and every setting that changes a number.
        status: ``not_applicable`` when the method could not run on this pair; then ``reason`` says why.
        reason: Why nothing was measured.
        values: The numbers that the method is known by, most important first.
        controls: Numbers that must look negative if the values are to mean anything: shuffles,
            mismatched layers, baselines inside one model, third models.
        tables: Per-layer and per-role details.
        notes: What the reader must know: what was left out, inferred, or interpolated.
        source: Paper, section and equation.
    """

    method: str
    id: str
    status: Literal["measured", "not_applicable"]
    reason: str | None = None
    values: tuple[Value, ...] = ()
    controls: tuple[Value, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
    source: str = ""


class GeometryInfo(Record):
    """Sizes of a model. ``None`` where a size is unknown or does not exist."""

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    experts: int | None = None
    vocab: int | None = None


class ComponentInfo(Record):
    """A part beside the language model: a tower, an encoder, a head that looks ahead.

    Attributes:
        name: ``vision``, ``audio``, ``projector``, ``encoder``, ``mtp`` or the word of its path.
        family: Name of the family table that fits it, or ``unknown``.
        tensors: How many there are.
        parameters: Count over its floating tensors.
        coverage: Share of those parameters that have a role, 0 to 1.
    """

    name: str
    family: str
    tensors: int
    parameters: int
    coverage: float


class ModelInfo(Record):
    """What was compared, so that a reader can find the same bytes again.

    Attributes:
        name: Label for people; never evidence.
        location: Path as given.
        format: ``safetensors``, ``pytorch``, ``gguf``, ``fingerprint`` or ``memory``.
        family: Name of the family table, or ``unknown``.
        geometry: Sizes, from the config where there is one and else from shapes.
        inferred: Sizes that were inferred from shapes and how.
        parameters: Count over all floating tensors.
        coverage: Share of those parameters that the family table maps to roles, 0 to 1.
        unmapped: Every tensor without a role.
        header_digest: SHA-256 over sorted names, dtypes and shapes.
        content_digest: SHA-256 over names, dtypes, shapes and bytes; ``None`` when the bytes were not all read.
        notes: Choices made while opening: which of several sets, what was ignored.
        components: What stands beside the language model, each judged on its own.
    """

    name: str
    location: str
    format: str
    family: str
    geometry: GeometryInfo
    inferred: tuple[str, ...] = ()
    parameters: int
    coverage: float
    unmapped: tuple[str, ...] = ()
    header_digest: str
    content_digest: str | None = None
    notes: tuple[str, ...] = ()
    components: tuple[ComponentInfo, ...] = ()


class ControlPair(Record):
    """The same methods on one side of the pair and a third model.

    Attributes:
        side: Which side of the comparison stands against the third model.
        control: The third model's name.
        methods: Results without their detail tables.
    """

    side: Literal["suspect", "base"]
    control: str
    methods: tuple[MethodResult, ...]


class Population(Record):
    """How a size stands among pairs of models that are known to be independent.

    Attributes:
        pairs: Independent pairs on which nothing was set, against which the margin is reported.
        models: Models in those pairs.
        largest: The largest size among them.
        passed: How many of them lie beyond the margin.
        bound: Rule of three, 3 / pairs: an upper bound (95 %) of the share of independent pairs beyond the margin if
            none was seen and the pairs were independent draws. They share models, so see the next.
        bound_disjoint: The same over as many pairs as there are that share no model.
        widths: Smallest and largest width of the residual stream among the models.
        outside: Why this pair is unlike them, or None: a width outside ``widths`` makes the margin an extrapolation.
    """

    pairs: int
    models: int
    largest: float
    passed: int
    bound: float
    bound_disjoint: float
    widths: tuple[int, int]
    outside: str | None = None


class Evidence(Record):
    """One statistic on a pair with its null.

    Attributes:
        name: What was tested.
        id: Name, version and every setting that changes a number.
        rung: 0 identity, 1 exact test, 2 matched, 3 invariant.
        status: ``not_applicable`` when the test could not run on this pair; then ``reason`` says why.
        reason: Why nothing was tested.
        null: The hypothesis that the test would reject, and the label group whose exchangeability it rests on.
        defeats: What would make a true copy pass unnoticed.
        log10_p: Decimal logarithm of the p-value, for exact tests only. Never minus infinity.
        log10_floor: What it could have been at most extreme: one over the number of relabellings.
        size: The effect, 0 for strangers, 1 for the same; for matched tests and invariants this is what counts.
        margin: The size beyond which no independent pair was found, where the test carries a verdict by size.
        population: The independent pairs behind the margin.
        carries: Whether this evidence may carry the verdict; otherwise it is shown for the reader.
        beyond: Whether it speaks for derivation: p below its share of alpha, or size beyond the margin.
        controls: Numbers that must look negative: shuffles, mismatched layers.
        tables: Details.
        notes: What the reader must know.
    """

    name: str
    id: str
    rung: Literal[0, 1, 2, 3]
    status: Literal["measured", "not_applicable"]
    reason: str | None = None
    null: str
    defeats: str
    log10_p: float | None = None
    log10_floor: float | None = None
    size: float | None = None
    margin: float | None = None
    population: Population | None = None
    carries: bool = False
    beyond: bool = False
    controls: tuple[Value, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


class LayerMatch(Record):
    """Where one layer of the suspect stands in the base, as positions and sizes.

    Attributes:
        suspect: Number of the suspect's layer.
        base: Number of the layer of the base that is most like it, or None.
        similarity: Mean cosine of the two layers' forms in the common basis.
        heads: Size of the matched heads, or None.
        units: Size of the matched MLP units, or None.
        derived: Whether one of the sizes is beyond its margin.
        forms: Cosines of the two layers' forms in the common basis, by form, those that both have, to four digits:
            ``qk`` and ``vo`` of attention, ``gate`` and ``ud`` (down and up) of the MLP.
    """

    suspect: int
    base: int | None
    similarity: float | None
    heads: float | None
    units: float | None
    derived: bool
    forms: dict[str, float] = {}


class LayerMapInfo(Record):
    """Which layer of the suspect comes from which of the base; a guess where the models are independent.

    Attributes:
        kind: ``same`` layers in the same places, ``ordered`` where some were dropped or repeated in order, ``free``
            where blocks were repeated or reordered.
        basis: The common basis in which layers were compared.
        layers: One entry for each layer of the suspect.
        base_layers: Numbers of the base's layers, the columns of ``table``.
        table: What the map was chosen from, to four digits: the mean cosine of the forms of each layer of the suspect,
            in the order of ``layers``, with each of the base; None where two could not be compared. Empty where it
            would have more than 65,536 cells.
    """

    kind: Literal["same", "ordered", "free"]
    basis: str
    layers: tuple[LayerMatch, ...]
    base_layers: tuple[int, ...] = ()
    table: tuple[tuple[float | None, ...], ...] = ()


class Planting(Record):
    """How often one planted change was seen.

    Attributes:
        change: What was done to the suspect's own weights.
        plantings: How many were made.
        seen: How many were found beyond the margin.
        lower_bound: Lower end of the exact 95 % confidence interval of the share seen (Clopper-Pearson, one-sided).
    """

    change: str
    plantings: int
    seen: int
    lower_bound: float


class Power(Record):
    """What would have been seen had the suspect been derived from the base.

    Attributes:
        plantings: One entry for each kind of planted change.
        sufficient: Whether every kind was seen at least 99 times in a hundred.
        not_excluded: Derivations that the statement does not cover.
    """

    plantings: tuple[Planting, ...]
    sufficient: bool
    not_excluded: tuple[str, ...]


Conclusion = Literal["identical", "derived", "independent", "inconclusive", "not_comparable"]


class ComponentVerdict(Record):
    """The verdict on one part of the suspect.

    Attributes:
        component: ``trunk``, ``embedding``, ``experts``, or a part beside the language model (``vision``, ``audio``,
            ``projector``, ``encoder``, ``mtp``, ...).
        conclusion: As for the whole.
        reason: Why, in a sentence.
    """

    component: str
    conclusion: Conclusion
    reason: str


class ThirdModel(Record):
    """The sizes of one side of the pair against a third model.

    Attributes:
        side: Which side stands against the third model.
        control: The third model's name.
        sizes: By evidence name; None where it could not be measured.
    """

    side: Literal["suspect", "base"]
    control: str
    sizes: dict[str, float | None]


class ReadingSide(Record):
    """How much of one model was read.

    Attributes:
        bytes_read: Bytes that were looked at, headers and settings included.
        bytes_total: Bytes of all tensors.
        layers_read: Numbers of the layers of which something was read.
        layers: Layers that there are.
        revision: Commit that the model was read at, where it came from a repository.
    """

    bytes_read: int
    bytes_total: int
    layers_read: tuple[int, ...]
    layers: int
    revision: str | None = None


class Reading(Record):
    """How much of two models a verdict rests on.

    Attributes:
        sampled: Whether a sample was read and not all that could have been.
        suspect: Of the suspect.
        base: Of the base.
        empty_layers: Pairs of layers that were passed over because one of them holds zeros only.
        notes: Why reading ended where it did.
    """

    sampled: bool
    suspect: ReadingSide
    base: ReadingSide
    empty_layers: int = 0
    notes: tuple[str, ...] = ()


class Verdict(Record):
    """What the evidence says, how sure it is, and what it does not say.

    Attributes:
        conclusion: ``identical``: every tensor has the same values, as stored or after rounding to the coarser dtype.
            ``derived``: the weights of one come from the other or from a common ancestor (parent, child, sibling,
            shared initialisation). ``independent``: all planned tests ran, none spoke for derivation, and they would
            have seen the planted changes. ``inconclusive``: tests ran and were too weak. ``not_comparable``: nothing
            could be tested.
        relation: How one came from the other, where the values say it: ``same`` (byte for byte), ``rounded`` (to
            another dtype) or ``requantised`` (all differences are what the rounding of quantised tensors explains).
        headline: The verdict in a sentence.
        decided_by: Name of the evidence that carries the verdict, or None.
        alpha: Family-wise error rate of the exact tests; each has ``alpha / planned``.
        planned: Exact tests planned for every pair, run or not.
        log10_p: Decimal logarithm of the smallest p-value times ``planned``, at most 0; None where no exact test ran.
        reasons: Sentences for a reader without statistics.
        contrary: The strongest evidence against the conclusion, in a sentence; None where there is none.
        alternatives: Other explanations that the evidence allows.
        components: Verdicts on parts.
        layer_map: Which layer comes from which.
        power: What would have been seen.
        evidence: Everything that was tested.
        third_models: The same sizes against third models.
        reading: How much of the models it rests on.
    """

    conclusion: Conclusion
    relation: Literal["same", "rounded", "requantised"] | None = None
    headline: str
    decided_by: str | None = None
    alpha: float
    planned: int
    log10_p: float | None = None
    reasons: tuple[str, ...] = ()
    contrary: str | None = None
    alternatives: tuple[str, ...] = ()
    components: tuple[ComponentVerdict, ...] = ()
    layer_map: LayerMapInfo | None = None
    power: Power | None = None
    evidence: tuple[Evidence, ...] = ()
    third_models: tuple[ThirdModel, ...] = ()
    reading: Reading | None = None


class ProbeInfo(Record):
    """Which texts two models were asked.

    Attributes:
        name: Name of the set.
        licence: Of the set.
        digest: SHA-256 over the file it came from.
        asked: Probes that fit every model.
        given: Probes that were chosen.
    """

    name: str
    licence: str
    digest: str
    asked: int
    given: int


class Spent(Record):
    """What a run has spent on a model behind an API.

    Attributes:
        requests: Requests that were sent, repeated ones counted.
        prompt_tokens: As the server counts them.
        answer_tokens: As the server counts them.
        uncounted: Answers without such counts.
        cost: By the budget's prices, and at most for what was not counted; None without prices.
    """

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    uncounted: int = 0
    cost: float | None = None


class Behaviour(Record):
    """What two models do on the same probes. It never enters a verdict on weights.

    Attributes:
        kinprint_version: The program that measured.
        suspect: Name of the model whose origin is in question.
        base: Name of the model it may come from.
        suspect_identity: Digest over weights, config, tokenizer and how it was run; of a served model its address.
        base_identity: The same of the other.
        probes: What both were asked.
        methods: What each method measured on the pair.
        control_pairs: The same on each side against each third model.
        close: Whether most methods have the pair closer than either side is to any third model; None without them.
        summary: How the pair stands to third models, in one sentence.
        spent: What a served suspect was asked in this run, beside what a transcript held; None of local models.
    """

    kinprint_version: str
    suspect: str
    base: str
    suspect_identity: str
    base_identity: str
    probes: ProbeInfo
    methods: tuple[MethodResult, ...]
    control_pairs: tuple[ControlPair, ...] = ()
    close: bool | None = None
    summary: str
    spent: Spent | None = None


class Request(Record):
    """What was asked for, so that the same can be asked again; ``alpha`` is in the verdict.

    Attributes:
        mode: How much evidence was gathered.
        methods: Methods that were asked for by name; None where the mode chose them.
        component: The part that was compared in place of the language model.
        budget: Bytes of each model that might be read; None for no limit.
        layers: Layers that might be read whole; None for no limit.
        full: Whether every layer was to be read and every value compared.
        device: Where arrays were to be worked through.
        behaviour: Whether the models were to be run on texts too.
    """

    mode: Literal["quick", "default", "thorough"]
    methods: tuple[str, ...] | None = None
    component: str | None = None
    budget: int | None = None
    layers: int | None = None
    full: bool = False
    device: str = "cpu"
    behaviour: bool = False


class Environment(Record):
    """What numbers may depend on in their last digits, beside program and seeds.

    Attributes:
        python: Version.
        numpy: Version.
        system: Operating system and kind of processor, such as ``Linux x86_64``.
        device: Where arrays were worked through, with the version that did it.
    """

    python: str
    numpy: str
    system: str
    device: str


class Comparison(Record):
    """The verdict on one pair, and what the methods of the literature measure on it.

    Attributes:
        schema_version: Version of this record's layout.
        kinprint_version: The program that measured.
        status: ``not_comparable`` when no method could measure anything; then ``reason`` says why. About the methods
            only: the verdict has a conclusion of its own.
        reason: Why nothing was measured.
        verdict: What the evidence says; None where only methods were asked for.
        suspect: The model whose origin is in question.
        base: The model it may have been derived from.
        controls: Third models.
        methods: What each method measured on the pair.
        control_pairs: What the same methods measured on each side against each third model.
        behaviour: What both do on the same probes, where that was asked for; it does not enter the verdict.
        request: What was asked for; None in results of older programs.
        environment: What it was measured with; None in results of older programs.
    """

    schema_version: int = SCHEMA_VERSION
    kinprint_version: str
    status: Literal["measured", "not_comparable"]
    reason: str | None = None
    verdict: Verdict | None = None
    suspect: ModelInfo
    base: ModelInfo
    controls: tuple[ModelInfo, ...] = ()
    methods: tuple[MethodResult, ...] = ()
    control_pairs: tuple[ControlPair, ...] = ()
    behaviour: Behaviour | None = None
    request: Request | None = None
    environment: Environment | None = None

    # These draw, and what draws stands above the records: it is imported when asked for (see ARCHITECTURE.md).

    def to_html(self) -> str:
        """Return the page for people, as ``compare --html`` writes it."""
        from kinprint.report.html import page

        return page(self)

    def plot_place(self, axes: Any = None) -> Any:  # noqa: ANN401 - matplotlib's, an optional package
        """Draw where this pair falls among unrelated and related ones; see :func:`kinprint.report.plots.plot`."""
        return self._plot("place", axes)

    def plot_layers(self, axes: Any = None) -> Any:  # noqa: ANN401
        """Draw every layer against every other with the map of layers on it."""
        return self._plot("layers", axes)

    def plot_parts(self, axes: Any = None) -> Any:  # noqa: ANN401
        """Draw what is left of each layer, part by part."""
        return self._plot("parts", axes)

    def plot_sigmas(self, axes: Any = None) -> Any:  # noqa: ANN401
        """Draw standard deviations of both models over depth (Intrinsic Fingerprint)."""
        return self._plot("sigmas", axes)

    def plot_spectra(self, axes: Any = None) -> Any:  # noqa: ANN401
        """Draw spectra of both models with the edge of the Marchenko-Pastur bulk."""
        return self._plot("spectra", axes)

    def plot_gains(self, axes: Any = None) -> Any:  # noqa: ANN401
        """Draw norm gains of one model against the other's, raw and centred, beside a shuffle."""
        return self._plot("gains", axes)

    def _plot(self, kind: str, axes: Any) -> Any:  # noqa: ANN401
        from kinprint.report.figures import figure
        from kinprint.report.plots import plot

        return plot(figure(kind, self), axes)


class RoleSummary(Record):
    """One role of a model, as ``inspect`` shows it."""

    role: str
    parts: int
    shape: tuple[int, ...]
    dtypes: tuple[str, ...]
    parameters: int


class Inspection(Record):
    """What a checkpoint holds and how much of it is understood.

    Attributes:
        model: Identity and geometry.
        summary: The family in one line.
        tied: Whether the output matrix is the token embedding.
        files: Files that hold tensors.
        dtypes: Parameters by stored dtype.
        roles: Every role.
        ignored: Tensors that are no parameters, with the reason.
        bytes_total: Bytes of all tensors.
        bytes_compare: Bytes that a compare with all methods would read.
        bytes_look: Bytes that the first look of a compare reads.
        bytes_layer: Bytes of the last layer, of mixtures with the experts that a compare reads of it.
    """

    schema_version: int = SCHEMA_VERSION
    model: ModelInfo
    summary: str
    tied: bool
    files: tuple[str, ...]
    dtypes: dict[str, int]
    roles: tuple[RoleSummary, ...]
    ignored: dict[str, str]
    bytes_total: int
    bytes_compare: int
    bytes_look: int = 0
    bytes_layer: int = 0
