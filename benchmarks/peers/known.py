"""The peers, as a table: what is installed, and which of their numbers is which."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ADAPTERS = Path(__file__).parent / "adapters"

CPU_TORCH = "torch==2.13.0+cpu"
"""PyTorch names its CPU builds with ``+cpu``, and PyPI never serves a name with a plus: no other build can slip in."""

CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
"""Where PyTorch publishes those builds."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another tool that answers the same question.

    Attributes:
        name: On PyPI.
        version: The release that is measured.
        python: Oldest Python that it runs on.
        adapter: Script that runs in the peer's own environment.
        number: What the peer calls the number that it reports.
        pins: Further requirements: the libraries that its numbers depend on.
        torch: Whether it needs PyTorch.
    """

    name: str
    version: str
    python: tuple[int, int]
    adapter: Path
    number: str
    pins: tuple[str, ...]
    torch: bool

    @property
    def requirements(self) -> tuple[str, ...]:
        """What pip installs, PyTorch aside."""
        return (f"{self.name}=={self.version}", *self.pins)


PEERS = (
    Peer(
        name="modeldna",
        version="0.1.0",
        python=(3, 11),  # it asks for 3.10; the pins, and kinprint, for 3.11
        adapter=ADAPTERS / "with_modeldna.py",
        number="probability",
        pins=("numpy==2.4.6", "gguf==0.19.0"),
        torch=False,
    ),
    Peer(
        name="cisco-ai-provenance-kit",
        version="1.0.0",
        python=(3, 12),
        adapter=ADAPTERS / "with_provenancekit.py",
        number="pipeline_score",
        pins=("numpy==2.4.6", "transformers==5.24.0", "safetensors==0.8.0"),
        torch=True,
    ),
)
