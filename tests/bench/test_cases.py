"""Lists of pairs: read, expanded, and held against what the zoo's manifest says."""

from __future__ import annotations

from pathlib import Path

import pytest

from kinprint.bench.cases import CaseList, expand, read_cases, shipped
from kinprint.bench.records import Case
from kinprint.errors import UsageError
from kinprint.zoo.manifest import Manifest, ModelEntry
from kinprint.zoo.suites import SUITES


def manifest(**roots: tuple[str, ...]) -> Manifest:
    entry = ModelEntry(
        name="",
        summary="",
        kind="trained",
        parent=None,
        roots=(),
        settings={},
        recipe_digest="",
        texts={},
        family="llama",
        parameters=1,
        losses=None,
        same_function=None,
        weights_file="",
        weights_bytes=1,
        weights_sha256="",
        content_digest="",
        seconds=0,
        versions={},
    )
    models = tuple(
        entry.model_copy(update={"name": name.replace("__", "."), "roots": found}) for name, found in roots.items()
    )
    return Manifest(suite="s", summary="", hours=0, texts=(), models=models)


ZOO = manifest(a=("a",), a__child=("a",), b=("b",), b__child=("b",), merged=("a", "b"))


def listed(*groups: dict[str, object]) -> CaseList:
    return CaseList.model_validate({"suite": "s", "version": 1, "summary": "", "cases": groups})


def names(cases: tuple[Case, ...]) -> list[str]:
    return [case.name for case in cases]


DERIVED = {"category": "model fine-tuning", "label": "derived"}
UNRELATED = {"category": "hard negatives", "label": "unrelated"}


def test_parents_are_paired_with_their_own_children_only() -> None:
    group = {**DERIVED, "suspects": ["*.child"], "bases": ["a", "b"], "pairing": "parent"}
    assert names(expand(listed(group), ZOO)) == ["a.child / a", "b.child / b"]


def test_models_are_paired_each_with_each_once_and_the_first_is_the_base() -> None:
    assert names(expand(listed({**UNRELATED, "models": ["a", "b"]}), ZOO)) == ["b / a"]


def test_a_pair_that_occurs_twice_counts_where_it_comes_first() -> None:
    twice = listed({**UNRELATED, "models": ["a", "b"]}, {**UNRELATED, "suspects": ["a"], "bases": ["b"]})
    assert names(expand(twice, ZOO)) == ["b / a"]


def test_roots_come_from_the_manifest() -> None:
    (case,) = expand(listed({**DERIVED, "suspects": ["merged"], "bases": ["a"]}), ZOO)
    assert (case.roots, case.base_roots) == (("a", "b"), ("a",))


@pytest.mark.parametrize(
    ("group", "truth"),
    [
        ({**UNRELATED, "suspects": ["a.child"], "bases": ["a"]}, "share an origin"),
        ({**DERIVED, "suspects": ["a"], "bases": ["b"]}, "share no origin"),
    ],
)
def test_a_label_that_lineage_contradicts_is_refused(group: dict[str, object], truth: str) -> None:
    with pytest.raises(UsageError, match=f"by the manifest they {truth}"):
        expand(listed(group), ZOO)


def test_a_model_that_the_zoo_lacks_is_named() -> None:
    with pytest.raises(UsageError, match="the zoo has no model 'c'"):
        expand(listed({**UNRELATED, "models": ["a", "c"]}), ZOO)


def test_only_keeps_the_pairs_that_match_by_model_pair_or_category() -> None:
    cases = listed({**DERIVED, "suspects": ["*.child"], "bases": ["a", "b"], "pairing": "parent"})
    assert names(expand(cases, ZOO, only="b.*")) == ["b.child / b"]
    assert names(expand(cases, ZOO, only="* / a")) == ["a.child / a"]
    assert len(expand(cases, ZOO, only="model fine-*")) == 2
    with pytest.raises(UsageError, match="no case matches 'x'"):
        expand(cases, ZOO, only="x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("suite: [", "not YAML"),
        ("suite: s", "Field required"),
        (
            "suite: s\nversion: 1\nsummary: x\ncases: [{category: cats, label: derived, models: [a]}]",
            "cases.0.category",
        ),
        ("suite: s\nversion: 1\nsummary: x\ncases: [{category: format, label: derived}]", "either suspects and bases"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
    ],
)
def test_a_file_that_is_no_list_of_cases_is_told_where_and_why(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=said):
        read_cases(str(path))


def test_an_unknown_suite_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="no cases for 'huge': choose from compositions"):
        read_cases("huge")


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_list_names_only_models_of_its_suite(name: str) -> None:
    cases = read_cases(name)
    assert cases.suite == name
    # Labels are checked against the roots when a zoo is there; here a label decides which roots would be consistent.
    known = [recipe.name for recipe in SUITES[name].recipes]
    assert expand(_relabelled(cases), manifest(**{name.replace(".", "__"): ("x",) for name in known}))


def _relabelled(cases: CaseList) -> CaseList:
    shown = tuple(group.model_copy(update={"label": "shown"}) for group in cases.cases)
    return cases.model_copy(update={"cases": shown})


def test_the_tiny_list_has_at_least_150_pairs() -> None:
    cases = _relabelled(read_cases("tiny"))
    known = [recipe.name for recipe in SUITES["tiny"].recipes]
    assert len(expand(cases, manifest(**{name.replace(".", "__"): ("x",) for name in known}))) >= 150
