"""A model seen by role: every tensor in one orientation, norms folded on request, nothing loaded unasked."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from kinprint.architecture import layout
from kinprint.architecture.family import INFERRED, PRODUCTS, Family, Part, Product, Rule
from kinprint.architecture.geometry import Geometry, Heads, heads_of_layer
from kinprint.checkpoint import Array, Checkpoint
from kinprint.errors import NonFiniteError
from kinprint.types import ComponentInfo, GeometryInfo, ModelInfo

BLOCK_BYTES = 1 << 25
"""Bytes of float32 that a block of rows may take."""


@dataclass(frozen=True, slots=True)
class PartKey:
    """Where a part stands. ``layer`` and ``expert`` are None for parts outside any layer or expert."""

    role: str
    layer: int | None = None
    expert: int | None = None

    def __str__(self) -> str:
        """Return ``role``, ``role@layer`` or ``role@layer#expert``."""
        text = self.role if self.layer is None else f"{self.role}@{self.layer}"
        return text if self.expert is None else f"{text}#{self.expert}"


@dataclass(frozen=True, slots=True)
class Place:
    """How one part is found: the stored tensor, its rule, and which of the rule's parts it is."""

    tensor: str
    rule: Rule
    index: int

    @property
    def part(self) -> Part:
        """The part's entry in the table."""
        return self.rule.parts[self.index]


@dataclass(frozen=True)
class ModelView:
    """One checkpoint read through one family table.

    Attributes:
        checkpoint: The tensors.
        family: The table that fits, or ``UNKNOWN``.
        prefix: What the table's ``{p}`` stands for here.
        geometry: Sizes.
        parts: Where each part is.
        ignored: Tensors that the table knows to be no parameters, with the reason.
        notes: What a reader must know about how the table was chosen and what could not be mapped.
        components: Parts that are judged on their own, each through a table of its own: ``vision``, ``audio``,
            ``projector``, ``encoder``, ``mtp``. Their tensors are among the checkpoint's, none of them in ``parts``.
    """

    checkpoint: Checkpoint
    family: Family
    prefix: str
    geometry: Geometry
    parts: Mapping[PartKey, Place]
    ignored: Mapping[str, str] = field(default_factory=dict[str, str])
    notes: tuple[str, ...] = ()
    components: Mapping[str, ModelView] = field(default_factory=dict[str, "ModelView"])

    # -- what is there ---------------------------------------------------------------------------------------------

    @cached_property
    def products(self) -> Mapping[PartKey, Product]:
        """Projections that the model holds as two factors, by the place of the projection."""
        return {
            PartKey(product.role, key.layer): product
            for product in PRODUCTS
            for key in self.parts
            if key.role == product.left
            and PartKey(product.role, key.layer) not in self.parts
            and all(PartKey(role, key.layer) in self.parts for role in (product.norm, product.right))
        }

    @property
    def inferred(self) -> bool:
        """Whether roles come from shapes and order alone: enough to show what is there, never that nothing is."""
        return self.family.name == INFERRED

    @cached_property
    def roles(self) -> frozenset[str]:
        """Every role that occurs."""
        return frozenset(key.role for key in (*self.parts, *self.products))

    @cached_property
    def _numbers(self) -> Mapping[str, Mapping[int, tuple[int, ...]]]:
        """Experts by role and layer, sorted, so that asking for them does not scan every part."""
        found: dict[str, dict[int, list[int]]] = {}
        for key in (*self.parts, *self.products):
            if key.layer is not None:
                experts = found.setdefault(key.role, {}).setdefault(key.layer, [])
                if key.expert is not None:
                    experts.append(key.expert)
        return {
            role: {layer: tuple(sorted(layers[layer])) for layer in sorted(layers)} for role, layers in found.items()
        }

    def layers(self, role: str) -> list[int]:
        """Return the layers that have a role, in order."""
        return list(self._numbers.get(role, {}))

    def experts(self, role: str, layer: int) -> list[int]:
        """Return the experts that have a role in a layer, in order."""
        return list(self._numbers.get(role, {}).get(layer, ()))

    def has(self, role: str, layer: int | None = None, expert: int | None = None) -> bool:
        """Return whether a part exists."""
        key = PartKey(role, layer, expert)
        return key in self.parts or key in self.products

    @property
    def tied(self) -> bool:
        """Whether the output matrix is the token embedding (no tensor of its own)."""
        return "embed.token" in self.roles and "unembed" not in self.roles

    @cached_property
    def unmapped(self) -> tuple[str, ...]:
        """Every tensor without a role and without a reason to be ignored, in file order.

        Vectors and scalars of whole numbers (counters, ids) are left out: they hold no parameters. Matrices of whole
        numbers are listed, for they may be packed weights.
        """
        mapped = {place.tensor for place in self.parts.values()}
        for component in self.components.values():
            mapped |= set(component.checkpoint.tensors)
        return tuple(
            name
            for name, info in self.checkpoint.tensors.items()
            if name not in mapped and name not in self.ignored and (info.floating or len(info.shape) > 1)
        )

    @cached_property
    def parameters(self) -> int:
        """Elements of all floating tensors that are not ignored."""
        return sum(
            math.prod(info.shape)
            for name, info in self.checkpoint.tensors.items()
            if info.floating and name not in self.ignored
        )

    @cached_property
    def coverage(self) -> float:
        """Share of the model that has a role, 0 to 1: mapped elements over mapped and unmapped ones."""
        missing = [self.checkpoint.tensors[name] for name in self.unmapped]
        packed = sum(math.prod(info.shape) for info in missing if not info.floating)
        total = self.parameters + packed
        return 1.0 - sum(math.prod(info.shape) for info in missing) / total if total else 0.0

    def tensor_name(self, role: str, layer: int | None = None, expert: int | None = None) -> str:
        """Return the name of the stored tensor that holds a part."""
        product = self.products.get(PartKey(role, layer, expert))
        return self.parts[PartKey(role if product is None else product.left, layer, expert)].tensor

    def shape(self, role: str, layer: int | None = None, expert: int | None = None) -> tuple[int, ...]:
        """Return a part's canonical shape without reading it."""
        product = self.products.get(PartKey(role, layer, expert))
        if product is not None:
            return self.shape(product.left, layer)[0], self.shape(product.right, layer)[1]
        place = self.parts[PartKey(role, layer, expert)]
        return layout.part_shape(self.checkpoint.tensors[place.tensor].shape, place.rule, place.index, self.geometry)

    def heads_at(self, layer: int) -> Heads | None:
        """Return the heads of one layer, which may not be those of the others; None where they are unknown."""
        if not (self.has("attn.q", layer) and self.has("attn.k", layer)):
            return None
        query, key = self.shape("attn.q", layer)[0], self.shape("attn.k", layer)[0]
        norm = self.shape("norm.q", layer)[0] if self.has("norm.q", layer) else None
        return heads_of_layer(self.geometry, self.family, self.checkpoint.config, query=query, key=key, norm=norm)

    def only(self, layers: Collection[int], experts: Mapping[int, Collection[int]] | None = None) -> ModelView:
        """Return the same model with the parts of some layers alone, and with all that stands in no layer.

        Args:
            layers: Layers to keep.
            experts: By layer, the routed experts to keep; all in a layer that is not named.
        """
        kept = {
            key: place
            for key, place in self.parts.items()
            if key.layer is None
            or (
                key.layer in layers
                and (key.expert is None or experts is None or key.expert in experts.get(key.layer, (key.expert,)))
            )
        }
        return replace(self, parts=kept)

    # -- values ----------------------------------------------------------------------------------------------------

    def stored(self, role: str, layer: int | None = None, expert: int | None = None) -> Array:
        """Return a part in its stored dtype, [out, in] or [out]; memory-mapped where the layout allows.

        A product of two factors is stored nowhere: it comes as float32.
        """
        product = self.products.get(PartKey(role, layer, expert))
        if product is not None:
            return self._multiplied(product, layer, fold=False)
        place = self.parts[PartKey(role, layer, expert)]
        if place.rule.stacked and expert is not None:
            # Only this expert's bytes: where blocks must be decoded, reading all for each would cost experts squared.
            one = self.checkpoint.read(place.tensor, slice(expert, expert + 1))
            return layout.take(one, place.rule, place.index, 0, self.geometry)
        return layout.take(self.checkpoint.read(place.tensor), place.rule, place.index, expert, self.geometry)

    def array(self, role: str, layer: int | None = None, expert: int | None = None, *, fold: bool = False) -> Array:
        """Return a part as float32 (float64 stays), [out, in] or [out].

        Args:
            role: Canonical role.
            layer: Layer, for parts that stand in one.
            expert: Expert, for parts that belong to one.
            fold: Multiply the gain of the norm that feeds this part into its columns (and centre them where that
                norm is a LayerNorm), and the gain of a q or k norm into its rows. Norm gains can be exchanged with the
                next matrix without changing the model, so only the folded matrix means anything by itself.

        Raises:
            NonFiniteError: The tensor (or a gain folded into it) holds NaN or Inf.
        """
        product = self.products.get(PartKey(role, layer, expert))
        if product is not None:
            return self._multiplied(product, layer, fold=fold)
        values = _widen(self.stored(role, layer, expert))
        if not _finite(values):
            raise NonFiniteError(self.tensor_name(role, layer, expert))
        return self._folded(values, role, layer, expert) if fold else values

    def folds(self, role: str, layer: int | None = None, expert: int | None = None) -> bool:
        """Return whether gains that :meth:`array` folds in can change a part at all."""
        key = PartKey(role, layer, expert)
        if key in self.products:
            return True
        norms = (self.parts[key].part.reads, self.parts[key].part.normed)
        return any(norm and (self.has(norm) or self.has(norm, layer)) for norm in norms)

    def rows(
        self, role: str, layer: int | None = None, expert: int | None = None, *, rows: slice, fold: bool = False
    ) -> Array:
        """Return neighbouring rows of a part, [rows, in]; see :meth:`array`.

        Only their bytes are read, where the stored layout keeps the rows of a part together.

        Raises:
            NonFiniteError: A row (or a gain folded into it) holds NaN or Inf.
        """
        key = PartKey(role, layer, expert)
        product = self.products.get(key)
        if product is not None:
            left = self.rows(product.left, layer, rows=rows)
            right = self.array(product.right, layer, fold=fold)
            return (left * self.gain(product.norm, layer).astype(left.dtype)) @ right
        normed = self.parts[key].part.normed
        first, last, _ = rows.indices(self.shape(role, layer, expert)[0])
        if fold and normed and self.has(normed, layer):
            size = self.shape(normed, layer)[0]
            if first % size or last % size:  # the norm of a row's block is that of rows outside the range too
                return self.array(role, layer, expert, fold=True)[rows]
        values = _widen(self.stored_rows(role, layer, expert, rows=slice(first, last)))
        if not _finite(values):
            raise NonFiniteError(self.tensor_name(role, layer, expert))
        return self._folded(values, role, layer, expert) if fold else values

    def chosen(
        self,
        role: str,
        layer: int | None = None,
        expert: int | None = None,
        *,
        rows: slice | Array | None = None,
        columns: Array | None = None,
        fold: bool = False,
    ) -> Array:
        """Return some rows or some columns of a part as float32, without a whole copy of it where it is stored plainly.

        Columns are not folded: what writes to the stream has no norm before it that is the stream's.

        Raises:
            NonFiniteError: What was chosen (or a gain folded into it) holds NaN or Inf.
        """
        product = self.products.get(PartKey(role, layer, expert))
        if product is not None and columns is None:
            left = self.chosen(product.left, layer, rows=rows)
            right = self.array(product.right, layer, fold=fold)
            return (left * self.gain(product.norm, layer).astype(left.dtype)) @ right
        stored = self.stored(role, layer, expert)
        values = _widen(stored[:, columns] if columns is not None else stored if rows is None else stored[rows])
        if not _finite(values):
            raise NonFiniteError(self.tensor_name(role, layer, expert))
        return self._folded(values, role, layer, expert) if fold else values

    def stored_rows(self, role: str, layer: int | None, expert: int | None, *, rows: slice) -> Array:
        """Return neighbouring rows of a part in the stored dtype; see :meth:`rows`."""
        key = PartKey(role, layer, expert)
        if key in self.products:
            return self.rows(role, layer, expert, rows=rows)
        there, place = self._rows_there(key, rows), self.parts[key]
        if there is None:
            return self.stored(role, layer, expert)[rows]
        if place.rule.stacked:
            return self.checkpoint.read_item(place.tensor, expert or 0, there)
        return self.checkpoint.read(place.tensor, there)

    def rows_stored(self, key: PartKey, rows: slice) -> slice | None:
        """Return which rows of the stored tensor neighbouring rows of a part are; None where they lie apart."""
        return None if self.parts[key].rule.stacked else self._rows_there(key, rows)

    def _rows_there(self, key: PartKey, rows: slice) -> slice | None:
        """Return the same; of stacked experts among the rows of one."""
        place = self.parts[key]
        stored = self.checkpoint.tensors[place.tensor].shape
        first = layout.first_row(stored, place.rule, place.index, key.expert, self.geometry)
        return None if first is None else slice(first + rows.start, first + rows.stop)

    def _multiplied(self, product: Product, layer: int | None, *, fold: bool) -> Array:
        """Return a projection from its factors, the gain between them always included; see :class:`Product`."""
        left = self.array(product.left, layer)
        right = self.array(product.right, layer, fold=fold)
        return (left * self.gain(product.norm, layer).astype(left.dtype)) @ right

    def gain(self, role: str, layer: int | None = None) -> Array:
        """Return the effective gain of a norm, float64 [out]: the stored vector, plus one where it is zero-centred."""
        stored = self.array(role, layer).astype(np.float64)
        return stored + 1.0 if self.family.gain == "zero-centred" else stored

    def row_blocks(
        self, role: str, layer: int | None = None, expert: int | None = None, *, block_bytes: int = BLOCK_BYTES
    ) -> Iterator[tuple[int, Array]]:
        """Yield (first row, block as float32 or float64) over a part, each block at most ``block_bytes`` of float32.

        Raises:
            NonFiniteError: A block holds NaN or Inf.
        """
        shape = self.shape(role, layer, expert)
        key = PartKey(role, layer, expert)
        product = self.products.get(key)
        place = self.parts[key if product is None else PartKey(product.left, layer)]
        step = max(1, block_bytes // (4 * max(1, math.prod(shape[1:]))))
        plain = layout.is_plain(place.rule) and product is None
        whole = None if plain else self.stored(role, layer, expert)  # one expert, or one fused tensor
        for first in range(0, shape[0], step):
            rows = slice(first, min(first + step, shape[0]))
            block = self.checkpoint.read(place.tensor, rows) if whole is None else whole[rows]
            values = _widen(block)
            if not _finite(values):
                raise NonFiniteError(place.tensor)
            yield first, values

    def _folded(self, values: Array, role: str, layer: int | None, expert: int | None) -> Array:
        part = self.parts[PartKey(role, layer, expert)].part
        norm_layer = None if self.has(part.reads) else layer
        if part.reads and self.has(part.reads, norm_layer):
            values = values * self.gain(part.reads, norm_layer).astype(values.dtype)
            if self.family.norm == "layer":
                values -= values.mean(axis=1, keepdims=True)
        # After the input side: the size of what the q or k norm divides by includes the gain that feeds it.
        if part.normed and self.has(part.normed, layer):
            values = _normalise_rows(values, self.gain(part.normed, layer))
        return values

    # -- for people ------------------------------------------------------------------------------------------------

    def info(self, *, content_digest: str | None = None) -> ModelInfo:
        """Return the record that identifies this model in results."""
        sizes = {name: getattr(self.geometry, name) for name in GeometryInfo.model_fields}
        return ModelInfo(
            name=self.checkpoint.name,
            location=self.checkpoint.location,
            format=self.checkpoint.format,
            family=self.family.name,
            geometry=GeometryInfo(**sizes),
            inferred=self.geometry.inferred,
            parameters=self.parameters,
            coverage=self.coverage,
            unmapped=self.unmapped,
            header_digest=self.checkpoint.header_digest,
            content_digest=content_digest,
            notes=(*self.checkpoint.notes, *self.notes),
            components=tuple(
                ComponentInfo(
                    name=name,
                    family=part.family.name,
                    tensors=len(part.checkpoint.tensors),
                    parameters=part.parameters,
                    coverage=part.coverage,
                )
                for name, part in self.components.items()
            ),
        )


def _widen(values: Array) -> Array:
    return np.asarray(values, dtype=np.float64 if values.dtype == np.float64 else np.float32)


def _finite(values: Array) -> bool:
    # One pass without a boolean copy: a sum is finite only if (overflow aside) every term is; confirm when it is not.
    with np.errstate(over="ignore", invalid="ignore"):
        total = float(values.sum(dtype=np.float64))
    return bool(np.isfinite(total)) or bool(np.isfinite(values).all())


def _normalise_rows(values: Array, gain: Array) -> Array:
    """Fold a q or k norm: each normed block of rows to unit Frobenius norm (its scale is free), then times the gain.

    The block is one head where the gain has head_dim entries, and all rows where it has one entry per row.
    """
    blocks = values.reshape(-1, gain.size, values.shape[-1])
    # float64: a sum of a million squares. einsum casts in small buffers, without a float64 copy of the matrix.
    norms = np.sqrt(np.einsum("bij,bij->b", blocks, blocks, dtype=np.float64))
    scales = gain[None, :] / np.where(norms > 0, norms, 1.0)[:, None]
    return values * scales.reshape(-1, 1).astype(values.dtype)
