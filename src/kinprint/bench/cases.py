"""Lists of pairs as data: which models of a suite are compared, and what is true of them."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Literal

from pydantic import ValidationError, model_validator

from kinprint.bench.records import Case, Category, Label
from kinprint.errors import UsageError, optional
from kinprint.types import Record
from kinprint.zoo.manifest import Manifest


class CaseGroup(Record):
    """Pairs of one category and label.

    Attributes:
        category: Row of the summary table.
        label: What is true of every pair.
        suspects: Models; a pattern such as ``base.*`` stands for all that match.
        bases: Models.
        pairing: ``every`` suspect with every base, or each with its own ``parent`` where that is among the bases: a
            suspect named ``parent.what``.
        models: In place of the two: every pair of these; the one that is named first is the base.
    """

    category: Category
    label: Label
    suspects: tuple[str, ...] = ()
    bases: tuple[str, ...] = ()
    pairing: Literal["every", "parent"] = "every"
    models: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _one_way(self) -> CaseGroup:
        if bool(self.models) == bool(self.suspects and self.bases):
            raise ValueError("a group has either suspects and bases, or models")
        return self


class CaseList(Record):
    """A versioned list of cases.

    Attributes:
        suite: The suite whose models it names.
        version: Raised with every change.
        summary: What the list is for.
        cases: Groups of pairs. A pair that occurs twice counts where it comes first.
        notes: What a reader of the results must know.
    """

    suite: str
    version: int
    summary: str
    cases: tuple[CaseGroup, ...]
    notes: tuple[str, ...] = ()


def shipped() -> tuple[str, ...]:
    """Return the names of the lists that come with kinprint."""
    folder = resources.files("kinprint.bench") / "cases"
    return tuple(sorted(file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")))


def read_cases(name: str) -> CaseList:
    """Read a list of cases: one that comes with kinprint, by its suite, or a YAML file.

    Raises:
        UsageError: There is none of that name, or the file is no list of cases.
        MissingExtraError: PyYAML is not installed.
    """
    if name in shipped():
        content = (resources.files("kinprint.bench") / "cases" / f"{name}.yaml").read_text(encoding="utf-8")
    elif Path(name).is_file():
        content = Path(name).read_text(encoding="utf-8", errors="replace")
    else:
        raise UsageError(f"no cases for {name!r}: choose from {', '.join(shipped())}, or give a YAML file")
    yaml = optional("yaml", "bench", "reading a list of cases")
    try:
        return CaseList.model_validate(yaml.safe_load(content))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{name}: {where}: {first['msg']}: correct the list of cases") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: not YAML ({' '.join(str(error).split())[:120]}): correct the list") from None


def expand(cases: CaseList, manifest: Manifest, *, only: str | None = None) -> tuple[Case, ...]:
    """Return every pair of a list, with the roots that the manifest says.

    Args:
        cases: The list.
        manifest: Of the zoo that was built.
        only: Pattern on pairs (``suspect / base``), suspects, bases or categories; others are left out.

    Raises:
        UsageError: A model that the zoo lacks, a label that the manifest's lineage contradicts, or nothing left.
    """
    roots = {entry.name: entry.roots for entry in manifest.models}
    found: dict[frozenset[str], Case] = {}
    for group in cases.cases:
        for suspect, base in _pairs(group, roots):
            case = Case(
                suspect=suspect,
                base=base,
                category=group.category,
                label=group.label,
                roots=tuple(sorted({*roots[suspect], *roots[base]})),
                base_roots=roots[base],
            )
            _check(case, roots)
            found.setdefault(frozenset((suspect, base)), case)
    chosen = tuple(case for case in found.values() if only is None or _matches(case, only))
    if not chosen:
        raise UsageError(f"no case matches {only!r}: give a pattern such as 'base.*', or '*' for all")
    return chosen


def _pairs(group: CaseGroup, roots: Mapping[str, tuple[str, ...]]) -> list[tuple[str, str]]:
    if group.models:
        return [(suspect, base) for base, suspect in combinations(_named(group.models, roots), 2)]
    suspects, bases = _named(group.suspects, roots), _named(group.bases, roots)
    return [
        (suspect, base)
        for suspect in suspects
        for base in bases
        if suspect != base and (group.pairing == "every" or suspect.startswith(f"{base}."))
    ]


def _named(patterns: tuple[str, ...], roots: Mapping[str, tuple[str, ...]]) -> list[str]:
    names: dict[str, None] = {}
    for pattern in patterns:
        matching = [name for name in roots if fnmatchcase(name, pattern)]
        if not matching:
            raise UsageError(f"the zoo has no model {pattern!r}: build the suite whole, or correct the list of cases")
        names |= dict.fromkeys(matching)
    return list(names)


def _check(case: Case, roots: Mapping[str, tuple[str, ...]]) -> None:
    """A label is not believed: what the models were made from must say the same."""
    related = bool(set(roots[case.suspect]) & set(roots[case.base]))
    if case.label != "shown" and related != (case.label == "derived"):
        truth = "share an origin" if related else "share no origin"
        raise UsageError(f"{case.name} is labelled {case.label}, but by the manifest they {truth}: correct the list")


def _matches(case: Case, pattern: str) -> bool:
    return any(fnmatchcase(text, pattern) for text in (case.name, case.suspect, case.base, case.category))
