"""The Hub by its own client, from a server on this machine: what is read, and what is asked for."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from checkpoint.served import COLUMNS, ROWS, model, same
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError, NetworkError
from support.hub import Fault, HubServer
from support.hub.client import entries
from support.hub.server import unreachable


def test_a_model_of_the_hub_is_the_one_in_the_folder(server: HubServer, served: Path) -> None:
    ours = open_checkpoint("org/name")
    commit = server.repos.all["org/name"].refs["main"]
    assert (ours.location, ours.revision) == (f"org/name@{commit}", commit)
    assert ours.file_digests is not None
    assert ours.file_digests.keys() == {path.name for path in served.glob("*.safetensors")}
    assert {request.method for request in server.requests} == {"GET"}
    assert not server.of(part="tokenizer")
    same(ours, served)
    assert len(server.of(part="tokenizer")) == 1
    local = open_checkpoint(served)
    assert (local.revision, local.file_digests) == (None, None)


def test_opening_asks_for_the_listing_once_and_for_heads_only(server: HubServer) -> None:
    ours = open_checkpoint("org/name")
    assert len(server.of(part="/api/")) == 1
    heads = server.of("cdn")
    assert [request.range for request in heads] == ["bytes=0-65535"] * 2
    assert ours.bytes_fetched < 2 * 65536 + 2000 < ours.tensors["layers.1.a"].nbytes
    before = ours.bytes_read
    np.testing.assert_array_equal(ours.read("layers.2.a", slice(100, 110)).shape, (10, COLUMNS))
    assert ours.bytes_read - before == 10 * 4 * COLUMNS
    assert server.of("cdn")[-1].sent <= 10 * 4 * COLUMNS + 2 * 16384


def test_tensors_are_fetched_together_and_only_they(server: HubServer, served: Path) -> None:
    ours = open_checkpoint("org/name")
    before = ours.bytes_fetched
    ours.fetch([("layers.1.b", None), ("layers.2.b", slice(0, 300))])
    fetched = ours.bytes_fetched - before
    assert 0 <= fetched - 1.5 * 4 * ROWS * COLUMNS < 4 * 16384
    asked = len(server.requests)
    local = open_checkpoint(served)
    np.testing.assert_array_equal(ours.read("layers.1.b"), local.read("layers.1.b"))
    np.testing.assert_array_equal(ours.read("layers.2.b", slice(0, 300)), local.read("layers.2.b")[:300])
    assert len(server.requests) == asked


def test_one_thread_fetches_while_another_reads(server: HubServer, served: Path) -> None:
    ours, local = open_checkpoint("org/name"), open_checkpoint(served)
    with ThreadPoolExecutor(1) as pool:
        ahead = pool.submit(ours.fetch, [(name, None) for name in ours.tensors])
        for name in ours.tensors:
            np.testing.assert_array_equal(ours.read(name), local.read(name))
        ahead.result()
    fetched = sorted((request.path, request.range) for request in server.of("cdn"))
    assert len(fetched) == len(set(fetched))


def test_two_models_open_at_the_same_time_from_two_threads(server: HubServer, served: Path, tmp_path: Path) -> None:
    server.repos.add("org/other", model(tmp_path / "other", seed=1))
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(open_checkpoint, ["org/name", "org/other"])
    same(first, served)
    same(second, tmp_path / "other")
    first.close()
    second.close()


def test_what_was_read_once_is_not_fetched_again(server: HubServer, served: Path) -> None:
    first = open_checkpoint("org/name")
    same(first, served)
    first.close()
    asked = len(server.requests)
    again = open_checkpoint("org/name")
    same(again, served)
    assert [request.path.partition("?")[0] for request in server.requests[asked:]] == ["/api/models/org/name"]
    assert (again.bytes_fetched, again.bytes_read) == (0, first.bytes_read)


# -- revisions --------------------------------------------------------------------------------------------------------


def test_a_revision_that_moves_is_read_at_the_commit_that_it_was(
    server: HubServer, served: Path, tmp_path: Path
) -> None:
    old = open_checkpoint("org/name")
    changed = tmp_path / "changed"
    shutil.copytree(served, changed)
    save_file(
        {f"layers.2.{part}": torch.zeros(ROWS, COLUMNS) for part in "ab"}, changed / "model-00002-of-00002.safetensors"
    )
    commit = server.repos.add("org/name", changed)
    same(old, served)
    new = open_checkpoint("org/name")
    assert new.revision == commit != old.revision
    asked = len(server.requests)
    same(new, changed)
    # The first shard did not change, so that its blocks serve both commits.
    assert not [request for request in server.requests[asked:] if "model-00001" in request.path]


def test_branches_tags_pull_requests_and_commits_are_revisions(server: HubServer, served: Path, tmp_path: Path) -> None:
    main = server.repos.all["org/name"].refs["main"]
    other = model(tmp_path / "other", seed=2)
    commits = {ref: server.repos.add("org/name", other, ref=ref) for ref in ("dev", "refs/pr/1", "feature/x")}
    assert open_checkpoint("org/name@dev").revision == commits["dev"]
    assert open_checkpoint("hf://org/name@refs/pr/1").revision == commits["refs/pr/1"]
    assert open_checkpoint("org/name@feature%2Fx").revision == commits["feature/x"]
    same(open_checkpoint(f"org/name@{main}"), served)
    same(open_checkpoint("org/name@dev"), other)


def test_a_commit_that_was_listed_once_is_never_asked_for_again(server: HubServer, served: Path) -> None:
    commit = server.repos.all["org/name"].refs["main"]
    same(open_checkpoint("org/name"), served)
    asked = len(server.requests)
    same(open_checkpoint(f"org/name@{commit}"), served)
    assert len(server.requests) == asked


# -- what a reference may name ----------------------------------------------------------------------------------------


def test_folders_and_files_in_a_repository_are_named_by_path(server: HubServer, served: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    shutil.copytree(served, top / "sub" / "deep")
    save_file({"w": torch.ones(3, 3)}, top / "sub" / "one.safetensors")
    (top / "README.md").write_text("")
    commit = server.repos.add("org/nested", top)
    deep = open_checkpoint("hf://org/nested@main/sub/deep")
    assert (deep.location, deep.name) == (f"org/nested@{commit}/sub/deep", "deep")
    same(deep, served)
    one = open_checkpoint("org/nested/sub/one.safetensors")
    assert (one.location, one.name, list(one.tensors)) == (
        f"org/nested@{commit}/sub/one.safetensors",
        "one.safetensors",
        ["w"],
    )
    index = open_checkpoint("org/nested/sub/deep/model.safetensors.index.json")
    same(index, served)
    with pytest.raises(CheckpointError, match="no file or folder of the repository"):
        open_checkpoint("org/nested/sub/absent")
    with pytest.raises(CheckpointError, match="holds no model file"):
        open_checkpoint("org/nested")


def test_one_of_several_models_is_chosen_by_its_name(server: HubServer, tmp_path: Path) -> None:
    top = tmp_path / "several"
    top.mkdir()
    for name in ("small", "large"):
        save_file({name: torch.ones(3, 3)}, top / f"{name}.safetensors")
    server.repos.add("org/several", top)
    with pytest.raises(CheckpointError, match=r"holds several models \(large.safetensors, small.safetensors\)"):
        open_checkpoint("org/several")
    assert list(open_checkpoint("org/several/small.safetensors").tensors) == ["small"]


def test_a_model_and_its_adapter_may_both_lie_there(server: HubServer, tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    base.mkdir()
    adapter.mkdir()
    save_file({"layer.weight": torch.tensor([[1.0, 2, 3], [4, 5, 6]])}, base / "model.safetensors")
    factors = {"A": torch.tensor([[1.0, 0, 2]]), "B": torch.tensor([[10.0], [-1]])}
    save_file(
        {f"base_model.model.layer.lora_{key}.weight": value for key, value in factors.items()},
        adapter / "adapter_model.safetensors",
    )
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 1, "lora_alpha": 2}))
    one, two = server.repos.add("org/base", base), server.repos.add("org/adapter", adapter)
    for reference in ("org/base+org/adapter", f"{base}+hf://org/adapter@main", f"org/base@main+{adapter}"):
        merged = open_checkpoint(reference)
        np.testing.assert_array_equal(merged.read("layer.weight"), [[21, 2, 43], [2, 5, 2]])
    both = open_checkpoint("org/base+org/adapter")
    assert both.location == f"org/base@{one}+org/adapter@{two}"
    alone = open_checkpoint("org/adapter")
    assert "this is an adapter alone" in " ".join(alone.notes)


def test_a_path_that_exists_is_meant_before_a_repository(
    server: HubServer, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(served, tmp_path / "here" / "org" / "name")
    monkeypatch.chdir(tmp_path / "here")
    assert open_checkpoint("org/name").location == "org/name"
    assert open_checkpoint("hf://org/name").location != "org/name"
    assert open_checkpoint(Path("org/name")).location == "org/name"
    with pytest.raises(CheckpointError, match="no file or folder here"):
        open_checkpoint(Path("org/absent"))
    assert not server.of(part="absent")


@pytest.mark.parametrize(
    "reference", ["hf://org/name/../../etc/passwd", "hf://org/name/a%2F..%2Fb", "hf://datasets/org/name", "hf://name"]
)
def test_references_that_lead_out_or_name_no_model_are_refused(reference: str, server: HubServer) -> None:
    with pytest.raises(CheckpointError, match=r"which is no path inside a repository|names no model of the Hub"):
        open_checkpoint(reference)
    assert not server.requests


# -- caches and no network --------------------------------------------------------------------------------------------


def test_files_in_the_hub_s_own_cache_are_read_in_place(server: HubServer, served: Path, tmp_path: Path) -> None:
    from huggingface_hub import hf_hub_download

    commit = server.repos.all["org/name"].refs["main"]
    for name in ("model-00001-of-00002.safetensors", "config.json", "model.safetensors.index.json"):
        hf_hub_download("org/name", name, endpoint=server.endpoint, cache_dir=str(tmp_path / "hf" / "hub"))
    asked = len(server.requests)
    ours = open_checkpoint("org/name")
    same(ours, served)
    assert ours.revision == commit
    fetched = {request.path.rpartition("/")[2] for request in server.requests[asked:] if "resolve" in request.path}
    assert fetched == {"model-00002-of-00002.safetensors", "tokenizer.json"}
    assert len(entries(tmp_path)) == 2


def test_offline_what_the_hub_s_cache_holds_is_read(
    server: HubServer, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import snapshot_download

    snapshot_download("org/name", endpoint=server.endpoint, cache_dir=str(tmp_path / "hf" / "hub"))
    asked = len(server.requests)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    ours = open_checkpoint("org/name")
    same(ours, served)
    assert ours.revision == server.repos.all["org/name"].refs["main"]
    assert any("HF_HUB_OFFLINE is set: read from caches" in note for note in ours.notes)
    assert len(server.requests) == asked


def test_offline_our_own_blocks_are_read_and_what_is_missing_is_said(
    server: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_checkpoint("org/name")
    rows = np.array(first.read("layers.1.a", slice(0, 10)))
    first.close()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    asked = len(server.requests)
    ours = open_checkpoint("org/name")
    np.testing.assert_array_equal(ours.read("layers.1.a", slice(0, 10)), rows)
    with pytest.raises(NetworkError, match=r"bytes \d+ to \d+ are in no cache; HF_HUB_OFFLINE is set"):
        ours.read("layers.2.b")
    with pytest.raises(NetworkError, match="org/absent: HF_HUB_OFFLINE is set, and no cache holds it; unset"):
        open_checkpoint("org/absent")
    assert len(server.requests) == asked


def test_without_a_network_the_caches_serve_and_a_note_says_so(
    server: HubServer, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    same(open_checkpoint("org/name"), served)
    server.fail(Fault("disconnect", times=-1))
    ours = open_checkpoint("org/name")
    same(ours, served)
    assert any("the Hub could not be reached" in note and ours.revision in note for note in ours.notes if ours.revision)
    with unreachable() as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        with pytest.raises(NetworkError, match=r"org/name: .*try again"):
            open_checkpoint("org/name")
