"""The Hub when it refuses, when the network fails, and when a server lies: waited for, gone on with, or said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from checkpoint.served import same
from kinprint.checkpoint import open_checkpoint
from kinprint.errors import CheckpointError, NetworkError
from support.hub import Fault, HubServer
from support.hub.client import entries, leftovers

# -- who may read -----------------------------------------------------------------------------------------------------


def test_the_token_goes_to_the_hub_and_never_to_where_it_redirects(
    server: HubServer, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.repos.all["org/name"].token = "hf_secret"
    with pytest.raises(
        CheckpointError, match="no model of the Hub that may be read; check the name; if it is private, log in"
    ):
        open_checkpoint("org/name")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    same(open_checkpoint("org/name"), served)
    granted = [request for request in server.of("hub") if request.status < 400]
    assert {request.authorization for request in granted} == {"Bearer hf_secret"}
    assert {request.authorization for request in server.of("cdn")} == {""}


def test_a_gated_model_says_what_to_do(server: HubServer) -> None:
    server.repos.all["org/name"].gated = True
    with pytest.raises(CheckpointError, match="is gated, and may not be read; log in with 'hf auth login'"):
        open_checkpoint("org/name")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("org/absent", "org/absent: is no file or folder here, and no model of the Hub"),
        ("org/name@absent", "org/name@absent: has no such revision"),
    ],
)
def test_what_is_not_there_is_no_fault_of_the_network(reference: str, message: str, server: HubServer) -> None:
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(reference)
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_is_refused_or_gone_is_said_by_name(status: int, server: HubServer, tmp_path: Path) -> None:
    server.fail(Fault("status", "resolve/.*/model-00002", status, times=-1))
    with pytest.raises(CheckpointError, match=rf"model-00002-of-00002.safetensors: .*the server answers {status}"):
        open_checkpoint("org/name")
    assert leftovers(tmp_path) == []


# -- what goes wrong and passes ---------------------------------------------------------------------------------------

PASSING = [
    Fault("status", "/api/models", 503),
    Fault("status", "/api/models", 429, headers=(("Retry-After", "0"),)),
    Fault("disconnect", "/api/models"),
    Fault("status", "resolve/.*/config.json", 500),
    Fault("status", "resolve/.*safetensors", 429, headers=(("Retry-After", "0"),)),
    Fault("status", "cdn", 502),
    Fault("status", "cdn", 503, times=3),
    Fault("disconnect", "cdn"),
    Fault("disconnect", "hub.*resolve"),
    Fault("cut", "cdn", 1_000_000),
    Fault("cut", "cdn", 5),
    Fault("cut", "index.json", 17),
    Fault("short", "cdn", 100),
    Fault("short", "config.json", 1),
    Fault("slow", "cdn", 0.6),
    Fault("slow", "/api/models", 0.6),
]


@pytest.mark.parametrize("fault", PASSING, ids=lambda fault: f"{fault.kind}-{fault.value:g}-{fault.where}")
def test_what_passes_is_waited_for(
    fault: Fault, server: HubServer, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINPRINT_TIMEOUT", "0.4")
    met = Fault(**vars(fault))
    server.fail(met)
    same(open_checkpoint("org/name"), served)
    assert met.times == 0
    assert leftovers(tmp_path) == []


def test_an_address_that_is_signed_for_a_while_is_asked_for_again(server: HubServer, served: Path) -> None:
    ours = open_checkpoint("org/name")
    server.fail(Fault("status", "cdn.*model-00001", 403), Fault("status", "cdn.*model-00002", 403))
    same(ours, served)


# -- what goes wrong and stays wrong ----------------------------------------------------------------------------------

LASTING = [
    (Fault("status", "/api/models", 500), "the server answers 500"),
    (Fault("status", "/api/models", 429), "the server answers 429"),
    (Fault("status", "cdn", 503), "did not come: the server answers 503"),
    (Fault("status", "cdn", 418), "the server answers 418"),
    (Fault("disconnect", "cdn"), "did not come: "),
    (Fault("short", "cdn", 65536), "did not come: "),
    (Fault("long", "cdn", 7), "sends more than bytes 0 to 65536"),
    (Fault("length", "cdn", 7), "sends 65543 bytes where 65536 belong"),
    (Fault("total", "cdn", 7), "answers the range"),
    (Fault("total", "cdn", -7), "answers the range"),
    (Fault("offset", "cdn", 7), "answers the range"),
    (Fault("whole", "cdn"), "does not answer ranges"),
    (Fault("length", "config.json", 1), "bytes where"),
    (Fault("long", "config.json", 1), "sends more than bytes"),
    (Fault("garbage", "config.json"), "is not the content that the Hub lists"),
    (Fault("slow", "cdn", 0.4), "nothing came for 0.2 seconds"),
    (Fault("redirect", "resolve/.*safetensors", text="file:///etc/passwd"), "redirects to 'file:///etc/passwd'"),
    (Fault("redirect", "resolve/.*safetensors$", text="?again"), "leads through more than 5 redirects"),
]


@pytest.mark.parametrize(("fault", "message"), LASTING, ids=lambda case: getattr(case, "kind", None))
def test_what_stays_wrong_is_a_fault_of_the_network(
    fault: Fault, message: str, server: HubServer, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KINPRINT_TIMEOUT", "0.2")
    server.fail(Fault(**{**vars(fault), "times": -1}))
    with pytest.raises(NetworkError, match=message) as caught:
        open_checkpoint("org/name")
    assert caught.value.exit_code == 6
    assert "\n" not in str(caught.value)
    server.faults.clear()
    assert leftovers(tmp_path) == []
    monkeypatch.setenv("KINPRINT_TIMEOUT", "5")
    same(open_checkpoint("org/name"), served)


def test_what_came_before_a_fault_is_kept_for_the_next_run(server: HubServer, served: Path, tmp_path: Path) -> None:
    ours = open_checkpoint("org/name")
    server.fail(
        Fault("cut", "cdn.*model-00002", 3_000_000, times=-1), Fault("status", "cdn.*model-00002", 503, times=-1)
    )
    with pytest.raises(NetworkError, match="did not come"):
        ours.fetch([(name, None) for name in ours.tensors])
    ours.close()
    assert leftovers(tmp_path) == []
    server.faults.clear()
    again = open_checkpoint("org/name")
    same(again, served)
    assert again.bytes_fetched < 4_000_000 < sum(path.stat().st_size for path in served.glob("*.safetensors"))


# -- hostile servers --------------------------------------------------------------------------------------------------


def test_a_mirror_that_lists_no_sizes_is_asked_for_the_tree_page_by_page(server: HubServer, served: Path) -> None:
    server.blobs, server.page = False, 2
    ours = open_checkpoint("org/name")
    same(ours, served)
    assert ours.file_digests is not None
    assert len(server.of(part="/tree/")) == 3


def test_paths_that_lead_out_are_not_listed(server: HubServer, served: Path) -> None:
    commit = server.repos.all["org/name"].refs["main"]
    files = server.repos.all["org/name"].commits[commit]
    stored = files["config.json"]
    for path in ("../outside.safetensors", "/etc/model.safetensors", "a/../../b.bin", "c:\\d.bin", "x\x1b[2J.bin"):
        files[path] = stored
    same(open_checkpoint("org/name"), served)


def test_an_index_that_leads_out_is_refused(server: HubServer, served: Path, tmp_path: Path) -> None:
    shutil.copytree(served, tmp_path / "bad")
    index = tmp_path / "bad" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"w": "../../secret.safetensors"}}))
    server.repos.add("org/bad", tmp_path / "bad")
    with pytest.raises(CheckpointError, match="which is no name of a file beside it"):
        open_checkpoint("org/bad/model.safetensors.index.json")


def test_a_shard_that_the_index_names_and_the_commit_lacks_is_said(
    server: HubServer, served: Path, tmp_path: Path
) -> None:
    shutil.copytree(served, tmp_path / "bad")
    (tmp_path / "bad" / "model-00002-of-00002.safetensors").unlink()
    server.repos.add("org/bad", tmp_path / "bad")
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.safetensors is missing"):
        open_checkpoint("org/bad")


def test_a_commit_that_is_none_is_not_believed(server: HubServer) -> None:
    repo = server.repos.all["org/name"]
    repo.commits["../../x"] = repo.commits[repo.refs["main"]]
    repo.refs["main"] = "../../x"
    with pytest.raises(NetworkError, match="which is no commit"):
        open_checkpoint("org/name")


def test_a_server_that_is_no_hub_is_said(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.cdn)
    with pytest.raises(CheckpointError, match="no model of the Hub"):
        open_checkpoint("org/name")


def test_a_huge_model_is_opened_and_read_by_a_few_ranges(server: HubServer, tmp_path: Path) -> None:
    top = tmp_path / "huge"
    top.mkdir()
    header = json.dumps(
        {
            f"w{n}": {"dtype": "BF16", "shape": [65536, 65536], "data_offsets": [n << 33, (n + 1) << 33]}
            for n in range(8)
        }
    ).encode()
    header += b" " * (-len(header) % 8)
    with (top / "model.safetensors").open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + (8 << 33))
    server.repos.add("org/huge", top)
    ours = open_checkpoint("org/huge")
    assert (ours.read("w5", slice(60_000, 60_004)) == 0).all()
    assert ours.bytes_fetched < 65536 + 4 * 2 * 65536 + 2 * 16384
    (entry,) = entries(tmp_path)
    assert (entry / "data").stat().st_blocks * 512 < 1_000_000
