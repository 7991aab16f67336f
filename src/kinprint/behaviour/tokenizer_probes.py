"""Which tokenizer stands behind an API? Token counts of chosen strings against those of tokenizers at hand.

Axes: S = strings, C = candidates.

A server counts the tokens of what it is sent, for the bill. Its template, and tokens that begin a text, add a number
that is the same for every string, so a candidate is held against the counts up to one common offset: the share of
strings whose count is the candidate's plus the offset that fits most of them. Every string stands between the same
words, so that what comes before and after it is cut alike each time.

Equal counts on S strings do not prove the same tokenizer: tokenizers that differ on no string here cannot be told
apart by them, and a tokenizer is not the weights: models of different makers share one, and a model can be given
another. A different count excludes the candidate, unless the server's template changes the text.

Ignores: templates of constant length, tokens that begin or end a text. Notices: other merges, other ways of cutting
digits, spaces and scripts. Fails: servers that count otherwise than they cut, templates that change the text.

Source: token counts as a side channel are folklore; no paper is followed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from kinprint.canonical import method_id
from kinprint.checkpoint.faults import fault
from kinprint.checkpoint.vocabulary import TOKENIZER_BYTES
from kinprint.errors import UsageError, optional
from kinprint.types import MethodResult, Table, Value

VERSION = 1
NAME = "tokenizer-probes"
SOURCE = "token counts of chosen strings"

STRINGS: tuple[tuple[str, str], ...] = (
    ("2 spaces", "a  b"),
    ("3 spaces", "a   b"),
    ("4 spaces", "a    b"),
    ("7 spaces", "a       b"),
    ("16 spaces", "a" + " " * 16 + "b"),
    ("31 spaces", "a" + " " * 31 + "b"),
    ("2 tabs", "a\t\tb"),
    ("5 tabs", "a\t\t\t\t\tb"),
    ("2 line breaks", "a\n\nb"),
    ("5 line breaks", "a\n\n\n\n\nb"),
    ("indented lines", "a\n    b\n        c"),
    ("3 digits", "527"),
    ("4 digits", "5274"),
    ("10 digits", "5274910386"),
    ("25 digits", "3141592653589793238462643"),
    ("digits with commas", "12,345,678.90"),
    ("zeros", "1000000000000"),
    ("Chinese", "人工智能正在改变我们的世界"),
    ("rare Chinese", "魑魅魍魉饕餮耄耋"),
    ("Japanese", "吾輩は猫である。名前はまだ無い。"),
    ("Korean", "동해물과 백두산이 마르고 닳도록"),
    ("Russian", "Съешь же ещё этих мягких французских булок"),
    ("Arabic", "لغة البرمجة والذكاء الاصطناعي"),
    ("Hindi", "कृत्रिम बुद्धिमत्ता का भविष्य"),
    ("Thai", "ปัญญาประดิษฐ์เปลี่ยนโลก"),
    ("emoji", "🙂🙃🚀🔥🎉"),
    ("joined emoji", "👩‍👩‍👧‍👦 🏳️‍🌈 🇨🇭"),
    ("combining accents", "e\u0301a\u0308o\u0302n\u0303"),
    ("mathematics", "∀ε>0 ∃δ: ∑∫√∞≠≈"),
    ("rare word", "floccinaucinihilipilification"),
    ("German compound", "Donaudampfschifffahrtsgesellschaft"),
    ("chemistry", "methylenedioxymethamphetamine"),
    ("nonsense", "xqzvkjwpfhgtbmrd"),
    ("capitals", "THE QUICK BROWN FOX JUMPS OVER"),
    ("contractions", "I'll they've you're DON'T"),
    ("camel case", "getElementsByClassNameOrDefault"),
    ("Python", "def f(x):\n    return {k: v**2 for k, v in x.items()}"),
    ("C", "for(int i=0;i<n;++i){a[i]^=b[i]<<3;}"),
    ("markup", '<div class="x"></div></div><!-- -->'),
    ("punctuation", "!=== ...... ------ ###### ,,,,,"),
    ("address", "https://www.example.org/a/b?c=d&e=%20f"),
)
"""What a string is, and the string: what tokenizers are known to cut differently."""

BEFORE, AFTER = "The text is: ", " . That is all."
"""What every string stands between."""

UNPROVEN = (
    "equal counts on {count} strings do not prove the same tokenizer, nor does the same tokenizer prove a common "
    "origin; a different count excludes a candidate, unless the server's template changes the text"
)


@runtime_checkable
class Counting(Protocol):
    """A model that says how many tokens it was sent."""

    @property
    def name(self) -> str:
        """For people."""
        ...

    def prompt_tokens(self, text: str) -> int | None:
        """Return the count for a text, a constant for its template included; None where it is not told."""
        ...


def compare(model: Counting, candidates: Sequence[Path]) -> MethodResult:
    """Hold a server's token counts against tokenizers at hand.

    Args:
        model: The served model.
        candidates: Files ``tokenizer.json``, or folders that hold one.

    Returns:
        For each candidate the share of strings on which the counts agree up to one offset. Controls: the same share
        between each two candidates; where it is 1 these strings cannot tell the two apart.

    Raises:
        UsageError: No candidate.
        CheckpointError: A candidate cannot be read.
        MissingExtraError: tokenizers is not installed.
        KinprintError: The model could not be asked.
    """
    if not candidates:
        raise UsageError("no candidate tokenizer: name a tokenizer.json, or a folder that holds one")
    labels = _labels(candidates)
    counted = [counts(path) for path in candidates]
    told = [model.prompt_tokens(BEFORE + text + AFTER) for _, text in STRINGS]
    known = [place for place, count in enumerate(told) if count is not None]
    identifier = method_id(NAME, VERSION, strings=len(STRINGS))
    if not known:
        reason = "the server does not say how many tokens it was sent (no usage.prompt_tokens)"
        return MethodResult(method=NAME, id=identifier, status="not_applicable", reason=reason, source=SOURCE)
    server = [told[place] or 0 for place in known]
    held = [[each[place] for place in known] for each in counted]
    found = [matched(server, each) for each in held]
    values = [
        Value(
            name=f"{label}: share of equal counts",
            value=share,
            kind="similarity",
            identical=1.0,
            note=f"{round(share * len(known))} of {len(known)} strings, offset {offset}",
        )
        for label, (share, offset) in zip(labels, found, strict=True)
    ]
    return MethodResult(
        method=NAME,
        id=identifier,
        status="measured",
        values=tuple(sorted(values, key=lambda value: -(value.value or 0.0))),
        controls=tuple(_between(labels, held)),
        tables=(_table(labels, known, server, held, found),),
        notes=_notes(len(known), labels, found),
        source=SOURCE,
    )


def matched(server: Sequence[int], candidate: Sequence[int]) -> tuple[float, int]:
    """Return the share of strings on which two counts differ by the offset that fits most, and that offset.

    Of offsets that fit equally many the one nearest to 0 is taken.

    Example:
        >>> matched([12, 13, 19, 14], [2, 3, 5, 4])
        (0.75, 10)
    """
    offsets = Counter(there - here for there, here in zip(server, candidate, strict=True))
    offset, fitting = min(offsets.items(), key=lambda pair: (-pair[1], abs(pair[0]), pair[0]))
    return fitting / len(server), offset


def counts(path: Path) -> list[int]:
    """Return how many tokens a tokenizer makes of each string, without tokens of its own around them.

    Raises:
        CheckpointError: The file cannot be read, or is no tokenizer.
        MissingExtraError: tokenizers is not installed.
    """
    tokenizers = optional("tokenizers", "torch", "reading a tokenizer")
    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file() or file.stat().st_size > TOKENIZER_BYTES:
        raise fault(str(file), "is no tokenizer.json", "name the file, or the folder that holds it")
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(file))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        texts = [BEFORE + text + AFTER for _, text in STRINGS]
        return [len(encoding.ids) for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the library is no Exception
        what = " ".join(str(error).split())[:120]
        raise fault(str(file), f"is no tokenizer that can be read ({what})", "fetch the file again") from error


def _labels(candidates: Sequence[Path]) -> list[str]:
    """Return short names, and whole paths where short ones are equal."""
    short = [(path.parent if path.name == "tokenizer.json" else path).name for path in candidates]
    return [
        name if name and short.count(name) == 1 else str(path) for name, path in zip(short, candidates, strict=True)
    ]


def _between(labels: Sequence[str], held: Sequence[Sequence[int]]) -> list[Value]:
    """Return how well these strings tell the candidates apart."""
    return [
        Value(
            name=f"{labels[one]} against {labels[other]}",
            value=share,
            kind="statistic",
            note="these strings cannot tell them apart" if share == 1 else "equal counts by chance",
        )
        for one in range(len(held))
        for other in range(one + 1, len(held))
        for share, _ in [matched(held[one], held[other])]
    ]


def _table(
    labels: Sequence[str],
    known: Sequence[int],
    server: Sequence[int],
    held: Sequence[Sequence[int]],
    found: Sequence[tuple[float, int]],
) -> Table:
    shifted = [[count + offset for count in each] for each, (_, offset) in zip(held, found, strict=True)]
    rows = [(STRINGS[place][0], server[row], *(each[row] for each in shifted)) for row, place in enumerate(known)]
    return Table(
        title="Tokens by string; of each candidate with its offset",
        columns=("string", "server", *labels),
        rows=tuple(rows),
    )


def _notes(strings: int, labels: Sequence[str], found: Sequence[tuple[float, int]]) -> tuple[str, ...]:
    notes = [UNPROVEN.format(count=strings)]
    if strings < len(STRINGS):
        notes.append(f"{len(STRINGS) - strings} of {len(STRINGS)} strings left out: the server did not count them")
    if all(share < 1 for share, _ in found):
        notes.append(
            "no candidate has all counts: the server counts with another tokenizer, or its template is not constant"
        )
    odd = [label for label, (_, offset) in zip(labels, found, strict=True) if offset < 0]
    if odd:
        notes.append(f"a template cannot take tokens away, so the offset of {', '.join(odd)} is no template's")
    return tuple(notes)
