"""What is sent to a cluster, and what is refused before anything is sent."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from actors import job_api
from actors.job_api import ADDRESSES
from jobs import cancel, logs
from jobs.shipment import HOME, PACKAGES, SETTINGS, check_size, placed, ship
from jobs.submit import CHECKS, entrypoint, main, parse
from pipeline.config import dump, load
from pipeline.errors import ConfigError, RunFailed
from pipeline.sweep.plan import load_sweep

TOY = ["conf/job/toy.yaml", "out=runs/x"]


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ADDRESSES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("arguments", "address", "rest"),
    [
        (["align", "a=1"], None, ["a=1"]),
        (["http://h:1", "align", "a=1"], "http://h:1", ["a=1"]),
        (["cluster.address=h:1", "align"], "h:1", []),
        (["align", "relabel"], None, ["relabel"]),
    ],
)
def test_an_address_may_stand_before_the_command(arguments: list[str], address: str | None, rest: list[str]) -> None:
    assert parse(arguments) == (address, "align", rest)


def test_a_job_runs_our_interpreter_where_it_is_and_else_the_clusters_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def python(folder: Path) -> Path:
        folder.mkdir(exist_ok=True)
        (folder / "python").write_text(f'#!/bin/sh\necho {folder.name} "$@"\n')
        (folder / "python").chmod(0o755)
        return folder / "python"

    def run(path: str) -> subprocess.CompletedProcess[str]:
        shell = shutil.which("sh")
        assert shell is not None
        return subprocess.run([shell, "-c", entrypoint("align")], env={"PATH": path}, capture_output=True, text=True)

    theirs, ours = python(tmp_path / "theirs"), python(tmp_path / "our own")
    monkeypatch.setattr(sys, "executable", str(ours))
    assert run(str(theirs.parent)).stdout == f"our own -m jobs align {SETTINGS}\n"
    ours.unlink()
    assert run(str(theirs.parent)).stdout == f"theirs -m jobs align {SETTINGS}\n"
    none = run(str(tmp_path))
    assert (none.returncode, none.stdout) == (127, "")
    assert "start Ray in the environment that Raylign is installed in" in none.stderr


def test_commands_that_are_none_are_refused_with_those_that_are() -> None:
    for address in ([], ["http://h:1"]):
        with pytest.raises(ConfigError, match=r"'aling' is no command .*did you mean 'align'"):
            parse([*address, "aling", *TOY])
    with pytest.raises(ConfigError, match="name the command that the cluster is to run: align"):
        parse(["http://h:1"])


def test_a_bad_configuration_is_found_before_any_cluster_is_asked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["http://127.0.0.1:1", "align", *TOY, "method.m=3"]) == 2
    assert "unknown key 'method.m'" in capsys.readouterr().err
    assert main(["align", *TOY]) == 2
    assert "no cluster is named" in capsys.readouterr().err


def test_a_sweep_travels_with_what_its_base_says(tmp_path: Path) -> None:
    base = tmp_path / "base.yaml"
    base.write_text("generator: toy\nreward: toy\ndata: {input: p.jsonl}\nmethod: {name: best_of_n, n: 2}\n")
    file = tmp_path / "sweep.yaml"
    file.write_text(f"base: {base}\nout: runs/s\naxes: {{method.n: [4, 8], seed: [1, 2]}}\ndata: {{limit: 3}}\n")
    here = load_sweep([str(file)], ["data.shard_rows=5"])
    sent = tmp_path / "sent.yaml"
    sent.write_text(dump(CHECKS["sweep"]([str(file), "data.shard_rows=5"])))
    base.unlink()
    assert load_sweep([str(sent)], []) == here
    assert len(here.trials) == 4
    assert main(["http://127.0.0.1:1", "sweep", str(sent), "method.m=3"]) == 2


def test_an_address_where_nothing_or_something_else_answers_is_an_error_in_seconds(
    capsys: pytest.CaptureFixture[str], in_root: Path
) -> None:
    start = time.monotonic()
    assert main(["http://127.0.0.1:1", "align", *TOY]) == 1
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    assert main(["align", *TOY, f"cluster.address=127.0.0.1:{port}"]) == 1
    assert capsys.readouterr().err.count("no job API answers there") == 2
    assert time.monotonic() - start < 10


class YoungCluster:
    """A job API that takes jobs from the ``n``-th try on, as one whose nodes have just begun."""

    def __init__(self, n: int, refusal: str) -> None:
        self.tries, self._n, self._refusal = 0, n, refusal

    def submit_job(self, **_: object) -> None:
        self.tries += 1
        if self.tries < self._n:
            raise RuntimeError(self._refusal)

    def get_address(self) -> str:
        return "http://h:1"


def test_a_cluster_that_has_just_begun_is_asked_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(job_api, "AGAIN_S", 0.0)
    young = YoungCluster(3, "500: No available agent to submit job, please try again later.")
    job_api.submit(young, "true", tmp_path, "j", {})  # type: ignore[arg-type]
    assert young.tries == 3
    for n, refusal, seconds in ((2, "no such environment", 60.0), (99, "No available agent", 0.0)):
        monkeypatch.setattr(job_api, "YOUNG_S", seconds)
        with pytest.raises(RunFailed, match=f"the cluster at http://h:1 took no job: {refusal}"):
            job_api.submit(YoungCluster(n, refusal), "true", tmp_path, "j", {})  # type: ignore[arg-type]


@pytest.mark.parametrize("command", [logs, cancel])
def test_an_address_without_a_job_is_no_job(command: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["http://127.0.0.1:1"]) == 2
    assert "name one job, after http://127.0.0.1:1: `raylign jobs http://" in capsys.readouterr().err


def test_local_paths_become_absolute_unless_they_travel_along(in_root: Path) -> None:
    data = {"input": ["demo/test.parquet", "mine/*.parquet", "s3://b/p.parquet"]}
    models = {"generator": {"model": "demo/generator"}, "reward": {"model": "some/model"}}
    found, local = placed({"out": "demo/out", "data": data, **models})
    assert found["out"] == str(in_root / "demo/out")
    assert found["data"]["input"] == ["demo/test.parquet", str(in_root / "mine/*.parquet"), "s3://b/p.parquet"]
    assert {kind: found[kind] for kind in models} == models
    assert local == [found["out"], found["data"]["input"][1]]
    assert placed({"out": "s3://b/out"})[1] == []


def test_what_travels_are_the_packages_and_the_settings(tmp_path: Path) -> None:
    ship({"out": "s3://b/x", "data": {"input": "p"}, "generator": "toy", "reward": "toy"}, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {*PACKAGES, SETTINGS}
    assert not list(tmp_path.rglob("__pycache__"))
    assert load([str(tmp_path / SETTINGS)]).generator.engine == "toy"
    assert (tmp_path / "jobs/submit.py").read_bytes() == (HOME / "jobs/submit.py").read_bytes()


def test_what_is_too_large_to_travel_is_named(tmp_path: Path) -> None:
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo/weights.bin").write_bytes(bytes(3 * 2**20))
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/large").write_bytes(bytes(9 * 2**20))
    check_size(tmp_path, 4 * 2**20)
    with pytest.raises(ConfigError, match=r"demo/weights.bin \(3 MiB\)"):
        check_size(tmp_path, 2 * 2**20)
