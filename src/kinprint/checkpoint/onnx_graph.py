"""Which initialisers of an ONNX graph are weights, what they are called, and which way round they lie.

Source: torch/onnx (names of nodes and values); optimum and onnxruntime (names of quantised weights).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kinprint.checkpoint.faults import fault, shown

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto

FLOATS = frozenset({1, 10, 11, 16, 17, 19})
"""``TensorProto.DataType`` of float32, float16, double, bfloat16 and the two float8 that are read."""

PACKED = frozenset(
    {"QLinearMatMul", "QLinearConv", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul"}
    | {"DynamicQuantizeLSTM", "MatMulNBits", "MatMulBnb4", "GatherBlockQuantized", "QGemm", "QAttention", "QMoE"}
    | {"QEmbedLayerNormalization", "QLinearAdd", "QOrderedMatMul", "QOrderedAttention", "MatMulFpQ4", "GemmFloat8"}
)
"""Operators whose weights are packed integers."""

MAX_SUBGRAPHS = 8
"""How deep graphs inside ``If`` and ``Loop`` nodes are followed."""

METADATA_CHARS = 4096
"""Longest text about a node that is looked at."""

_MADE_UP = re.compile(r"onnx::.*|_?v(al)?_?\d+|\d+|const(ant)?_?\d*|_to_copy\w*|\w*_output_\d+|.*[:/].*")
_ORIGIN = re.compile(r"(_quantized|_DequantizeLinear(_Output)?|_dequantized?)+$")
_PATH = re.compile(r"/?((?:[\w.]+/)+)[\w.:]+")
_FUSED = re.compile(r"(?P<module>.+)\.(MatMul|Gemm|Gather)\.weight")
_SAME = frozenset({"Identity", "Cast"})


@dataclass(frozen=True, slots=True)
class Quantised:
    """Names of the initialisers that scale integers, and the axis that the scales run along."""

    scale: str
    zero: str | None
    axis: int


@dataclass(frozen=True, slots=True)
class Use:
    """One weight: the initialiser that holds it, whether its two axes are to be turned, and how it is scaled."""

    initialiser: str
    turned: bool = False
    quantised: Quantised | None = None


@dataclass(slots=True)
class Weights:
    """What a graph holds.

    Attributes:
        initialisers: All of them, and the tensors of Constant nodes, by their names in the graph.
        named: Weights by the name that they get.
        notes: What a reader must know.
    """

    initialisers: dict[str, TensorProto] = field(default_factory=dict[str, "TensorProto"])
    named: dict[str, Use] = field(default_factory=dict[str, Use])
    notes: list[str] = field(default_factory=list[str])


def weights_of(graph: GraphProto, where: str) -> Weights:
    """Name the weights of a graph.

    Raises:
        CheckpointError: An operator takes packed integers, or a name comes twice.
    """
    found = Weights()
    nodes: list[NodeProto] = []
    _collect(graph, found, nodes, where, 0)
    uses = {name: Use(name) for name in found.initialisers}
    anonymous: list[tuple[str, Use]] = []
    for node in nodes:
        _follow(node, uses, found, where)
        name = _module(node, uses)
        if name is not None:
            anonymous.append(name)
    scales = {name for use in uses.values() if use.quantised for name in (use.quantised.scale, use.quantised.zero)}
    renamed = {node.output[0] for node in nodes if node.op_type in {"Identity", "DequantizeLinear"} and node.output}
    for spelled, use in uses.items():
        tensor = found.initialisers[use.initialiser]
        if use.turned or not _tells(spelled, use) or not (spelled == use.initialiser or spelled in renamed):
            continue
        if use.quantised is not None:
            name = spelled if _made_up(use.initialiser) else use.initialiser
            found.named.setdefault(_ORIGIN.sub("", name), use)
            continue
        ours = "." in spelled or (len(tensor.dims) >= 2 and spelled == use.initialiser)
        if ours and tensor.data_type in FLOATS and use.initialiser not in scales and not _made_up(spelled):
            found.named.setdefault(spelled, use)
    _add_anonymous(anonymous, found)
    return found


def _collect(graph: GraphProto, found: Weights, nodes: list[NodeProto], where: str, depth: int) -> None:
    """Gather initialisers and nodes, those of inner graphs too, in the order of the graph."""
    if depth > MAX_SUBGRAPHS:
        raise fault(where, "nests graphs too deeply", "export the model again")
    if graph.sparse_initializer:
        raise fault(where, "holds sparse initialisers, which are not read", "export the model with dense weights")
    for tensor in graph.initializer:
        _check_text(
            [tensor.name, *(text for entry in tensor.external_data for text in (entry.key, entry.value))], where
        )
        if tensor.name in found.initialisers and depth == 0:
            raise fault(where, f"holds the initialiser {shown(tensor.name)} twice", "damaged: export the model again")
        found.initialisers.setdefault(tensor.name, tensor)
    for node in graph.node:
        about = (text for entry in node.metadata_props for text in (entry.key, entry.value))
        _check_text([node.name, node.op_type, *node.input, *node.output, *about], where)
        if node.op_type == "Constant" and node.output:
            value = next((attribute.t for attribute in node.attribute if attribute.name == "value"), None)
            if value is not None and len(value.dims) >= 2:
                _check_text([text for entry in value.external_data for text in (entry.key, entry.value)], where)
                found.initialisers.setdefault(node.output[0], value)
        nodes.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _collect(attribute.g, found, nodes, where, depth + 1)


def _check_text(values: Sequence[object], where: str) -> None:
    """Refuse text that is no UTF-8, which protobuf hands over as bytes."""
    wrong = next((value for value in values if not isinstance(value, str)), None)
    if wrong is not None:
        raise fault(where, f"holds {shown(wrong)} where a name belongs", "damaged: fetch the file again")


def _follow(node: NodeProto, uses: dict[str, Use], found: Weights, where: str) -> None:
    """Carry a weight through a node that only renames, casts, turns or scales it; refuse packed ones."""
    held = [uses[name] for name in node.input if name in uses]
    if node.op_type in PACKED and held:
        raise _packed(where, node, held[0])
    first = uses.get(node.input[0]) if node.input else None
    if first is None or not node.output:
        return
    if node.op_type in _SAME:
        uses[node.output[0]] = first
    elif node.op_type == "Transpose" and len(found.initialisers[first.initialiser].dims) == 2:
        order = next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [1, 0])
        uses[node.output[0]] = Use(first.initialiser, first.turned != (order == [1, 0]), first.quantised)
    elif node.op_type == "DequantizeLinear":
        uses[node.output[0]] = _scaled(node, first, uses, found, where)


def _scaled(node: NodeProto, first: Use, uses: Mapping[str, Use], found: Weights, where: str) -> Use:
    """Return the weight that a DequantizeLinear node makes of 8-bit integers.

    Raises:
        CheckpointError: It is of 4 bits, scaled in blocks, or its scales are no initialisers.
    """
    settings = {attribute.name: attribute.i for attribute in node.attribute}
    names = [uses[name].initialiser if name in uses else None for name in node.input[1:]]
    eight = found.initialisers[first.initialiser].data_type in {2, 3}
    complete = bool(names) and names[0] is not None and (len(names) == 1 or names[1] is not None or not node.input[2])
    if not eight or settings.get("block_size", 0) or not complete or first.quantised is not None:
        raise _packed(where, node, first)
    axis = settings.get("axis", 1)
    zero = names[1] if len(names) > 1 else None
    # The axis counts in the node's own input; we count it in the initialiser.
    return Use(first.initialiser, first.turned, Quantised(str(names[0]), zero, 1 - axis % 2 if first.turned else axis))


def _packed(where: str, node: NodeProto, use: Use) -> Exception:
    """Return the error for integers that are not to be read as numbers."""
    return fault(
        where,
        f"weight {shown(use.initialiser)} is packed for the operator {shown(node.op_type)}, which is not decoded",
        "export the model without quantisation, or give the model that it was made from",
    )


def _module(node: NodeProto, uses: Mapping[str, Use]) -> tuple[str, Use] | None:
    """Return the name that a node gives to the unnamed weight that it uses, and which way round that lies.

    An empty name says that the node has none that tells a module; None, that there is no such weight.
    """
    place = {"MatMul": 1, "FusedMatMul": 1, "Gemm": 1, "Gather": 0, "Conv": 1}.get(node.op_type)
    spelled = node.input[place] if place is not None and len(node.input) > place else ""
    use = uses.get(spelled)
    if use is None:
        return None
    fused = _FUSED.fullmatch(use.initialiser)
    if fused is None and _tells(spelled, use):
        return None  # the parameter is named, even if what was made of it is not
    module = fused["module"] if fused is not None else _path(node)
    settings = {attribute.name: attribute.i for attribute in node.attribute}
    ours = settings.get("transB", 0) == 1 or node.op_type in {"Gather", "Conv"}
    turned = use.turned if ours else not use.turned
    return f"{module}.weight" if module else "", Use(use.initialiser, turned, use.quantised)


def _path(node: NodeProto) -> str:
    """Return the module that a node was exported from, in torch's spelling; empty if the node does not say."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            # A list of texts, from the model down to the operator: "['', 'layers.0', 'layers.0.q_proj', 'linear']".
            scopes = re.findall(r"'([\w.]*)'", entry.value[:METADATA_CHARS])
            return scopes[-2] if len(scopes) > 1 else ""
    path = _PATH.fullmatch(node.name)
    return path[1].rstrip("/").replace("/", ".") if path is not None else ""


def _add_anonymous(anonymous: list[tuple[str, Use]], found: Weights) -> None:
    """Add the weights that nodes name, each initialiser once, and say which are only numbered."""
    numbered = renamed = 0
    seen = {use.initialiser for use in found.named.values() if _FUSED.fullmatch(use.initialiser) is None}
    for name, use in anonymous:
        tensor = found.initialisers[use.initialiser]
        readable = tensor.data_type in FLOATS or use.quantised is not None
        if use.initialiser in seen or len(tensor.dims) < 2 or not readable or (use.turned and len(tensor.dims) != 2):
            continue
        seen.add(use.initialiser)
        found.named.pop(use.initialiser, None)
        if not name or name in found.named:
            name = f"matmul.{numbered}.weight"
            numbered += 1
        else:
            renamed += 1
        found.named[name] = use
    if renamed:
        found.notes.append(f"{renamed} unnamed weights are named after the modules of the nodes that use them")
    if numbered:
        found.notes.append(f"{numbered} unnamed weights are numbered in the order of the graph (matmul.0.weight, ...)")
    used = {use.initialiser for use in found.named.values()}
    rest = [tensor for name, tensor in found.initialisers.items() if name not in used and len(tensor.dims) >= 2]
    left = sum(tensor.data_type in FLOATS for tensor in rest)
    if left:
        found.notes.append(f"{left} unnamed constants that no MatMul, Gemm, Gather or Conv uses were left out")


def _tells(name: str, use: Use) -> bool:
    """Tell whether a value has a name of the model: its initialiser does, or it was given a dotted one of its own."""
    return not _made_up(use.initialiser) or (name != use.initialiser and "." in name and not _made_up(name))


def _made_up(name: str) -> bool:
    """Tell whether a name is an exporter's own and says nothing of the model."""
    return not name or _MADE_UP.fullmatch(name) is not None
