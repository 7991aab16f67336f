"""The task of behaviour: two models of 135M parameters that are run on the probes that are asked by default."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cost_parts.comparing import checked
from cost_parts.context import Context
from cost_parts.process import cold, kinprint
from cost_parts.rows import Row, at_least, at_most

BASE, SUSPECT = "smollm2", "smollm2.pruned-50"


def behave(context: Context) -> Iterator[Row]:
    """Every behavioural method on SmolLM2-135M and its pruned child, with nothing kept from an earlier run."""
    folder = context.fixtures.smollm2((BASE, SUSPECT))
    command = [kinprint(), "behave", str(folder / SUSPECT), str(folder / BASE), "--no-cache", "--json", "-"]
    run = checked(cold(command), command)
    found = json.loads(run.out)
    measured = [one["method"] for one in found["methods"] if one["status"] == "measured"]
    yield Row(
        what="SmolLM2-135M, pruned: kinprint behave",
        seconds=run.seconds,
        cpu_seconds=run.cpu_seconds,
        peak_mb=run.peak_mb,
        says=", ".join(measured),
        checks=(
            at_least("probes", found["probes"]["asked"], 200),
            at_most("seconds", run.seconds, 180),
            at_most("peak MB", run.peak_mb, 2000),
        ),
        note=f"{len(measured)} of {len(found['methods'])} methods",
    )
