"""What kinprint costs: time against the streaming limit, bytes read, memory and growth, beside other tools.

One command, one table. Every run of kinprint is a cold process of the installed command, with what it reads in the page
cache. The models are made below ``--work`` on the first run, which takes tens of gigabytes and a while, and are found
again later. Linux only.

Usage: python benchmarks/cost.py [--only TASK]... [--without TASK]... [--work DIR] [--json FILE] [--write docs/cost.md]

Exits with 1 where a bar is missed. ``--json`` keeps what other tasks measured before, as benchmarks/cost.json does what
the page shows; ``--write`` brings all of it into a page, between its markers.
"""

from __future__ import annotations

import argparse
import datetime
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cost_parts.behaving import behave
from cost_parts.beside import smollm2
from cost_parts.comparing import FailedError
from cost_parts.context import Context, Task, UnavailableError
from cost_parts.fixtures import Fixtures
from cost_parts.growth import growth
from cost_parts.machine import commit, describe, load
from cost_parts.published import mistral, separation
from cost_parts.rows import Check, Row, table
from cost_parts.scale import attention, hub, large, llama, start, thorough

from kinprint.errors import KinprintError

TASKS: Mapping[str, Task] = {
    "start": start,
    "llama": llama,
    "thorough": thorough,
    "large": large,
    "attention": attention,
    "hub": hub,
    "mistral": mistral,
    "separation": separation,
    "smollm2": smollm2,
    "behave": behave,
    "growth": growth,
}
MARKED = re.compile(r"(<!-- begin: cost -->\n).*?(<!-- end: cost -->)", re.DOTALL)
Results = dict[str, dict[str, Any]]
"""By task: its rows, the machine, the commit, the day and the load before it."""


def main() -> None:
    """Measure, print the table, and exit with 1 where a bar is missed."""
    options = _options()
    kept: Results = json.loads(options.json.read_text("utf-8")) if options.json and options.json.exists() else {}
    options.work.mkdir(parents=True, exist_ok=True)
    context = Context(Fixtures(options.work), options.runs, options.peers, options.torch)
    chosen = [name for name in options.only or TASKS if name not in options.without]
    for name in chosen:
        sys.stderr.write(f"{name} ...\n")
        kept[name] = _measured(name, context)
        if options.json:
            options.json.write_text(json.dumps(kept, indent=1, ensure_ascii=False) + "\n", "utf-8")
    sys.stdout.write(report({name: kept[name] for name in chosen}))
    if options.write:
        page = options.write.read_text("utf-8")
        options.write.write_text(MARKED.sub(lambda found: found[1] + report(kept) + found[2], page), "utf-8")
    sys.exit(any(Row.of(row).missed for name in chosen for row in kept[name]["rows"]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=tuple(TASKS), help="measure this task; repeatable")
    parser.add_argument("--without", action="append", choices=tuple(TASKS), default=[], help="leave it out; repeatable")
    parser.add_argument("--work", type=Path, default=Path("build/cost"), help="where models are made and reused")
    parser.add_argument("--peers", type=Path, default=Path.home() / ".cache" / "kinprint" / "peers")
    parser.add_argument("--torch", help="PyTorch for a peer's new environment, such as torch==2.13.0")
    parser.add_argument("--runs", type=int, default=3, help="timed runs, of which the median counts")
    parser.add_argument("--json", type=Path, help="file that keeps all results")
    parser.add_argument("--write", type=Path, help="page that gets the table")
    return parser.parse_args()


def _measured(name: str, context: Context) -> dict[str, Any]:
    """Return one task's record; what failed or is not to be had becomes a row that says why."""
    before = load()
    rows: list[Row] = []
    try:
        for row in TASKS[name](context):
            sys.stderr.write(f"  {row.what}: {row.seconds or 0:.2f} s, {row.says} {row.note}\n")
            rows.append(row)
    except UnavailableError as error:
        rows.append(Row(what=name, note=f"not measured: {error}"))
    except (FailedError, KinprintError) as error:
        rows.append(Row(what=name, note=str(error), checks=(Check("runs", met=False),)))
    return {
        "rows": [row.record() for row in rows],
        "machine": describe(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "load": round(before, 1),
    }


def report(results: Results) -> str:
    """Return the table of all tasks and what they were measured on."""
    ordered = {name: results[name] for name in TASKS if name in results}
    rows = [Row.of(record) for one in ordered.values() for record in one["rows"]]
    machines: dict[tuple[str, str, str], list[str]] = {}
    for name, one in ordered.items():
        place = one["machine"], one["commit"], one["date"]
        machines.setdefault(place, []).append(f"{name} (load {one['load']:.1f} before it)")
    lines = [f"- {date}, commit {at}: {', '.join(names)}. {where}.\n" for (where, at, date), names in machines.items()]
    return f"\n{table(rows)}\nMeasured:\n\n{''.join(lines)}\n"


if __name__ == "__main__":
    main()
