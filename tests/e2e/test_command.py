"""The installed command, run as a person runs it."""

from __future__ import annotations

import json
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from kinprint import cli
from kinprint.fingerprints import PairwiseMethod
from kinprint.registry import METHODS
from kinprint.types import Comparison, Inspection

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
COMMAND = Path(sys.executable).parent / "kinprint"


def run(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([COMMAND, *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def values(comparison: Comparison, method: str) -> dict[str, float | None]:
    result = next(result for result in comparison.methods if result.method == method)
    return {value.name: value.value for value in (*result.values, *result.controls)}


@pytest.fixture(scope="module")
def comparisons(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Comparison]:
    folder = tmp_path_factory.mktemp("comparisons")
    found: dict[str, Comparison] = {}
    for name in ("child", "twin", "laundered", "base"):
        file = folder / f"{name}.json"
        control = ("--control", EXAMPLES / "twin")
        run("compare", EXAMPLES / name, EXAMPLES / "base", *control, "--thorough", "--json", file, "--quiet")
        found[name] = Comparison.model_validate_json(file.read_text())
    return found


def test_every_method_measures_the_child(comparisons: dict[str, Comparison]) -> None:
    child = comparisons["child"]
    assert child.status == "measured"
    assert [result.method for result in child.methods] == list(METHODS)
    # The examples are dense.
    assert [result.method for result in child.methods if result.status != "measured"] == ["router"]
    assert [pair.side for pair in child.control_pairs] == ["suspect", "base"]


def test_a_model_and_itself_score_what_each_method_promises(comparisons: dict[str, Comparison]) -> None:
    promised = 0
    for result in comparisons["base"].methods:
        for value in result.values:
            if value.identical is not None:
                promised += 1
                assert value.value == pytest.approx(value.identical, abs=1e-3), (result.id, value.name)
    assert promised >= 10


def test_the_dispute_in_vitro(comparisons: dict[str, Comparison]) -> None:
    """The twin's raw norm cosine looks damning; its centred cosine does not. The child's does."""
    twin, child = values(comparisons["twin"], "layernorm"), values(comparisons["child"], "layernorm")
    for kind in ("norm.attn", "norm.mlp"):
        raw, centred = twin[f"{kind} raw cosine"], twin[f"{kind} centred cosine"]
        assert raw is not None
        assert raw > 0.97
        # what a shuffle leaves is all that there was
        assert raw == pytest.approx(twin[f"{kind} shuffled raw cosine"], abs=0.01)
        assert centred is not None
        assert abs(centred) < 0.15
        assert (child[f"{kind} centred cosine"] or 0) > 0.95


def test_json_goes_to_stdout_alone() -> None:
    done = run("compare", EXAMPLES / "child", EXAMPLES / "base", "--method", "pcs", "--json", "-")
    assert Comparison.model_validate_json(done.stdout).methods[0].method == "pcs"


def test_piped_output_is_plain_text() -> None:
    done = run("compare", EXAMPLES / "child", EXAMPLES / "base", "--method", "ghostspec-mse", "--details")
    assert "\x1b" not in done.stdout
    assert "0.976" in done.stdout


def test_inspect_tells_family_heads_coverage_and_bytes() -> None:
    done = run("inspect", EXAMPLES / "base")
    for expected in ("llama", "6 query, 2 key/value, 16 wide", "100.00%", "compare reads", "attn.q", "BF16"):
        assert expected in done.stdout
    found = Inspection.model_validate_json(run("inspect", EXAMPLES / "base", "--json", "-").stdout)
    assert found.model.geometry.layers == 6


def test_fingerprint_files_stand_in_for_models(tmp_path: Path) -> None:
    for name in ("child", "base"):
        run("fingerprint", EXAMPLES / name, "-o", tmp_path / f"{name}.safetensors")
    stored = Comparison.model_validate_json(
        run(
            "compare", tmp_path / "child.safetensors", tmp_path / "base.safetensors", "--thorough", "--json", "-"
        ).stdout
    )
    direct = Comparison.model_validate_json(
        run("compare", EXAMPLES / "child", EXAMPLES / "base", "--thorough", "--json", "-").stdout
    )
    assert stored.verdict is not None
    assert stored.verdict.conclusion == "not_comparable"
    assert "holds no tensors" in stored.verdict.headline
    assert stored.suspect.content_digest == direct.suspect.content_digest
    for one, other in zip(stored.methods, direct.methods, strict=True):
        if isinstance(METHODS[one.method], PairwiseMethod):
            assert one.status == "not_applicable"
            assert "stored fingerprint" in str(one.reason)
        else:
            assert one.values == other.values


def test_a_fingerprint_made_for_one_method_says_what_it_lacks(tmp_path: Path) -> None:
    file = tmp_path / "base.safetensors"
    run("fingerprint", EXAMPLES / "base", "-o", file, "--method", "layernorm")
    done = run("compare", EXAMPLES / "child", file, "--method", "intrinsic", "--json", "-")
    found = Comparison.model_validate_json(done.stdout)
    assert found.status == "not_comparable"
    assert "does not hold" in str(found.methods[0].reason)


def test_nothing_in_common_is_a_finding(tmp_path: Path) -> None:
    save_file({"a": np.ones((3, 4), np.float32)}, tmp_path / "a.safetensors")
    save_file({"b": np.ones((5, 6), np.float32)}, tmp_path / "b.safetensors")
    done = run("compare", tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    assert "NOT COMPARABLE" in done.stdout


def test_nan_in_one_tensor_is_named_and_the_rest_is_measured(tmp_path: Path) -> None:
    import ml_dtypes

    from kinprint.checkpoint import open_checkpoint

    source = open_checkpoint(EXAMPLES / "child")
    arrays = {name: np.array(source.read(name)).astype(np.float32) for name in source.tensors}
    arrays["model.layers.2.self_attn.q_proj.weight"][3, 4] = np.nan
    save_file({name: a.astype(ml_dtypes.bfloat16) for name, a in arrays.items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((EXAMPLES / "child" / "config.json").read_text())
    text = run("compare", tmp_path, EXAMPLES / "base", "--json", "-").stdout
    found = Comparison.model_validate_json(text)
    assert "model.layers.2.self_attn.q_proj.weight" in text
    assert values(found, "layernorm") == values(
        Comparison.model_validate_json(
            run("compare", EXAMPLES / "child", EXAMPLES / "base", "--json", "-", "-m", "layernorm").stdout
        ),
        "layernorm",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("compare", "no-such-model", EXAMPLES / "base"), 5, "no-such-model"),
        (("compare", EXAMPLES / "child", EXAMPLES / "base", "--method", "magic"), 2, "unknown method 'magic'"),
        (("zoo", "build", "no-such-suite", "--output", "unused"), 2, "no-such-suite"),
        (("compare", EXAMPLES / "child"), 2, "Missing argument"),
        (
            ("compare", EXAMPLES / "child", EXAMPLES / "base", "-m", "pcs", "--json", "/no/such/place"),
            2,
            "cannot write",
        ),
    ],
)
def test_a_fault_is_one_line_and_its_exit_code(arguments: tuple[str | Path, ...], code: int, says: str) -> None:
    done = run(*arguments, code=code)
    assert says in done.stderr


def test_a_config_of_another_model_is_a_fault_with_its_place(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    shutil.copytree(EXAMPLES / "child", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_attention_heads": 7}))
    done = run("compare", folder, EXAMPLES / "base", code=5)
    assert str(folder) in done.stderr
    assert "another model" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_interrupted_comparison_leaves_nothing_half_written(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    command = [COMMAND, "compare", EXAMPLES / "child", EXAMPLES / "base", "--json", target]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.6)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) in (
        0,
        130,
        -signal.SIGINT,
    )  # 0: it was done before; -2: before Python could catch it
    assert [path.name for path in tmp_path.iterdir()] in ([], ["result.json"])
    if target.exists():
        Comparison.model_validate_json(target.read_text())


def test_help_answers_without_importing_numpy() -> None:
    probe = "import sys, kinprint.cli; sys.exit(any(m in sys.modules for m in ('numpy', 'pydantic', 'torch')))"
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0
    started = time.perf_counter()
    run("--help")
    assert time.perf_counter() - started < 5  # a hang, not a benchmark: see benchmarks/ for the 0.3 s


def test_a_comparison_imports_no_torch() -> None:
    probe = (
        "import sys, kinprint\n"
        f"kinprint.compare({str(EXAMPLES / 'child')!r}, {str(EXAMPLES / 'base')!r})\n"
        "sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", probe], check=False).returncode == 0


def test_a_comparison_imports_nothing_that_takes_longer_than_the_comparison() -> None:
    heavy = (
        "scipy.optimize",
        "scipy.special",
        "scipy.stats",
        "jaxtyping",
        "array_api_compat",
        "huggingface_hub",
        "httpx",
    )
    probe = (
        "import sys, kinprint\n"
        f"kinprint.compare({str(EXAMPLES / 'laundered')!r}, {str(EXAMPLES / 'base')!r})\n"
        f"print(*sorted(set({heavy!r}) & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", probe], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("error", [ImportError("half imported"), SystemExit(1), KeyboardInterrupt()])
def test_an_interruption_is_one_whatever_it_ends_in(
    error: BaseException, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            raise error from None

    monkeypatch.setattr(cli, "app", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    signal.signal(signal.SIGINT, before)
    assert (caught.value.code, capsys.readouterr().err) == (130, "kinprint: interrupted\n")


def test_an_error_that_nobody_caused_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise ImportError("half imported")

    monkeypatch.setattr(cli, "app", broken)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(ImportError):
        cli.main()
    signal.signal(signal.SIGINT, before)


def test_the_published_schemas_are_the_programs() -> None:
    made = runpy.run_path(str(ROOT / "docs" / "reference" / "make_schema.py"))
    for name in made["SCHEMAS"]:
        published = (ROOT / "docs" / "reference" / f"{name}.schema.json").read_text()
        assert json.loads(published) == json.loads(made["schema"](name))


def test_hostile_names_reach_the_terminal_as_text(tmp_path: Path) -> None:
    folder = tmp_path / "[bold]\x1b[31m\u202emodel"
    folder.mkdir()
    save_file({"a": np.ones((3, 4), np.float32)}, folder / "model.safetensors")
    for arguments in (("inspect", folder), ("compare", folder, folder)):
        done = run(*arguments)
        assert "\x1b" not in done.stdout
        assert "\u202e" not in done.stdout
        assert "[bold]" in done.stdout
    save_file({"\x1b[31mtensor": np.ones((3, 4), np.float32)}, folder / "model.safetensors")
    done = run("inspect", folder, code=5)
    assert "\x1b" not in done.stderr
