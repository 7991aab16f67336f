"""The owner's key of a watermark, as a record and as a small JSON file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, ValidationError

from kinprint.checkpoint import LocalFile
from kinprint.checkpoint.faults import fault, shown
from kinprint.checkpoint.jsonfile import read_object
from kinprint.types import Record

MAX_KEY = (1 << 63) - 1
MAX_ID = (1 << 31) - 1
KEY_BYTES = 1 << 16
"""Largest key and token id, and the longest file: that of 64 keys has 2 KB."""

_Natural = Annotated[int, Field(strict=True, ge=0, le=MAX_KEY)]
_Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]


class KgwKey(Record):
    """What the owner of a KGW watermark knows; fields are those of transformers' ``WatermarkingConfig``.

    Attributes:
        scheme: What kind of key it is.
        label: What results call the key. It is public; the key itself is never shown.
        hashing_key: The secret.
        greenlist_ratio: Share of the vocabulary that is green.
        bias: What was added to the logits of green tokens. Detection does not need it.
        seeding_scheme: What seeds a green list: the token before (``lefthash``), or the smallest hash among the last
            ``context_width`` tokens with the current one (``selfhash``).
        context_width: Tokens that the seed is taken from.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    scheme: Literal["kgw"] = "kgw"
    label: _Label = "unnamed"
    hashing_key: Annotated[int, Field(strict=True, ge=1, le=MAX_KEY, repr=False)]
    greenlist_ratio: Annotated[float, Field(strict=True, gt=0, lt=1)] = 0.25
    bias: Annotated[float, Field(strict=True)] = 2.0
    seeding_scheme: Literal["lefthash", "selfhash"] = "lefthash"
    context_width: Annotated[int, Field(strict=True, ge=1, le=64)] = 1


class SynthIdKey(Record):
    """What the owner of a SynthID watermark knows; fields are those of ``SynthIDTextWatermarkingConfig``.

    Attributes:
        scheme: What kind of key it is.
        label: What results call the key. It is public; the keys are never shown.
        keys: The secret: one number a layer.
        ngram_len: Tokens of a window: the context and the token that is scored.
        sampling_table_size: Entries of the table that g-values are taken from.
        sampling_table_seed: What the table is drawn from.
        context_history_size: Contexts back in which a repeated one is not watermarked.
        eos_token_id: Nothing is scored from this token on; None to score everything.
    """

    model_config = ConfigDict(hide_input_in_errors=True)

    scheme: Literal["synthid"] = "synthid"
    label: _Label = "unnamed"
    keys: Annotated[tuple[_Natural, ...], Field(min_length=1, max_length=64, repr=False)]
    ngram_len: Annotated[int, Field(strict=True, ge=2, le=64)] = 5
    sampling_table_size: Annotated[int, Field(strict=True, ge=1 << 8, le=1 << 24)] = 1 << 16
    sampling_table_seed: _Natural = 0
    context_history_size: Annotated[int, Field(strict=True, ge=1, le=1 << 16)] = 1024
    eos_token_id: Annotated[int, Field(strict=True, ge=0, le=MAX_ID)] | None = None


_KINDS: dict[object, type[KgwKey | SynthIdKey]] = {"kgw": KgwKey, "synthid": SynthIdKey}


def read_key(path: Path) -> KgwKey | SynthIdKey:
    """Read a key from a JSON file whose ``scheme`` says what kind it is.

    Raises:
        CheckpointError: The file cannot be read, is too long, or a field is unknown, missing, or out of its range. The
            message never repeats a value.
    """
    source = LocalFile(path)
    try:
        fields = read_object(source, max_bytes=KEY_BYTES, unique=True)
    finally:
        source.close()
    scheme = fields.get("scheme")
    kind = _KINDS.get(scheme) if isinstance(scheme, str) else None
    if kind is None:
        raise fault(source.where, "has no scheme that is known", 'write "scheme": "kgw" or "scheme": "synthid"')
    allowed = ", ".join(kind.model_fields)
    unknown = [shown(name) for name in fields if name not in kind.model_fields]
    if unknown:
        more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
        raise fault(source.where, f"holds unknown fields: {', '.join(unknown[:5])}{more}", f"fields are {allowed}")
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise fault(source.where, f"field {name} is wrong ({first['msg']})", f"fields are {allowed}") from None
