"""The layers of a model as the matrices that two models can be compared by, gains folded, layer by layer.

Axes: D = residual coordinates, H = query rows (heads * head_dim), K = key/value rows, F = units of an MLP or expert,
G = key/value groups, C = head_dim.

What a layer computes does not depend on how its heads, units and coordinates are written down; what of it does not
change is in its forms (``kinprint.alignment.forms``).

Of a model wider than ``WIDE`` a layer holds what fits: of grouped-query attention the sum of the query heads of each
key/value group (and of the columns of the output matrix), which is all that the forms see of them; of more groups than
``MOST_ENTRIES`` leave room for (many heads without a common key, or latent attention) those with the largest QK forms;
and of its MLPs at most ``MOST_UNITS`` units, those with the longest gate rows. Groups and units are chosen whatever
their numbers. A layer of a model of 70 billion parameters would take 3.4 GB in float32, and so takes a fifteenth of
that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from threading import Lock
from typing import Any, Literal

import numpy as np

from kinprint.alignment.forms import (
    FORM_UNITS,
    WIDE,
    Factors,
    Form,
    FormValue,
    drawn_axes,
    in_axes,
    mlp_forms,
)
from kinprint.architecture import Geometry, ModelView, PartKey
from kinprint.architecture.geometry import Heads
from kinprint.checkpoint import Array
from kinprint.errors import NonFiniteError
from kinprint.linalg.heads import grouped_output_sum, grouped_query_sum
from kinprint.linalg.threads import threads_for
from kinprint.shapes import Float, Float32, Float64, Int64

MOST_UNITS = 1024
"""Most units that a layer of a wide model holds, of all its MLPs together."""

MOST_ENTRIES = 1 << 23
"""Most entries of one of the four matrices of attention that a layer of a wide model holds."""

_LEAST_GROUPS = 2

HELD_BYTES = 1 << 29
"""Bytes of layers, and of forms, that a trunk keeps; what was kept first makes room for what comes."""

_LARGE = 256
"""Residual coordinates from which on a layer's arrays are large."""

_BLOCK_ROWS = 256

_MIXTURE_ROLES = (("moe", True), ("moe.shared", False))
"""Stems of the roles of a mixture's MLPs, and whether they are numbered by expert."""


@dataclass(frozen=True, slots=True)
class Attention:
    """One layer's attention, gains folded. ``o_HD`` holds the columns of the output matrix as rows.

    V and O are the rows of values and of what they are summed to: K and H, but where values have a head size of their
    own. ``numbers`` says which key/value groups these are where the layer holds some of ``count``.
    """

    q_HD: Float32[Array, "H D"]
    k_KD: Float32[Array, "K D"]
    v_KD: Float32[Array, "V D"]
    o_HD: Float32[Array, "O D"]
    heads: int
    kv_heads: int
    numbers: Int64[Array, " G"] | None = None
    count: int = 0

    def __post_init__(self) -> None:
        if not self.count:
            object.__setattr__(self, "count", self.kv_heads)

    def only(self, places: Int64[Array, " L"]) -> Attention:
        """Return some of the groups, by their places among those that are held."""

        def cut(rows_ND: Array) -> Array:
            return rows_ND.reshape(self.kv_heads, -1, rows_ND.shape[1])[places].reshape(-1, rows_ND.shape[1])

        numbers = places if self.numbers is None else self.numbers[places]
        q, k, v, o = (cut(one) for one in (self.q_HD, self.k_KD, self.v_KD, self.o_HD))
        heads = len(places) * self.heads // self.kv_heads
        return Attention(q, k, v, o, heads, len(places), numbers, self.count)

    def group_factors(self, form: Literal["qk", "vo"]) -> tuple[Float[Array, "G C D"], Float[Array, "G C D"]]:
        """Return (left, right) so that a key/value group's form is ``left[g].T @ right[g]``, summed over its heads."""
        right = self.k_KD if form == "qk" else self.v_KD
        size = right.shape[0] // self.kv_heads
        if self.heads == self.kv_heads and right.shape[1] > WIDE:
            # Nothing to sum, and float64 copies of a wide layer are large.
            blocks = (self.kv_heads, size, -1)
            return (self.q_HD if form == "qk" else self.o_HD).reshape(blocks), right.reshape(blocks)
        right = right.astype(np.float64)
        shape = {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": size}
        left = grouped_query_sum(self.q_HD, **shape) if form == "qk" else grouped_output_sum(self.o_HD.T, **shape).T
        blocks = (self.kv_heads, size, -1)
        return left.reshape(blocks), right.reshape(blocks)


def same_groups(first: Attention, second: Attention) -> tuple[Attention, Attention] | None:
    """Return the groups of two layers that have the same numbers, in one order.

    None where the layers have not as many groups, or hold none of the same number, as strangers may.
    """
    if first.count != second.count:
        return None
    if first.numbers is None and second.numbers is None:
        return first, second
    held = [np.arange(one.count) if one.numbers is None else one.numbers for one in (first, second)]
    _, here, there = np.intersect1d(*held, assume_unique=True, return_indices=True)
    return (first.only(here), second.only(there)) if here.size else None


@dataclass(frozen=True, slots=True)
class Units:
    """The units of one MLP or expert, gains folded. ``down_FD`` holds the columns of the output matrix as rows.

    ``gate_FD`` is None where the MLP has no gate. The channels of a state-space block that is a layer's only one count
    as units too (``state_space``): two rows of the input projection and a column of the output projection each. Their
    numbering is not free where heads of channels share a decay (Mamba 2), so no exact test permutes them.

    ``numbers`` says which units these are where the layer holds some of ``count``; ``stem`` is that of their roles.
    """

    gate_FD: Float32[Array, "F D"] | None
    up_FD: Float32[Array, "F D"]
    down_FD: Float32[Array, "F D"]
    expert: int | None = None
    state_space: bool = False
    stem: str = "mlp"
    numbers: Int64[Array, " F"] | None = None
    count: int = 0

    def __post_init__(self) -> None:
        if not self.count:
            object.__setattr__(self, "count", len(self.up_FD))

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
        wide: Whether layers hold a sample of units and forms are kept as factors.
        large: Whether work on a layer is worth a thread of its own.
    """

    def __init__(self, view: ModelView, *, held_bytes: int = HELD_BYTES) -> None:
        """Read nothing yet.

        Args:
            view: The model.
            held_bytes: Bytes of layers, and of forms, that are kept.
        """
        self.view = view
        self._held_bytes = held_bytes
        width = _stream_width(view)
        self.wide, self.large = width > WIDE, width >= _LARGE
        self.layers: list[int] = sorted(
            {key.layer for key in view.parts if key.layer is not None and key.role in _HELD}
        )
        self._lock = Lock()
        self._layers: dict[int, Layer] = {}
        self._largest = self._reading = 0
        self._chosen: dict[tuple[int, str, int | None], Array] = {}
        self._forms: dict[int, Mapping[Form, FormValue]] = {}

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

    @property
    def at_once(self) -> int:
        """How many layers may be at work at the same time: as many as are kept."""
        return max(1, self._held_bytes // max(1, self._largest))

    def held_first(self, numbers: Iterable[int]) -> list[int]:
        """Return numbers of layers in the order that reads fewest anew: what is kept, then the rest."""
        with self._lock:
            held = set(self._layers)
        return sorted(numbers, key=lambda number: number not in held)

    def layer(self, number: int) -> Layer:
        """Return one layer."""
        layer = self._layers.get(number)
        if layer is None:
            with self._lock:  # before it is read: what makes room for it need not stay until then
                self._reading += 1
                make_room(self._layers, self._largest, self._held_bytes - (self._reading - 1) * self._largest)
            try:
                layer = read_layer(self.view, number, wide=self.wide, chosen=self._chosen)
            finally:
                with self._lock:
                    self._reading -= 1
            with self._lock:
                self._largest = max(self._largest, layer_bytes(layer))
                make_room(self._layers, self._largest, self._held_bytes)
                self._layers[number] = layer
        return layer

    def forms(self, number: int) -> Mapping[Form, FormValue]:
        """Return the forms that a layer has; of a wide one made anew, for they are copies of what the layer holds."""
        if self.wide:
            return forms_of(self.layer(number))
        made = self._forms.get(number)
        if made is None:
            made = forms_of(self.layer(number))
            with self._lock:
                make_room(self._forms, sum(form.nbytes for form in made.values()), self._held_bytes)
                self._forms[number] = made
        return made

    @cached_property
    def repeats(self) -> bool:
        """Whether two layers are nearly the same, as in a model whose depth was scaled up."""
        axes = drawn_axes(self.width) if self.wide else np.eye(0)
        flat = [in_axes(self.forms(number)["vo"], axes) for number in self.layers if "vo" in self.forms(number)]
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

    def numbered(self, number: int, units: Units, chosen: Int64[Array, " L"]) -> Units:
        """Return units of one MLP of a layer by their numbers in it, whether the layer holds them or not.

        Raises:
            NonFiniteError: One of them holds NaN or Inf.
        """
        if units.numbers is None:
            gate = None if units.gate_FD is None else units.gate_FD[chosen]
            return replace(units, gate_FD=gate, up_FD=units.up_FD[chosen], down_FD=units.down_FD[chosen])
        return _chosen_units(self.view, units.stem, number, units.expert, chosen)


def make_room(kept: dict[Any, Any], size: int, most: int) -> None:
    """Drop what was kept first until one more of a size stays within so many bytes."""
    while kept and (len(kept) + 1) * size > most:
        del kept[next(iter(kept))]


def layer_bytes(layer: Layer) -> int:
    """Return the bytes of a layer's arrays."""
    attention = layer.attention
    held = [] if attention is None else [attention.q_HD, attention.k_KD, attention.v_KD, attention.o_HD]
    for units in layer.mlps:
        held += [units.up_FD, units.down_FD, *([] if units.gate_FD is None else [units.gate_FD])]
    return sum(array.nbytes for array in held)


_REPEATED = 0.5
"""Cosine of the value forms of two layers of a model from which on they count as copies; others are near 0."""

_HELD = frozenset({"attn.q", "attn.q_b", "mlp.up", "moe.up", "moe.shared.up", "ssm.in"})


def _stream_width(view: ModelView) -> int:
    """Return the width of what the first layer reads, from its shape; 0 where there is none."""
    for role in ("attn.k", "mlp.up", "moe.up", "moe.shared.up", "ssm.in"):
        for layer in view.layers(role)[:1]:
            experts = view.experts(role, layer)
            return view.shape(role, layer, experts[0] if experts else None)[-1]
    return 0


def read_layer(
    view: ModelView,
    number: int,
    *,
    wide: bool = False,
    chosen: dict[tuple[int, str, int | None], Array] | None = None,
) -> Layer:
    """Read one layer, gains folded. What holds NaN or Inf, or has no head geometry, is left out with its reason.

    Args:
        view: The model.
        number: The layer.
        wide: Hold sums over the query heads of a group, and a sample of units; see the module.
        chosen: Which units of a layer, MLP and expert (and which groups of its attention) were chosen before; those
            that are chosen now are added.
    """
    known = {} if chosen is None else chosen
    problems: list[str] = []
    attention: Attention | None = None
    mlps: list[Units] = []
    try:
        attention = _attention(view, number, wide=wide, known=known)
    except NonFiniteError as error:
        problems.append(str(error))
    places = _mlps(view, number)
    most = max(1, MOST_UNITS // len(places)) if wide and places else None
    for stem, expert in places:
        try:
            units = _units(view, stem, number, expert, most=most, known=known)
            mlps += [] if units is None else [units]
        except NonFiniteError as error:
            problems.append(str(error))
    return Layer(attention, tuple(mlps), tuple(problems))


def _attention(
    view: ModelView, number: int, *, wide: bool, known: dict[tuple[int, str, int | None], Array]
) -> Attention | None:
    size = view.heads_at(number)
    if size is None or size.heads % size.kv_heads or not all(view.has(role, number) for role in ("attn.v", "attn.o")):
        return None
    shapes = {role: view.shape(role, number) for role in ("attn.q", "attn.k", "attn.v", "attn.o")}
    values, written = shapes["attn.v"][0], shapes["attn.o"][1]
    if values % size.kv_heads or written * size.kv_heads != values * size.heads:
        return None
    if len({shapes["attn.o"][0], *(shapes[role][1] for role in ("attn.q", "attn.k", "attn.v"))}) > 1:
        return None  # reads or writes another stream
    of_group = max(shapes["attn.k"][0], values) // size.kv_heads * shapes["attn.k"][1]
    most = max(_LEAST_GROUPS, MOST_ENTRIES // max(1, of_group))
    if wide and size.kv_heads > most:
        return _largest_groups(view, number, size, most, known)
    k, v = (_single(view.array(role, number, fold=True)) for role in ("attn.k", "attn.v"))
    if wide and size.heads > size.kv_heads:
        q = _summed_queries(view, number, size.heads, size.kv_heads)
        o = _summed_output(view, number, size.kv_heads, values)
        return Attention(q, k, v, o, size.kv_heads, size.kv_heads)
    q = _single(view.array("attn.q", number, fold=True))
    return Attention(q, k, v, _written(view, "attn.o", number), size.heads, size.kv_heads)


def _largest_groups(
    view: ModelView, number: int, size: Heads, most: int, known: dict[tuple[int, str, int | None], Array]
) -> Attention:
    """Return the key/value groups with the largest QK forms, query heads summed."""
    key = number, "attn", None
    if key not in known:
        known[key] = np.sort(np.argsort(-_group_sizes(view, number, size), kind="stable")[:most])
    chosen = known[key]

    def rows(role: str, heads: int = 1) -> Array:
        return _groups(view, role, number, size.kv_heads, chosen, heads)

    each = size.heads // size.kv_heads
    written = view.shape("attn.o", number)[1] // size.kv_heads
    columns = (chosen[:, None] * written + np.arange(written)).ravel()
    out = _as_written(view, _single(view.chosen("attn.o", number, columns=columns)).T)
    out = out.reshape(len(chosen), each, -1, out.shape[1]).sum(axis=1).reshape(-1, out.shape[1])
    held = len(chosen)
    return Attention(rows("attn.q", each), rows("attn.k"), rows("attn.v"), out, held, held, chosen, size.kv_heads)


def _group_sizes(view: ModelView, number: int, size: Heads) -> Float64[Array, " G"]:
    """Return the Frobenius norm of each group's QK form, which no gauge changes, one group at a time."""
    queries = _grams(view, "attn.q", number, size.kv_heads, size.heads // size.kv_heads)
    keys = _grams(view, "attn.k", number, size.kv_heads, 1)
    return np.array(
        [float(np.sqrt(max(0.0, float((q_CC * k_CC).sum())))) for q_CC, k_CC in zip(queries, keys, strict=True)]
    )


def _grams(view: ModelView, role: str, number: int, groups: int, heads: int) -> Iterator[Float64[Array, "C C"]]:
    """Yield the inner products of each group's rows, its heads summed; of a product without multiplying it out."""
    product = view.products.get(PartKey(role, number))
    if product is None:
        for at in range(groups):
            rows_CD = _group_rows(view, role, number, groups, at, heads)
            yield (rows_CD @ rows_CD.T).astype(np.float64)
        return
    gain_R = _single(view.gain(product.norm, number))
    right_RD = _single(view.array(product.right, number, fold=True)) * gain_R[:, None]
    inner_RR = right_RD @ right_RD.T
    del right_RD
    each = view.shape(role, number)[0] // groups
    for first in range(0, each * groups, each):
        block_NR = _single(view.rows(product.left, number, rows=slice(first, first + each)))
        left_CR = block_NR.reshape(heads, -1, block_NR.shape[1]).sum(axis=0)
        yield (left_CR @ inner_RR @ left_CR.T).astype(np.float64)


def _groups(
    view: ModelView, role: str, number: int, groups: int, chosen: Int64[Array, " L"], heads: int
) -> Float32[Array, "N D"]:
    """Return the rows of some key/value groups, each summed over its heads."""
    if PartKey(role, number) not in view.products:
        return np.concatenate([_group_rows(view, role, number, groups, at, heads) for at in chosen.tolist()])
    # All at once: each call would fold the right factor anew.
    each = view.shape(role, number)[0] // groups
    rows = (chosen[:, None] * each + np.arange(each)).ravel()
    rows_ND = _single(view.chosen(role, number, rows=rows, fold=True))
    return rows_ND.reshape(len(chosen), heads, -1, rows_ND.shape[1]).sum(axis=1).reshape(-1, rows_ND.shape[1])


def _group_rows(view: ModelView, role: str, number: int, groups: int, at: int, heads: int) -> Float32[Array, "C D"]:
    """Return the rows of one key/value group, summed over its heads."""
    each = view.shape(role, number)[0] // groups
    rows_ND = _single(view.rows(role, number, rows=slice(at * each, (at + 1) * each), fold=True))
    return rows_ND.reshape(heads, -1, rows_ND.shape[1]).sum(axis=0)


def _summed_queries(view: ModelView, number: int, heads: int, kv_heads: int) -> Array:
    """Return the sum of the query heads of each key/value group, [K, D], without all heads in memory."""
    each = heads // kv_heads
    return np.concatenate([_group_rows(view, "attn.q", number, kv_heads, at, each) for at in range(kv_heads)])


def _summed_output(view: ModelView, number: int, kv_heads: int, values: int) -> Array:
    """Return the sum of each group's columns of the output matrix, as rows [K, D], block by block."""
    blocks: list[Array] = []
    for _, block in view.row_blocks("attn.o", number):
        by_group = block.reshape(len(block), kv_heads, -1, values // kv_heads)
        blocks.append(_single(by_group.sum(axis=2).reshape(len(block), values)))
    return _as_written(view, np.concatenate(blocks).T)


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


def _units(
    view: ModelView,
    stem: str,
    number: int,
    expert: int | None,
    *,
    most: int | None,
    known: dict[tuple[int, str, int | None], Array],
) -> Units | None:
    if stem == "ssm":
        return _channels(view, number)
    if not view.has(f"{stem}.down", number, expert):
        return None
    shape = view.shape(f"{stem}.up", number, expert)
    gated = view.has(f"{stem}.gate", number, expert)
    if view.shape(f"{stem}.down", number, expert) != shape[::-1] or (
        gated and view.shape(f"{stem}.gate", number, expert) != shape
    ):
        return None
    if most is not None and shape[0] > most:
        key = number, stem, expert
        if key not in known:
            norms = _row_norms(view, f"{stem}.gate" if gated else f"{stem}.up", number, expert)
            known[key] = np.sort(np.argsort(-norms, kind="stable")[:most])
        return _chosen_units(view, stem, number, expert, known[key])
    gate = _single(view.array(f"{stem}.gate", number, expert, fold=True)) if gated else None
    up = _single(view.array(f"{stem}.up", number, expert, fold=True))
    return Units(gate, up, _written(view, f"{stem}.down", number, expert), expert, stem=stem)


def _chosen_units(view: ModelView, stem: str, number: int, expert: int | None, chosen: Array) -> Units:
    gate = None
    if view.has(f"{stem}.gate", number, expert):
        gate = _single(view.chosen(f"{stem}.gate", number, expert, rows=chosen, fold=True))
    return Units(
        gate,
        _single(view.chosen(f"{stem}.up", number, expert, rows=chosen, fold=True)),
        _as_written(view, _single(view.chosen(f"{stem}.down", number, expert, columns=chosen)).T),
        expert,
        stem=stem,
        numbers=chosen,
        count=view.shape(f"{stem}.up", number, expert)[0],
    )


def _row_norms(view: ModelView, role: str, number: int, expert: int | None) -> Float64[Array, " F"]:
    """Return the lengths of the rows of a matrix, gains folded, block by block."""
    count = view.shape(role, number, expert)[0]
    squares: list[Array] = []
    for first in range(0, count, _BLOCK_ROWS):
        rows = slice(first, min(first + _BLOCK_ROWS, count))
        block = view.rows(role, number, expert, rows=rows, fold=True)
        squares.append(np.einsum("fd,fd->f", block, block, dtype=np.float64))
    return np.sqrt(np.concatenate(squares))


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
    """Return what each row of a layer writes to the stream, [rows, D]."""
    return _as_written(view, _single(view.array(role, number, expert)).T)


def _as_written(view: ModelView, rows_ND: Array) -> Array:
    """Return rows as the stream keeps them.

    Where norms subtract the mean over coordinates, the mean of what is written is never seen again: it is left out.
    """
    return rows_ND - rows_ND.mean(axis=1, keepdims=True) if view.family.norm == "layer" else rows_ND


def _single(values: Array) -> Array:
    return np.asarray(values, dtype=np.float32)


def forms_of(layer: Layer) -> dict[Form, FormValue]:
    """Return a layer's forms, float32 [D, D] or as factors.

    float32: they are stored for every layer, and none is ever a small difference.
    """
    forms: dict[Form, FormValue] = {}
    if layer.attention is not None:
        factored = layer.attention.k_KD.shape[1] > WIDE
        for form in ("qk", "vo"):
            if factored and layer.attention.heads == layer.attention.kv_heads:
                # Nothing to sum: the factors are the layer's own arrays, and take no memory.
                one = layer.attention
                forms[form] = Factors(one.q_HD, one.k_KD) if form == "qk" else Factors(one.o_HD, one.v_KD)
                continue
            left, right = layer.attention.group_factors(form)
            rows = left.shape[0] * left.shape[1]
            with threads_for(left.shape[2]):
                left, right = left.reshape(rows, -1), right.reshape(rows, -1)
                if factored:
                    forms[form] = Factors(left.astype(np.float32), right.astype(np.float32))
                else:
                    forms[form] = (left.T @ right).astype(np.float32)
    if layer.mlps:
        factored = layer.mlps[0].up_FD.shape[1] > WIDE
        chosen = [largest(units, FORM_UNITS) if factored else slice(None) for units in layer.mlps]
        forms |= mlp_forms(
            [(u.key_FD[some], u.up_FD[some], u.down_FD[some]) for u, some in zip(layer.mlps, chosen, strict=True)],
            factored=factored,
        )
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
