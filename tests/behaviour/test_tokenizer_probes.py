"""Tokenizer probes: what they ignore, what they notice, and an answer by hand."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kinprint.behaviour.endpoint import Endpoint
from kinprint.behaviour.tokenizer_probes import AFTER, BEFORE, STRINGS, compare, counts, matched
from kinprint.errors import CheckpointError, MissingExtraError, UsageError
from support.openai_server import OpenAIServer, at_home
from support.toy_model import Toy

tokenizers: Any = pytest.importorskip("tokenizers")

CORPUS = [
    "The text is: def f(x): return x**2. That is all.",
    "The committee said that the state of the art is the art of the state, and that is all.",
    " ".join(f"{number:02d}" for number in range(100)) + " https://www.example.org/",
] * 20


def trained(path: Path, *, digits: bool, size: int = 400) -> Path:
    """Write a small byte-level BPE tokenizer; ``digits`` cuts every digit by itself."""
    made = tokenizers.Tokenizer(tokenizers.models.BPE())
    cut = [tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    if digits:
        cut.insert(0, tokenizers.pre_tokenizers.Digits(individual_digits=True))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(cut)
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=size, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(CORPUS, trainer)
    path.mkdir()
    made.save(str(path / "tokenizer.json"))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    top = tmp_path_factory.mktemp("tokenizers")
    trained(top / "whole", digits=False)
    trained(top / "digits", digits=True)
    trained(top / "small", digits=False, size=300)
    return top


@dataclass
class Counter:
    """Counts with a tokenizer, and with a template of so many tokens."""

    path: Path
    template: int = 0
    silent: tuple[int, ...] = ()
    name: str = "served"

    def prompt_tokens(self, text: str) -> int | None:
        place = [BEFORE + string + AFTER for _, string in STRINGS].index(text)
        return None if place in self.silent else counts(self.path)[place] + self.template


class Tokenized(Toy):
    """A toy model with a real tokenizer."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tokenizer = tokenizers.Tokenizer.from_file(str(path / "tokenizer.json"))

    def count_tokens(self, text: str) -> int:
        return len(self.tokenizer.encode(text).ids)


@pytest.mark.parametrize("template", [0, 1, 37])
def test_a_template_of_any_length_is_ignored_and_the_tokenizer_found(folder: Path, template: int) -> None:
    result = compare(Counter(folder / "whole", template), [folder / "digits", folder / "whole", folder / "small"])
    best, *others = result.values
    assert best.name == "whole: share of equal counts"
    assert best.value == 1
    assert f"{len(STRINGS)} of {len(STRINGS)} strings, offset {template}" == best.note
    assert all((value.value or 0) < 1 for value in others)


def test_a_tokenizer_that_only_cuts_digits_otherwise_is_noticed_by_its_digits(folder: Path) -> None:
    result = compare(Counter(folder / "whole", 3), [folder / "digits"])
    assert 0.5 < (result.values[0].value or 0) < 1
    different = {row[0] for row in result.tables[0].rows if row[1] != row[2]}
    assert "10 digits" in different
    assert not different & {"Chinese", "4 spaces", "joined emoji"}
    assert any("no candidate has all counts" in note for note in result.notes)


@pytest.mark.parametrize("completions", [True, False])
def test_through_an_api_the_tokenizer_is_found(
    folder: Path, completions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_home(monkeypatch)
    with (
        OpenAIServer(Tokenized(folder / "digits"), completions=completions, template=11) as served,
        Endpoint(served.url, "toy") as endpoint,
    ):
        result = compare(endpoint, [folder / "whole", folder / "digits"])
    assert result.values[0].name.startswith("digits")
    assert result.values[0].value == 1
    assert (result.values[0].note or "").endswith(f"offset {0 if completions else 11}")


def test_counts_are_worked_out_by_hand(tmp_path: Path) -> None:
    words = {"[UNK]": 0, "a": 1, "b": 2}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    made.save(str(tmp_path / "tokenizer.json"))
    found = dict(zip([kind for kind, _ in STRINGS], counts(tmp_path), strict=True))
    # "The text is:" and ". That is all." are 3 and 4 words.
    assert found["16 spaces"] == found["2 tabs"] == 3 + 2 + 4
    assert found["10 digits"] == 3 + 1 + 4
    assert found["contractions"] == 3 + 4 + 4
    assert counts(tmp_path / "tokenizer.json") == list(found.values())


def test_the_offset_is_the_one_that_fits_most_strings() -> None:
    assert matched([5, 6, 7, 9], [1, 2, 3, 4]) == (0.75, 4)
    assert matched([5, 6], [5, 7]) == (0.5, 0)
    assert matched([3, 3], [2, 4]) == (0.5, -1)


def test_candidates_that_the_strings_cannot_tell_apart_are_named(folder: Path, tmp_path: Path) -> None:
    twin = tmp_path / "twin"
    twin.mkdir()
    (twin / "tokenizer.json").write_bytes((folder / "whole" / "tokenizer.json").read_bytes())
    result = compare(Counter(folder / "whole"), [folder / "whole", twin, folder / "digits"])
    apart = {value.name: value.note for value in result.controls}
    assert apart["whole against twin"] == "these strings cannot tell them apart"
    assert apart["whole against digits"] == "equal counts by chance"
    assert any("do not prove the same tokenizer" in note for note in result.notes)


def test_truncation_padding_and_tokens_around_a_text_do_not_count(folder: Path, tmp_path: Path) -> None:
    made = tokenizers.Tokenizer.from_file(str(folder / "whole" / "tokenizer.json"))
    made.post_processor = tokenizers.processors.TemplateProcessing("a $A b", special_tokens=[("a", 65), ("b", 66)])
    assert len(made.encode("x").ids) == 3
    made.enable_truncation(3)
    made.enable_padding(length=500)
    made.save(str(tmp_path / "tokenizer.json"))
    assert counts(tmp_path) == counts(folder / "whole")


def test_strings_that_the_server_does_not_count_are_left_out(folder: Path) -> None:
    result = compare(Counter(folder / "whole", 2, silent=(0, 5)), [folder / "whole"])
    assert result.values[0].note == f"{len(STRINGS) - 2} of {len(STRINGS) - 2} strings, offset 2"
    assert any(note.startswith(f"2 of {len(STRINGS)} strings left out") for note in result.notes)
    nothing = compare(Counter(folder / "whole", silent=tuple(range(len(STRINGS)))), [folder / "whole"])
    assert nothing.status == "not_applicable"


def test_an_offset_that_no_template_has_is_named(folder: Path) -> None:
    result = compare(Counter(folder / "whole", -2), [folder / "whole"])
    assert any("offset of whole is no template's" in note for note in result.notes)


@pytest.mark.parametrize("content", ["", "{}", "[" * 100_000, '{"model": {"type": "BPE", "vocab": 5}}'])
def test_a_file_that_is_no_tokenizer_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match="is no tokenizer that can be read") as error:
        counts(tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(CheckpointError, match=r"is no tokenizer\.json"):
        counts(tmp_path / "none")


def test_no_candidate_and_no_library_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no candidate"):
        compare(Counter(folder / "whole"), [])
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(MissingExtraError, match=r"kinprint\[torch\]"):
        counts(folder / "whole")


def test_every_string_is_there_once_and_starts_and_ends_in_no_space() -> None:
    assert len({text for _, text in STRINGS}) == len({kind for kind, _ in STRINGS}) == len(STRINGS)
    assert all(text == text.strip() for _, text in STRINGS)
