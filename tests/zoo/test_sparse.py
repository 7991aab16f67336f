"""Sparse checkpoints: where data lies, what it is to its base, and that real loaders take them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinprint.architecture import view
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import UsageError
from kinprint.zoo import networks, sparse, sparse_values
from kinprint.zoo.sparse import filled_layers, folder_bytes, plan, write_sparse
from kinprint.zoo.sparse_plan import Dtype, Layout

Arrays = dict[str, np.ndarray]
COMMAND = Path(sys.executable).parent / "kinprint"
MIXTURE, DENSE, LATENT = "tiny-moe", "tiny-dense", "tiny-latent"
LAYER = "model.layers.3"
needs_holes = pytest.mark.skipif(sys.platform == "win32", reason="NTFS writes zeros unless a file is marked as sparse")


def read(folder: Path) -> Arrays:
    stored = open_checkpoint(folder)
    return {name: np.array(stored.read(name), np.float32) for name in stored.tensors}


def logits(folder: Path) -> np.ndarray:
    pytest.importorskip("torch")
    with networks.reproducible() as torch, torch.no_grad():
        model, info = networks.extra("transformers").AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
        model.config._experts_implementation = "eager"
        tokens = torch.arange(0, 240, 5).reshape(2, 24)
        return model.eval()(tokens).logits.numpy()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mixtures that hold data everywhere, and a dense model that one of them comes from."""
    at = tmp_path_factory.mktemp("models")
    whole: dict[str, Any] = {"filled": None, "filled_experts": None}
    write_sparse(MIXTURE, at / "base", seed=1, **whole)
    write_sparse(MIXTURE, at / "fused", seed=1, layout="fused", **whole)
    write_sparse(MIXTURE, at / "finetuned", seed=2, kind="finetuned", base=at / "base", change=0.1)
    write_sparse(MIXTURE, at / "laundered", seed=3, kind="laundered", base=at / "base", change=0.0)
    write_sparse(DENSE, at / "dense", seed=4, **whole)
    write_sparse(DENSE, at / "laundered-dense", seed=6, kind="laundered", base=at / "dense", change=0.0)
    write_sparse(LATENT, at / "latent", seed=7, **whole)
    write_sparse(LATENT, at / "laundered-latent", seed=8, kind="laundered", base=at / "latent", change=0.0)
    write_sparse(MIXTURE, at / "upcycled", seed=5, kind="upcycled", base=at / "dense", change=0.0, filled_experts=None)
    return at


# -- the layout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "parameters"),
    [
        ("llama-3-8b", 8_030_261_248),
        ("llama-3-70b", 70_553_706_496),
        ("llama-65b", 65_285_660_672),
        ("mistral-7b", 7_248_023_552),
    ],
)
def test_a_published_shape_has_as_many_parameters_as_the_published_model(shape: str, parameters: int) -> None:
    assert sum(unit.size for unit, _ in plan(shape).units) == parameters


def test_glm_air_has_its_106_billion_parameters_in_200_gigabytes_of_shards() -> None:
    whole = plan("glm-4.5-air")
    mixture = 128 * 3 * 1408 * 4096 + 128 * 4096 + 128 + 3 * 1408 * 4096
    attention = 2 * (96 * 128 * 4096) + 2 * (8 * 128 * 4096) + (96 + 8 + 8) * 128
    by_hand = 2 * 151_552 * 4096 + 4096 + 46 * (attention + 2 * 4096) + 45 * mixture + 3 * 10_944 * 4096
    assert sum(unit.size for unit, _ in whole.units) == by_hand
    assert 105e9 < by_hand < 108e9
    # Two bytes each, four for the biases of the routers' choice.
    assert sum(tensor.nbytes for tensor in whole.tensors.values()) == 2 * by_hand + 2 * 45 * 128
    assert whole.apparent_bytes > 200e9
    assert len(whole.sizes) == 43
    assert max(whole.sizes.values()) < 5.1e9


def test_deepseek_v3_has_its_671_billion_parameters() -> None:
    mixture = 257 * 3 * 2048 * 7168 + 256 * 7168 + 256
    queries = 1536 * 7168 + 1536 + 128 * (128 + 64) * 1536
    keys_and_values = (512 + 64) * 7168 + 512 + 128 * (128 + 128) * 512
    attention = queries + keys_and_values + 7168 * 128 * 128
    by_hand = 2 * 129_280 * 7168 + 7168 + 61 * (attention + 2 * 7168) + 58 * mixture + 3 * 3 * 18_432 * 7168
    assert sum(unit.size for unit, _ in plan("deepseek-v3").units) == by_hand
    assert 670e9 < by_hand < 672e9


def test_the_tensors_of_a_file_follow_each_other_without_gaps_and_aligned() -> None:
    whole = plan(MIXTURE, dtype="fp8", shard_bytes=200_000)
    assert len(whole.sizes) > 5
    ends = dict.fromkeys(whole.sizes, 0)
    for tensor in whole.tensors.values():
        assert tensor.offset == ends[tensor.file]
        assert tensor.offset % {"BF16": 2, "F8_E4M3": 1, "F32": 4}[tensor.dtype] == 0
        ends[tensor.file] += tensor.nbytes
    assert {file: len(whole.headers[file]) + end for file, end in ends.items()} == whole.sizes


@pytest.mark.parametrize("layout", ["per-expert", "fused"])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_every_layout_is_read_and_holds_the_same_values(
    models: Path, tmp_path: Path, layout: Layout, dtype: Dtype
) -> None:
    write_sparse(MIXTURE, tmp_path / "made", seed=1, filled=None, filled_experts=None, layout=layout, dtype=dtype)
    model = view(open_checkpoint(tmp_path / "made"))
    assert model.family.name == "glm4_moe"
    assert model.info().coverage == 1.0
    base, made = read(models / "base"), read(tmp_path / "made")
    for role, half in (("gate", slice(0, 128)), ("up", slice(128, 256)), ("down", slice(0, 128))):
        expected = base[f"{LAYER}.mlp.experts.4.{role}_proj.weight"]
        stack = f"{LAYER}.mlp.experts.{'down_proj' if role == 'down' else 'gate_up_proj'}"
        found = made[stack][4, half] if layout == "fused" else made[f"{LAYER}.mlp.experts.4.{role}_proj.weight"]
        # e4m3 keeps three bits behind the first: half a step is 1/16 of a value; the smallest lose more.
        nearby = 0 if dtype == "bf16" else 1 / 16
        np.testing.assert_allclose(found, expected, rtol=nearby, atol=nearby * np.abs(expected).max() / 100)


@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_latent_attention_is_read_with_a_role_for_every_parameter(tmp_path: Path, dtype: Dtype) -> None:
    write_sparse(LATENT, tmp_path / "made", seed=1, filled=None, filled_experts=None, dtype=dtype)
    model = view(open_checkpoint(tmp_path / "made"))
    assert model.info().coverage == 1.0
    assert {"attn.q_a", "attn.kv_a", "attn.k_rope", "attn.v_b"} <= {key.role for key in model.parts}


def test_a_tensor_written_in_blocks_of_rows_is_the_one_written_whole(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy: dict[str, Any] = {"seed": 0, "kind": "finetuned", "base": models / "base", "change": 0.0, "dtype": "fp8"}
    write_sparse(MIXTURE, tmp_path / "whole", **copy)
    monkeypatch.setattr(sparse_values, "BLOCK_VALUES", 1)
    assert sparse_values.row_blocks((320, 128)) == [(0, 128), (128, 256), (256, 320)]
    write_sparse(MIXTURE, tmp_path / "blocks", **copy)
    whole, blocks = (open_checkpoint(tmp_path / name).content_digest for name in ("whole", "blocks"))
    assert whole == blocks


def test_layouts_that_no_model_has_are_refused() -> None:
    with pytest.raises(UsageError, match="no experts to fuse"):
        plan(DENSE, layout="fused")
    with pytest.raises(UsageError, match="give one of glm"):
        plan("gpt-5")
    with pytest.raises(UsageError, match="give 1 to 32"):
        plan("llama-3-8b", layers=33)


# -- data and holes --------------------------------------------------------------------------------------------------


def test_data_lies_in_the_drawn_layers_and_experts_only(tmp_path: Path) -> None:
    write_sparse(MIXTURE, tmp_path / "made", seed=8, filled=2, filled_experts=2)
    chosen = filled_layers(MIXTURE, 8, filled=2, filled_experts=2)
    assert len(chosen) == 2
    assert all(len(experts) == (2 if layer else 0) for layer, experts in chosen.items())
    made = open_checkpoint(tmp_path / "made")
    for unit, _ in plan(MIXTURE).units:
        values = made.read(unit.name)
        if unit.layer is None:
            expected = unit.role != "output"
        else:
            expected = unit.layer in chosen and unit.expert in (None, *chosen[unit.layer])
        # Of data hardly any value is rounded to zero, of a hole all are zero.
        assert bool(np.any(values)) is expected, unit.name
        assert bool(np.mean(values != 0) > 0.99) is expected, unit.name


@needs_holes
def test_what_is_not_filled_takes_no_room(tmp_path: Path) -> None:
    write_sparse(MIXTURE, tmp_path / "made", seed=8, filled=1, filled_experts=1)
    chosen = filled_layers(MIXTURE, 8, filled=1, filled_experts=1)
    filled = [
        unit
        for unit, _ in plan(MIXTURE).units
        if unit.role != "output"
        and (unit.layer is None or (unit.layer in chosen and unit.expert in (None, *chosen[unit.layer])))
    ]
    apparent, actual = folder_bytes(tmp_path / "made")
    # Each unit may begin and end inside a block of 4096 bytes; header, index, config and tokenizer are written.
    settings = sum(path.stat().st_size for path in (tmp_path / "made").glob("*.json"))
    room = sum(2 * unit.size + 2 * 4096 for unit in filled) + settings + 10 * 4096 + 40_000
    assert actual < room < apparent / 2


@needs_holes
def test_a_model_of_141_gigabytes_fits_on_any_disk(tmp_path: Path) -> None:
    try:
        write_sparse("llama-3-70b", tmp_path / "made", seed=0, filled=0, embeddings=False)
    except UsageError as error:
        pytest.skip(f"the file system takes no such files: {error}")
    apparent, actual = folder_bytes(tmp_path / "made")
    assert apparent > 141e9
    assert actual < 10e6
    assert view(open_checkpoint(tmp_path / "made")).info().coverage == 1.0


def test_the_same_call_gives_the_same_bytes_however_many_work_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, workers in (("one", 1), ("four", 4)):
        monkeypatch.setattr(sparse, "MOST_WORKERS", workers)
        monkeypatch.setattr(sparse, "cpu_count", lambda: 4)
        write_sparse(MIXTURE, tmp_path / name, seed=8, filled=2)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "four").iterdir())
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "four" / file).read_bytes()


def test_nothing_beside_the_values_tells_which_layers_hold_data(tmp_path: Path) -> None:
    for seed in (8, 9):
        write_sparse(MIXTURE, tmp_path / str(seed), seed=seed, filled=2)
    assert filled_layers(MIXTURE, 8, filled=2) != filled_layers(MIXTURE, 9, filled=2)
    one, other = (open_checkpoint(tmp_path / str(seed)) for seed in (8, 9))
    assert one.header_digest == other.header_digest
    assert one.content_digest != other.content_digest
    for path in (tmp_path / "8").glob("*.json"):
        assert path.read_bytes() == (tmp_path / "9" / path.name).read_bytes()


def test_rows_are_numbered_by_tokens_of_the_tokenizer(models: Path) -> None:
    words = open_checkpoint(models / "base").vocabulary
    assert words is not None
    assert len(words) == len(set(words)) == 256
    assert words == open_checkpoint(models / "upcycled").vocabulary


# -- kinds -----------------------------------------------------------------------------------------------------------


def relative_change(child: np.ndarray, base: np.ndarray) -> float:
    return float(np.linalg.norm(child - base) / np.linalg.norm(base))


def test_a_finetuned_model_differs_by_the_change_that_was_asked_for(models: Path) -> None:
    base, child = read(models / "base"), read(models / "finetuned")
    assert base.keys() == child.keys()
    for name, values in base.items():
        # The norm of n Gaussian values strays by 1/sqrt(2 n), and bf16 adds less than 2^-8 of the values.
        spread = 5 / np.sqrt(2 * values.size)
        assert relative_change(child[name], values) == pytest.approx(0.1, rel=spread + 0.01), name
    noise = {name: child[name] - base[name] for name in base}
    first, second = (noise[f"model.layers.{layer}.self_attn.o_proj.weight"].ravel() for layer in (0, 1))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
    assert abs(np.corrcoef(first, base["model.layers.0.self_attn.o_proj.weight"].ravel())[0, 1]) < 0.04


def test_a_twin_has_data_where_its_base_has_and_shares_none(tmp_path: Path) -> None:
    write_sparse(MIXTURE, tmp_path / "base", seed=8, filled=2, filled_experts=2)
    write_sparse(MIXTURE, tmp_path / "twin", seed=9, base=tmp_path / "base", layout="fused")
    write_sparse(MIXTURE, tmp_path / "child", seed=9, kind="finetuned", base=tmp_path / "twin")
    base, twin, child = (read(tmp_path / name) for name in ("base", "twin", "child"))
    for name, values in base.items():
        if name in twin:
            assert np.any(values) == np.any(twin[name]), name
        assert np.any(values) == np.any(child[name]), name
    chosen = next(layer for layer in filled_layers(MIXTURE, 8, filled=2, filled_experts=2) if layer)
    query = f"model.layers.{chosen}.self_attn.q_proj.weight"
    # Rows and columns have sizes of their own, so that less than all values are independent.
    assert abs(np.corrcoef(base[query].ravel(), twin[query].ravel())[0, 1]) < 0.05
    assert np.corrcoef(child[query].ravel(), twin[query].ravel())[0, 1] > 0.99


def test_a_laundered_model_computes_what_its_base_does(models: Path) -> None:
    # Factors of units are no powers of two, so bf16 rounds the products: by up to 2^-9 of a weight, in all layers.
    dense, child = logits(models / "dense"), logits(models / "laundered-dense")
    assert np.abs(child - dense).max() < 0.05 * np.abs(dense).max()
    # Rounding sends a few tokens to another expert, whose logits then differ.
    latent, child = logits(models / "latent"), logits(models / "laundered-latent")
    assert np.median(np.abs(child - latent).max(axis=-1) / np.abs(latent).max(axis=-1)) < 0.02
    base, child, changed = (logits(models / name) for name in ("base", "laundered", "finetuned"))
    per_token = np.abs(child - base).max(axis=-1) / np.abs(base).max(axis=-1)
    assert np.median(per_token) < 0.02
    assert np.median(np.abs(changed - base).max(axis=-1) / np.abs(base).max(axis=-1)) > 0.1


def test_a_laundered_model_is_its_base_once_its_permutations_are_undone(models: Path) -> None:
    base, child = read(models / "base"), read(models / "laundered")
    embed, moved = base["model.embed_tokens.weight"], child["model.embed_tokens.weight"]
    column = {values.tobytes(): place for place, values in enumerate(embed.T.copy())}
    order = np.array([column[values.tobytes()] for values in moved.T.copy()])
    assert sorted(order) == list(range(128))
    assert np.mean(order == np.arange(128)) < 0.1
    for name in ("model.norm.weight", f"{LAYER}.input_layernorm.weight", f"{LAYER}.post_attention_layernorm.weight"):
        assert np.array_equal(child[name], base[name][order])
    router, routed = base[f"{LAYER}.mlp.gate.weight"][:, order], child[f"{LAYER}.mlp.gate.weight"]
    experts = [int(np.flatnonzero((router == row).all(axis=1))[0]) for row in routed]
    assert sorted(experts) == list(range(6))
    assert experts != list(range(6))
    bias = f"{LAYER}.mlp.gate.e_score_correction_bias"
    assert np.array_equal(child[bias], base[bias][experts])
    for new, old in enumerate(experts):
        gate, up, down = (base[f"{LAYER}.mlp.experts.{old}.{role}_proj.weight"] for role in ("gate", "up", "down"))
        gated, upped, downed = (
            child[f"{LAYER}.mlp.experts.{new}.{role}_proj.weight"] for role in ("gate", "up", "down")
        )
        units = [int(np.flatnonzero((gate[:, order] == row).all(axis=1))[0]) for row in gated]
        assert sorted(units) == list(range(128))
        factor = np.linalg.norm(upped, axis=1) / np.linalg.norm(up, axis=1)[units]
        assert factor.std() > 0.2
        np.testing.assert_allclose(upped, up[units][:, order] * factor[:, None], rtol=0.02)
        np.testing.assert_allclose(downed, down[order][:, units] / factor, rtol=0.02)


def test_heads_move_with_those_that_share_their_keys(models: Path) -> None:
    base, child = read(models / "base"), read(models / "laundered")

    def heads(arrays: Arrays, layer: int, role: str) -> list[bytes]:
        # Coordinates inside a head keep their order, so that rotary positions stay what they are.
        return [head.tobytes() for head in arrays[f"model.layers.{layer}.self_attn.{role}_proj.bias"].reshape(-1, 32)]

    orders: set[tuple[int, ...]] = set()
    for layer in range(5):
        moved = {role: [heads(base, layer, role).index(head) for head in heads(child, layer, role)] for role in "qkv"}
        assert sorted(moved["q"]) == [0, 1, 2, 3]
        assert moved["k"] == moved["v"]
        assert [head // 2 for head in moved["q"]] == list(np.repeat(moved["k"], 2))
        orders.add(tuple(moved["q"]))
    assert len(orders) > 1


def test_an_upcycled_model_has_attention_and_units_of_its_base_and_a_router_of_its_own(models: Path) -> None:
    dense, child = read(models / "dense"), read(models / "upcycled")
    for name in ("model.embed_tokens.weight", f"{LAYER}.self_attn.q_proj.bias", f"{LAYER}.input_layernorm.weight"):
        assert np.array_equal(child[name], dense[name])
    for role in ("gate", "up", "down"):
        name = f"model.layers.0.mlp.{role}_proj.weight"
        assert np.array_equal(child[name], dense[name])
    taken = []
    for expert in ("experts.0", "experts.1", "experts.2", "shared_experts"):
        gate, up, down = (child[f"{LAYER}.mlp.{expert}.{role}_proj.weight"] for role in ("gate", "up", "down"))
        units = [int(np.flatnonzero((dense[f"{LAYER}.mlp.gate_proj.weight"] == row).all(axis=1))[0]) for row in gate]
        assert len(set(units)) == 128
        assert np.array_equal(up, dense[f"{LAYER}.mlp.up_proj.weight"][units])
        assert np.array_equal(down, dense[f"{LAYER}.mlp.down_proj.weight"][:, units])
        taken.append(set(units))
    # Of 320 units, two experts of 128 fit into one permutation; the third begins another.
    assert not taken[0] & taken[1]
    assert taken[0] & taken[2]
    assert len(np.unique(child[f"{LAYER}.mlp.gate.weight"], axis=0)) == 6


def test_transformers_loads_both_layouts_as_the_same_model(models: Path) -> None:
    np.testing.assert_allclose(logits(models / "fused"), logits(models / "base"), atol=1e-5)
    assert np.isfinite(logits(models / "dense")).all()
    assert np.isfinite(logits(models / "upcycled")).all()


# -- faults and the command ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "settings", "message"),
    [
        (MIXTURE, {"kind": "finetuned"}, "give a base"),
        (MIXTURE, {"change": -1.0}, "is no size"),
        (MIXTURE, {"change": float("nan")}, "is no size"),
        (MIXTURE, {"filled": -1}, "at least 0"),
        (MIXTURE, {"seed": -1}, "at least 0"),
        (DENSE, {"kind": "finetuned", "base": "base"}, "has no tensor model.layers.1.mlp"),
        ("mistral-7b", {"kind": "finetuned", "base": "base"}, "has shape|has no tensor"),
    ],
)
def test_a_call_that_cannot_be_met_is_refused_and_leaves_nothing(
    models: Path, tmp_path: Path, shape: str, settings: dict[str, Any], message: str
) -> None:
    if "base" in settings:
        settings = {**settings, "base": models / settings["base"]}
    with pytest.raises(UsageError, match=message):
        write_sparse(shape, tmp_path / "made", **{"seed": 0, **settings})
    assert list(tmp_path.iterdir()) == []


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    return done


def test_the_command_writes_a_model_and_says_how_much_room_it_takes(tmp_path: Path) -> None:
    at = tmp_path / "made"
    options = ("--seed", "8", "--filled", "2", "--filled-experts", "1", "--layout", "fused", "--dtype", "fp8")
    done = run("zoo", "sparse", MIXTURE, "-o", at, *options)
    said = re.fullmatch(re.escape(str(at)) + r": (\d+) bytes long, (\d+) on disk\n", done.stdout)
    assert said
    assert int(said[1]) == sum(path.stat().st_size for path in at.iterdir())
    # A file system may need another block for its own books once it writes to the disk.
    assert int(said[2]) == pytest.approx(folder_bytes(at)[1], abs=20 * 4096)
    assert "100.00% of the parameters have a role" in run("inspect", at).stdout
    again = run("zoo", "sparse", MIXTURE, "-o", at, code=2)
    assert again.stderr == f"kinprint: {at} is there already: choose another folder\n"
    for option in ("--kind", "--dtype", "--layout"):
        wrong = run("zoo", "sparse", MIXTURE, "-o", tmp_path / "other", option, "int3", code=2)
        assert re.fullmatch(r"kinprint: there is no (kind|layout|dtype) int3: give [^\n]+\n", wrong.stderr)
    assert list(tmp_path.iterdir()) == [at]
