"""A model behind an API against local ones: what can be measured without weights, states and logits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from kinprint.behaviour import agreement, quere, tokenizer_probes
from kinprint.behaviour.axis import fitting, record
from kinprint.behaviour.endpoint import Endpoint
from kinprint.behaviour.probes import ProbeSet
from kinprint.behaviour.runner import NotFiniteError, Runner
from kinprint.types import Behaviour, ControlPair, MethodResult

Tell = Callable[[str, int, int], None]


def behave_served(
    suspect: Endpoint,
    base: Runner,
    probes: ProbeSet,
    *,
    base_folder: Path,
    controls: Sequence[tuple[Runner, Path]] = (),
    tell: Tell | None = None,
) -> Behaviour:
    """Return how a served model stands to a local one: QueRE, next-token agreement against controls, and its tokenizer.

    Args:
        suspect: The served model.
        base: The model that it may come from.
        probes: What all are asked.
        base_folder: Where the base's tokenizer lies.
        controls: Third models that are known to be unrelated, and their folders.
        tell: Called before each method.

    Raises:
        KinprintError: The served model could not be asked; what it answered is in its transcript.
    """
    thirds = [third for third, _ in controls]
    texts = fitting(probes, (base, *thirds))
    told: Tell = tell or _silent
    steps = 3 + 2 * len(thirds)
    told("quere", 0, steps)
    measured = [_usable(partial(quere.measure, suspect, base, texts), quere.METHOD.not_applicable)]
    told("next-token agreement", 1, steps)
    measured.append(agreement.compare(suspect, base, thirds, texts))
    told("token counts", 2, steps)
    measured.append(_counts(suspect, [base_folder, *(folder for _, folder in controls)]))
    against: list[ControlPair] = []
    for third in thirds:
        for side, model in (("suspect", suspect), ("base", base)):
            told(f"quere: {model.name} and {third.name}", 3 + len(against), steps)
            found = _usable(partial(quere.measure, model, third, texts), quere.METHOD.not_applicable)
            # The other two hold the suspect against all third models at once.
            none = [result.model_copy(update={"values": (), "controls": (), "tables": ()}) for result in measured[1:]]
            against.append(
                ControlPair(
                    side="suspect" if side == "suspect" else "base",
                    control=third.name,
                    methods=(found.model_copy(update={"tables": ()}), *none),
                )
            )
    told("done", steps, steps)
    found = record(suspect, base, probes, len(texts), measured, against)
    return found.model_copy(update={"spent": suspect.spent})


def _silent(_what: str, _done: int, _total: int) -> None: ...


def _counts(suspect: Endpoint, folders: Sequence[Path]) -> MethodResult:
    """Hold token counts against the tokenizers that can be read; a sentencepiece model alone cannot."""
    readable = [folder for folder in folders if (folder / "tokenizer.json").is_file()]
    if folders[0] in readable:
        return tokenizer_probes.compare(suspect, readable)
    return MethodResult(
        method=tokenizer_probes.NAME,
        id=tokenizer_probes.NAME,
        status="not_applicable",
        reason=f"{folders[0]} holds no tokenizer.json",
    )


def _usable(measure: Callable[[], MethodResult], otherwise: Callable[[str], MethodResult]) -> MethodResult:
    """Return what was measured, or why a local model cannot be used; a server that fails ends the run."""
    try:
        return measure()
    except NotFiniteError as error:
        return otherwise(str(error))
