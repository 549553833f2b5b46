"""The storage layer over the real S3 protocol: no rename there, and listings that a cache must not hide."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.errors import RunDirectoryError, StorageError
from pipeline.sections import DataConfig
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, JournalWriter
from pipeline.storage.lease import take
from pipeline.storage.shards import write_shards
from pipeline.storage.source import inspect
from tests.storage.s3_server import on_s3, served
from tests.storage.test_journal import row


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """A bucket on a server of this process's own, on loopback."""
    with served() as port, on_s3(f"http://127.0.0.1:{port}"):
        yield "s3://bucket"


def test_input_and_shards_on_s3(bucket: str) -> None:
    rows: list[dict[str, Any]] = [{"prompt": f"p{i}"} for i in range(5)]
    folder = Folder(f"{bucket}/run")
    folder.write("in/a.jsonl", "".join(json.dumps(r) + "\n" for r in rows).encode())
    source = inspect(DataConfig(input=f"{bucket}/run/in/*.jsonl"))
    records = write_shards(folder, source, 0, 3)
    tables = [folder.read_table(r.name) for r in records]
    assert [t.column("prompt").to_pylist() for t in tables] == [["p0", "p1", "p2"], ["p3", "p4"]]


def test_the_journal_on_s3_recovers_what_a_killed_node_left(bucket: str) -> None:
    journal = Journal(Folder(f"{bucket}/journal"), "run1")
    writer = JournalWriter(journal, "run1-a", "data", 0, 10)
    writer.flush([row("a", 0)])
    writer.flush([row("a", 1)])
    assert journal.parts() == []
    again = Journal(Folder(f"{bucket}/journal"), "run1")
    assert again.recover("data", 0, 10) == 2
    assert [p.rows for p in again.parts()] == [2]
    assert again.folder.folders("_open") == []
    assert len(again.read(again.parts(), ["a"])) == 2


def test_a_file_is_created_once_on_s3(bucket: str) -> None:
    folder = Folder(f"{bucket}/once")
    assert [folder.create("a", b"1"), folder.create("a", b"2")] == [True, False]
    assert folder.read("a") == b"1"


def test_a_lease_on_s3_holds_until_its_release(bucket: str) -> None:
    folder = Folder(f"{bucket}/leased")
    lease = take(folder)
    lease._beat()
    lease.check()
    with pytest.raises(RunDirectoryError, match="in use by another run: process"):
        take(Folder(f"{bucket}/leased"))
    lease.release()
    take(folder).release()
    assert folder.names("_lease") == []


def test_a_bucket_that_is_not_there_is_said(bucket: str) -> None:
    with pytest.raises(StorageError, match=r"nobucket/run/_lease.*a bucket must be there already"):
        take(Folder("s3://nobucket/run"))
