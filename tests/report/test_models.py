"""What was compared, and the command that does it again."""

from __future__ import annotations

import io

from rich.console import Console

from kinprint.report.models import model_lines, print_reproduction
from kinprint.types import Comparison, GeometryInfo, ModelInfo, Reading, ReadingSide, Verdict


def model(name: str, **changed: object) -> ModelInfo:
    facts = {
        "name": name,
        "location": name,
        "format": "safetensors",
        "family": "llama",
        "geometry": GeometryInfo(layers=46, hidden=4096, experts=128),
        "parameters": 106_000_000_000,
        "coverage": 1.0,
        "header_digest": "sha256:beef",
    }
    return ModelInfo.model_validate({**facts, **changed})


def comparison(suspect: ModelInfo, *, read: int = 212_000_000_000, revision: str | None = None) -> Comparison:
    side = ReadingSide(bytes_read=read, bytes_total=212_000_000_000, layers_read=(1, 2), layers=46, revision=revision)
    reading = Reading(sampled=read < side.bytes_total, suspect=side, base=side.model_copy(update={"revision": None}))
    verdict = Verdict(conclusion="derived", headline="Yes.", alpha=1e-6, planned=10, reading=reading)
    return Comparison(
        kinprint_version="9.9", status="measured", verdict=verdict, suspect=suspect, base=model("b"),
        controls=(model("third model"),),
    )  # fmt: skip


def reproduction(found: Comparison) -> str:
    out = io.StringIO()
    print_reproduction(found, Console(file=out, width=1000, highlight=False, markup=False))
    return out.getvalue()


def test_a_line_says_name_family_size_and_what_was_read() -> None:
    (suspect, _, control) = model_lines(comparison(model("a", coverage=0.5), read=13_000_000))
    assert suspect == (
        "suspect",
        "a: llama, 106,000,000,000 parameters, 46 layers, d=4096, 128 experts, 50.0% has a role, 13 MB of 212 GB read",
    )
    assert control[0] == "C1"
    assert control[1].endswith("128 experts (control)")


def test_a_model_that_was_read_whole_says_so() -> None:
    assert model_lines(comparison(model("a")))[0][1].endswith("all 212 GB read")


def test_a_model_without_geometry_is_told_by_what_is_known() -> None:
    found = comparison(model("a", geometry=GeometryInfo())).model_copy(update={"verdict": None})
    assert model_lines(found)[0] == ("suspect", "a: llama, 106,000,000,000 parameters")


def test_the_command_names_the_commit_and_quotes_names() -> None:
    text = reproduction(comparison(model("a", location="org/name@main"), revision="0123abc"))
    assert "  kinprint compare org/name@0123abc b --control 'third model' --alpha 1e-06\n" in text
    assert "kinprint 9.9" in text


def test_digests_notes_and_tensors_without_a_role_are_told() -> None:
    noted = model("a", content_digest="sha256:" + "c" * 64, notes=("said while opening",), unmapped=("x", "y"))
    text = reproduction(comparison(noted))
    assert "suspect  content cccccccccccccccc at a\n         said while opening\n" in text
    assert "2 tensors have no role" in text
    assert "base     header beef at b\n" in text
