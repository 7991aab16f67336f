"""Peak memory of judging and of measuring two 135M-parameter models, each in a process of its own.

RssAnon (pages that are not backed by a file) is sampled every five milliseconds; ru_maxrss, which also counts the
memory-mapped checkpoints, is printed beside it. The bars are 2,000 MB of RssAnon for the command, whose verdict keeps
layers of both models, and 400 MB for the methods of the default alone. Linux only.

Usage: python benchmarks/memory.py [SUSPECT BASE]; by default two synthetic SmolLM2-135M-shaped bf16 checkpoints.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import ml_dtypes
import numpy as np

from kinprint.checkpoint import write_safetensors

LAYERS, HIDDEN, FFN, KV, VOCAB = 30, 576, 1536, 192, 49152


def tensors(seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """Yield random tensors of SmolLM2-135M's shapes."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int) -> np.ndarray:
        return (0.02 * rng.standard_normal(shape, dtype=np.float32)).astype(ml_dtypes.bfloat16)

    yield "model.embed_tokens.weight", draw(VOCAB, HIDDEN)
    yield "model.norm.weight", draw(HIDDEN)
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}."
        yield prefix + "input_layernorm.weight", draw(HIDDEN)
        yield prefix + "post_attention_layernorm.weight", draw(HIDDEN)
        yield prefix + "self_attn.q_proj.weight", draw(HIDDEN, HIDDEN)
        yield prefix + "self_attn.k_proj.weight", draw(KV, HIDDEN)
        yield prefix + "self_attn.v_proj.weight", draw(KV, HIDDEN)
        yield prefix + "self_attn.o_proj.weight", draw(HIDDEN, HIDDEN)
        yield prefix + "mlp.gate_proj.weight", draw(FFN, HIDDEN)
        yield prefix + "mlp.up_proj.weight", draw(FFN, HIDDEN)
        yield prefix + "mlp.down_proj.weight", draw(HIDDEN, FFN)


def build(folder: Path, seed: int) -> None:
    """Write one synthetic checkpoint."""
    config = {
        "num_hidden_layers": LAYERS,
        "hidden_size": HIDDEN,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    }
    write_safetensors(folder, tensors(seed), config=config)


METHODS = """
import sys
from kinprint.api import open_model
from kinprint.fingerprints import FingerprintMethod
from kinprint.registry import METHODS
suspect, base = (open_model(path) for path in sys.argv[1:3])
for name in ("layernorm", "intrinsic", "ghostspec-mse"):
    method = METHODS[name]
    extract = method.extractor.extract if isinstance(method, FingerprintMethod) else lambda model: model
    method.compare(extract(suspect), extract(base))
"""


def measure(command: list[str]) -> tuple[float, int, float]:
    """Return (peak RssAnon in MB, ru_maxrss in MB, seconds) of one command."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0
    while process.poll() is None:
        try:
            status = Path(f"/proc/{process.pid}/status").read_text()
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("RssAnon:"):
                peak = max(peak, int(line.split()[1]))
        time.sleep(0.005)
    if process.wait() != 0:
        sys.exit(f"{command[0]} failed with exit code {process.returncode}")
    seconds = time.perf_counter() - started
    return peak / 1024, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, seconds


def main() -> None:
    """Measure and print one line of JSON for each command; exit 1 where a bar is missed."""
    missed = False
    with tempfile.TemporaryDirectory() as scratch:
        pair = sys.argv[1:3]
        if len(pair) != 2:
            pair = [str(Path(scratch) / name) for name in ("a", "b")]
            for seed, folder in enumerate(pair):
                Path(folder).mkdir()
                build(Path(folder), seed)
        kinprint = str(Path(sys.executable).parent / "kinprint")
        commands = {
            "methods of the default": ([sys.executable, "-c", METHODS, *pair], 400),
            "kinprint compare": ([kinprint, "compare", *pair, "--json", "-"], 2000),
        }
        for what, (command, bar) in commands.items():
            anonymous, resident, seconds = measure(command)
            missed |= anonymous > bar
            row = {
                "what": what,
                "peak_rss_anon_mb": round(anonymous, 1),
                "ru_maxrss_mb": resident,
                "bar_mb": bar,
                "seconds": round(seconds, 1),
            }
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    sys.exit(missed)


if __name__ == "__main__":
    main()
