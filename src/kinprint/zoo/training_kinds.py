"""Kinds of derivation that are further training of all weights."""

from __future__ import annotations

from pydantic import Field

from kinprint.zoo.kinds import Context, Kind, Settings
from kinprint.zoo.model import Model
from kinprint.zoo.train import Training, initial, train


class FurtherTraining(Settings):
    """Training that starts from weights. What is not set here is as in :class:`~kinprint.zoo.train.Training`.

    Attributes:
        corpus: Name of the text.
        steps: Updates; 0 for none.
        learning_rate: Highest rate.
        warmup: Updates until that rate.
        batch: Sequences per update.
        seed_data: Seed of the order in which the text is seen; drawn where it is None.
    """

    corpus: str = "help-topics"
    steps: int = Field(default=300, ge=0)
    learning_rate: float = Field(default=3e-4, gt=0)
    warmup: int = Field(default=20, ge=1)
    batch: int = Field(default=8, ge=1)
    seed_data: int | None = None

    @property
    def work(self) -> int:
        """Updates."""
        return max(self.steps, 1)

    def training(self, context: Context) -> Training:
        """Return all settings, with a seed drawn where none is given."""
        seed = int(context.rng.integers(2**31)) if self.seed_data is None else self.seed_data
        return Training(
            corpus=self.corpus,
            steps=self.steps,
            batch=self.batch,
            learning_rate=self.learning_rate,
            warmup=self.warmup,
            seed_data=seed,
        )


class ContinuedPretraining(FurtherTraining):
    """Continued pre-training at the learning rate of pre-training."""

    corpus: str = "help-topics"
    steps: int = Field(default=1000, ge=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup: int = Field(default=100, ge=1)


class Healing(FurtherTraining):
    """Training that repairs what a cut has damaged, on the text of pre-training; 0 steps by default: no healing."""

    corpus: str = "stdlib-code"
    steps: int = Field(default=0, ge=0)
    learning_rate: float = Field(default=1e-3, gt=0)


def further_trained(model: Model, settings: FurtherTraining, context: Context) -> Model:
    """Return a model trained further, or as it is where the settings say 0 steps.

    Raises:
        MissingExtraError: torch or transformers is not installed.
    """
    if settings.steps == 0:
        return model

    def tell(step: int, loss: float) -> None:
        context.tell(f"step {step} of {settings.steps}, loss {loss:.2f}", step)

    return train(model, settings.training(context), context.text(settings.corpus), tell=tell)[0]


class Redraw(Settings):
    """Weights drawn anew, and no training.

    Attributes:
        std: Standard deviation of matrices.
    """

    std: float = Field(default=0.02, gt=0)


def _redrawn(model: Model, settings: Redraw, context: Context) -> Model:
    return initial(model, seed=int(context.rng.integers(2**31)), std=settings.std)


def _resaved(model: Model, _settings: Settings, _context: Context) -> Model:
    return model


KINDS: tuple[Kind, ...] = (
    Kind("resave", "nothing but the rounding to bf16 with which every model is written", Settings, _resaved),
    Kind("redraw", "weights drawn anew, untrained", Redraw, _redrawn, keeps_weights=False),
    Kind("fine-tune", "further training at a low rate on other text", FurtherTraining, further_trained),
    Kind(
        "continued-pretraining",
        "further training at the full rate of pre-training on other text",
        ContinuedPretraining,
        further_trained,
    ),
)
