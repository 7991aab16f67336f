"""A folder as a transformers model that runs: its own code is never run, and its config is not believed.

A config may ask for more than the weights hold, and a module of that size would be made before anybody noticed. So the
module is laid out without memory first, and its parameters are held against the tensors of the checkpoint.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kinprint.checkpoint import Checkpoint, open_checkpoint
from kinprint.errors import CheckpointError, UsageError, optional

DTYPES = ("float32", "bfloat16", "float16")

MOST_BLOCKS = 2000
"""Decoder blocks of the deepest model that is laid out: each costs time before its size is known."""

MOST_LARGER = 1.5
"""How many times the checkpoint's parameters a module may have: tied matrices are stored once and counted twice."""

_DEPTHS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers", "decoder_layers")


def extra(module: str) -> Any:  # noqa: ANN401 - an optional package without types here
    """Import a package of the [torch] extra.

    Raises:
        MissingExtraError: It is not installed.
    """
    return optional(module, "torch", "running a model")


def load_module(folder: Path, *, device: str, dtype: str) -> tuple[Any, Checkpoint]:
    """Return a causal language model in evaluation mode, and the checkpoint that it was read from.

    Args:
        folder: A model folder.
        device: A device of torch.
        dtype: What weights and activations are held in.

    Raises:
        CheckpointError: No causal model of transformers, weights that do not fit the config, or a config that needs
            code of its own.
        UsageError: No such device or dtype.
        MissingExtraError: torch or transformers is not installed.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype is {dtype!r}: choose from {', '.join(DTYPES)}")
    torch, transformers = extra("torch"), extra("transformers")
    try:
        place = torch.device(device)
        torch.empty(1, device=place)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"no device {device!r} here: {_line(error)}") from error
    if (folder / "adapter_config.json").exists():
        # transformers would go on to load whatever base the adapter names, wherever that lies.
        raise CheckpointError(f"{folder}: holds an adapter, which names a base of its own; merge it into a model first")
    checkpoint = open_checkpoint(folder)
    settings = _settings(folder, transformers)
    _check_size(settings, checkpoint, folder, torch, transformers)
    named = {"local_files_only": True, "trust_remote_code": False, "dtype": getattr(torch, dtype)}
    try:
        # Eager attention: the only kind whose maps can be seen.
        with _silent():
            module = transformers.AutoModelForCausalLM.from_pretrained(
                folder, config=settings, attn_implementation="eager", **named
            )
    except Exception as error:
        raise CheckpointError(
            f"{folder}: transformers cannot load it ({_line(error)}); run a model of its own"
        ) from error
    if hasattr(module.config, "_experts_implementation"):
        # Mixtures in a plain loop over experts: grouped kernels differ between machines.
        module.config._experts_implementation = "eager"
    return module.to(place).eval(), checkpoint


def load_tokenizer(folder: Path) -> Any:  # noqa: ANN401 - a transformers tokenizer
    """Return the tokenizer in a model folder.

    Raises:
        CheckpointError: There is none, or it cannot be read.
    """
    transformers = extra("transformers")
    if not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")):
        raise CheckpointError(
            f"{folder}: holds no tokenizer, which behaviour on text needs; copy the model's beside it"
        )
    try:
        found = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        # Lengths are held against the model's context, and a tokenizer's own warning would be a second line.
        found.model_max_length = 1 << 62
        return found
    except Exception as error:
        raise CheckpointError(f"{folder}: its tokenizer cannot be read ({_line(error)}); fetch it again") from error


def output_size(folder: Path) -> int:
    """Return how many tokens a model's output layer knows, from its config; it may be more than the tokenizer's.

    Raises:
        CheckpointError: The folder holds no config that says it.
    """
    size = getattr(_settings(folder, extra("transformers")).get_text_config(), "vocab_size", None)
    if not isinstance(size, int) or size < 1:
        raise CheckpointError(f"{folder}: its config.json gives no vocab_size; give the model's own folder")
    return size


@contextmanager
def _silent() -> Generator[None]:
    """Keep transformers from drawing bars and from warning on stderr."""
    logging = extra("transformers.utils.logging")
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _settings(folder: Path, transformers: Any) -> Any:  # noqa: ANN401
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: holds no config.json, without which no model can be run")
    try:
        raw = json.loads(path.read_bytes()[: 1 << 24])
        depth = max((value for value in map(raw.get, _DEPTHS) if isinstance(value, int)), default=0)
    except (ValueError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path}: is no JSON object; fetch it again") from error
    if depth > MOST_BLOCKS:
        raise CheckpointError(f"{path}: asks for {depth} layers, more than the {MOST_BLOCKS} that are laid out")
    try:
        return transformers.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"{path}: no model that transformers can run ({_line(error)})") from error


def _check_size(settings: Any, checkpoint: Checkpoint, folder: Path, torch: Any, transformers: Any) -> None:  # noqa: ANN401
    try:
        with torch.device("meta"):
            empty = transformers.AutoModelForCausalLM.from_config(settings, trust_remote_code=False)
    except Exception as error:
        raise CheckpointError(f"{folder}: config.json gives no causal language model ({_line(error)})") from error
    wanted = sum(int(parameter.numel()) for parameter in empty.parameters())
    held = sum(info.size for info in checkpoint.tensors.values())
    if wanted > MOST_LARGER * held:
        raise CheckpointError(
            f"{folder}: config.json asks for {wanted:,} parameters and the weights hold {held:,}; fetch it again"
        )


def _line(error: BaseException) -> str:
    """Return what an error says as one short line."""
    said = " ".join(str(error).split())
    return (said or type(error).__name__)[:160]
