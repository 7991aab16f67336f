"""Published levels, counted on pairs of known lineage."""

from __future__ import annotations

from bench.made import column, pair
from kinprint import registry
from kinprint.bench.claims import CLAIMS, Claim, reached


def test_pairs_at_a_level_are_counted_and_blanks_are_not() -> None:
    rows = [
        pair("derived", {"m: s": 0.9}),
        pair("derived", {"m: s": 0.4}),
        pair("derived", {"m: s": "no value"}),
        pair("unrelated", {"m: s": 0.5}),
        pair("unrelated", {"m: s": 0.6}, category="hard negatives"),
        pair("shown", {"m: s": 0.9}),
    ]
    assert reached(Claim("m: s", 0.5, "here"), [column("m: s")], rows) == ("1/2", "1/1", "1/1")
    assert reached(Claim("m: s", 0.55, "here"), [column("m: s")], rows) == ("1/2", "0/1", "1/1")


def test_a_number_that_was_not_measured_has_no_count() -> None:
    assert reached(Claim("n: s", 0.5, "here"), [column("m: s")], []) is None


def test_every_claim_is_about_a_registered_method() -> None:
    assert {claim.column.partition(": ")[0] for claim in CLAIMS} <= set(registry.METHODS)
