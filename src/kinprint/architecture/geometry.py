"""Sizes of a model: from the config where there is one, from shapes otherwise, and never in contradiction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from kinprint.architecture.family import Family, Size
from kinprint.errors import CheckpointError

_NARROW_MODEL = 2048
"""Up to this width a guessed head has 64 coordinates, beyond it 128: the commonest choices of published models."""

_FRACTIONS = frozenset({"rotary_share"})
"""Sizes that are no whole numbers."""

Number = int | float


@dataclass(frozen=True, slots=True)
class Geometry:
    """Sizes of one model; ``None`` where a size is unknown, differs between layers, or does not exist.

    Attributes:
        layers: Number of layers that hold tensors.
        hidden: Width of the residual stream.
        heads: Query heads.
        kv_heads: Key/value heads (equal to ``heads`` without grouped queries).
        head_dim: Coordinates of one head.
        ffn: Units of a dense MLP, or of one expert where all MLPs are mixtures.
        experts: Routed experts in a layer.
        vocab: Rows of the token embedding.
        rotary_share: Leading share of each head's coordinates that rotary positions turn, 0 to 1.
        rope_dim: Coordinates of a head that carry positions, where they stand apart from the others (multi-head latent
            attention); ``head_dim`` counts the others then.
        value_dim: Coordinates of one head's values, where they are not as many as those of its keys.
        inferred: What was inferred from shapes, in sentences.
    """

    layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    head_dim: int | None = None
    ffn: int | None = None
    experts: int | None = None
    vocab: int | None = None
    rotary_share: float = 1.0
    rope_dim: int | None = None
    value_dim: int | None = None
    inferred: tuple[str, ...] = ()

    @property
    def nope_dim(self) -> int | None:
        """Coordinates of a head's queries and keys that carry no positions, where those that do stand apart."""
        return self.head_dim if self.rope_dim else None

    @property
    def group(self) -> int | None:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads if self.heads and self.kv_heads else None


@dataclass(frozen=True, slots=True)
class Heads:
    """Heads of one layer."""

    heads: int
    kv_heads: int
    head_dim: int

    def fits(self, query: int, key: int) -> bool:
        """Return whether projections of these rows have such heads."""
        return query == self.heads * self.head_dim and key == self.kv_heads * self.head_dim


def heads_of_layer(
    geometry: Geometry, family: Family, config: Mapping[str, Any], *, query: int, key: int, norm: int | None
) -> Heads | None:
    """Return the heads of one layer whose layers differ, from its own rows.

    Args:
        geometry: Sizes of the model.
        family: The table, which says where the config speaks of other kinds of layers.
        config: The parsed config.
        query: Rows of the query projection.
        key: Rows of the key projection.
        norm: Length of the layer's q norm, which is the head size where it is shorter than the rows.
    """
    known: list[Heads] = []
    if geometry.heads and geometry.kv_heads and geometry.head_dim:
        known.append(Heads(geometry.heads, geometry.kv_heads, geometry.head_dim))
    else:
        said = [lookup(config, family, size) for size in ("heads", "kv_heads", "head_dim")]
        heads, head_dim = _whole(said[0]), _whole(said[2])
        if heads and head_dim:
            known.append(Heads(heads, _whole(said[1]) or heads, head_dim))
    known += _alternates(family, config)
    fitting = next((one for one in known if one.fits(query, key)), None)
    if fitting is None and norm and norm < query and query % norm == 0 and key % norm == 0:
        fitting = Heads(query // norm, key // norm, norm)
    return fitting


def _alternates(family: Family, config: Mapping[str, Any]) -> Iterator[Heads]:
    for keys in family.alternates:
        said = {
            size: _whole(_looked_up(config, keys.get(size, ()), size)) or _whole(lookup(config, family, size))
            for size in ("heads", "kv_heads", "head_dim")
        }
        if said["heads"] and said["kv_heads"] and said["head_dim"]:
            yield Heads(said["heads"], said["kv_heads"], said["head_dim"])


def config_tables(config: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return where a config may speak of the language model: ``text_config`` where there is one, then the top level."""
    nested = config.get("text_config")
    return [cast("Mapping[str, Any]", nested), config] if isinstance(nested, Mapping) else [config]


def lookup(config: Mapping[str, Any], family: Family, size: Size) -> Number | None:
    """Return a size from a config, or None where it says nothing, or gives one value per layer.

    Raises:
        CheckpointError: The entry is there and is not a positive number.
    """
    return _looked_up(config, family.geometry.get(size, ()), size)


def _looked_up(config: Mapping[str, Any], keys: Sequence[str], size: str) -> Number | None:
    arch = str(config.get("general.architecture", ""))
    for table in config_tables(config):
        for key in keys:
            entry = _entry(table, key.replace("{arch}", arch))
            none = entry == 0 and size in ("experts", "expert_groups")
            silent = entry is None or type(entry) in (list, tuple) or none
            if not silent:
                return _positive(key.replace("{arch}", arch), entry, whole=size not in _FRACTIONS)
    return None


def _entry(table: Mapping[str, Any], key: str) -> object:
    """Return a value by its key, or by a dotted path into nested tables; None where there is none."""
    if key in table or "." not in key:
        return table.get(key)
    value: object = table
    for word in key.split("."):
        if not isinstance(value, Mapping):
            return None
        value = cast("Mapping[str, object]", value).get(word)
    return value


def _positive(key: str, value: object, *, whole: bool) -> Number:
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is None or not 0 < number < 2**31 or (whole and number != int(number)):
        raise CheckpointError(f"config says {key} = {str(value)[:40]!r}: not a positive number; correct the config")
    return int(number) if whole else float(number)


def solve(
    family: Family, config: Mapping[str, Any], found: Mapping[str, frozenset[int]], *, layers: int, experts: int
) -> Geometry:
    """Reconcile a config with the axis lengths that the tensors show.

    Args:
        family: The table whose ``geometry`` says where the config keeps each size.
        config: Parsed config, possibly empty.
        found: Lengths of each kind of axis as the tensors have it (``residual``, ``query``, ``ffn``, ...), over all
            layers; ``qkv`` for the rows of a fused projection. Kinds that no tensor shows are absent.
        layers: Layers found.
        experts: Experts in each mixture; 0 for none.

    Raises:
        CheckpointError: The config contradicts the shapes.
    """
    said = {size: lookup(config, family, size) for size in family.geometry}
    for size, kind in (
        ("hidden", "residual"),
        ("vocab", "vocab"),
        ("head_dim", "head"),
        ("ffn", "ffn"),
        ("expert_ffn", "expert-ffn"),
        ("experts", "expert"),
    ):
        _agree(said.get(size), size, found.get(kind, frozenset()))
    claimed = said.get("layers")
    if claimed is not None and claimed > layers:
        raise CheckpointError(
            f"config says {claimed} layers, the checkpoint holds {layers}: a shard is missing or the config belongs to "
            "another model"
        )
    inferred: list[str] = []
    if claimed is not None and claimed < layers:
        inferred.append(
            f"layers = {layers} from the tensors, the config says {claimed}: the last {layers - claimed} "
            "may be there to predict further tokens"
        )
    others = tuple(_alternates(family, config))
    heads, kv_heads, head_dim = _latent(said, found) or _heads(family, said, found, inferred, others)
    latent = "kv-rank" in found
    return Geometry(
        layers=layers or None,
        hidden=_single(found, "residual"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        ffn=_single(found, "ffn" if "ffn" in found else "expert-ffn"),
        experts=experts or None,
        vocab=_single(found, "vocab"),
        rotary_share=0.0 if latent else _rotary_share(said, head_dim),
        rope_dim=_whole(said.get("rope_dim")) if latent and heads else None,
        value_dim=_value_dim(said, found, heads, head_dim),
        inferred=tuple(inferred),
    )


def _single(found: Mapping[str, frozenset[int]], kind: str) -> int | None:
    """Return the length of an axis kind where all layers have the same."""
    lengths = found.get(kind, frozenset())
    return next(iter(lengths)) if len(lengths) == 1 else None


def _agree(claim: Number | None, size: str, lengths: frozenset[int]) -> None:
    wrong = sorted(length for length in lengths if claim is not None and length != claim)
    if wrong:
        raise CheckpointError(
            f"config says {size} = {claim}, the tensors have {wrong[0]}: the config belongs to another model"
        )


def _latent(
    said: Mapping[str, Number | None], found: Mapping[str, frozenset[int]]
) -> tuple[int | None, int | None, int | None] | None:
    """Return the heads of multi-head latent attention, whose projections are fused by head; None for any other kind.

    Raises:
        CheckpointError: The config contradicts the shapes.
    """
    if "kv-rank" not in found:
        return None
    heads, nope, value = (_whole(said.get(size)) for size in ("heads", "nope_dim", "value_dim"))
    whole, rope = _whole(said.get("head_dim")), _whole(said.get("rope_dim"))
    if nope is None and whole and rope and whole > rope:
        nope = whole - rope  # GGUF gives both kinds of coordinates together
    if heads is None or nope is None or not said.get("rope_dim"):
        return None, None, None
    context = _single(found, "context")
    if context is not None and context != heads * (value or nope):
        raise CheckpointError(
            f"{heads} heads of {value or nope} values do not fit an output projection of {context} columns: the config "
            "belongs to another model"
        )
    return heads, heads, nope


def _value_dim(
    said: Mapping[str, Number | None], found: Mapping[str, frozenset[int]], heads: int | None, head_dim: int | None
) -> int | None:
    """Return the coordinates of a head's values where they differ from its keys'."""
    value = _whole(said.get("value_dim"))
    context = _single(found, "context")
    if value is None and context and heads and context % heads == 0:
        value = context // heads
    return None if value == head_dim else value


def _heads(
    family: Family,
    said: Mapping[str, Number | None],
    found: Mapping[str, frozenset[int]],
    inferred: list[str],
    others: tuple[Heads, ...],
) -> tuple[int | None, int | None, int | None]:
    """Return (query heads, key/value heads, head size), and add to ``inferred`` what the config did not give."""
    rows = _projection_rows(found, inferred)
    if rows is None:
        return None, None, None
    query, key = rows
    for one in others:
        if one.fits(query, key):
            return one.heads, one.kv_heads, one.head_dim
    heads, kv_heads = _whole(said.get("heads")), _whole(said.get("kv_heads"))
    shown = _single(found, "head")
    head_dim = shown or _whole(said.get("head_dim"))
    if head_dim is None and heads is not None:
        head_dim = query // heads
    if head_dim is None and any(rule.split != "blocks" for rule in family.tensor):
        # Any guess would cut q, k and v out of the wrong rows.
        inferred.append("heads unknown: q, k and v are interleaved by head and no config says how many there are")
        return None, None, None
    if head_dim is None:
        head_dim = _guess_head_dim(query, key, _single(found, "residual") or query)
        inferred.append(f"head_dim = {head_dim} is a guess from the shapes: no config gives the heads")
    elif heads is None and said.get("head_dim") is None:
        inferred.append(f"head_dim = {head_dim} from the length of the q and k norms: no config gives the heads")
    if not found.keys() & {"key", "qkv"}:
        kv_heads = None  # nothing shows the keys' rows, and what the config says of them cannot be checked
    for what, number, length in (("query", heads, query), ("key/value", kv_heads, key)):
        if not head_dim or length % head_dim or (number is not None and number * head_dim != length):
            counted = f"{number} {what} heads" if number is not None else f"{what} heads"
            blame = "the shapes are damaged" if said.get("heads") is None else "the config belongs to another model"
            raise CheckpointError(f"{counted} of {head_dim} do not fit a projection of {length} rows: {blame}")
    heads, kv_heads = query // head_dim, key // head_dim
    if heads % kv_heads:
        raise CheckpointError(f"{heads} query heads cannot share {kv_heads} key/value heads: the shapes are damaged")
    return heads, kv_heads, head_dim


def _projection_rows(found: Mapping[str, frozenset[int]], inferred: list[str]) -> tuple[int, int] | None:
    """Return the rows of the query and key projections, or None where none is seen or layers differ."""
    for kind in ("query", "key", "context", "qkv"):
        if len(found.get(kind, frozenset())) > 1:
            low, *_, high = sorted(found[kind])
            inferred.append(f"heads unknown: layers differ in their {kind} rows ({low} to {high})")
            return None
    query = _single(found, "query") or _single(found, "context")
    fused = _single(found, "qkv")
    if query is None:
        return None
    if fused is None:
        return query, _single(found, "key") or query
    if fused <= query or (fused - query) % 2:
        raise CheckpointError(
            f"a fused projection of {fused} rows cannot hold {query} query rows, keys and values: the shapes are "
            "damaged"
        )
    return query, (fused - query) // 2


def _rotary_share(said: Mapping[str, Number | None], head_dim: int | None) -> float:
    share, dims = said.get("rotary_share"), said.get("rotary_dims")
    if share is None and dims is not None and head_dim:
        share = dims / head_dim
    return 1.0 if share is None else min(float(share), 1.0)


def _whole(value: Number | None) -> int | None:
    return None if value is None else int(value)


def _guess_head_dim(query: int, key: int, hidden: int) -> int:
    """Return the commonest head size that divides both projections."""
    preferred = 64 if hidden <= _NARROW_MODEL else 128
    for candidate in (preferred, 128, 64, 96, 80, 32, 16, 8):
        if query % candidate == 0 and key % candidate == 0 and (query // candidate) % (key // candidate) == 0:
            return candidate
    return key
