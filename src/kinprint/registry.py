"""The visible table of methods: what ``compare`` runs, in the order in which it prints."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kinprint.errors import UsageError
from kinprint.fingerprints import Extractor, FingerprintMethod, Method
from kinprint.methods import (
    ghostspec_corr,
    ghostspec_mlp,
    ghostspec_mse,
    ics,
    intrinsic,
    layernorm,
    pcs,
    phi_match,
    phi_u,
    router,
    tensor_cosine,
)

METHODS: Mapping[str, Method] = {
    method.name: method
    for method in (
        layernorm.METHOD,
        tensor_cosine.METHOD,
        intrinsic.METHOD,
        *ghostspec_mse.METHODS,
        *ghostspec_corr.METHODS,
        *ghostspec_mlp.METHODS,
        pcs.METHOD,
        ics.METHOD,
        phi_u.METHOD,
        phi_match.METHOD,
        router.METHOD,
    )
}
"""Every method, by name."""


def select(names: Iterable[str] | None = None) -> list[Method]:
    """Return methods by name, or all of them.

    Raises:
        UsageError: A name that no method has.
    """
    chosen = list(names or METHODS)
    for name in chosen:
        if name not in METHODS:
            raise UsageError(f"unknown method {name!r}: choose from {', '.join(METHODS)}")
    return [METHODS[name] for name in dict.fromkeys(chosen)]


def extractors(methods: Iterable[Method]) -> list[Extractor]:
    """Return the fingerprints that methods need, each once."""
    found = {m.extractor.id: m.extractor for m in methods if isinstance(m, FingerprintMethod)}
    return list(found.values())
