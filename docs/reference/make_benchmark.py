"""Bring what `kinprint bench` wrote into docs/benchmark.md: tables between markers, pictures into docs/images.

Usage: python docs/reference/make_benchmark.py OUT [OUT...]

Each OUT is the output folder of one suite, run with every method; the blocks of other suites stay as they are. A run
without the verdict (``--method`` with the name of every method) leaves the blocks about verdicts alone, one without
``--behave`` those on behaviour; and where methods on weights are missing, those on behaviour alone are filled. A folder
that `benchmarks/peers/run.py` wrote (it holds peers.md) fills the block `peers`.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

import published

from kinprint.bench.records import BenchResult
from kinprint.bench.tables import blocks
from kinprint.registry import METHODS

DOCS = Path(__file__).parents[1]
MARKED = re.compile(r"(<!-- begin: (\S+) -->\n).*?(<!-- end: \2 -->)", re.DOTALL)
BESIDE = {"ghostspec": published.ghostspec, "leafbench": published.leafbench, "z-values": published.z_values}
PICTURES = {"tiny": ("roc", "heatmap", "distributions"), "null": ("distributions",)}


def filled(document: str, contents: Mapping[str, str]) -> str:
    """Return a document with the marked blocks that are known replaced, and all others left alone."""
    return MARKED.sub(
        lambda found: f"{found[1]}\n{contents[found[2]]}\n\n{found[3]}" if found[2] in contents else found[0], document
    )


def summary(peers: str) -> str:
    """Return the tables of ``peers.md`` without its title and without the table of every pair."""
    tables, _, _ = peers.partition("| suspect |")
    return tables.partition("\n")[2].strip()


def main(folders: list[Path]) -> None:
    """Update the document and its pictures."""
    document, contents = DOCS / "benchmark.md", dict[str, str]()
    for out in folders:
        if (out / "peers.md").is_file():
            contents["peers"] = summary((out / "peers.md").read_text(encoding="utf-8"))
            continue
        result = BenchResult.model_validate_json((out / "result.json").read_bytes())
        left_out = [name for name, method in METHODS.items() if method.id not in result.run.methods]
        filling = blocks(result)
        if behaving := {name: text for name, text in filling.items() if name.startswith("behaviour-")}:
            contents["leafbench-behaviour"] = published.leafbench_behaviour(result)
        if left_out:
            if not behaving:
                sys.exit(f"{out} was made without {', '.join(left_out)}: run 'kinprint bench' without --method")
            contents |= {f"{result.suite}-{name}": text for name, text in behaving.items()}
            continue
        contents |= {f"{result.suite}-{name}": text for name, text in filling.items()}
        if result.suite == "tiny":
            contents |= {name: make(result) for name, make in BESIDE.items()}
        for picture in PICTURES.get(result.suite, ()):
            shutil.copyfile(out / f"{picture}.svg", DOCS / "images" / f"bench-{result.suite}-{picture}.svg")
    document.write_text(filled(document.read_text(encoding="utf-8"), contents), encoding="utf-8")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main([Path(argument) for argument in sys.argv[1:]])
