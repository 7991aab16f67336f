"""Cut, reordered and extended vocabularies: the tokens that stay mean what they meant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from kinprint.architecture import PartKey
from kinprint.errors import UsageError
from kinprint.transform.vocabulary import with_more_tokens, with_new_embedding, with_tokens
from support.loaded import TOKENS, load, logits, tiny


@pytest.mark.parametrize("kind", ["llama", "llama-tied", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("count", [48, 44])
def test_tokens_that_stay_have_the_logits_that_they_had(kind: str, count: int) -> None:
    import torch

    state = replace(tiny(kind), config={**tiny(kind).config, "bos_token_id": 7, "eos_token_id": [9, 1]})
    # all that the inputs need, in another order, and some more
    ids = np.random.default_rng(2).permutation(40).tolist() + list(range(40, count))
    changed = with_tokens(state, ids)
    new = np.argsort(ids)
    with torch.no_grad():
        after = load(changed)(torch.from_numpy(new[TOKENS]), use_cache=False).logits.numpy()
    np.testing.assert_allclose(after, logits(state)[..., ids], atol=1e-5)  # norms in float32, logits of about 10
    assert changed.config["vocab_size"] == changed.geometry.vocab == count
    assert changed.config["bos_token_id"] == ids.index(7)
    assert changed.config["eos_token_id"] == [ids.index(9), ids.index(1)]


def test_strings_follow_their_tokens_and_special_tokens_that_are_gone_are_null() -> None:
    state = replace(tiny("llama"), vocabulary=tuple("abcde"))
    state = replace(state, config={**state.config, "bos_token_id": 7, "eos_token_id": [7, 3]})
    cut = with_tokens(state, [3, 0, 40])
    assert cut.vocabulary == ("d", "a", "")
    assert (cut.config["bos_token_id"], cut.config["eos_token_id"]) == (None, [0])


@pytest.mark.parametrize("ids", [[], [0, 0], [48], [-1]])
def test_ids_that_are_not_there_or_named_twice_are_refused(ids: list[int]) -> None:
    with pytest.raises(UsageError, match="name ids below 48, each once"):
        with_tokens(tiny("llama"), ids)


@pytest.mark.parametrize("kind", ["llama-tied", "gpt_neox"])
def test_new_tokens_leave_the_logits_of_old_ones_and_start_near_their_mean(kind: str) -> None:
    state = replace(tiny(kind), vocabulary=("a", "b"))
    longer = with_more_tokens(state, ["x", "y"], np.random.default_rng(1), spread=0.01)
    np.testing.assert_allclose(logits(longer)[..., :48], logits(state), atol=1e-5)
    embedding = longer.parts[PartKey("embed.token")]
    mean = state.parts[PartKey("embed.token")].mean(axis=0)
    # 32 numbers with a standard deviation of 0.01 times the matrix's
    assert 0 < np.abs(embedding[48:] - mean).max() < 0.05 * embedding.std()
    assert longer.vocabulary is not None
    assert len(longer.vocabulary) == 50
    assert longer.vocabulary[:3] == ("a", "b", "")
    assert longer.vocabulary[48:] == ("x", "y")


def test_new_embeddings_have_the_old_spread_and_nothing_else_changes() -> None:
    state = tiny("llama")
    fresh = with_new_embedding(state, np.random.default_rng(1))
    for key, array in state.parts.items():
        if key.role in ("embed.token", "unembed"):
            assert fresh.parts[key].std() == pytest.approx(array.std(), rel=0.1)  # 1,536 draws: 0.018
            assert abs(np.corrcoef(fresh.parts[key].ravel(), array.ravel())[0, 1]) < 0.15  # 1 / sqrt(1536) = 0.026
        else:
            np.testing.assert_array_equal(fresh.parts[key], array)
