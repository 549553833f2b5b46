"""An object store that fails in every way: bounded tries, then one sentence; nothing is half there, and it goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from jobs.align import main
from pipeline.errors import StorageError, Unreachable
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, JournalWriter
from tests.storage.faulty_server import Fault, Proxy
from tests.storage.s3_server import SECRET, on_s3, served
from tests.storage.test_journal import everything, row

QUICK = {"read_timeout": 0.5, "connect_timeout": 0.5, "retries": {"max_attempts": 1}}
"""botocore's patience, for tests; s3fs tries five times above it."""
KINDS = ("cut before", "cut after", "busy", "silent")


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with served() as port:
        yield port


@pytest.fixture
def proxy(port: int) -> Iterator[Proxy]:
    with Proxy(port) as proxy, on_s3(proxy.url, **QUICK):
        yield proxy


def journal(name: str) -> Journal:
    return Journal(Folder(f"s3://bucket/{name.replace(' ', '-')}"), "run1")


def filled(journal: Journal) -> JournalWriter:
    writer = JournalWriter(journal, "run1-a", "data", 0, 10)
    for i in range(3):
        writer.flush([row("a", i)])
    return writer


@pytest.mark.parametrize("kind", KINDS)
def test_a_fault_that_passes_is_not_noticed(proxy: Proxy, kind: str) -> None:
    proxy.faults = [Fault(kind, times=2, seconds=0.7), Fault(kind, "GET", times=1, seconds=0.7)]
    found = journal(f"passing {kind}")
    assert filled(found).commit(["a"]).rows == 3
    assert everything(found) == ["a0", "a1", "a2"]
    assert proxy.met == 3


@pytest.mark.parametrize("where", ["_open", ".parquet", "_manifests"])
@pytest.mark.parametrize("kind", ["cut before", "cut after", "busy"])
def test_a_fault_that_stays_is_said_and_the_next_try_goes_on(proxy: Proxy, kind: str, where: str) -> None:
    """Wherever in a journal's commit it begins."""
    found = journal(f"staying {kind} {where}")
    writer = filled(found)
    proxy.faults = [Fault(kind, where=where, times=10**6)]
    begun = time.monotonic()
    change = partial(writer.flush, [row("a", 3)]) if where == "_open" else partial(writer.commit, ["a"])
    with pytest.raises(Unreachable, match=r"s3://bucket/staying.*can't be written: the store gave no answer") as caught:
        change()
    assert time.monotonic() - begun < 30
    assert 1 < proxy.met <= 25, "bounded"
    assert "the same command goes on" in str(caught.value)
    assert SECRET not in str(caught.value)
    arrived = kind == "cut after"
    assert found.parts() == [] or (arrived and where == "_manifests")
    proxy.faults = []
    found.recover("data", 0, 10)
    assert everything(found) == ["a0", "a1", "a2"] + ["a3"] * (arrived and where == "_open")
    assert found.folder.folders("_open") == []


def test_a_store_that_can_not_be_read(proxy: Proxy) -> None:
    folder = Folder("s3://bucket/unread")
    folder.write("a", b"x")
    proxy.faults = [Fault("busy", "GET", times=10**6), Fault("busy", "HEAD", times=10**6)]
    for look in (lambda: folder.read("a"), lambda: folder.names(""), lambda: folder.exists("")):
        with pytest.raises(Unreachable, match=r"s3://bucket/unread.* can't be read: the store gave no answer"):
            look()


def test_a_listing_from_before_the_last_flush_loses_nothing(proxy: Proxy) -> None:
    found = journal("stale")
    writer = JournalWriter(found, "run1-a", "data", 0, 10)
    writer.flush([row("a", 0)])
    assert found.folder.names("_open/run1-a") == ["000000.parquet"]
    writer.flush([row("a", 1)])
    proxy.faults = [Fault("stale", "GET", "_open", times=1)]
    assert writer.commit(["a"]).rows == 2
    assert proxy.met == 1
    assert everything(found) == ["a0", "a1"]


SETTINGS = ["method.n=1", "generator=toy", "reward=toy"]
WRONG = {
    "no credentials": ("no credentials were found", "AWS_ACCESS_KEY_ID"),
    "unknown credentials": ("permission denied", "check that the credentials are those of this store"),
    "no bucket": ("a bucket must be there already|no file matches", "make it|check the path"),
    "nobody there": ("the store gave no answer", "AWS_ENDPOINT_URL"),
    "no URL": ("Invalid endpoint: nonsense", "AWS_ENDPOINT_URL"),
}


@contextlib.contextmanager
def wrong(how: str, port: int) -> Iterator[str]:
    """The name of a bucket, in an environment in which something is wrong."""
    with contextlib.ExitStack() as stack:
        endpoint, known = f"http://127.0.0.1:{port}", how != "no credentials"
        if how == "unknown credentials":
            refuses = Proxy(port, [Fault("forbidden", method, times=10**6) for method in ("GET", "PUT", "HEAD")])
            endpoint = stack.enter_context(refuses).url
        elif how == "nobody there":
            endpoint = "http://127.0.0.1:9"
        elif how == "no URL":
            endpoint = "nonsense"
        stack.enter_context(on_s3(endpoint, known=known, **QUICK))
        yield "nobucket" if how == "no bucket" else "bucket"


@pytest.mark.parametrize("how", WRONG)
@pytest.mark.parametrize("side", ["input", "out", "journal"])
def test_the_command_says_what_is_wrong_and_what_to_do(
    how: str, side: str, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before Ray is started, in one line, without a traceback."""
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n')
    here = {"input": f"{tmp_path}/p.jsonl", "out": f"{tmp_path}/run", "journal": f"{tmp_path}/journal"}
    with wrong(how, port) as bucket:
        here[side] = f"s3://{bucket}/{'p.jsonl' if side == 'input' else 'run'}"
        said = [f"data.input={here['input']}", f"out={here['out']}", f"journal={here['journal']}"]
        status = main([*said, *SETTINGS])
    error = capsys.readouterr().err
    assert status == (1 if how == "nobody there" and side != "input" else 2)
    assert error.count("\n") == 1
    assert f"s3://{bucket}/" in error
    what, remedy = WRONG[how]
    assert any(text in error for text in what.split("|"))
    assert any(text in error for text in remedy.split("|"))
    assert SECRET not in error


def test_what_can_not_be_written_is_no_row_lost(port: int) -> None:
    """A store that refuses from the middle of a run on: what it has is whole."""
    with Proxy(port) as proxy, on_s3(proxy.url, **QUICK):
        folder = Folder("s3://bucket/whole")
        folder.write("a", b"old")
        proxy.faults = [Fault("forbidden", times=10**6)]
        with pytest.raises(StorageError, match="s3://bucket/whole/a can't be written: permission denied"):
            folder.write("a", b"new")
        proxy.faults = [Fault("cut before", times=10**6)]
        with pytest.raises(Unreachable):
            folder.write("a", b"n" * 100_000)
        assert folder.read("a") == b"old"
        assert folder.names("") == ["a"]
