"""Kind of derivation: a student with weights of its own that learns its teacher's output distribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from kinprint.errors import UsageError
from kinprint.zoo import networks
from kinprint.zoo.kinds import Context, Kind
from kinprint.zoo.model import Model
from kinprint.zoo.train import Loss, initial, train_module, training_tokens
from kinprint.zoo.training_kinds import FurtherTraining

INIT_STD = 0.06
"""Spread of the student's first matrices: that of the zoo's own models."""

_KEYS: Mapping[str, tuple[str, ...]] = {
    "hidden": ("hidden_size", "n_embd"),
    "layers": ("num_hidden_layers", "n_layer"),
    "ffn": ("intermediate_size", "n_inner"),
}
"""Where configs keep each size."""

_WIDTH_AND_HEADS = (("hidden_size", "n_embd"), ("num_attention_heads", "n_head"))


class Distillation(FurtherTraining):
    """How a student is drawn and taught.

    Attributes:
        corpus: Name of the text on which teacher and student are compared.
        steps: Updates; at 0 the student stays as it was drawn.
        learning_rate: Highest rate: that of pre-training, for the student starts from nothing.
        warmup: Updates until that rate.
        seed_init: Seed of the student's first weights; drawn where it is None.
        temperature: Both distributions are softened by it.
        mix: Weight of the cross-entropy of the next token beside the teacher's distribution, 0 to 1.
        hidden: Width of the student; the teacher's where it is None. So for the two below.
        layers: Layers of the student.
        ffn: MLP units of the student.
    """

    corpus: str = "stdlib-code"
    steps: int = Field(default=1000, ge=0)
    learning_rate: float = Field(default=3e-3, gt=0)
    warmup: int = Field(default=100, ge=1)
    seed_init: int | None = None
    temperature: float = Field(default=2.0, gt=0)
    mix: float = Field(default=0.0, ge=0, le=1)
    hidden: int | None = Field(default=None, ge=1)
    layers: int | None = Field(default=None, ge=1)
    ffn: int | None = Field(default=None, ge=1)


def distilled(model: Model, settings: Distillation, context: Context) -> Model:
    """Return a student of a model: its tokenizer and behaviour, none of its weights.

    Source: Hinton, Vinyals & Dean, Distilling the Knowledge in a Neural Network (arXiv 1503.02531), section 2.

    Raises:
        UsageError: The student's sizes do not fit each other, or the config has no such size.
        MissingExtraError: torch or transformers is not installed.
    """
    drawn = int(context.rng.integers(2**31))
    blank = Model(student_config(model.config, settings), {}, model.files)
    student = initial(blank, seed=drawn if settings.seed_init is None else settings.seed_init, std=INIT_STD)
    if settings.steps == 0:
        return student

    def tell(step: int, loss: float) -> None:
        context.tell(f"step {step} of {settings.steps}, loss {loss:.2f}", step)

    training, tokens_N = settings.training(context), training_tokens(model, context.text(settings.corpus))
    with networks.reproducible():
        module = networks.load(student)
        loss = teaching_loss(networks.load(model), temperature=settings.temperature, mix=settings.mix)
        train_module(module, training, tokens_N, context=model.context, loss=loss, tell=tell)
        return networks.unload(module, student)


def student_config(config: Mapping[str, Any], settings: Distillation) -> dict[str, Any]:
    """Return the teacher's config with the student's sizes.

    Raises:
        UsageError: The config does not have a size that is to change, or the heads do not divide the width.
    """
    student = dict(config)
    for size, keys in _KEYS.items():
        if (wanted := getattr(settings, size)) is not None:
            key = next((key for key in keys if key in config), None)
            if key is None:
                raise UsageError(f"distil: the config has no {' or '.join(keys)}: leave {size} as the teacher has it")
            student[key] = wanted
    hidden, heads = (student.get(long, student.get(short)) for long, short in _WIDTH_AND_HEADS)
    if student.get("head_dim") is None and hidden and heads and hidden % heads:
        raise UsageError(f"distil: {heads} heads cannot share a width of {hidden}: choose a multiple")
    kinds: Any = student.get("layer_types")
    if kinds is not None and settings.layers is not None:
        student["layer_types"] = [kinds[place % len(kinds)] for place in range(settings.layers)]
    return student


def teaching_loss(teacher: Any, *, temperature: float, mix: float) -> Loss:  # noqa: ANN401 - a transformers model
    """Return the loss of a student.

    It is ``(1 - mix) T^2 KL(teacher / T || student / T) + mix CE``, in nats per token, with a mixture's own balancing
    loss where the student has experts.

    Args:
        teacher: The module whose distribution is learnt; it is not changed.
        temperature: T. Its square keeps gradients at the same size for every T.
        mix: Weight of the next token's cross-entropy CE.
    """
    torch = networks.extra("torch")

    def loss(student: Any, rows_BT: Any) -> Any:  # noqa: ANN401
        inputs, targets = rows_BT[:, :-1], rows_BT[:, 1:].flatten()
        with torch.no_grad():
            taught = teacher(input_ids=inputs, use_cache=False).logits.flatten(0, 1)
        mixture = student.training and hasattr(student.config, "router_aux_loss_coef")
        outputs = student(input_ids=inputs, use_cache=False, **({"output_router_logits": True} if mixture else {}))
        logits = outputs.logits.flatten(0, 1)
        soft, hard = (torch.log_softmax(values / temperature, dim=-1) for values in (logits, taught))
        found = (
            (1 - mix) * temperature**2 * torch.nn.functional.kl_div(soft, hard, log_target=True, reduction="batchmean")
        )
        if mix > 0:
            found = found + mix * torch.nn.functional.cross_entropy(logits, targets)
        return found + student.config.router_aux_loss_coef * outputs.aux_loss if mixture else found

    return loss


KINDS: tuple[Kind, ...] = (
    Kind(
        "distil",
        "a student with weights of its own, trained on the model's output distribution",
        Distillation,
        distilled,
        keeps_weights=False,
    ),
)
