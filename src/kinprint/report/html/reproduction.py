"""How the same result is had again: the command, the program and what it ran on, and every id with its settings."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from kinprint.report.html.markup import Content, tag
from kinprint.report.html.tables import facts_list
from kinprint.report.html.words import short
from kinprint.types import Comparison, Environment, Request

NOT_RECORDED = "What chooses how much is read (--quick, --budget, --component and others) is not in a result this old."
WRITTEN_AGAIN = "Add --json FILE or --html FILE to keep what it finds. Third models are named as they were given."


def reproduction(comparison: Comparison) -> Content:
    """Return the command, the environment, digests, and the ids of all tests and methods.

    Args:
        comparison: What was found.
    """
    return [
        tag("pre", command(comparison), tabindex="0"),
        tag("p", WRITTEN_AGAIN if comparison.request is not None else NOT_RECORDED),
        tag("h3", "Program and environment"),
        facts_list([("kinprint", comparison.kinprint_version), *_environment(comparison.environment)]),
        tag("h3", "The same files"),
        tag("p", "A model whose digest is another is another model; without a content digest it was read in part."),
        facts_list(_digests(comparison)),
        tag("h3", "Seeds and settings"),
        tag("p", "Every seed and every setting that changes a number is in the id of its test or method:"),
        tag("ul", [tag("li", tag("code", one)) for one in _ids(comparison)], class_="ids"),
    ]


def command(comparison: Comparison) -> str:
    """Return the command that gives this result, as it is typed into a shell.

    Args:
        comparison: What was found. Without a request in it, what the command cannot say is left out.
    """
    verdict = comparison.verdict
    reading = verdict.reading if verdict is not None else None
    revisions = (reading.suspect.revision, reading.base.revision) if reading is not None else (None, None)
    pair = zip((comparison.suspect, comparison.base), revisions, strict=True)
    words = ["kinprint", "compare", *(_pinned(model.location, revision) for model, revision in pair)]
    for model in comparison.controls:
        words += ["--control", _place(model.location)]
    if verdict is not None:
        words += ["--alpha", f"{verdict.alpha:g}"]
    if comparison.request is not None:
        words += _options(comparison.request)
    return shlex.join(words)


def _options(asked: Request) -> Iterator[str]:
    """Yield what was asked for beside models and alpha, where it is not the default."""
    if asked.mode != "default":
        yield f"--{asked.mode}"
    for method in asked.methods or ():
        yield f"--method={method}"
    if asked.component is not None:
        yield f"--component={asked.component}"
    if asked.budget is not None:
        yield f"--budget={asked.budget}"
    if asked.layers is not None:
        yield f"--layers={asked.layers}"
    if asked.full and asked.mode != "thorough":
        yield "--full"
    if asked.device != "cpu":
        yield f"--device={asked.device}"
    if asked.behaviour:
        yield "--behave"


def _pinned(location: str, revision: str | None) -> str:
    """Return a place with the commit that was read, where it is a repository's: what it was named by may move."""
    return _place(location if revision is None else f"{location.partition('@')[0]}@{revision}")


def _place(location: str) -> str:
    """Return a place that a shell hands on as a place: a name that begins like an option is one of this folder."""
    return f"./{location}" if location.startswith("-") else location


def _environment(found: Environment | None) -> list[tuple[str, Content]]:
    if found is None:
        return [("environment", "not in a result this old")]
    return [("Python", found.python), ("numpy", found.numpy), ("system", found.system), ("computed on", found.device)]


def _digests(comparison: Comparison) -> Iterator[tuple[str, Content]]:
    roles = ["suspect", "base", *(f"control {at}" for at in range(1, len(comparison.controls) + 1))]
    for role, model in zip(roles, (comparison.suspect, comparison.base, *comparison.controls), strict=True):
        yield (
            f"{role}: {short(model.name)}",
            tag("code", model.content_digest or f"{model.header_digest} (headers only)"),
        )


def _ids(comparison: Comparison) -> list[str]:
    evidence = comparison.verdict.evidence if comparison.verdict is not None else ()
    return list(dict.fromkeys([*(one.id for one in evidence), *(one.id for one in comparison.methods)]))
