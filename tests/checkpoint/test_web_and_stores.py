"""Models on a plain web server and in object storage: the same blocks, the same checks, and every format."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import gguf
import numpy as np
import pytest
import torch
from fsspec.spec import AbstractFileSystem
from safetensors.torch import save_file

from kinprint.checkpoint import Checkpoint, open_checkpoint
from kinprint.checkpoint.remote.address import is_remote, without_secrets
from kinprint.errors import CheckpointError, MissingExtraError, NetworkError
from support.hub import Fault, HubServer
from support.hub.client import at_home, leftovers

VALUES = torch.arange(300_000, dtype=torch.float32).reshape(300, 1000)


class Bucket(AbstractFileSystem):
    """Object storage as fsspec shows it, from a folder."""

    protocol = ("s3", "gs")
    cachable = False
    root: ClassVar[Path]
    reads: ClassVar[list[tuple[int, int]]] = []
    failing: ClassVar[list[Exception]] = []

    def info(self, path: str, **options: Any) -> dict[str, Any]:
        path = self._strip_protocol(path)
        place = self.root / path
        if not place.exists():
            raise FileNotFoundError(path)
        kind = "directory" if place.is_dir() else "file"
        return {"name": path, "type": kind, "size": place.stat().st_size, "ETag": f'"{place.stat().st_mtime_ns}"'}

    def ls(self, path: str, detail: bool = True, **options: Any) -> list[Any]:
        path = self._strip_protocol(path)
        return [self.info(f"{path}/{place.name}") for place in (self.root / path).iterdir()]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **options: Any) -> bytes:
        if self.failing:
            raise self.failing.pop()
        self.reads.append((start or 0, end or 0))
        return (self.root / self._strip_protocol(path)).read_bytes()[start:end]


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Bucket]]:
    monkeypatch.setenv("KINPRINT_CACHE", str(tmp_path / "kinprint"))
    monkeypatch.setenv("KINPRINT_RETRY_WAIT", "0")
    Bucket.root = tmp_path / "store"
    Bucket.reads, Bucket.failing = [], []
    Bucket.root.mkdir()
    known = dict(fsspec.registry)
    for scheme in Bucket.protocol:
        fsspec.register_implementation(scheme, Bucket, clobber=True)
    yield Bucket
    for scheme in Bucket.protocol:
        fsspec.register_implementation(scheme, known.get(scheme, Bucket), clobber=True)


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as started:
        at_home(monkeypatch, started, tmp_path)
        yield started


def safetensors(folder: Path) -> None:
    shards = {f"model-0000{n}-of-00002.safetensors": {f"w{n}": VALUES * n, f"v{n}": VALUES[:3]} for n in (1, 2)}
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    weight_map = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))


def torch_zip(folder: Path) -> None:
    torch.save({"w1": VALUES, "v1": VALUES[:5].T}, folder / "pytorch_model.bin")


def torch_legacy(folder: Path) -> None:
    torch.save({"w1": VALUES, "v1": VALUES[:5].T}, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def npz(folder: Path) -> None:
    np.savez(folder / "model.npz", w1=VALUES.numpy(), v1=np.asfortranarray(VALUES.numpy()))


def npz_deflated(folder: Path) -> None:
    np.savez_compressed(folder / "model.npz", w1=VALUES.numpy())


def onnx(folder: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save_model

    weight = numpy_helper.from_array(VALUES.numpy(), "w1")
    shapes = ((name, [1, 1000] if name == "x" else [1, 300]) for name in ("x", "y"))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["x", "w1"], ["y"], transB=1)], "g", ends[:1], ends[1:], [weight]
    )
    save_model(
        helper.make_model(graph),
        folder / "model.onnx",
        save_as_external_data=True,
        all_tensors_to_one_file=True,
        location="model.data",
        size_threshold=0,
    )


FORMATS: list[Callable[[Path], None]] = [safetensors, torch_zip, torch_legacy, npz, npz_deflated, onnx]


def written(folder: Path, write: Callable[[Path], None]) -> Path:
    folder.mkdir(parents=True)
    write(folder)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    (folder / "vocab.txt").write_text("a\nb\n")
    return folder


def same(ours: Checkpoint, folder: Path) -> None:
    local = open_checkpoint(folder)
    assert (ours.content_digest, ours.config, ours.format) == (local.content_digest, local.config, local.format)
    for name, info in local.tensors.items():
        rows = slice(1, info.shape[0] // 2)
        np.testing.assert_array_equal(ours.read(name, rows), local.read(name, rows))


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_is_read_from_the_hub(write: Callable[[Path], None], server: HubServer, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", write)
    server.repos.add("org/name", folder)
    ours = open_checkpoint("org/name")
    same(ours, folder)
    assert ours.vocabulary == ("a", "b")
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_is_read_from_a_bucket(
    write: Callable[[Path], None], bucket: type[Bucket], tmp_path: Path
) -> None:
    folder = written(bucket.root / "data" / "model", write)
    ours = open_checkpoint("s3://data/model")
    same(ours, folder)
    assert (ours.location, ours.name, ours.vocabulary, ours.revision) == ("s3://data/model", "model", ("a", "b"), None)


@pytest.mark.parametrize("write", FORMATS)
def test_every_format_is_read_from_a_web_server(
    write: Callable[[Path], None], server: HubServer, tmp_path: Path
) -> None:
    folder = written(tmp_path / "model", write)
    server.repos.add("org/name", folder)
    ours = open_checkpoint(server.web("org/name"))
    same(ours, folder)
    assert (ours.name, ours.vocabulary) == ("name", ("a", "b"))


def test_a_gguf_of_the_hub_is_opened_by_its_header_and_read_by_rows(server: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("small", "large"):
        writer = gguf.GGUFWriter(folder / f"{name}.gguf", "llama")
        writer.add_token_list([f"token{number}" for number in range(30_000)])
        packed = gguf.quants.quantize(np.ones((4000, 1024), np.float32), gguf.GGMLQuantizationType.Q8_0)
        writer.add_tensor(name, packed, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    server.repos.add("org/name", folder)
    ours = open_checkpoint("org/name/large.gguf")
    assert list(ours.tensors) == ["large"]
    assert ours.bytes_fetched < 2_000_000
    before = ours.bytes_fetched
    assert np.allclose(ours.read("large", slice(3000, 3010)), 1, atol=1e-3)
    assert ours.bytes_fetched - before <= 10 * 1088 + 2 * 16384
    assert ours.vocabulary == open_checkpoint(folder / "large.gguf").vocabulary
    with pytest.raises(CheckpointError, match=r"holds several models \(large.gguf, small.gguf\)"):
        open_checkpoint("org/name")


def test_a_torch_file_of_many_tensors_opens_by_few_bytes(server: HubServer, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    torch.save({f"t{n}": torch.full((200, 200), float(n)) for n in range(40)}, folder / "pytorch_model.bin")
    server.repos.add("org/name", folder)
    ours = open_checkpoint("org/name")
    assert ours.bytes_fetched < 41 * 2 * 16384 + 65536 < 40 * 160_000
    assert (ours.read("t7", slice(5, 6)) == 7).all()


# -- web servers ------------------------------------------------------------------------------------------------------


def test_a_single_file_of_a_web_server_is_read_and_secrets_are_not_shown(server: HubServer, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", npz)
    server.repos.add("org/name", folder)
    url = server.web("org/name", "model.npz").replace("http://", "http://me:secret@") + "?X-Signature=hidden"
    ours = open_checkpoint(url)
    same(ours, folder)
    assert ours.location == server.web("org/name", "model.npz")
    signed = server.of(part="model.npz")
    assert all("X-Signature=hidden" in request.path and request.authorization for request in signed)
    assert not [request for request in server.of(part="config.json") if "hidden" in request.path]


def test_an_index_of_a_web_server_stands_for_its_shards(server: HubServer, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", safetensors)
    server.repos.add("org/name", folder)
    same(open_checkpoint(server.web("org/name", "model.safetensors.index.json")), folder)


def test_a_folder_without_a_model_and_a_file_that_is_absent_are_said(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("")
    server.repos.add("org/name", tmp_path / "empty")
    with pytest.raises(CheckpointError, match="is an empty folder"):
        open_checkpoint(server.web("org/name"))
    with pytest.raises(CheckpointError, match=r"model.safetensors: is not there"):
        open_checkpoint(server.web("org/name", "model.safetensors"))
    with pytest.raises(CheckpointError, match="is no address"):
        open_checkpoint("https:///model.safetensors")


def test_a_file_that_changes_while_it_is_read_is_noticed(server: HubServer, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", npz)
    server.repos.add("org/name", folder)
    ours = open_checkpoint(server.web("org/name"))
    server.fail(Fault("etag", "model.npz", times=-1))
    with pytest.raises(NetworkError, match="changed on the server while it was read"):
        ours.read("w1")


def test_a_file_that_changed_since_is_fetched_anew(server: HubServer, tmp_path: Path) -> None:
    folder = written(tmp_path / "model", npz)
    server.repos.add("org/name", folder)
    same(open_checkpoint(server.web("org/name")), folder)
    np.savez(folder / "model.npz", w1=np.ones((300, 1000), np.float32))
    server.repos.add("org/name", folder)
    same(open_checkpoint(server.web("org/name")), folder)


LASTING = [
    (Fault("status", "npz", 503), NetworkError, "the server answers 503"),
    (Fault("status", "npz", 403), CheckpointError, "model.npz: .*answers 403|holds no model|empty"),
    (Fault("disconnect", "npz"), NetworkError, "model.npz: "),
    (Fault("whole", "npz"), NetworkError, "does not answer ranges"),
    (Fault("total", "npz", 9), CheckpointError, "model.npz"),
    (Fault("redirect", "npz", text="ftp://elsewhere/x"), NetworkError, "redirects to 'ftp://elsewhere/x'"),
    (Fault("redirect", "npz", text="?again"), NetworkError, "leads through more than 5 redirects"),
]


@pytest.mark.parametrize(("fault", "kind", "message"), LASTING, ids=lambda case: getattr(case, "kind", None))
def test_what_a_web_server_does_wrong_is_said(
    fault: Fault, kind: type[Exception], message: str, server: HubServer, tmp_path: Path
) -> None:
    server.repos.add("org/name", written(tmp_path / "model", npz))
    server.fail(Fault(**{**vars(fault), "times": -1}))
    with pytest.raises((CheckpointError, NetworkError), match=message) as caught:
        open_checkpoint(server.web("org/name")).read("w1")
    assert isinstance(caught.value, kind) or kind is CheckpointError
    assert leftovers(tmp_path) == []


def test_where_nobody_listens_is_a_fault_of_the_network(server: HubServer) -> None:
    with pytest.raises(NetworkError, match=r"model.gguf: .*try again"):
        open_checkpoint("http://127.0.0.1:9/model.gguf")


# -- object storage ---------------------------------------------------------------------------------------------------


def test_a_file_in_a_bucket_is_read_by_ranges_and_found_again(bucket: type[Bucket]) -> None:
    folder = written(bucket.root / "data" / "model", npz)
    ours = open_checkpoint("gs://data/model/model.npz")
    assert ours.location == "gs://data/model/model.npz"
    before = len(bucket.reads)
    np.testing.assert_array_equal(ours.read("w1", slice(100, 101)), VALUES[100:101].numpy())
    assert all(end - start <= 3 * 16384 for start, end in bucket.reads[before:])
    same(ours, folder)
    ours.close()
    before = len(bucket.reads)
    same(open_checkpoint("gs://data/model/model.npz"), folder)
    assert len(bucket.reads) == before


def test_an_object_that_changed_is_fetched_anew(bucket: type[Bucket]) -> None:
    folder = written(bucket.root / "model", npz)
    same(open_checkpoint("s3://model"), folder)
    np.savez(folder / "model.npz", w1=np.ones((3, 3), np.float32))
    same(open_checkpoint("s3://model"), folder)


def test_what_a_client_raises_is_told_apart(bucket: type[Bucket]) -> None:
    folder = written(bucket.root / "model", npz)
    bucket.failing.extend([ConnectionResetError("reset"), TimeoutError("slow"), ValueError("odd")])
    same(open_checkpoint("s3://model"), folder)
    shutil.rmtree(bucket.root.parent / "kinprint")
    bucket.failing.extend([OSError("broken")] * 50)
    with pytest.raises(NetworkError, match="OSError: broken"):
        open_checkpoint("s3://model")
    bucket.failing[:] = [PermissionError("no")]
    with pytest.raises(CheckpointError, match="may not be read"):
        open_checkpoint("s3://model")
    with pytest.raises(CheckpointError, match="s3://absent: is not there"):
        open_checkpoint("s3://absent")


def test_a_client_that_sends_less_or_more_is_noticed(bucket: type[Bucket], monkeypatch: pytest.MonkeyPatch) -> None:
    written(bucket.root / "model", npz)
    own = Bucket.cat_file
    monkeypatch.setattr(Bucket, "cat_file", lambda *a, **k: own(*a, **k)[:-1])
    with pytest.raises(NetworkError, match=r"did not come: the connection was closed \d+ bytes early"):
        open_checkpoint("s3://model")
    monkeypatch.setattr(Bucket, "cat_file", lambda *a, **k: own(*a, **k) + b"x")
    with pytest.raises(NetworkError, match="sends more than bytes"):
        open_checkpoint("s3://model")


def test_a_client_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(url: str) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(MissingExtraError, match=r"pip install 'kinprint\[gcs\]'"):
        open_checkpoint("gs://bucket/model")


# -- references -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "remote"),
    [
        ("org/name", True), ("org/name@main", True), ("org/name@refs/pr/3/a.gguf", True), ("hf://x", True),
        ("S3://bucket/key", True), ("https://host/x", True), ("gs://b/c", True),
        ("name", False), ("./a/b", False), ("../a", False), ("/a/b", False), ("a/../b", False), ("~/a", False),
        ("ftp://host/x", False), ("file:///etc/passwd", False), ("github://org/x", False), ("c:\\a\\b", False),
    ],
)  # fmt: skip
def test_references_to_elsewhere_are_told_from_paths(text: str, remote: bool) -> None:
    assert is_remote(text) is remote


def test_addresses_are_shown_without_what_is_secret() -> None:
    assert without_secrets("https://me:pw@host/a?token=1#x") == "https://host/a"
