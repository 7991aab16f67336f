"""Chains of kinds: applied in order, each run of function-preserving ones checked by logits."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from kinprint.errors import KinprintError, UsageError
from kinprint.linalg.threads import one_thread
from kinprint.zoo import corpus, distillation, lora, mechanical, pruning, structured, training_kinds
from kinprint.zoo.kinds import Context, Kind, Step, parse
from kinprint.zoo.model import Model
from kinprint.zoo.train import held_out_logits

TOLERANCE = 1e-4
"""Largest change of logits that counts as none, as a share of the largest logit, in float32."""

_MOST_LOGITS = 1 << 25

KINDS: dict[str, Kind] = {
    kind.name: kind
    for module in (training_kinds, lora, pruning, structured, distillation, mechanical)
    for kind in module.KINDS
}
"""Every kind of derivation, by name."""

Tell = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class Chain:
    """Kinds with their settings, in order."""

    steps: tuple[Step, ...]

    @classmethod
    def parse(cls, words: Iterable[str]) -> Chain:
        """Read kinds as the command line writes them.

        Raises:
            UsageError: None, an unknown one, or a setting that it does not have.
        """
        steps = tuple(parse(word, KINDS) for word in words)
        if not steps:
            raise UsageError(f"no kind given: choose from {', '.join(KINDS)}")
        return cls(steps)

    @property
    def work(self) -> int:
        """Units of work for a progress bar."""
        return sum(step.settings.work for step in self.steps)

    @property
    def texts(self) -> tuple[str, ...]:
        """Training texts that the kinds use."""
        found = (getattr(step.settings, "corpus", None) for step in self.steps)
        return tuple(dict.fromkeys(name for name in found if name))

    @property
    def others(self) -> tuple[str, ...]:
        """Other models that the kinds use, by name or path."""
        return tuple(dict.fromkeys(other for step in self.steps for other in step.others))

    @property
    def preserving(self) -> bool:
        """Whether every kind leaves the function as it was."""
        return all(step.kind.preserving for step in self.steps)

    @property
    def keeps_weights(self) -> bool:
        """Whether any weights of the parent are left."""
        return all(step.kind.keeps_weights for step in self.steps)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A derived model, and how far function-preserving kinds moved logits (None where there were none)."""

    model: Model
    moved_logits: float | None


def derive(
    model: Model, chain: Chain, *, seed: int, others: Callable[[str], Model], tell: Tell | None = None
) -> Outcome:
    """Apply a chain of kinds to a model.

    Args:
        model: Where to start.
        chain: What to do.
        seed: Seed of everything drawn.
        others: Returns another model by name or path.
        tell: Hears ``tell(what, done)``.

    Raises:
        UsageError: A kind does not fit the model, or a setting does not.
        MissingExtraError: A kind needs torch and it is not installed.
        KinprintError: A function-preserving kind moved the logits.
    """
    rng = np.random.default_rng(seed)
    done, moved = 0, [0.0]

    def apply(model: Model, steps: Sequence[Step]) -> Model:
        nonlocal done
        for step in steps:
            name = step.kind.name

            def hear(what: str, within: int, name: str = name, before: int = done) -> None:
                if tell is not None:
                    tell(f"{name}: {what}" if what else name, before + within)

            hear("", 0)
            context = Context(rng=rng, text=lambda name: corpus.load(name).content, model=others, tell=hear)
            model = step.kind.apply(model, step.settings, context)
            done += step.settings.work
        return model

    any_preserving = any(step.kind.preserving for step in chain.steps)
    with one_thread():
        for preserving, steps in groupby(chain.steps, key=lambda step: step.kind.preserving):
            run = list(steps)
            after = apply(model, run)
            if preserving:
                moved.append(logit_change(model, after))
                _check(moved[-1], [step.kind.name for step in run])
            model = after
    return Outcome(model, max(moved) if any_preserving else None)


def logit_change(a: Model, b: Model, text_name: str = "help-topics") -> float:
    """Return the largest difference of two models' logits on held-out text over the largest logit of the first."""
    text = corpus.load(text_name).content
    vocabulary = int(a.config.get("vocab_size", 1 << 16))
    rows = int(np.clip(_MOST_LOGITS // (a.context * vocabulary), 1, 8))
    logits_a, logits_b = (held_out_logits(model, text, rows=rows) for model in (a, b))
    if logits_a.shape != logits_b.shape:
        return float("inf")
    return float(np.abs(logits_a - logits_b).max() / np.abs(logits_a).max())


def _check(moved: float, names: list[str]) -> None:
    if not moved <= TOLERANCE:
        raise KinprintError(
            f"{', '.join(names)}: moved the logits by {moved:.1e} of the largest, more than {TOLERANCE:.0e}: a kind "
            "does not preserve the function of this model; report this"
        )
