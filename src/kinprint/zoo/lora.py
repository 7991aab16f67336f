"""Kind of derivation: low-rank adapters trained beside frozen weights, then merged into them, by peft."""

from __future__ import annotations

import warnings
from typing import Annotated

from pydantic import BeforeValidator, Field

from kinprint.errors import UsageError
from kinprint.zoo import networks
from kinprint.zoo.kinds import Context, Kind, listed
from kinprint.zoo.model import Model
from kinprint.zoo.train import train_module, training_tokens
from kinprint.zoo.training_kinds import FurtherTraining


class LowRank(FurtherTraining):
    """Training of adapters.

    Attributes:
        learning_rate: Highest rate; ten times that of a full fine-tune, as is usual for adapters.
        rank: Rank of each adapter.
        alpha: Adapters are scaled by ``alpha / rank``.
        targets: Names of the modules that get one. ``all-linear`` is peft's word for every linear module but the
            output matrix. It includes the experts and routers of a mixture whose form peft knows; where an expert's
            gate and up are one tensor, they share one adapter of twice the rank.
    """

    learning_rate: float = Field(default=3e-3, gt=0)
    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    targets: Annotated[tuple[str, ...], BeforeValidator(listed)] = ("all-linear",)


def lora_merged(model: Model, settings: LowRank, context: Context) -> Model:
    """Return a model with trained low-rank adapters merged into its matrices: W + (alpha / rank) B A.

    Before rounding, a matrix differs from the parent's by one of at most that rank. B starts at zero and A uniform
    (peft's default), so without training nothing changes.

    Source: Hu et al., LoRA (arXiv 2106.09685), section 4.1.

    Raises:
        UsageError: No module has a name in ``targets``.
        MissingExtraError: torch, transformers or peft is not installed.
    """
    if settings.steps == 0:
        return model
    training, seed = settings.training(context), int(context.rng.integers(2**31))

    def tell(step: int, loss: float) -> None:
        context.tell(f"step {step} of {settings.steps}, loss {loss:.2f}", step)

    tokens_N = training_tokens(model, context.text(settings.corpus))
    with networks.reproducible() as torch:
        peft, module = networks.extra("peft"), networks.load(model)
        torch.manual_seed(seed)
        adapters = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,
            target_modules="all-linear" if settings.targets == ("all-linear",) else list(settings.targets),
            # GPT-2 stores its matrices the other way round.
            fan_in_fan_out=any(type(part).__name__ == "Conv1D" for part in module.modules()),
        )
        try:
            with warnings.catch_warnings():
                # peft asks transformers 5 for an attribute by its old name, and names experts that have no adapter.
                warnings.simplefilter("ignore")
                adapted = peft.get_peft_model(module, adapters)
        except ValueError as error:
            raise UsageError(
                f"lora-merge: no linear module is called {' or '.join(settings.targets)}: choose other targets"
            ) from error
        train_module(adapted, training, tokens_N, context=model.context, tell=tell)
        return networks.unload(adapted.merge_and_unload(), model)


KINDS: tuple[Kind, ...] = (
    Kind("lora-merge", "low-rank adapters trained on other text and merged", LowRank, lora_merged),
)
