"""What goes wrong with rows, rewards, disks and clusters while a run goes on: nothing is lost, and it is said.

One case each, through the command line. Rows are in results or in rejects, never in both, never in neither.
"""

from __future__ import annotations

import json
import math
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from actors.executor import Executor
from jobs.__main__ import main
from pipeline.graph import Node
from tests.actors import tiny_models as tiny
from tests.conftest import ROOT
from tests.e2e.commands import Command, lines, wait_for
from tests.e2e.conftest import candidates, settings, table, write_prompts

pytestmark = pytest.mark.ray


@pytest.fixture
def run(ray_cluster: None, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str]]:
    """``raylign align`` in this process's cluster: its exit status, and what it said."""

    def align(*arguments: str) -> tuple[int, str]:
        capsys.readouterr()
        status = main(["align", *arguments])
        shown = capsys.readouterr()
        print(f"$ raylign align {' '.join(arguments)}\n{shown.out}{shown.err}(exit status {status})")
        assert "Traceback" not in shown.err
        return status, shown.out + shown.err

    return align


Run = Callable[..., tuple[int, str]]


def write(path: Path, prompts: list[Any]) -> str:
    path.write_text("".join(json.dumps({"prompt": p, "row": i}) + "\n" for i, p in enumerate(prompts)))
    return str(path)


def rows(out: Path) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Any]]]:
    """Results and rejects by the input's own number; none in both."""
    tables = []
    for name in ("results", "rejects"):
        found = table(out, name).to_pylist() if (out / name).exists() else []
        tables.append({r["row"]: r for r in found})
        assert len(tables[-1]) == len(found)
    assert not tables[0].keys() & tables[1].keys()
    return tables[0], tables[1]


BAD_PROMPTS: dict[str, tuple[Any, str, str]] = {
    "empty": ("", "EmptyPrompt", "the prompt is empty"),
    "blank": (" \n", "EmptyPrompt", "the prompt is empty"),
    "null": (None, "NullPrompt", "the prompt is null"),
    "a number": (42, "WrongType", "must be a string, as in the other rows; this one is 42"),
    "an object": ({"text": "x"}, "WrongType", 'this one is {"text": "x"}'),
    "too long": ("x" * 41, "PromptTooLong", "has 41 tokens and leaves no room for a response in 40"),
}


def test_bad_prompts_cost_their_rows_only(run: Run, tmp_path: Path) -> None:
    bad = {2 * i + 1: case for i, case in enumerate(BAD_PROMPTS.values())}
    prompts = [bad[i][0] if i in bad else f"good {i}" for i in range(2 * len(bad) + 1)]
    data = write(tmp_path / "p.jsonl", prompts)
    status, said = run(*settings(tmp_path / "out", data, "generator.context=40", "data.shard_rows=5"))
    assert status == 3
    assert f"rejected rows and why: {tmp_path}/out/rejects" in said
    assert "  1 at prompt: PromptTooLong, e.g. the prompt has 41 tokens and leaves no" in said
    results, rejects = rows(tmp_path / "out")
    assert sorted(results) == [i for i in range(len(prompts)) if i not in bad]
    assert sorted(rejects) == sorted(bad)
    for i, (prompt, error_type, error) in bad.items():
        assert (rejects[i]["stage"], rejects[i]["error_type"]) == ("prompt", error_type)
        assert error in rejects[i]["error"]
        assert rejects[i]["prompt"] == (prompt if isinstance(prompt, str) else None)
        assert rejects[i]["id"] == f"p-{i}"


BAD_MESSAGES: dict[str, tuple[Any, str, str]] = {
    "no messages": ([], "EmptyPrompt", "no messages"),
    "a text": ("hi", "WrongType", "must be a list of {role, content} messages, as in the other rows"),
    "no role": ([{"content": "x"}], "BadMessage", "message 0 (counted from 0) has no role"),
    "no content": ([{"role": "user", "content": None}], "BadMessage", "message 0 (counted from 0) has no content"),
    "parts": ([{"role": "user", "content": [{"type": "text"}]}], "WrongType", '"content": [{"type": "text"}]'),
    "answered": (
        [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}],
        "BadMessage",
        "assistant's",
    ),
}


def test_bad_messages_cost_their_rows_only(run: Run, tmp_path: Path) -> None:
    cases = list(BAD_MESSAGES.values())
    good = [{"role": "user", "content": "hi"}]
    data = write(tmp_path / "p.jsonl", [good, *(prompt for prompt, _, _ in cases)])
    assert run(*settings(tmp_path / "out", data))[0] == 3
    results, rejects = rows(tmp_path / "out")
    assert sorted(results) == [0]
    assert results[0]["prompt"] == good
    for i, (_, error_type, error) in enumerate(cases, 1):
        assert rejects[i]["error_type"] == error_type
        assert error in rejects[i]["error"]


@pytest.mark.parametrize(
    "weights",
    ["{a: .nan}", "{a: .inf}", "{a: -.inf}", "{a: .inf, b: -.inf}", "{a: .nan, b: .nan, c: .nan}"],
)
def test_rewards_that_are_not_finite(weights: str, run: Run, tmp_path: Path) -> None:
    """NaN never wins against a number, infinities order as numbers do; a row of NaN alone keeps its first draw."""
    data = write(tmp_path / "p.jsonl", [f"prompt {i}" for i in range(12)])
    more = [f"reward.weights={weights}", "method.n=3", "generator.max_tokens=3"]
    status, said = run(*settings(tmp_path / "out", data, *more))
    assert status == 0
    results, _ = rows(tmp_path / "out")
    assert len(results) == 12
    worth = {"a": 1.0, "b": -0.5} | yaml.safe_load(weights)
    drawn: dict[str, list[dict[str, Any]]] = {}
    for draw in candidates(tmp_path / "out"):
        drawn.setdefault(draw["id"], []).append(draw)
    odd = 0
    for result in results.values():
        texts = [d["response"] for d in drawn[result["id"]]]
        rewards = [sum((worth.get(letter, 0.0) for letter in text), 0.0) for text in texts]
        assert repr([d["reward"] for d in drawn[result["id"]]]) == repr(rewards)
        numbers = [r for r in rewards if not math.isnan(r)]
        best = rewards.index(max(numbers)) if numbers else 0
        assert (result["response"], repr(result["reward"])) == (texts[best], repr(rewards[best]))
        odd += not math.isfinite(result["reward"])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["rewards_not_finite"] == odd
    assert ("rows whose reward is not finite left out" in said) == (odd > 0)


def test_pairs_that_the_reward_model_cannot_see(run: Run, tmp_path: Path) -> None:
    """Their rows are rejected, the others go on; and it is said before anything is drawn."""
    tiny.save_reward(tmp_path / "reward", max_position_embeddings=24)
    prompts = ["w1", " ".join(["w1"] * 30), "w2"]
    model = ["reward=transformers", f"reward.model={tmp_path}/reward", "generator.max_tokens=24"]
    status, said = run(*settings(tmp_path / "out", write(tmp_path / "p.jsonl", prompts), *model))
    assert status == 3
    assert "warning: generator.max_tokens = 24, but reward.model=" in said
    assert "sees 24 tokens" in said
    results, rejects = rows(tmp_path / "out")
    assert (sorted(results), sorted(rejects)) == ([0, 2], [1])
    assert (rejects[1]["stage"], rejects[1]["error_type"]) == ("score", "BadRequest")
    assert "tokens for the reward model, whose context is 24" in rejects[1]["error"]


def test_a_directory_that_holds_another_run(run: Run, tmp_path: Path) -> None:
    data, out = write(tmp_path / "p.jsonl", ["x", "y"]), tmp_path / "out"
    assert run(*settings(out, data))[0] == 0
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    other = ["seed=1", "generator.letters=4", "method.select=last"]
    status, said = run(*settings(out, data, *other))
    assert status == 2
    for line in (
        "holds a run with another configuration:",
        "  seed: 0 there, 1 now",
        '  method.select: "best" there, "last" now',
        "  generator.model: ",
        "Choose another out=",
        f"journal={out}/candidates",
    ):
        assert line in said
    Path(data).write_text(Path(data).read_text().replace("y", "z"))
    status, said = run(*settings(out, data))
    assert status == 2
    assert 'data.input: file "p" has other content of the same size now' in said
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


TOO_MUCH = {
    "GPUs": (["generator.gpus=1"], ["too few GPUs: 1 generator and 1 reward replicas", "need 1, the cluster has 0"]),
    "a share of a GPU": (["reward.gpus=0.5"], ["too few GPUs", "need 0.5, the cluster has 0", "reward.gpus"]),
    "half a GPU too many": (["generator.gpus=1.5"], ["generator.gpus = 1.5: give whole GPUs, or a share of one"]),
    "CPUs": (
        ["generator.replicas=99"],
        ["too few CPUs: 99 generator", "need 50.25, the cluster has 8", "generator.cpus"],
    ),
    "CPUs for the runners": (["generator.cpus=7.5"], ["too few CPUs", "and a runner need 8.25, the cluster has 8"]),
    "no cluster there": (["cluster.address=127.0.0.1:1"], ["cluster.address = '127.0.0.1:1': no Ray cluster answers"]),
}


@pytest.mark.parametrize("case", TOO_MUCH)
def test_replicas_that_the_cluster_cannot_hold(
    case: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said at once: Ray would let them wait for ever."""
    import ray

    arguments, words = TOO_MUCH[case]
    if case == "no cluster there":
        monkeypatch.setattr(ray, "is_initialized", lambda: False)
    log = f"generator.log={tmp_path}/draws.log"
    status, said = run(*settings(tmp_path / "out", write(tmp_path / "p.jsonl", ["x"]), log, *arguments))
    assert status == (1 if case == "no cluster there" else 2)
    assert [w for w in words if w not in said] == []
    assert not (tmp_path / "draws.log").exists()


def test_a_model_that_no_node_has_memory_for(run: Run, tmp_path: Path) -> None:
    tiny.save_generator(tmp_path / "model")
    model = ["generator=vllm", f"generator.model={tmp_path}/model", "generator.kv_cache_gib=100000"]
    status, said = run(*settings(tmp_path / "out", write(tmp_path / "p.jsonl", ["x"]), *model))
    assert status == 2
    assert "too little memory: 1 generator and 1 reward replicas and a runner need at least 100000.0 GiB" in said
    assert "lower the replicas or kv_cache_gib" in said


def test_runners_never_keep_a_replica_out(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seven CPUs of eight are for replicas; of twenty shards that want a quarter each, four run at once."""
    submit, running = Executor._submit, []

    def counted(self: Executor, node: Node) -> None:
        submit(self, node)
        running.append(len(self._running))

    monkeypatch.setattr(Executor, "_submit", counted)
    replicas = ["generator.cpus=3.5", "reward.cpus=3.5", "cluster.shards_in_flight=50", "data.shard_rows=1"]
    data = write(tmp_path / "p.jsonl", [f"prompt {i}" for i in range(20)])
    assert run(*settings(tmp_path / "out", data, *replicas))[0] == 0
    assert max(running) == 4


SLOW = ["generator.latency_s=0.3", "generator.max_in_flight=2", "cluster.flush_s=0.05"]


@pytest.mark.slow
def test_two_runs_on_one_directory(run: Run, tmp_path: Path) -> None:
    """The second is told who is there; when the first is killed, the same command goes on at once."""
    data, out, log = write_prompts(tmp_path / "p.jsonl", 8), tmp_path / "out", tmp_path / "draws.log"
    arguments = settings(out, data, *SLOW, f"generator.log={log}", "method.n=8")
    first = Command(arguments, tmp_path / "first.txt").start()
    try:
        wait_for(lambda: lines(log) >= 4)
        status, said = run(*arguments)
        assert status == 2
        assert f"{out} is in use by another run: process {first.pid} on " in said
        assert "choose another out=" in said
        shared = settings(tmp_path / "other", data, "method.n=2", f"journal={out}/candidates")
        assert run(*shared)[0] == 3  # a journal is shared on purpose
    finally:
        first.kill()
        first.wait()
    status, _ = run(*arguments)
    assert status == 3
    results, rejects = {}, {}
    for name, found in (("results", results), ("rejects", rejects)):
        found.update({r["id"]: r for r in table(out, name).to_pylist()})
    assert sorted([*results, *rejects]) == [f"p-{i}" for i in range(8)]
    assert not (out / "_lease").exists()


FULL_DISK = """
set -e
mount -t tmpfs -o size=3m tmpfs "$1"
head -c 2800000 /dev/zero > "$1/ballast"
status=0; "$2" -m jobs.align "out=$1/out" "${@:3}" || status=$?
echo "first: $status"
echo "torn: $(ls -R "$1/out" | grep -c '[.]tmp$')"
"$2" -c '
import pathlib, sys
import pyarrow.parquet as pq
parts = pathlib.Path(sys.argv[1]).rglob("candidates/**/*.parquet")
print("readable:", len({key for p in parts for key in pq.read_table(p).column("key").to_pylist()}))
' "$1"
rm "$1/ballast"
status=0; "$2" -m jobs.align "out=$1/out" "${@:3}" || status=$?
echo "second: $status"
cat "$1/out/summary.json"
"""


def can_mount() -> bool:
    done = subprocess.run(["unshare", "-Urm", "true"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.slow
@pytest.mark.skipif(not can_mount(), reason="this machine lets no user mount a small disk of their own")
def test_a_full_disk(tmp_path: Path) -> None:
    """The run fails and says so; what was written stays readable, and with space the same command goes on."""
    (tmp_path / "disk").mkdir()
    draw = random.Random(0)
    prompts = [f"{i} {draw.randbytes(2000).hex()}" for i in range(60)]
    data = write(tmp_path / "p.jsonl", prompts)
    arguments = settings(tmp_path / "unused", data, "method.n=4", "data.shard_rows=10", "cluster.flush_s=0.01")[1:]
    script = tmp_path / "full.sh"
    script.write_text(FULL_DISK)
    command = ["unshare", "-Urm", "bash", str(script), str(tmp_path / "disk"), sys.executable, *arguments]
    environment = {k: v for k, v in os.environ.items() if k != "RAY_ADDRESS"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    said = done.stdout + done.stderr
    assert "first: 1" in said, said
    assert "no space is left: free some, and the same command goes on" in said
    assert "second: 0" in said, said
    assert "Traceback" not in said
    words = said.split()
    assert words[words.index("torn:") + 1] == "0"
    kept = int(words[words.index("readable:") + 1])
    assert 0 < kept < 240
    assert f'"draws": {240 - kept}' in said  # what could be read then is all that isn't drawn again
