"""Between a model in memory and a transformers module. torch and transformers are imported when first needed."""

from __future__ import annotations

import json
from collections.abc import Generator
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from kinprint.checkpoint import write_safetensors
from kinprint.errors import optional
from kinprint.zoo.model import TOKENIZER_FILES, WEIGHTS_FILE, Model, as_json


def extra(module: str) -> Any:  # noqa: ANN401 - an optional package without types here
    """Import a package of the [torch] extra.

    Raises:
        MissingExtraError: It is not installed.
    """
    return optional(module, "torch", "training a model")


@contextmanager
def reproducible() -> Generator[Any]:
    """Give torch with one thread, deterministic algorithms and its own random state; put everything back after."""
    torch, logging = extra("torch"), extra("transformers.utils.logging")
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    try:
        # More threads add up in another order, and the last bits differ.
        torch.set_num_threads(1)
        torch.use_deterministic_algorithms(mode=True)
        logging.disable_progress_bar()
        logging.set_verbosity_error()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            yield torch
    finally:
        if bars:
            logging.enable_progress_bar()
        logging.set_verbosity(verbosity)
        torch.use_deterministic_algorithms(mode=deterministic)
        torch.set_num_threads(threads)


def blank(config: dict[str, Any]) -> Any:  # noqa: ANN401 - a transformers model
    """Return a module of a config in float32, its weights whatever transformers gives; call inside `reproducible`."""
    torch, transformers = extra("torch"), extra("transformers")
    with TemporaryDirectory() as scratch:
        Path(scratch, "config.json").write_bytes(as_json(config))
        settings = transformers.AutoConfig.from_pretrained(scratch)
    return _plain(transformers.AutoModelForCausalLM.from_config(settings, dtype=torch.float32))


def load(model: Model) -> Any:  # noqa: ANN401 - a transformers model
    """Return a model as a module in float32; call inside `reproducible`."""
    torch, transformers = extra("torch"), extra("transformers")
    with TemporaryDirectory() as scratch:
        Path(scratch, "config.json").write_bytes(as_json(model.config))
        write_safetensors(Path(scratch, WEIGHTS_FILE), model.weights)
        return _plain(
            transformers.AutoModelForCausalLM.from_pretrained(scratch, dtype=torch.float32, local_files_only=True)
        )


def unload(module: Any, like: Model) -> Model:  # noqa: ANN401
    """Return a module's weights under the names that checkpoints have; config and tokenizer are those of ``like``."""
    with TemporaryDirectory() as scratch:
        module.save_pretrained(scratch)
        weights = Model.read(Path(scratch)).weights
    return replace(like, weights={name: np.ascontiguousarray(array) for name, array in weights.items()})


def from_gguf(file: Path) -> Model:
    """Return the model in a GGUF file as Hugging Face has it, with its tokenizer, converted by transformers."""
    transformers = extra("transformers")
    with reproducible() as torch, TemporaryDirectory() as scratch:
        named = {"gguf_file": file.name, "local_files_only": True}
        with redirect_stderr(StringIO()):  # its progress bar cannot be turned off otherwise
            module = transformers.AutoModelForCausalLM.from_pretrained(file.parent, dtype=torch.float32, **named)
        transformers.AutoTokenizer.from_pretrained(file.parent, **named).save_pretrained(scratch)
        config = {name: value for name, value in module.config.to_diff_dict().items() if not name.startswith("_")}
        # The weights are plain by now; a config that still calls them quantised would be read wrongly.
        config.pop("quantization_config", None)
        config |= {"architectures": [type(module).__name__], "model_type": module.config.model_type}
        config["torch_dtype"] = config["dtype"] = "bfloat16"
        weights = {name: parameter.detach().numpy().copy() for name, parameter in module.named_parameters()}
        files = {name: Path(scratch, name).read_bytes() for name in TOKENIZER_FILES if Path(scratch, name).is_file()}
    return Model(json.loads(json.dumps(config, default=str)), weights, files)


def _plain(module: Any) -> Any:  # noqa: ANN401
    # Mixtures in a plain loop over experts: grouped kernels differ between machines.
    if hasattr(module.config, "_experts_implementation"):
        module.config._experts_implementation = "eager"
    return module.eval()
