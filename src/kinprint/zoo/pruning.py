"""Kinds of derivation: unstructured pruning with calibration text, and training that keeps what is zero at zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from pydantic import Field

from kinprint.checkpoint import Array
from kinprint.errors import UsageError
from kinprint.shapes import Float64
from kinprint.zoo import calibration, networks
from kinprint.zoo.kinds import Context, Kind, Settings
from kinprint.zoo.model import Model
from kinprint.zoo.train import train_module, training_tokens
from kinprint.zoo.training_kinds import FurtherTraining

DAMPING = 0.01
"""Share of the mean diagonal that is added to the Hessian (SparseGPT, appendix A)."""

BLOCK_COLUMNS = 128
"""Columns whose mask SparseGPT chooses together (section 3.2)."""

_ROUTERS = frozenset({"gate", "router", "shared_expert_gate"})


class Calibrated(Settings):
    """Pruning of every matrix in the layers; embeddings, output matrix, norms and routers stay as they are.

    Attributes:
        method: ``wanda`` or ``sparsegpt``.
        share: Share of each matrix that becomes zero.
        corpus: Name of the calibration text.
        rows: Rows of that text, each as long as the context.
    """

    method: Literal["wanda", "sparsegpt"] = "wanda"
    share: float = Field(default=0.5, gt=0, lt=1)
    corpus: str = "stdlib-code"
    rows: int = Field(default=32, ge=1)


# -- one matrix ----------------------------------------------------------------------------------------------------


def wanda(
    weight_MN: Float64[np.ndarray, "M N"], gram_NN: Float64[np.ndarray, "N N"], *, share: float
) -> Float64[np.ndarray, "M N"]:
    """Zero a share of each output row: the weights with the smallest product of size and input norm.

    Source: Sun et al., A Simple and Effective Pruning Approach for LLMs (arXiv 2306.11695), equation 1.

    Args:
        weight_MN: The matrix, [out, in].
        gram_NN: Inputs multiplied with themselves and summed over tokens; its diagonal holds their squared norms.
        share: Share to zero; rounded down to whole weights in each row.

    Example:
        >>> wanda(np.array([[3.0, 1.0], [1.0, 3.0]]), np.diag([1.0, 100.0]), share=0.5).tolist()
        [[0.0, 1.0], [0.0, 3.0]]
    """
    importance_MN = np.abs(weight_MN) * np.sqrt(np.diagonal(gram_NN))
    dropped_MK = np.argsort(importance_MN, axis=1, kind="stable")[:, : int(share * weight_MN.shape[1])]
    pruned_MN = weight_MN.copy()
    np.put_along_axis(pruned_MN, dropped_MK, 0.0, axis=1)
    return pruned_MN


def sparsegpt(
    weight_MN: Float64[np.ndarray, "M N"],
    gram_NN: Float64[np.ndarray, "N N"],
    *,
    share: float,
    block: int = BLOCK_COLUMNS,
) -> Float64[np.ndarray, "M N"]:
    """Zero a share of each block of columns and let the columns to the right make up for it.

    Column by column, what is lost is taken up by later columns as the inverse Hessian says (optimal brain surgeon); the
    weights to zero are chosen for a whole block when its first column is reached, by their squared size over the
    squared diagonal of the inverse's Cholesky factor.

    Source: Frantar & Alistarh, SparseGPT (arXiv 2301.00774), algorithm 1 and section 3.2.

    Args:
        weight_MN: The matrix, [out, in].
        gram_NN: Inputs multiplied with themselves and summed over tokens: the Hessian but for a factor.
        share: Share to zero; rounded down to whole weights in each block.
        block: Columns whose mask is chosen together.
    """
    size = weight_MN.shape[1]
    # float64: a Gram matrix of correlated inputs, or of fewer tokens than columns, has a condition number that only the
    # damping bounds; in float32 the inverse can lose positive definiteness, and Cholesky fails.
    hessian_NN: Array = gram_NN + DAMPING * np.diagonal(gram_NN).mean() * np.eye(size)
    inverse_NN: Array = np.linalg.inv(hessian_NN)
    factor_NN: Array = np.linalg.cholesky(inverse_NN).T
    weight_MN = weight_MN.copy()
    for first in range(0, size, block):
        columns = range(first, min(first + block, size))
        part_MB = weight_MN[:, first : columns.stop]
        loss_MB = (part_MB / np.diagonal(factor_NN)[first : columns.stop]) ** 2
        dropped_MB = np.zeros(loss_MB.size, bool)
        dropped_MB[np.argsort(loss_MB, axis=None, kind="stable")[: int(share * loss_MB.size)]] = True
        dropped_MB = dropped_MB.reshape(loss_MB.shape)
        for column in columns:
            lost_M = np.where(dropped_MB[:, column - first], weight_MN[:, column], 0.0) / factor_NN[column, column]
            weight_MN[:, column:] -= lost_M[:, None] * factor_NN[column, column:]
            weight_MN[dropped_MB[:, column - first], column] = 0.0  # exactly, not but for rounding
    return weight_MN


_METHODS: dict[str, Callable[..., Float64[np.ndarray, "M N"]]] = {"wanda": wanda, "sparsegpt": sparsegpt}


# -- one model -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Matrix:
    """A matrix of the module, [out, in], that can be written through, and the Gram matrix of its inputs."""

    weight: Any
    gram: Any

    def before(self, module: Any, inputs: Any) -> None:  # noqa: ANN401
        """Hear what a linear module is given: a forward pre-hook."""
        del module
        self.hear(inputs[0])

    def hear(self, inputs: Any) -> None:  # noqa: ANN401 - a torch tensor
        """Add inputs [..., in] to the Gram matrix."""
        flat = inputs.detach().reshape(-1, inputs.shape[-1]).double()
        self.gram += flat.T @ flat


def pruned_on_text(model: Model, settings: Calibrated, context: Context) -> Model:
    """Return a model with a share of every matrix in its layers zeroed.

    Layer after layer, as in both papers: a layer's inputs are measured after those before it were pruned. An expert's
    inputs are the tokens that were sent to it; where none was, all inputs count alike, which is pruning by magnitude.

    Raises:
        UsageError: The module's layers or experts are stored in a way that is not known here.
        MissingExtraError: torch or transformers is not installed.
    """
    rows = calibration.calibration_rows(model, context.text(settings.corpus), rows=settings.rows, rng=context.rng)
    prune = _METHODS[settings.method]
    with networks.reproducible() as torch, torch.no_grad():
        module, rows_BT = networks.load(model), torch.from_numpy(rows)
        parts = calibration.layers(module)
        for number, layer in enumerate(parts):
            context.tell(f"layer {number + 1} of {len(parts)}", 0)
            for matrix in _measured(torch, module, layer, rows_BT):
                gram_NN = matrix.gram.numpy()
                if not gram_NN.any():
                    gram_NN = np.eye(len(gram_NN))
                pruned_MN = prune(matrix.weight.double().numpy(), gram_NN, share=settings.share)
                matrix.weight.copy_(torch.from_numpy(pruned_MN))
        return networks.unload(module, model)


def _measured(torch: Any, module: Any, layer: Any, rows_BT: Any) -> list[_Matrix]:  # noqa: ANN401
    """Run a module and return the matrices of one of its layers with their inputs."""
    matrices: list[_Matrix] = []
    hooks: list[Any] = []

    def matrix(weight: Any) -> _Matrix:  # noqa: ANN401
        size = weight.shape[1]
        matrices.append(_Matrix(weight, torch.zeros(size, size, dtype=torch.float64)))
        return matrices[-1]

    for name, part in layer.named_modules():
        kind = type(part).__name__
        if kind in {"Linear", "Conv1D"} and name.rsplit(".", maxsplit=1)[-1] not in _ROUTERS:
            linear = matrix(part.weight.T if kind == "Conv1D" else part.weight)
            hooks.append(part.register_forward_pre_hook(linear.before))
        elif any(weight.ndim == 3 for weight in part.parameters(recurse=False)):
            hooks.append(_heard_experts(torch, part, matrix))
    try:
        calibration.run(module, rows_BT)
    finally:
        for hook in hooks:
            hook.remove()
    return matrices


def _heard_experts(torch: Any, experts: Any, matrix: Callable[[Any], _Matrix]) -> Any:  # noqa: ANN401
    """Hook a module that holds all experts of a layer, each matrix kind in one tensor [expert, out, in]."""
    names = {name for name, _ in experts.named_parameters(recurse=False)}
    if names != {"gate_up_proj", "down_proj"} or getattr(experts, "is_transposed", False):
        raise UsageError(f"prune-calibrated: {type(experts).__name__} stores its experts in an unknown way: use prune")
    gates_and_ups = [weight.chunk(2) for weight in experts.gate_up_proj]
    read = [tuple(matrix(part) for part in parts) for parts in gates_and_ups]
    write = [matrix(weight) for weight in experts.down_proj]

    def hear(_: Any, inputs: Any) -> None:  # noqa: ANN401
        hidden, chosen = inputs[0], inputs[1]
        for expert, (gate, up) in enumerate(read):
            sent = hidden[(chosen == expert).any(dim=-1)]
            gate.hear(sent)
            up.hear(sent)
            said = [torch.nn.functional.linear(sent, part.weight) for part in (gate, up)]
            write[expert].hear(experts.act_fn(said[0]) * said[1])

    return experts.register_forward_pre_hook(hear)


# -- training of a sparse model ------------------------------------------------------------------------------------


class SparseTraining(FurtherTraining):
    """Training after pruning, on the text of pre-training."""

    corpus: str = "stdlib-code"
    learning_rate: float = Field(default=1e-3, gt=0)


def sparsely_trained(model: Model, settings: SparseTraining, context: Context) -> Model:
    """Return a model trained further, with every matrix entry that is exactly zero kept at zero.

    Raises:
        UsageError: No matrix has an entry that is exactly zero.
        MissingExtraError: torch or transformers is not installed.
    """
    if not any(array.ndim > 1 and (array == 0).any() for array in model.weights.values()):
        raise UsageError("retrain-sparse: no weight is exactly zero: prune the model first")
    if settings.steps == 0:
        return model
    training = settings.training(context)
    tokens_N = training_tokens(model, context.text(settings.corpus))

    def tell(step: int, loss: float) -> None:
        context.tell(f"step {step} of {settings.steps}, loss {loss:.2f}", step)

    with networks.reproducible() as torch:
        module = networks.load(model)
        masks = [(weight, weight == 0) for weight in module.parameters() if weight.ndim > 1]

        def restore() -> None:
            with torch.no_grad():
                for weight, zero in masks:
                    weight.masked_fill_(zero, 0.0)

        train_module(module, training, tokens_N, context=model.context, after_step=restore, tell=tell)
        return networks.unload(module, model)


KINDS: tuple[Kind, ...] = (
    Kind("prune-calibrated", "unstructured pruning by Wanda or SparseGPT on text", Calibrated, pruned_on_text),
    Kind("retrain-sparse", "further training that keeps zeros at zero", SparseTraining, sparsely_trained),
)
