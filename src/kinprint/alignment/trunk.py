"""The layers of a model as the matrices that two models can be compared by, gains folded, layer by layer.

Axes: D = residual coordinates, H = query rows (heads * head_dim), K = key/value rows, F = units of an MLP or expert,
G = key/value groups, C = head_dim.

What a layer computes does not depend on how its heads, units and coordinates are written down. Four matrices of
residual coordinates by residual coordinates keep what does not change, here called the layer's *forms*:

* ``qk``: the sum over query heads of W_q^T W_k, what attends to what;
* ``vo``: the sum over heads of W_o W_v, what attention moves;
* ``ud``: the sum over units of down and up, W_down W_up, the linear part of the MLP;
* ``gate``: the sum over units of the outer square of the gate row at unit length (of the up row in an MLP without one).

They are the same for any order of heads and units, any V/O mixing, any Q/K gauge that positions allow, any exchange of
scale between up and down and, where norms subtract the mean, any constant added to what is written to all coordinates;
a rotation of the stream turns them, M -> R M R^T. Where an MLP is a mixture the
mean over its experts is taken, so that experts which are copies of one dense MLP have that MLP's forms.

Source: the products are GhostSpec's (arXiv 2511.06390, section 3.1) with gains folded, and those of the centred
residual signatures (arXiv 2608.14929); the gauges are those of ``kinprint.transform``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from threading import Lock
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64

from kinprint.architecture import Geometry, ModelView
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum
from kinprint.linalg.threads import threads_for

Form = Literal["qk", "vo", "ud", "gate"]
FORMS: tuple[Form, ...] = ("qk", "vo", "ud", "gate")

WRITING: tuple[Form, ...] = ("vo", "ud")
"""Forms whose rows are written to the stream; all others only read it."""

_MIXTURE_ROLES = (("moe", True), ("moe.shared", False))
"""Stems of the roles of a mixture's MLPs, and whether they are numbered by expert."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer's attention, gains folded. ``o_HD`` holds the columns of the output matrix as rows.

    V and O are the rows of values and of what they are summed to: K and H, but where values have a head size of their
    own.
    """

    q_HD: Float32[Array, "H D"]
    k_KD: Float32[Array, "K D"]
    v_KD: Float32[Array, "V D"]
    o_HD: Float32[Array, "O D"]
    heads: int
    kv_heads: int

    def group_factors(self, form: Literal["qk", "vo"]) -> tuple[Float64[Array, "G C D"], Float64[Array, "G C D"]]:
        """Return (left, right) so that a key/value group's form is ``left[g].T @ right[g]``, summed over its heads."""
        right = (self.k_KD if form == "qk" else self.v_KD).astype(np.float64)
        size = right.shape[0] // self.kv_heads
        shape = {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": size}
        left = grouped_query_sum(self.q_HD, **shape) if form == "qk" else grouped_output_sum(self.o_HD.T, **shape).T
        blocks = (self.kv_heads, size, -1)
        return left.reshape(blocks), right.reshape(blocks)


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one MLP or expert, gains folded. ``down_FD`` holds the columns of the output matrix as rows.

    ``gate_FD`` is None where the MLP has no gate. The channels of a state-space block that is a layer's only one count
    as units too (``state_space``): two rows of the input projection and a column of the output projection each. Their
    numbering is not free where heads of channels share a decay (Mamba 2), so no exact test permutes them.
    """

    gate_FD: Float32[Array, "F D"] | None
    up_FD: Float32[Array, "F D"]
    down_FD: Float32[Array, "F D"]
    expert: int | None = None
    state_space: bool = False

    @property
    def key_FD(self) -> Float32[Array, "F D"]:
        """The rows by which units are recognised: those that no exchange of scale touches."""
        return self.up_FD if self.gate_FD is None else self.gate_FD


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer; ``problems`` says what could not be used."""

    attention: Attention | None
    mlps: tuple[Units, ...]
    problems: tuple[str, ...] = ()

    @property
    def experts(self) -> tuple[Units, ...]:
        """The routed experts."""
        return tuple(units for units in self.mlps if units.expert is not None)


class Trunk:
    """The layers of one model, read when asked for and kept only while there is room.

    Attributes:
        view: The model.
        layers: Numbers of the layers that have attention or an MLP.
    """

    def __init__(self, view: ModelView) -> None:
        """Read nothing yet."""
        self.view = view
        self.layers: list[int] = sorted(
            {key.layer for key in view.parts if key.layer is not None and key.role in _HELD}
        )
        self._lock = Lock()
        self._layers: dict[int, Layer] = {}
        self._forms: dict[int, Mapping[Form, Array]] = {}

    @property
    def geometry(self) -> Geometry:
        """Sizes of the model."""
        return self.view.geometry

    @cached_property
    def width(self) -> int:
        """Residual coordinates, from the arrays themselves; 0 where no layer could be read."""
        for number in self.layers:
            layer = self.layer(number)
            if layer.attention is not None:
                return int(layer.attention.q_HD.shape[1])
            if layer.mlps:
                return int(layer.mlps[0].up_FD.shape[1])
        return 0

    def layer(self, number: int) -> Layer:
        """Return one layer."""
        layer = self._layers.get(number)
        if layer is None:
            layer = read_layer(self.view, number)
            with self._lock:
                _make_room(self._layers, _layer_bytes(layer))
                self._layers[number] = layer
        return layer

    def forms(self, number: int) -> Mapping[Form, Float32[Array, "D D"]]:
        """Return the forms that a layer has."""
        made = self._forms.get(number)
        if made is None:
            made = forms_of(self.layer(number))
            with self._lock:
                _make_room(self._forms, sum(form.nbytes for form in made.values()))
                self._forms[number] = made
        return made

    @cached_property
    def repeats(self) -> bool:
        """Whether two layers are nearly the same, as in a model whose depth was scaled up."""
        flat = [self.forms(number)["vo"].ravel() for number in self.layers if "vo" in self.forms(number)]
        if len(flat) < 2:
            return False
        with threads_for(len(flat)):
            products = np.stack(flat) @ np.stack(flat).T
        norms = np.sqrt(np.diagonal(products))
        cosines = products / np.where(norms > 0, norms, 1.0)[:, None] / np.where(norms > 0, norms, 1.0)[None]
        return bool((np.triu(cosines, 1) > _REPEATED).any())

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What could not be read in any layer."""
        return tuple(problem for number in self.layers for problem in self.layer(number).problems)


_HELD_BYTES = 1 << 30
"""Bytes of layers, and of forms, that are kept; what was kept first makes room for what comes."""


def _make_room(kept: dict[int, Any], size: int) -> None:
    while kept and (len(kept) + 1) * size > _HELD_BYTES:
        del kept[next(iter(kept))]


def _layer_bytes(layer: Layer) -> int:
    attention = layer.attention
    held = [] if attention is None else [attention.q_HD, attention.k_KD, attention.v_KD, attention.o_HD]
    for units in layer.mlps:
        held += [units.up_FD, units.down_FD, *([] if units.gate_FD is None else [units.gate_FD])]
    return sum(array.nbytes for array in held)


_REPEATED = 0.5
"""Cosine of the value forms of two layers of a model from which on they count as copies; others are near 0."""

_HELD = frozenset({"attn.q", "attn.q_b", "mlp.up", "moe.up", "moe.shared.up", "ssm.in"})


def read_layer(view: ModelView, number: int) -> Layer:
    """Read one layer, gains folded. What holds NaN or Inf, or has no head geometry, is left out with its reason."""
    problems: list[str] = []
    attention: Attention | None = None
    mlps: list[Units] = []
    try:
        attention = _attention(view, number)
    except NonFiniteError as error:
        problems.append(str(error))
    for stem, expert in _mlps(view, number):
        try:
            units = _units(view, stem, number, expert)
            mlps += [] if units is None else [units]
        except NonFiniteError as error:
            problems.append(str(error))
    return Layer(attention, tuple(mlps), tuple(problems))


def _attention(view: ModelView, number: int) -> Attention | None:
    size = view.heads_at(number)
    if size is None or size.heads % size.kv_heads or not all(view.has(role, number) for role in ("attn.v", "attn.o")):
        return None
    roles = ("attn.q", "attn.k", "attn.v")
    q, k, v = (_single(view.array(role, number, fold=True)) for role in roles)
    o = _written(view, "attn.o", number)
    if v.shape[0] % size.kv_heads or o.shape[0] * size.kv_heads != v.shape[0] * size.heads:
        return None
    if len({part.shape[1] for part in (q, k, v, o)}) > 1:
        return None  # reads or writes another stream
    return Attention(q, k, v, o, size.heads, size.kv_heads)


def _mlps(view: ModelView, number: int) -> list[tuple[str, int | None]]:
    if view.has("mlp.up", number):
        return [("mlp", None)]
    found: list[tuple[str, int | None]] = []
    for stem, numbered in _MIXTURE_ROLES:
        if numbered:
            found += [(stem, expert) for expert in view.experts(f"{stem}.up", number)]
        elif view.has(f"{stem}.up", number):
            found.append((stem, None))
    if not found and view.has("ssm.in", number) and not view.has("attn.q", number):
        found.append(("ssm", None))
    return found


def _units(view: ModelView, stem: str, number: int, expert: int | None) -> Units | None:
    if stem == "ssm":
        return _channels(view, number)
    if not view.has(f"{stem}.down", number, expert):
        return None
    gate = None
    if view.has(f"{stem}.gate", number, expert):
        gate = _single(view.array(f"{stem}.gate", number, expert, fold=True))
    up = _single(view.array(f"{stem}.up", number, expert, fold=True))
    down = _written(view, f"{stem}.down", number, expert)
    if up.shape != down.shape or (gate is not None and gate.shape != up.shape):
        return None
    return Units(gate, up, down, expert)


def _channels(view: ModelView, number: int) -> Units | None:
    """Return the channels of a state-space block: the first rows of its input projection are two of each."""
    if not view.has("ssm.out", number):
        return None
    rows_ND = _single(view.array("ssm.in", number, fold=True))
    down_FD = _written(view, "ssm.out", number)
    count = len(down_FD)
    if len(rows_ND) < 2 * count or rows_ND.shape[1] != down_FD.shape[1]:
        return None
    return Units(rows_ND[:count], rows_ND[count : 2 * count], down_FD, state_space=True)


def _written(view: ModelView, role: str, number: int, expert: int | None = None) -> Array:
    """Return what each row of a layer writes to the stream, [rows, D].

    Where norms subtract the mean over coordinates, the mean of what is written is never seen again: it is left out.
    """
    rows_ND = _single(view.array(role, number, expert)).T
    return rows_ND - rows_ND.mean(axis=1, keepdims=True) if view.family.norm == "layer" else rows_ND


def _single(values: Array) -> Array:
    return np.asarray(values, dtype=np.float32)


def unit_rows(rows_ND: Array) -> Array:
    """Return rows at unit length, float32; a zero row stays zero."""
    # float64: a sum of squares of tiny numbers is zero in float32. einsum casts in small buffers.
    norms_N = np.sqrt(np.einsum("nd,nd->n", rows_ND, rows_ND, dtype=np.float64))
    return (rows_ND / np.where(norms_N > 0, norms_N, 1.0)[:, None]).astype(np.float32)


def forms_of(layer: Layer) -> dict[Form, Array]:
    """Return a layer's forms, float32 [D, D]: they are stored for every layer, and none is ever a small difference."""
    forms: dict[Form, Array] = {}
    if layer.attention is not None:
        for form in ("qk", "vo"):
            left, right = layer.attention.group_factors(form)
            rows = left.shape[0] * left.shape[1]
            with threads_for(left.shape[2]):
                forms[form] = (left.reshape(rows, -1).T @ right.reshape(rows, -1)).astype(np.float32)
    if layer.mlps:
        with threads_for(layer.mlps[0].up_FD.shape[1]):
            forms["ud"] = _mean([units.down_FD.T @ units.up_FD for units in layer.mlps])
            keys = [unit_rows(units.key_FD) for units in layer.mlps]
            forms["gate"] = _mean([key.T @ key for key in keys])
    return forms


def pooled(layer: Layer, *, most: int = 4) -> Units | None:
    """Return the units of a layer's MLPs as one, of the ``most`` MLPs with the largest gate rows where there are more.

    Chosen by size, not by number, so that the order of experts changes nothing.
    """
    if not layer.mlps:
        return None
    sizes = [-float(np.linalg.norm(units.key_FD)) for units in layer.mlps]
    chosen: list[Units] = [layer.mlps[int(i)] for i in np.argsort(sizes, kind="stable")[:most]]
    if len(chosen) == 1:
        return chosen[0]
    gates = [units.gate_FD for units in chosen if units.gate_FD is not None]
    return Units(
        np.concatenate(gates) if len(gates) == len(chosen) else None,
        np.concatenate([units.up_FD for units in chosen]),
        np.concatenate([units.down_FD for units in chosen]),
    )


def spaced(units: Units, most: int) -> Array:
    """Return the numbers of ``most`` units evenly spaced in the order of their gate rows' lengths; all where no more.

    A sample of all sizes that does not depend on how units are numbered.
    """
    count = len(units.key_FD)
    if count <= most:
        return np.arange(count)
    norms = np.einsum("fd,fd->f", units.key_FD, units.key_FD, dtype=np.float64)
    ranked = np.argsort(-norms, kind="stable")
    return np.sort(ranked[np.linspace(0, count - 1, most).round().astype(int)])


def largest(units: Units, most: int) -> Array:
    """Return the numbers of the ``most`` units with the longest gate rows, rising; all where there are no more.

    Chosen by size, not by number, so that the order of units changes nothing.
    """
    count = len(units.key_FD)
    if count <= most:
        return np.arange(count)
    norms = np.einsum("fd,fd->f", units.key_FD, units.key_FD, dtype=np.float64)
    return np.sort(np.argsort(-norms, kind="stable")[:most])


def _mean(arrays: Sequence[Array]) -> Array:
    return np.asarray(np.mean(np.stack(arrays), axis=0), dtype=np.float32)
