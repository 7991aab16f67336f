"""``kinprint watermark``: whether texts bear the mark of an owner's key."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kinprint.cli.options import JsonOption, PlainOption, QuietOption, console, write_json


def watermark(
    texts: Annotated[list[Path], typer.Argument(metavar="TEXT...", help="Files of text; each is one text.")],
    key: Annotated[Path, typer.Option("--key", metavar="FILE", help="The owner's key, as JSON.")],
    tokenizer: Annotated[
        Path, typer.Option("--tokenizer", metavar="DIR", help="Folder of the model that may have written them.")
    ],
    others: Annotated[
        int, typer.Option("--others", min=99, metavar="N", help="Other keys that the owner's is held against.")
    ] = 99,
    json: JsonOption = None,
    details: Annotated[bool, typer.Option("--details", help="Print every text and every other key too.")] = False,
    quiet: QuietOption = False,
    no_color: PlainOption = False,
) -> None:
    """Say whether texts bear a watermark (KGW or SynthID) that the owner's key explains. Needs the torch extra.

    It answers another question than compare does: whether a text was written with the key, not whose weights a model
    has. The error rate of a false alarm is stated; the same is measured with other keys.
    """
    from kinprint.behaviour import entry

    found = entry.watermark(texts, key=key, tokenizer=tokenizer, others=others)
    write_json(found, json)
    if not quiet and str(json) != "-":
        from kinprint.report.behaviour import print_result

        print_result(found, console(no_color), details=details)
