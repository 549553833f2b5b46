"""One run at a time: a living holder is named and kept, a dead one's lease is taken at once, whoever comes first."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import RunDirectoryError, RunFailed
from pipeline.storage import lease as leases
from pipeline.storage.folder import Folder
from pipeline.storage.lease import Holder, Lease, current, refuse_if_held, take


class Clock:
    """The time that leases see; sleeping passes it, and tells who waits for that."""

    def __init__(self) -> None:
        self.now = 1_000_000.0
        self.slept = 0.0
        self.meanwhile = lambda: None

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept += seconds
        self.meanwhile()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(leases, "time", clock)
    return clock


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    return Folder(str(tmp_path / "out") if request.param == "disk" else f"memory:/{tmp_path}/out")


@pytest.fixture
def held(folder: Folder) -> Iterator[Lease]:
    lease = take(folder)
    yield lease
    lease.release()


def elsewhere(folder: Folder, clock: Clock, seen: float) -> Holder:
    """A lease of a process on another machine, last seen so many seconds ago."""
    holder = Holder("other", "node7", "node7 boot", 42, "1", clock.now - 1000, clock.now - seen)
    folder.write(f"{leases.FOLDER}/000003.json", leases._to_json(holder))
    return holder


def test_a_living_holder_is_named(folder: Folder, held: Lease) -> None:
    for attempt in (take, refuse_if_held):
        with pytest.raises(RunDirectoryError, match=rf"out is in use.*process {os.getpid()} on .*choose another out="):
            attempt(folder)


def test_a_holder_that_is_a_ray_job_can_be_cancelled_by_its_name(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"runtime_env": {}, "metadata": {"job_submission_id": "job-12ab", "out": "o"}}
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", json.dumps(told))
    lease = take(folder)
    monkeypatch.delenv("RAY_JOB_CONFIG_JSON_ENV_VAR")
    said = r"process \d+ on .* \(Ray job job-12ab\), there since .*stop it \(`raylign cancel ADDRESS job-12ab`\)"
    with pytest.raises(RunDirectoryError, match=said):
        take(folder)
    lease.release()


def test_a_release_leaves_nothing_behind(folder: Folder) -> None:
    take(folder).release()
    assert not folder.exists("")
    folder.write("results/a.parquet", b"x")
    take(folder).release()
    assert folder.read("results/a.parquet") == b"x"
    assert folder.names(leases.FOLDER) == []


def test_a_killed_process_of_this_machine_holds_nothing(folder: Folder, clock: Clock) -> None:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = replace(leases._ourselves(), pid=process.pid, born=leases._born(process.pid))
    folder.write(f"{leases.FOLDER}/000001.json", leases._to_json(holder))
    with pytest.raises(RunDirectoryError, match=f"process {process.pid}"):
        take(folder)
    process.kill()
    process.communicate()
    take(folder).release()
    assert clock.slept == 0


def test_a_later_process_of_the_same_number_is_another_one(folder: Folder) -> None:
    folder.write(f"{leases.FOLDER}/000001.json", leases._to_json(replace(leases._ourselves(), born="1")))
    take(folder).release()


@pytest.mark.parametrize("seen", [0, 29, -29])
def test_a_fresh_heartbeat_from_elsewhere_is_refused_at_once(folder: Folder, clock: Clock, seen: float) -> None:
    elsewhere(folder, clock, seen)
    with pytest.raises(RunDirectoryError, match=r"process 42 on node7, there since 1970.*holds it for 30 s after"):
        take(folder)
    assert clock.slept == 0


@pytest.mark.parametrize("seen", [31, 1e6, -1e6])
def test_an_old_heartbeat_is_watched_then_taken_over(folder: Folder, clock: Clock, seen: float) -> None:
    elsewhere(folder, clock, seen)
    lease = take(folder)
    assert clock.slept > 2 * leases.BEAT_S
    assert [current(folder)[0], folder.names(leases.FOLDER)] == [4, ["000004.json"]]
    lease.release()


def test_a_wrong_clock_takes_nothing_from_a_living_run(folder: Folder, clock: Clock) -> None:
    elsewhere(folder, clock, 3600)
    clock.meanwhile = lambda: elsewhere(folder, clock, 3600) and None  # type: ignore[func-returns-value]
    with pytest.raises(RunDirectoryError, match="node7"):
        take(folder)


def test_of_many_at_once_one_gets_it(folder: Folder, clock: Clock) -> None:
    """Also where all of them find the same dead lease."""
    for _ in range(5):
        elsewhere(folder, clock, 31)
        barrier = threading.Barrier(8)

        def attempt(_: int, barrier: threading.Barrier = barrier) -> Lease | None:
            barrier.wait()
            try:
                return take(folder)
            except RunDirectoryError:
                return None

        with ThreadPoolExecutor(8) as threads:
            got = [lease for lease in threads.map(attempt, range(8)) if lease]
        assert len(got) == 1
        got[0].check()
        got[0].release()


def test_who_was_asleep_finds_out_and_stops(folder: Folder, held: Lease) -> None:
    held._beat()
    held.check()
    number, _ = current(folder)
    other = Holder("other", "node7", "node7 boot", 42, "1", 0.0, 0.0)
    folder.write(f"{leases.FOLDER}/{number + 1:06d}.json", leases._to_json(other))
    held._beat()
    with pytest.raises(RunFailed, match=r"taken over by process 42 on node7.*the same command goes on"):
        held.check()
    held.release()
    assert current(folder)[1] == other


def test_a_heartbeat_is_seen(folder: Folder, held: Lease, clock: Clock) -> None:
    held._beat()
    _, before = current(folder)
    clock.now += 7
    held._beat()
    _, after = current(folder)
    assert before is not None
    assert after == replace(before, beat=before.beat + 7)


def test_the_thread_beats(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "BEAT_S", 0.01)
    beaten = threading.Event()
    monkeypatch.setattr(Lease, "_beat", lambda self: beaten.set())
    lease = take(folder)
    assert beaten.wait(60)
    lease.release()
