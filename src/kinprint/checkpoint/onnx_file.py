"""ONNX graphs: their weights under the names that torch gave them, or under the module of the node that uses them.

An exporter keeps a parameter's name where the graph uses the parameter as it is (``model.norm.weight``). A weight that
it transposed for MatMul has a name of its own making (``onnx::MatMul_1234``, ``val_12``); the node's name tells the
module (``/model/layers.0/self_attn/q_proj/MatMul`` -> ``model.layers.0.self_attn.q_proj.weight``; newer exporters say
it in the node's metadata), and the axes [in, out] are turned back to torch's [out, in] as a strided view. Where no node
tells it the weight is ``matmul.{i}.weight``, counted in the order of the graph, and a note says so. One initialiser
that several nodes use has the name that the first of them gives it.

Integers that DequantizeLinear scales by tensor or by axis decode to float32; weights of every other quantised operator
are refused. The graph is parsed by the ``onnx`` package and never run; external data is mapped.

Source: onnx/onnx.proto; the operator specifications of onnx and of com.microsoft; torch/onnx (how weights are named).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from kinprint.checkpoint import dtypes
from kinprint.checkpoint.base import Array, Codec, TensorInfo
from kinprint.checkpoint.faults import FETCH_AGAIN, checked_name, fault, shown
from kinprint.checkpoint.intervals import Range
from kinprint.checkpoint.onnx_graph import Quantised, Use, Weights, weights_of
from kinprint.checkpoint.onnx_values import StoredValues
from kinprint.checkpoint.parts import Part, bytes_of, take
from kinprint.checkpoint.source import ByteSource, Files

if TYPE_CHECKING:
    from onnx import ModelProto

GRAPH_BYTES = (1 << 31) - 1
"""Longest graph that protobuf parses; larger models keep their weights in files beside it."""


class OnnxFile(Part):
    """One ``.onnx`` file, with the files beside it that hold its external data."""

    format = "onnx"

    def __init__(self, source: ByteSource, files: Files) -> None:
        """Parse the graph, and check and name its weights.

        Args:
            source: The graph.
            files: Where external data may lie.

        Raises:
            CheckpointError: The graph is damaged, a weight is packed or cut off, external data would be read from
                outside the folder, or the ``onnx`` package is missing.
        """
        self.source = source
        graph = _parsed(source)
        found = weights_of(graph.graph, source.where)
        self._values = StoredValues(found.initialisers, source, files)
        self._uses: dict[str, Use] = {}
        self.tensors: Mapping[str, TensorInfo] = dict(self._named(found))
        if not self.tensors:
            raise fault(source.where, "holds no weights", "give the ONNX file of the model itself")
        self.notes = tuple(f"{source.name}: {note}" for note in found.notes)

    def read(self, name: str, rows: slice | None) -> Array:
        """View one weight, turned to torch's axes, or decode its rows."""
        self.source.view(0, 0)  # says that the file was closed
        use = self._uses[name]
        if rows is not None and use.quantised is None and not use.turned:
            return self._values.array(use.initialiser, rows)
        stored = self._values.array(use.initialiser)
        turned = stored.T if use.turned else stored
        if use.quantised is None:
            return take(turned, rows)
        scale, zero = self._factors(use.quantised, stored.shape)
        decoded = (take(turned, rows).astype(np.float32) - _rows(zero, use, rows)) * _rows(scale, use, rows)
        decoded.flags.writeable = False
        return decoded

    def raw(self, name: str) -> memoryview:
        """Return the weight's bytes in C order of the axes that ``read`` gives; integers with scales after them."""
        use = self._uses[name]
        stored = self._values.array(use.initialiser)
        data = bytes_of(stored.T if use.turned else stored)
        if use.quantised is None:
            return data
        others = (use.quantised.scale, use.quantised.zero)
        return memoryview(b"".join([bytes(data), *(bytes(bytes_of(self._values.array(x))) for x in others if x)]))

    def spans(self, name: str, rows: slice | None) -> Iterator[tuple[ByteSource, Range]]:
        """Yield the ranges that lie outside of the graph; the graph itself was read whole."""
        use = self._uses[name]
        plain = use.quantised is None and not use.turned
        yield from self._values.spans(use.initialiser, rows if plain else None)
        if use.quantised is not None:
            for other in (use.quantised.scale, use.quantised.zero):
                if other is not None:
                    yield from self._values.spans(other, None)

    def _named(self, found: Weights) -> list[tuple[str, TensorInfo]]:
        """Return the header of each weight by its name."""
        rows: list[tuple[str, TensorInfo]] = []
        for name, use in found.named.items():
            checked_name(name, self.source.where)
            stored = self._values.info(use.initialiser)
            shape = stored.shape[::-1] if use.turned else stored.shape
            info = TensorInfo(name, stored.dtype, shape, stored.nbytes, stored.file)
            if use.quantised is not None:
                codec = Codec("ONNX", dtypes.bits(stored.dtype) or 8, 0)
                self._factors(use.quantised, stored.shape)
                scales = [self._values.info(x).nbytes for x in (use.quantised.scale, use.quantised.zero) if x]
                info = TensorInfo(name, str(codec), shape, stored.nbytes + sum(scales), stored.file, codec)
            self._uses[name] = use
            rows.append((name, info))
        return rows

    def _factors(self, quantised: Quantised, shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Return scale and zero point, each broadcast against the stored integers.

        Raises:
            CheckpointError: They fit neither the whole tensor nor one axis of it.
        """
        found: list[Array] = []
        axis = quantised.axis % len(shape) if -len(shape) <= quantised.axis < len(shape) else 0
        for name in (quantised.scale, quantised.zero):
            values = np.zeros((), np.float32) if name is None else self._values.array(name).astype(np.float32)
            if values.size == 1:
                found.append(values.reshape((1,) * len(shape)))
            elif values.ndim == 1 and values.size == shape[axis]:
                found.append(values.reshape([-1 if place == axis else 1 for place in range(len(shape))]))
            else:
                raise fault(
                    self.source.where,
                    f"the scales of {shown(name)} fit neither the tensor nor its axis {axis}",
                    "export the model without quantisation, or give the model that it was made from",
                )
        return found[0], found[1]


def _rows(factors: Array, use: Use, rows: slice | None) -> Array:
    """Return the part of the broadcast factors that belongs to some rows of the turned tensor."""
    turned = factors.T if use.turned else factors
    return take(turned, rows) if turned.shape[0] > 1 else turned


def looks_like_it(head: bytes) -> bool:
    """Tell from its first bytes whether a file may be ONNX: ``ir_version``, then one of the fields that follow it."""
    # A field's first byte is 8 times its number, and 2 for what has a length: producer, domain, graph and so on.
    return len(head) > 2 and head[0] == 0x08 and 1 <= head[1] <= 32 and head[2] % 8 == 2 and 2 <= head[2] // 8 <= 8


def _parsed(source: ByteSource) -> ModelProto:
    """Return the parsed graph; its external data is not loaded.

    Raises:
        CheckpointError: The package is missing, or the file is no ONNX model.
    """
    # Imported on first use: an optional dependency, which takes 0.2 s.
    try:
        from google.protobuf.message import DecodeError
        from onnx import ModelProto
    except ImportError as error:
        raise fault(source.where, "is an ONNX model", "to read it: pip install 'kinprint[onnx]'") from error
    if source.size > GRAPH_BYTES:
        raise fault(source.where, "is longer than an ONNX graph can be", "keep its weights as external data")
    model = ModelProto()
    try:
        model.ParseFromString(bytes(source.view(0, source.size)))
    except (DecodeError, RuntimeError) as error:
        raise fault(
            source.where, "is no ONNX model, or a damaged one", "truncated or damaged: " + FETCH_AGAIN
        ) from error
    if not model.HasField("graph"):
        raise fault(source.where, "is an ONNX file without a graph", FETCH_AGAIN)
    return model
