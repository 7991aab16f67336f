"""Files of texts, as rows of named fields: CSV, JSON of SQuAD, JSON lines and arrays, plain text.

A file is told by what is in it, never by its name.

Sources: Lin et al., TruthfulQA (ACL 2022, arXiv 2109.07958), TruthfulQA.csv; Rajpurkar et al., SQuAD (EMNLP 2016,
arXiv 1606.05250; ACL 2018, arXiv 1806.03822), JSON of versions 1.1 and 2.0; Hartvigsen et al., ToxiGen (ACL 2022,
arXiv 2203.09509); Marks & Tegmark, The Geometry of Truth (COLM 2024, arXiv 2310.06824), ``statement`` and ``label``.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import cast

from kinprint.checkpoint.faults import FETCH_AGAIN, fault, shown
from kinprint.errors import CheckpointError

FILE_BYTES = 50_000_000
"""Longest file that is read; the largest of SQuAD has about 42 MB."""

HEADER_CHARS = 20_000
"""Longest first line that is taken for the header of a table."""

TEXT = ("text", "statement", "question", "generation", "prompt")
"""Fields that hold a probe; the first that is there counts. ToxiGen's ``prompt`` only led to its ``generation``."""

_DELIMITERS = (",", "\t", ";")
_ROWS_LOOKED_AT = 20
_NAMES_SHOWN = 12

_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")
_COLUMN_NAME = re.compile(r"\w[\w ()/#%-]{0,39}")
_NO_PROBES = {"<!doctype": "a web page", "<html": "a web page", "version https://git-lfs": "a Git LFS pointer"}
_CORRECT_JSON = "correct it: one JSON value a line, or one array"

Row = tuple[str, Mapping[str, object]]
"""Where in the file, for messages, and fields by name in lower case."""


def content_of(path: Path) -> bytes:
    """Read a file whole.

    Raises:
        CheckpointError: It is no file, cannot be read, or is longer than ``FILE_BYTES``.
    """
    where = str(path)
    try:
        if not path.is_file():  # a named pipe would be waited for, and a device has no end
            raise fault(where, "is no file" if path.exists() else "does not exist", "give a file of probes")
        with path.open("rb") as file:
            content = file.read(FILE_BYTES + 1)
    except OSError as error:
        raise fault(where, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    if len(content) > FILE_BYTES:
        raise fault(where, f"is longer than {FILE_BYTES} bytes", "cut it down to the probes that are wanted")
    return content


def rows(content: bytes, where: str) -> Iterator[Row]:
    """Tell the format of a file and yield what in it may be a probe.

    Args:
        content: The bytes.
        where: File, for messages.

    Raises:
        CheckpointError: Empty, not UTF-8, no file of probes, malformed, or a table without a column of :data:`TEXT`.
    """
    text = _decoded(content, where)
    if text.lstrip()[:1] in ("{", "["):
        return _json(text, where)
    first = re.split(r"[\r\n]", text.lstrip("\r\n"), maxsplit=1)[0]
    delimiter = _delimiter(text, first, where) if len(first) <= HEADER_CHARS else None
    if delimiter is not None:
        return _table(text, delimiter, where)
    if first.startswith('"') and _is_json(first):
        return _json_lines(text, where)
    return ((place, {"text": line}) for place, line in _lines(text, where))


def without_text(place: str, names: Sequence[str]) -> CheckpointError:
    """Return the fault for a row or a header none of whose fields holds a probe."""
    found = ", ".join(shown(name) for name in names[:_NAMES_SHOWN]) or "none"
    more = f" and {len(names) - _NAMES_SHOWN} more" if len(names) > _NAMES_SHOWN else ""
    return fault(
        place,
        f"no field is known to hold a probe; found {found}{more}",
        f"rename the one that does to one of: {', '.join(TEXT)}",
    )


def _decoded(content: bytes, where: str) -> str:
    if not content:
        raise fault(where, "is empty (0 bytes)", FETCH_AGAIN)
    try:
        text = content.decode().removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise fault(f"{where}, line {line}", "is not UTF-8", "give a text file, saved as UTF-8") from error
    head = text[:200].lstrip().lower()
    for start, what in _NO_PROBES.items():
        if head.startswith(start):
            raise fault(where, f"is {what}, not a file of probes", FETCH_AGAIN)
    return text


def _lines(text: str, where: str) -> Iterator[tuple[str, str]]:
    # Not splitlines(): it takes characters for line breaks that may stand in a text.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield f"{where}, line {number}", line.removesuffix("\r")


# -- JSON ----------------------------------------------------------------------------------------------------------


def _json(text: str, where: str) -> Iterator[Row]:
    """Yield from a file that is one JSON value, or several, one a line."""
    start = len(text) - len(text.lstrip())
    try:
        value, end = cast("tuple[object, int]", json.JSONDecoder().raw_decode(text, start))
    except (ValueError, RecursionError) as error:
        place = f"{where}, line {error.lineno}" if isinstance(error, json.JSONDecodeError) else where
        raise _malformed(place, error) from error
    if text[end:].strip():
        yield from _json_lines(text, where)
    elif isinstance(value, list):
        for index, item in enumerate(cast("list[object]", value)):
            yield _item(f"{where}, [{index}]", item)
    elif isinstance(value, dict) and isinstance(cast("dict[str, object]", value).get("data"), list):
        yield from _squad(cast("dict[str, object]", value), where)
    else:
        yield _item(where, cast("object", value))


def _json_lines(text: str, where: str) -> Iterator[Row]:
    for place, line in _lines(text, where):
        try:
            item: object = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(place, error) from error
        yield _item(place, item)


def _squad(content: dict[str, object], where: str) -> Iterator[Row]:
    for article, article_place in _listed(content, "data", f"{where}, "):
        for paragraph, paragraph_place in _listed(article, "paragraphs", f"{article_place}."):
            for asked, place in _listed(paragraph, "qas", f"{paragraph_place}."):
                yield _item(place, asked)


def _listed(content: object, key: str, before: str) -> Iterator[tuple[object, str]]:
    """Yield the entries of a list in an object of SQuAD, with where each is."""
    entries = cast("dict[str, object]", content).get(key) if isinstance(content, dict) else None
    if not isinstance(entries, list):
        raise fault(f"{before}{key}", "is no list", "SQuAD has data, paragraphs and qas; else give one object a line")
    for index, entry in enumerate(cast("list[object]", entries)):
        yield entry, f"{before}{key}[{index}]"


def _item(place: str, item: object) -> Row:
    if isinstance(item, str):
        return place, {"text": item}
    if isinstance(item, dict):
        return place, {key.casefold(): value for key, value in cast("dict[str, object]", item).items()}
    raise fault(place, f"{shown(item)} is no probe", "give strings, or objects with the field text")


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _malformed(place: str, error: ValueError | RecursionError) -> CheckpointError:
    if isinstance(error, RecursionError):
        return fault(place, "holds JSON nested too deeply", _CORRECT_JSON)
    # The other ValueError is Python's refusal of integers of more than 4300 digits.
    reason = error.msg if isinstance(error, json.JSONDecodeError) else "a number of too many digits"
    return fault(place, f"holds malformed JSON ({reason})", _CORRECT_JSON)


# -- tables --------------------------------------------------------------------------------------------------------


def _delimiter(text: str, first: str, where: str) -> str | None:
    """Return what separates the columns of a table; None where the file is none.

    Raises:
        CheckpointError: It is a table, and no column of it is known to hold probes.
    """
    for delimiter in _DELIMITERS:
        names = _names(first, delimiter)
        if any(name in TEXT for name in names) and not any(name.endswith(_SENTENCE_ENDS) for name in names):
            return delimiter
    for delimiter in _DELIMITERS:
        names = _names(first, delimiter)
        if len(names) > 1 and all(map(_COLUMN_NAME.fullmatch, names)) and _is_regular(text, delimiter, len(names)):
            raise without_text(f"{where}, line 1", names)
    return None


def _names(line: str, delimiter: str) -> list[str]:
    try:
        return [field.strip().casefold() for row in csv.reader([line], delimiter=delimiter) for field in row]
    except csv.Error:
        return []


def _is_regular(text: str, delimiter: str, width: int) -> bool:
    """Tell whether there are rows below the header, and the first ones are as wide as the header."""
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        widths = [len(row) for row in islice(reader, _ROWS_LOOKED_AT) if row]
    except csv.Error:
        return False
    return len(widths) > 1 and set(widths) == {width}


def _table(text: str, delimiter: str, where: str) -> Iterator[Row]:
    # The csv module refuses fields of more than 131,072 characters, so a quote left open cannot take all that follows.
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    while True:
        place = f"{where}, line {reader.line_num + 1}"
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise fault(place, f"is malformed CSV ({error})", "close every quote and double those inside") from error
        if row is None:
            return
        if not row:
            continue
        if names is None:
            names = [name.strip().casefold() for name in row]
        elif len(row) != len(names):
            what = f"has {len(row)} fields, and the header has {len(names)}"
            raise fault(place, what, "quote every field that holds a separator or a line break")
        else:
            yield place, dict(zip(names, row, strict=True))
