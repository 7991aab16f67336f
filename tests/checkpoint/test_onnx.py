"""Reading ONNX: which initialisers are weights, what they are called, and which way round they lie."""

from __future__ import annotations

import builtins
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from kinprint.checkpoint import Checkpoint, open_checkpoint
from kinprint.errors import CheckpointError

onnx = pytest.importorskip("onnx")
helper, numpy_helper = onnx.helper, onnx.numpy_helper

RNG = np.random.default_rng(0)
W = RNG.normal(size=(3, 5)).astype(np.float32)


def node(kind: str, inputs: Sequence[str], output: str, name: str = "", **attributes: Any) -> Any:
    domain = "com.microsoft" if kind in {"MatMulNBits"} else ""
    return helper.make_node(kind, inputs, [output], name=name, domain=domain, **attributes)


def graph_of(nodes: Sequence[Any], weights: Mapping[str, np.ndarray[Any, Any]]) -> Any:
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    return helper.make_graph(nodes, "g", [], [], stored)


def opened(folder: Path, nodes: Sequence[Any], weights: Mapping[str, np.ndarray[Any, Any]]) -> Checkpoint:
    path = folder / "model.onnx"
    path.write_bytes(helper.make_model(graph_of(nodes, weights)).SerializeToString())
    return open_checkpoint(path)


def test_named_parameters_keep_names_and_axes(tmp_path: Path) -> None:
    weights = {"model.q.bias": W[0], "model.norm.weight": W[1], "h.c_attn.weight": W, "fc": W}
    nodes = [node("MatMul", ["x", "h.c_attn.weight"], "y", "/h/c_attn/MatMul"), node("Add", ["y", "model.q.bias"], "z")]
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    ours = opened(tmp_path, nodes, weights)
    assert (ours.format, ours.config) == ("onnx", {"model_type": "gpt2"})
    assert list(ours.tensors) == list(weights)
    for name, values in weights.items():
        np.testing.assert_array_equal(ours.read(name), values)
        assert bytes(ours.raw(name)) == values.tobytes()
        assert not ours.read(name).flags.writeable


def test_a_weight_that_was_turned_for_matmul_gets_the_module_s_name_and_is_turned_back(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", "onnx::MatMul_12"], "y", "/model/layers.0/self_attn/q_proj/MatMul")]
    ours = opened(tmp_path, nodes, {"onnx::MatMul_12": W})
    name = "model.layers.0.self_attn.q_proj.weight"
    assert list(ours.tensors) == [name]
    np.testing.assert_array_equal(ours.read(name), W.T)
    np.testing.assert_array_equal(ours.read(name, slice(1, 3)), W.T[1:3])
    assert bytes(ours.raw(name)) == W.T.tobytes()
    assert ours.tensors[name].shape == (5, 3)


def test_a_module_is_found_in_the_metadata_of_newer_exporters(tmp_path: Path) -> None:
    made = node("MatMul", ["x", "val_3"], "y", "node_linear_5")
    made.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layers.0', 'layers.0.up', 'linear_5']")
    ours = opened(tmp_path, [made], {"val_3": W})
    np.testing.assert_array_equal(ours.read("layers.0.up.weight"), W.T)


def test_weights_of_nodes_without_a_module_are_numbered_and_said(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", f"val_{n}"], f"y{n}", name) for n, name in ((9, "MatMul_3"), (4, ""))]
    ours = opened(tmp_path, nodes, {"val_4": W, "val_9": 2 * W})
    np.testing.assert_array_equal(ours.read("matmul.0.weight"), 2 * W.T)
    np.testing.assert_array_equal(ours.read("matmul.1.weight"), W.T)
    assert any("2 unnamed weights are numbered" in note for note in ours.notes)


def test_two_weights_of_one_module_do_not_get_one_name(tmp_path: Path) -> None:
    nodes = [node("MatMul", ["x", f"val_{n}"], f"y{n}", f"/attn/MatMul_{n}") for n in (1, 2)]
    ours = opened(tmp_path, nodes, {"val_1": W, "val_2": W + 1})
    assert list(ours.tensors) == ["attn.weight", "matmul.0.weight"]


@pytest.mark.parametrize(("kind", "attributes", "turned"), [
    ("Gemm", {"transB": 1}, False), ("Gemm", {}, True), ("Gather", {}, False), ("MatMul", {}, True),
])  # fmt: skip
def test_the_operator_tells_which_way_round_an_unnamed_weight_lies(
    kind: str, attributes: dict[str, int], turned: bool, tmp_path: Path
) -> None:
    inputs = ["val_1", "ids"] if kind == "Gather" else ["x", "val_1"]
    ours = opened(tmp_path, [node(kind, inputs, "y", f"/fc/{kind}", **attributes)], {"val_1": W})
    np.testing.assert_array_equal(ours.read("fc.weight"), W.T if turned else W)


def test_renaming_casting_and_turning_nodes_are_followed(tmp_path: Path) -> None:
    nodes = [
        node("Transpose", ["val_1"], "t", perm=[1, 0]),
        node("Cast", ["t"], "c", to=1),
        node("MatMul", ["x", "c"], "y", "/fc/MatMul"),
        node("Identity", ["a.weight"], "b.weight"),
        node("Cast", ["a.weight"], "a.weight_as_half", to=10),
        node("Identity", ["a.weight"], "/a.0/Identity_output_0"),
        node("Identity", ["a.weight"], "plain"),
    ]
    ours = opened(tmp_path, nodes, {"val_1": W, "a.weight": W + 1})
    assert set(ours.tensors) == {"fc.weight", "a.weight", "b.weight"}
    np.testing.assert_array_equal(ours.read("fc.weight"), W)
    np.testing.assert_array_equal(ours.read("b.weight"), ours.read("a.weight"))


def test_names_of_onnxruntime_s_model_builder_lose_the_operator(tmp_path: Path) -> None:
    name = "model.layers.0.attn.q_proj.MatMul.weight"
    ours = opened(tmp_path, [node("MatMul", ["x", name], "y", "/model/layers.0/attn/q_proj/MatMul")], {name: W})
    assert list(ours.tensors) == ["model.layers.0.attn.q_proj.weight"]
    np.testing.assert_array_equal(ours.read("model.layers.0.attn.q_proj.weight"), W.T)


def test_constants_are_weights_only_where_an_operator_uses_them_as_such(tmp_path: Path) -> None:
    nodes = [
        node("Constant", [], "val_1", value=numpy_helper.from_array(W)),
        node("Constant", [], "val_2", value=numpy_helper.from_array(W + 1)),
        node("Constant", [], "val_3", value=numpy_helper.from_array(np.float32(1e-6))),
        node("MatMul", ["x", "val_1"], "y", "/fc/MatMul"),
        node("Add", ["y", "val_2"], "z"),
    ]
    ours = opened(tmp_path, nodes, {"model.w": W, "shape": np.array([1, 2])})
    assert list(ours.tensors) == ["model.w", "fc.weight"]
    assert any("1 unnamed constants" in note for note in ours.notes)


def test_weights_inside_the_branches_of_an_if_are_found(tmp_path: Path) -> None:
    inner = graph_of([node("MatMul", ["x", "val_1"], "y", "/head/MatMul")], {"val_1": W})
    nodes = [helper.make_node("If", ["c"], ["o"], then_branch=inner, else_branch=graph_of([], {}))]
    ours = opened(tmp_path, nodes, {"model.w": W})
    np.testing.assert_array_equal(ours.read("head.weight"), W.T)


@pytest.mark.parametrize("kind", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("raw", [True, False], ids=["raw", "typed"])
def test_every_dtype_reads_from_raw_and_from_typed_fields(kind: type, raw: bool, tmp_path: Path) -> None:
    values = (W * 10).astype(kind)
    number = helper.np_dtype_to_tensor_dtype(values.dtype)
    content = values.tobytes() if raw else values.reshape(-1).tolist()
    tensor = helper.make_tensor("a.w", number, values.shape, content, raw=raw)
    model = helper.make_model(helper.make_graph([], "g", [], [], [tensor]))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("a.w"), values)
    assert ours.read("a.w").dtype == values.dtype


def save_external(folder: Path, **weights: np.ndarray[Any, Any]) -> Path:
    folder.mkdir(exist_ok=True)
    model = helper.make_model(graph_of([], {name.replace("_", "."): values for name, values in weights.items()}))
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, location="model.onnx_data", size_threshold=0
    )
    return folder / "model.onnx"


def test_external_data_is_mapped(tmp_path: Path) -> None:
    save_external(tmp_path, a_w=W, b_w=W + 1)
    ours = open_checkpoint(tmp_path)
    np.testing.assert_array_equal(ours.read("b.w"), W + 1)
    assert np.shares_memory(ours.read("a.w"), ours.read("a.w"))
    assert ours.tensors["a.w"].file == "model.onnx_data"
    ours.close()
    with pytest.raises(CheckpointError, match="was closed"):
        ours.read("a.w")


def test_external_data_that_is_linked_like_the_graph_itself_is_read(tmp_path: Path) -> None:
    graph = save_external(tmp_path / "blobs", a_w=W)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for file in ("model.onnx", "model.onnx_data"):
        (snapshot / file).symlink_to(graph.parent / file)
    np.testing.assert_array_equal(open_checkpoint(snapshot).read("a.w"), W)


# -- quantised ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [None, 0, 1, -1])
@pytest.mark.parametrize("zero", [False, True], ids=["symmetric", "zero point"])
def test_integers_that_are_scaled_by_tensor_or_axis_decode(axis: int | None, zero: bool, tmp_path: Path) -> None:
    integers = RNG.integers(-128, 127, size=(3, 5)).astype(np.int8)
    count = 1 if axis is None else integers.shape[axis]
    scale, offset = RNG.uniform(0.5, 2, count).astype(np.float32), np.arange(count).astype(np.int8)
    if axis is None:
        scale, offset = scale.reshape(()), offset.reshape(())
    weights = {"fc.weight_quantized": integers, "fc.weight_scale": scale, "fc.weight_zero_point": offset}
    inputs = [*weights][: 3 if zero else 2]
    attributes = {} if axis is None else {"axis": axis}
    nodes = [node("DequantizeLinear", inputs, "d", **attributes), node("MatMul", ["x", "d"], "y")]
    ours = opened(tmp_path, nodes, {name: weights[name] for name in inputs})
    assert list(ours.tensors) == ["fc.weight"]
    shape = {None: (1, 1), 0: (3, 1), 1: (1, 5), -1: (1, 5)}[axis]
    expected = (integers - (offset.reshape(shape).astype(np.float32) if zero else 0)) * scale.reshape(shape)
    np.testing.assert_allclose(ours.read("fc.weight"), expected, rtol=1e-6)
    np.testing.assert_allclose(ours.read("fc.weight", slice(1, 3)), expected[1:3], rtol=1e-6)
    info = ours.tensors["fc.weight"]
    assert (info.dtype, len(ours.raw("fc.weight"))) == ("ONNX:8", info.nbytes)


def test_unnamed_integers_are_named_and_turned_like_floats(tmp_path: Path) -> None:
    integers = np.arange(15).reshape(3, 5).astype(np.int8)
    scale = np.array([1, 2, 3, 4, 5], np.float32)
    nodes = [
        node("DequantizeLinear", ["onnx::MatMul_1_quantized", "s"], "d", axis=1),
        node("MatMul", ["x", "d"], "y", "/layers.0/fc/MatMul"),
    ]
    ours = opened(tmp_path, nodes, {"onnx::MatMul_1_quantized": integers, "s": scale})
    np.testing.assert_array_equal(ours.read("layers.0.fc.weight"), (integers * scale).T)
    np.testing.assert_array_equal(ours.read("layers.0.fc.weight", slice(4, 5)), (integers * scale).T[4:5])


PACKED = {
    "MatMulInteger": ["x", "w.q"],
    "QLinearMatMul": ["x", "s", "z", "w.q", "s", "z", "s", "z"],
    "MatMulNBits": ["x", "w.q", "s"],
    "QLinearConv": ["x", "s", "z", "w.q", "s", "z", "s", "z"],
}


@pytest.mark.parametrize("kind", PACKED)
def test_packed_integers_are_refused_with_the_operator_s_name(kind: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"'w.q' is packed for the operator '{kind}'"):
        opened(tmp_path, [node(kind, PACKED[kind], "y")], {"w.q": np.ones((2, 2), np.uint8), "a.w": W})


@pytest.mark.parametrize(("inputs", "attributes"), [
    (["w.q", "s"], {"block_size": 2, "axis": 1}), (["w.q", "computed"], {}), (["w.i", "s"], {}), (["w.q"], {}),
])  # fmt: skip
def test_integers_that_are_scaled_in_other_ways_are_refused(
    inputs: list[str], attributes: dict[str, int], tmp_path: Path
) -> None:
    weights = {"w.q": np.ones((2, 2), np.int8), "w.i": np.ones((2, 2), np.int32), "s": np.ones((), np.float32)}
    with pytest.raises(CheckpointError, match="packed for the operator 'DequantizeLinear'"):
        opened(tmp_path, [node("DequantizeLinear", inputs, "y", **attributes)], weights)


def test_the_missing_package_is_named_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.onnx").write_bytes(helper.make_model(graph_of([], {"a.w": W})).SerializeToString())
    original = builtins.__import__

    def absent(name: str, *rest: Any, **more: Any) -> Any:
        if name == "onnx":
            raise ImportError(name)
        return original(name, *rest, **more)

    monkeypatch.delitem(sys.modules, "onnx")
    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(CheckpointError, match=r"pip install 'kinprint\[onnx\]'"):
        open_checkpoint(tmp_path)


# -- exported for real -------------------------------------------------------------------------------------------------


def test_a_model_that_torch_exports_has_the_tensors_of_its_state_dict(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 6, bias=False), torch.nn.Linear(6, 5), torch.nn.LayerNorm(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this exporter is the old one, and says so
        torch.onnx.export(model, (torch.ones(2, 3, 4),), tmp_path / "model.onnx", dynamo=False)
    ours = open_checkpoint(tmp_path)
    assert set(ours.tensors) == set(model.state_dict())
    for name, values in model.state_dict().items():
        np.testing.assert_array_equal(ours.read(name), values.numpy())
