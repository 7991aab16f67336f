"""What HuRef's invariant terms ignore and notice, and answers worked out by hand and from their definition."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinprint.architecture import ModelView, view
from kinprint.checkpoint import MemoryCheckpoint
from kinprint.methods import ics
from kinprint.methods.ics import METHOD, TOKENS, compare
from kinprint.transform import ModelState, preserve
from methods import tiny
from methods.tiny import numbers

seeds = st.integers(0, 2**32 - 1)
KINDS = ("M_a (q, k)", "M_b (v, o)", "M_f (MLP)")
EMBEDDING = "model.embed_tokens.weight"


def with_tokens(tensors: Mapping[str, np.ndarray], count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """The tensors with an embedding of so many rows."""
    rows = np.random.default_rng(seed).standard_normal((count, tensors["model.norm.weight"].size))
    return {**tensors, EMBEDDING: rows.astype(np.float32)}


def moved(tensors: Mapping[str, np.ndarray], name: str) -> ModelView:
    """The model after one function-preserving change; it gets an output matrix, or it could not be rotated."""
    state = ModelState.from_view(tiny.model({**tensors, "lm_head.weight": tensors[EMBEDDING]}))
    return preserve(state, [name], np.random.default_rng(1)).view()


def named(tensors: Mapping[str, np.ndarray], words: str) -> ModelView:
    """A model whose tokens are the letters of a word."""
    return view(MemoryCheckpoint(tensors, config={"head_dim": 4}, vocabulary=tuple(words)))


# -- what it ignores -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.ignores - {"expert-permutation"}))
@given(seed=seeds)
@settings(deadline=None, max_examples=3)
def test_unchanged_by(name: str, seed: int) -> None:
    tensors = tiny.llama(seed)
    child, base = tiny.changed(tensors, seed, 0.3), tiny.model(tensors)
    before, after = numbers(compare(tiny.model(child), base)), numbers(compare(tiny.moved(child, [name], seed), base))
    assert after == pytest.approx(before, abs=1e-5)  # rounded to float32 after the change


def test_unchanged_when_a_scale_is_given_to_any_matrix() -> None:
    tensors = tiny.llama(0, dtype=np.float64)
    scales = np.exp(np.random.default_rng(0).standard_normal(len(tensors)))
    scaled = {name: scale * array for (name, array), scale in zip(tensors.items(), scales, strict=True)}
    assert numbers(compare(tiny.model(scaled), tiny.model(tensors)))["similarity"] == pytest.approx(1.0, abs=1e-12)


def test_unchanged_by_numbers_that_overflow_when_multiplied() -> None:
    tensors = tiny.llama(0)
    huge = {name: array * np.float32(1e30) for name, array in tensors.items()}
    assert numbers(compare(tiny.model(huge), tiny.model(tensors)))["similarity"] == pytest.approx(1.0, abs=1e-6)


def test_unchanged_when_the_vocabulary_is_reordered_with_its_rows() -> None:
    tensors = tiny.llama(0)
    order = [3, 1, 7, 0, 2, 6, 5, 4]
    moved = {**tensors, EMBEDDING: tensors[EMBEDDING][order]}
    letters = "abcdefgh"
    result = compare(named(moved, "".join(letters[i] for i in order)), named(tensors, letters))
    assert numbers(result)["similarity"] == pytest.approx(1.0, abs=1e-6)
    assert result.notes[0].startswith("tokens: the last 8 of 8 shared token strings;")
    assert (numbers(compare(tiny.model(moved), tiny.model(tensors)))["similarity"] or 0) < 0.9


def test_only_the_last_two_layers_count() -> None:
    deep, shallow = tiny.llama(1, layers=5), tiny.llama(1, layers=2)
    for name in [name for name in shallow if ".layers." in name]:
        deep[name.replace("layers.0.", "layers.3.").replace("layers.1.", "layers.4.")] = shallow[name]
    deep[EMBEDDING] = shallow[EMBEDDING]
    result = compare(tiny.model(deep), tiny.model(shallow))
    assert numbers(result)["similarity"] == pytest.approx(1.0, abs=1e-6)
    assert result.notes[-1] == "the models differ in depth: the last layers stand against the last"
    assert [row[1:3] for row in result.tables[0].rows[::3]] == [(4, 1), (3, 0)]


def test_only_the_last_tokens_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert TOKENS == 4096
    monkeypatch.setattr(ics, "TOKENS", 5)
    tensors = tiny.llama(0)
    changed = {**tensors, EMBEDDING: tensors[EMBEDDING].copy()}
    changed[EMBEDDING][:3] = 9.0
    result = compare(tiny.model(changed), tiny.model(tensors))
    assert numbers(result)["similarity"] == pytest.approx(1.0, abs=1e-6)
    assert "the last 5 of 8 by id: no vocabulary in the suspect and the base" in result.notes[0]
    changed[EMBEDDING][3] = 9.0
    assert numbers(compare(tiny.model(changed), tiny.model(tensors)))["similarity"] < 0.99


# -- what it notices -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(METHOD.notices))
def test_changed_by(name: str) -> None:
    tensors = with_tokens(tiny.llama(3), 64)
    found = numbers(compare(moved(tensors, name), tiny.model(tensors)))
    assert found["similarity"] < 0.9
    assert found["M_f (MLP)"] < 0.8


def test_turned_signs_move_the_elementwise_product_alone() -> None:
    tensors = tiny.llama(3)
    found = numbers(compare(moved(tensors, "residual-signs"), tiny.model(tensors)))
    assert [found[kind] for kind in KINDS[:2]] == pytest.approx([1.0, 1.0], abs=1e-6)
    assert found["M_f (MLP)"] < 0.9


def test_a_rotation_with_constant_gains_takes_the_elementwise_product_alone() -> None:
    tensors = {name: np.ones_like(a) if "norm" in name else a for name, a in with_tokens(tiny.llama(3), 64).items()}
    found = numbers(compare(moved(tensors, "residual-rotation"), tiny.model(tensors)))
    assert [found[kind] for kind in KINDS[:2]] == pytest.approx([1.0, 1.0], abs=1e-5)
    assert abs(found["M_f (MLP)"]) < 0.4


@given(seed=st.integers(0, 1000))
@settings(deadline=None, max_examples=5)
def test_a_child_is_nearer_than_a_stranger_and_shuffled_tokens_are_at_zero(seed: int) -> None:
    tensors = with_tokens(tiny.llama(seed), 64, seed)
    child = numbers(compare(tiny.model(tiny.changed(tensors, seed, 0.1)), tiny.model(tensors)))
    stranger = numbers(compare(tiny.model(with_tokens(tiny.llama(seed + 1), 64, seed + 1)), tiny.model(tensors)))
    assert child["similarity"] > 0.8
    assert abs(stranger["similarity"]) < 0.2
    assert abs(child["similarity, tokens shuffled"]) < 0.2


def test_new_embeddings_make_a_stranger_of_a_copy() -> None:
    tensors = with_tokens(tiny.llama(0), 64)
    copy = tiny.model(with_tokens(tensors, 64, seed=1))
    assert abs(numbers(compare(copy, tiny.model(tensors)))["similarity"]) < 0.3


# -- answers by hand -----------------------------------------------------------------------------------------------


def test_by_hand() -> None:
    one = np.eye(2)

    def model(key: np.ndarray, output: np.ndarray, gate: list[list[float]], up: list[list[float]]) -> ModelView:
        tensors = tiny.llama(0, layers=2, hidden=2, heads=1, kv_heads=1, head_dim=2, ffn=1, dtype=np.float64)
        tensors[EMBEDDING] = one
        for layer in (0, 1):
            at = f"model.layers.{layer}."
            tensors |= {
                **{f"{at}self_attn.{name}_proj.weight": array for name, array in
                   {"q": one, "k": key, "v": one, "o": output}.items()},
                f"{at}mlp.gate_proj.weight": np.array(gate),
                f"{at}mlp.up_proj.weight": np.array(up),
                f"{at}mlp.down_proj.weight": np.array([[1.0], [0.0]]),
            }  # fmt: skip
        return tiny.model(tensors, head_dim=2)

    # M_a: (1 0 / 0 0) against (1 0 / 0 1): covariance 1/4 - 1/8, variances 3/16 and 1/4, hence 1 / sqrt 3.
    # M_b: one against -one: -1.
    # M_f: gate * up is (2 0) against (1 1), and down keeps the first coordinate:
    # (2 0 / 0 0) against (1 0 / 1 0), as M_a.
    suspect = model(np.diag([1.0, 0.0]), one, [[4.0, 3.0]], [[0.5, 0.0]])
    found = numbers(compare(suspect, model(one, -one, [[1.0, 2.0]], [[1.0, 0.5]])))
    expected = (3**-0.5, -1.0, 3**-0.5)
    assert [found[kind] for kind in KINDS] == pytest.approx(expected, abs=1e-12)
    assert found["similarity"] == pytest.approx(np.mean(expected), abs=1e-12)


def definition(tensors: Mapping[str, np.ndarray], kv_heads: int) -> list[np.ndarray]:
    """The six matrices of the definition, with every key/value head written out for each of its query heads."""
    x, found = tensors[EMBEDDING], []
    for layer in (3, 2):
        names = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "mlp.gate", "mlp.up", "mlp.down")
        q, k, v, o, gate, up, down = (tensors[f"model.layers.{layer}.{name}_proj.weight"] for name in names)
        k, v = (np.repeat(m.reshape(kv_heads, -1, m.shape[1]), 4 // kv_heads, axis=0).reshape(q.shape) for m in (k, v))
        found += [x @ q.T @ k @ x.T, x @ v.T @ o.T @ x.T, x @ (gate * up).T @ down.T @ x.T]
    return found


@pytest.mark.parametrize("tokens", [8, 40])  # fewer and more than there are coordinates
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_the_similarity_is_the_cosine_of_all_six_zscored_matrices(tokens: int, kv_heads: int) -> None:
    rng = np.random.default_rng(0)
    sides = [tiny.llama(seed, kv_heads=kv_heads, dtype=np.float64) for seed in (1, 2)]
    sides[1] = {name: sides[0][name] + 0.5 * array for name, array in sides[1].items()}
    for side in sides:
        side[EMBEDDING] = rng.standard_normal((tokens, 16))
    flat = [np.concatenate([((m - m.mean()) / m.std()).ravel() for m in definition(side, kv_heads)]) for side in sides]
    cosine = flat[0] @ flat[1] / np.linalg.norm(flat[0]) / np.linalg.norm(flat[1])
    result = compare(*(tiny.model(side) for side in sides))
    assert numbers(result)["similarity"] == pytest.approx(cosine, abs=1e-12)
    assert result.values[0].note == "cosine over 6 of 6 matrices"


def test_models_of_different_widths_are_compared_over_their_tokens() -> None:
    wide, narrow = tiny.llama(0, hidden=32), tiny.llama(1)
    # Sixteen coordinates more that nothing reads or writes.
    for name, array in narrow.items():
        wide[name] = np.zeros_like(wide[name])
        wide[name][tuple(slice(length) for length in array.shape)] = array
    assert numbers(compare(tiny.model(wide), tiny.model(narrow)))["similarity"] == pytest.approx(1.0, abs=1e-6)


# -- what cannot be compared ---------------------------------------------------------------------------------------


def test_a_mixture_has_no_term_of_the_mlp_and_the_others_are_measured() -> None:
    model = tiny.model(tiny.mixture(0))
    result = compare(model, model)
    values = {value.name: value for value in result.values}
    assert values["similarity"].value == pytest.approx(1.0, abs=1e-6)
    assert values["similarity"].note == (
        "cosine over 4 of 6 matrices; M_f (MLP) missing: layer 3 of the suspect: a mixture of experts has no M_f"
    )
    assert values["M_f (MLP)"].value is None
    assert values["M_f (MLP)"].reason == "layer 3 of the suspect: a mixture of experts has no M_f"


def test_embeddings_without_a_common_token_are_a_finding() -> None:
    tensors = tiny.llama(0)
    result = compare(named(tensors, "abcdefgh"), named(tensors, "hijklmno"))
    assert (result.status, result.reason) == (
        "not_applicable",
        "shared tokens: 1, at least 2 are needed",
    )


def test_embeddings_of_two_lengths_need_a_vocabulary() -> None:
    result = compare(tiny.model(with_tokens(tiny.llama(0), 9)), tiny.model(tiny.llama(0)))
    assert result.reason == "embeddings of 9 and 8 rows, and no vocabulary to match the tokens by"


def test_a_nan_is_named_and_takes_only_what_holds_it() -> None:
    broken = tiny.llama(0)
    broken["model.layers.3.mlp.up_proj.weight"][0, 0] = np.nan
    result = compare(tiny.model(broken), tiny.model(tiny.llama(0)))
    reasons = {row[:2]: row[5] for row in result.tables[0].rows if row[3] is None}
    tensor = "model.layers.3.mlp.up_proj.weight"
    assert reasons == {("M_f (MLP)", 3): f"layer 3 of the suspect: tensor {tensor!r} holds NaN or Inf"}
    assert numbers(result)["M_f (MLP)"] == pytest.approx(1.0, abs=1e-6)
    broken[EMBEDDING][0, 0] = np.inf
    assert compare(tiny.model(broken), tiny.model(broken)).reason == f"tensor {EMBEDDING!r} holds NaN or Inf"


def test_tokens_that_are_all_the_same_have_no_correlation() -> None:
    tensors = tiny.llama(0)
    tensors[EMBEDDING][:] = tensors[EMBEDDING][0]
    result = compare(tiny.model(tensors), tiny.model(tensors))
    assert (result.status, result.reason) == ("not_applicable", "the same for all tokens in one of the models")


def test_models_of_unknown_families_have_no_embedding() -> None:
    model = view(MemoryCheckpoint({"x": np.ones((2, 2))}))
    assert compare(model, model).reason == "the suspect has no token embedding"
