"""Layers worked out together on a device, when the first of them is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from kinprint.architecture import ModelView
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError, UsageError
from kinprint.linalg.device import Device
from kinprint.linalg.stacked import product_singular_values_of

Factors = tuple[Array, Array]
"""(left, right) of a product ``left^T right``."""

LayerFactors = Callable[[ModelView, int], Iterable[tuple[str, Factors]]]
"""The factors of a layer's products by name. Raises UsageError with what the layer lacks, NonFiniteError."""

HELD_BYTES = 1 << 30
"""Bytes of factors that are read ahead: more layers at once are little faster."""


class Ahead:
    """The spectra of layers, called with one after the other in order.

    The first call reads the factors of that layer and of those after it, as many as ``HELD_BYTES`` hold, and works them
    out in stacks. What a layer lacks is raised when that layer is asked for.
    """

    def __init__(self, model: ModelView, factors: LayerFactors, layers: Sequence[int], device: Device) -> None:
        """Read nothing yet.

        Args:
            model: The model.
            factors: What a layer's products are made of.
            layers: All layers that will be asked for, in that order.
            device: Where the products are worked out.
        """
        self._model, self._factors, self._device = model, factors, device
        self._waiting = list(layers)
        self._made: dict[int, Mapping[str, Array] | UsageError | NonFiniteError] = {}

    def __call__(self, model: ModelView, layer: int) -> Mapping[str, Array]:
        """Return one layer's spectra by name.

        Raises:
            UsageError: The layer lacks something.
            NonFiniteError: It holds NaN or Inf.
        """
        if layer not in self._made:
            self._work()
        found = self._made.pop(layer)
        if isinstance(found, Exception):
            raise found
        return found

    def _work(self) -> None:
        read: dict[int, dict[str, Factors]] = {}
        held = 0
        while self._waiting and held < HELD_BYTES:
            layer = self._waiting.pop(0)
            try:
                read[layer] = dict(self._factors(self._model, layer))
            except (UsageError, NonFiniteError) as error:
                self._made[layer] = error
                continue
            held += sum(part.nbytes for pair in read[layer].values() for part in pair)
        named = [(layer, product) for layer, products in read.items() for product in products]
        spectra = product_singular_values_of([read[layer][product] for layer, product in named], self._device)
        made: dict[int, dict[str, Array]] = {layer: {} for layer in read}
        for (layer, product), values_S in zip(named, spectra, strict=True):
            made[layer][product] = values_S
        self._made |= made
