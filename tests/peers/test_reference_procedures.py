"""The published procedures that kinprint is timed against: what they ignore, what they notice, answers by hand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from reference import awm, ghostspec

from kinprint.checkpoint import write_safetensors

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "reference" / "measured.py"
D, HEADS, KV_HEADS, HEAD_DIM, TOKENS = 32, 4, 2, 8, 60


def weights(seed: int, layers: int = 3) -> awm.Weights:
    rng = np.random.default_rng(seed)
    return awm.Weights(
        rng.standard_normal((TOKENS, D), dtype=np.float32),
        [rng.standard_normal((HEADS * HEAD_DIM, D), dtype=np.float32) for _ in range(layers)],
        [rng.standard_normal((KV_HEADS * HEAD_DIM, D), dtype=np.float32) for _ in range(layers)],
    )


def test_awm_ignores_order_and_signs_of_coordinates_and_any_turn_of_the_outputs() -> None:
    one, rng = weights(0), np.random.default_rng(1)
    order, signs = rng.permutation(D), rng.choice([-1.0, 1.0], D).astype(np.float32)
    turn = np.linalg.qr(rng.standard_normal((HEADS * HEAD_DIM, HEADS * HEAD_DIM)))[0].astype(np.float32)
    other = awm.Weights(
        one.embedding[:, order] * signs,
        [3 * turn @ query[:, order] * signs for query in one.queries],
        [key[:, order] * signs for key in one.keys],
    )
    # float32 products of 32 terms
    assert awm.similarity(one, other) == pytest.approx(1, abs=1e-5)


def test_awm_finds_each_coordinate_and_its_sign() -> None:
    embedding = weights(2).embedding
    order, signs = np.random.default_rng(3).permutation(D), np.where(np.arange(D) % 3, 1.0, -1.0)
    found, found_signs = awm.alignment(embedding, embedding[:, order] * signs)
    assert found.tolist() == order.tolist()
    assert found_signs.tolist() == signs.tolist()


def test_awm_notices_a_stranger() -> None:
    # The mean of six unbiased values of standard deviation about 1/D.
    assert abs(awm.similarity(weights(4), weights(5))) < 0.1


def test_awm_maps_the_layers_of_models_that_differ_in_depth() -> None:
    deep = weights(6, layers=4)
    shallow = awm.Weights(deep.embedding, [deep.queries[3], deep.queries[1]], [deep.keys[3], deep.keys[1]])
    assert awm.similarity(shallow, deep) == pytest.approx(1, abs=1e-5)
    assert awm.similarity(deep, shallow) == pytest.approx(1, abs=1e-5)


def test_unbiased_cka_of_four_samples_by_hand() -> None:
    # Gram matrices with one pair each, (0,1) and (2,3). Means are 1/3 in the pair and -1/6 outside it, which leaves 1/3
    # at the pair and at the opposite one, and -1/6 elsewhere: the same for both, so CKA is 1.
    one, other = np.zeros((2, 4, 4), np.float32)
    one[0, :2], other[0, 2:] = 1, 1
    assert awm.unbiased_cka(one, other) == pytest.approx(1, abs=1e-6)
    # (0,1) against (0,2): 2 (4 (1/3)(-1/6) + 2 (1/36)) = -1/3, over 2 (2 (1/9) + 4 (1/36)) = 2/3.
    other = np.zeros((4, 4), np.float32)
    other[0, [0, 2]] = 1
    assert awm.unbiased_cka(one, other) == pytest.approx(-0.5, abs=1e-6)


def test_unbiased_cka_of_nothing_is_zero() -> None:
    assert awm.unbiased_cka(np.zeros((2, 8), np.float32), np.eye(8, dtype=np.float32)) == 0


def layer(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    narrow = KV_HEADS * HEAD_DIM, D
    shapes = {"query": (D, D), "key": narrow, "value": narrow, "output": (D, D)}
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def spectra(weight: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    return ghostspec.layer_spectra(**weight, heads=HEADS, kv_heads=KV_HEADS)


def test_ghostspec_ignores_a_rotation_of_the_residual_and_an_exchange_between_values_and_output() -> None:
    one, rng = layer(0), np.random.default_rng(1)
    turn = np.linalg.qr(rng.standard_normal((D, D)))[0]
    mix = rng.standard_normal((HEAD_DIM, HEAD_DIM)) + 4 * np.eye(HEAD_DIM)
    other = {
        "query": one["query"] @ turn,
        "key": one["key"] @ turn,
        "value": np.kron(np.eye(KV_HEADS), mix) @ one["value"] @ turn,
        "output": turn.T @ one["output"] @ np.kron(np.eye(HEADS), np.linalg.inv(mix)),
    }
    # float32 values of about 100
    for left, right in zip(spectra(one), spectra(other), strict=True):
        np.testing.assert_allclose(left, right, atol=1e-3)


def test_ghostspec_notices_a_stranger() -> None:
    one, other = ([spectra(layer(seed)) for seed in seeds] for seeds in ((0, 1), (2, 3)))
    assert ghostspec.distance(one, one, penalty=0) == 0
    assert ghostspec.distance(one, other, penalty=0) > 1e-4


def test_key_heads_are_repeated_head_by_head() -> None:
    key = np.arange(8.0).reshape(4, 2)  # two heads of two coordinates
    found = ghostspec.repeated(key, 2, 2)
    assert found[:, 0].tolist() == [0, 2, 0, 2, 4, 6, 4, 6]


def test_effective_rank_and_distance_by_hand() -> None:
    assert ghostspec.effective_rank(np.array([1.0, 1.0, 1.0, 0.0])) == 3
    assert ghostspec.effective_rank(np.array([5.0, 0.0])) == 1
    # exp(entropy) is 2 for 1:1:0, so 4:2:1 is cut to 4:2 and both are scaled: (1, 0) and (0, 0).
    assert ghostspec.spectrum_distance(np.array([4.0, 2.0, 1.0]), np.array([1.0, 1.0, 0.0])) == 0.5


def test_posa_by_hand() -> None:
    distances = np.array([[1.0, 0.0, 9.0, 9.0], [9.0, 1.0, 9.0, 0.5]])
    # Skipping costs nothing: 0 -> 1, 1 -> 3. At 2 a layer it is dearer than 0 -> 0, 1 -> 1 by 0.5.
    assert ghostspec.posa(distances, 0) == 0.25
    assert ghostspec.posa(distances, 2) == 1.0


def checkpoint(folder: Path, seed: int) -> Path:
    folder.mkdir()
    model = weights(seed, layers=1)
    one = layer(seed)
    tensors = {
        "model.embed_tokens.weight": model.embedding,
        **{f"model.layers.0.self_attn.{name[0]}_proj.weight": weight for name, weight in one.items()},
    }
    halves = {name: tensor.astype(ml_dtypes.bfloat16) for name, tensor in tensors.items()}
    config = {"num_hidden_layers": 1, "num_attention_heads": HEADS, "num_key_value_heads": KV_HEADS}
    write_safetensors(folder, halves.items(), config=config)
    return folder


@pytest.mark.parametrize(("procedure", "same"), [("awm", 1.0), ("ghostspec", 0.0)])
def test_the_script_scores_folders(procedure: str, same: float, tmp_path: Path) -> None:
    base, stranger = checkpoint(tmp_path / "base", 0), checkpoint(tmp_path / "stranger", 9)
    command = [sys.executable, str(SCRIPT), procedure, *map(str, (base, base, stranger))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    itself, other = json.loads(done.stdout)
    assert itself["score"] == pytest.approx(same, abs=1e-5)
    assert other["score"] < same - 1e-4
    assert [itself["suspect"], other["suspect"]] == ["base", "stranger"]
