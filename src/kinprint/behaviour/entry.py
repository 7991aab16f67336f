"""The public functions on behaviour: two local models, a served one and a local one, and texts with a watermark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kinprint.behaviour import axis, served
from kinprint.behaviour.axis import PROBES, Tell
from kinprint.behaviour.budget import Budget
from kinprint.behaviour.cache import Cache
from kinprint.behaviour.endpoint import Endpoint
from kinprint.behaviour.loading import load_tokenizer, output_size
from kinprint.behaviour.probes import ProbeSet, read, shipped
from kinprint.behaviour.runner import Runner
from kinprint.behaviour.transcript import Transcript
from kinprint.behaviour.watermark import KgwKey, kgw, read_key, synthid
from kinprint.errors import CheckpointError, UsageError
from kinprint.types import Behaviour, MethodResult

MOST_TEXT = 1 << 22
"""Bytes of a text that is looked at for a watermark."""


@dataclass(frozen=True, slots=True)
class Running:
    """What models are asked, and how local ones are run.

    Attributes:
        probes: Texts of your own, in a file that :func:`kinprint.behaviour.probes.read` knows; shipped ones by default.
        count: Probes that are asked, spread over the set.
        device: A device of torch.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        batch: Texts in one pass.
        keep: Whether results are kept in the user's cache, and taken from it.
    """

    probes: str | Path | None = None
    count: int = PROBES
    device: str = "cpu"
    dtype: str = "float32"
    batch: int = 16
    keep: bool = True

    def texts(self) -> ProbeSet:
        """Return what models are asked.

        Raises:
            CheckpointError: The file cannot be read.
        """
        return (shipped() if self.probes is None else read(Path(self.probes))).spread(self.count)

    def open(self, folders: Iterable[str | Path], tell: Tell | None = None) -> list[Runner]:
        """Load model folders, with one cache for all.

        Raises:
            UsageError: A folder, device or dtype that does not exist.
            CheckpointError: A model that cannot be run.
            MissingExtraError: The [torch] extra is not installed.
        """
        cache = Cache.of_user() if self.keep else Cache.in_memory()
        return [
            Runner.open(one, device=self.device, dtype=self.dtype, batch=self.batch, cache=cache, tell=tell)
            for one in folders
        ]


def behave(
    suspect: str | Path,
    base: str | Path,
    *,
    controls: Sequence[str | Path] = (),
    methods: Iterable[str] | None = None,
    running: Running | None = None,
    progress: Tell | None = None,
) -> Behaviour:
    """Measure how alike two local models behave on the same texts, each side also against third models.

    Args:
        suspect: A model folder whose origin is in question.
        base: A model folder that it may come from.
        controls: Folders of third models that are known to be unrelated.
        methods: Names of behavioural methods; all by default.
        running: What both are asked, and how they are run.
        progress: Called as work goes on.

    Raises:
        UsageError: A folder, method, device or dtype that does not exist.
        CheckpointError: A model that cannot be run, or probes that cannot be read.
        MissingExtraError: The [torch] extra is not installed.
    """
    running = running or Running()
    axis.select(methods)
    texts = running.texts()
    made = running.open((suspect, base, *controls), progress)
    return axis.behave(made[0], made[1], texts, controls=made[2:], methods=methods, tell=progress)


def behave_served(
    url: str,
    model: str,
    base: str | Path,
    *,
    controls: Sequence[str | Path] = (),
    transcript: str | Path | None = None,
    offline: bool = False,
    budget: Budget | None = None,
    running: Running | None = None,
    progress: Tell | None = None,
) -> Behaviour:
    """Measure how a model behind an API stands to a local one: QueRE, next-token agreement and token counts.

    Args:
        url: Address of a server that speaks OpenAI's API, up to the version.
        model: Its name of the model.
        base: Folder of the model that it may come from.
        controls: Folders of third models that are known to be unrelated.
        transcript: File that keeps all answers and is looked at first; memory alone without one.
        offline: Send nothing: every answer must be in the transcript.
        budget: What may be spent.
        running: What all are asked, and how local models are run.
        progress: Called as work goes on.

    Raises:
        UsageError: As :func:`behave`, or the budget is spent.
        CheckpointError: As :func:`behave`, or the server refuses.
        NetworkError: The server cannot be reached; what it answered is in the transcript.
        MissingExtraError: The [torch] extra is not installed.
    """
    running = running or Running()
    texts = running.texts()
    local = running.open((base, *controls), progress)
    with (
        Transcript(None if transcript is None else Path(transcript), replay=offline) as kept,
        Endpoint(url, model, limits=budget, transcript=kept, offline=offline, progress=progress) as endpoint,
    ):
        thirds = list(zip(local[1:], map(Path, controls), strict=True))
        return served.behave_served(endpoint, local[0], texts, base_folder=Path(base), controls=thirds, tell=progress)


def watermark(texts: Sequence[str | Path], *, key: str | Path, tokenizer: str | Path, others: int = 99) -> MethodResult:
    """Say whether texts bear a watermark that an owner's key explains.

    Args:
        texts: Files of text in UTF-8, each one text, without the prompt.
        key: The owner's key; see :func:`kinprint.behaviour.watermark.read_key`.
        tokenizer: Folder of the model that may have written them: its tokenizer, and the size of its output layer.
        others: Other keys that the owner's is held against.

    Raises:
        UsageError: A text is longer than is looked at.
        CheckpointError: A file cannot be read, or is no key.
        MissingExtraError: The [torch] extra is not installed.
    """
    owner = read_key(Path(key))
    words = load_tokenizer(Path(tokenizer))
    ids = [words(_text(Path(one)), add_special_tokens=False)["input_ids"] for one in texts]
    if isinstance(owner, KgwKey):
        return kgw(ids, output_size(Path(tokenizer)), owner, others=others)
    return synthid(ids, owner, others=others)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_TEXT + 1)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}); give a file of text") from error
    if len(content) > MOST_TEXT:
        raise UsageError(f"{path}: is longer than {MOST_TEXT >> 20} MiB; give the part that may bear the mark")
    return content.decode("utf-8", "replace")
