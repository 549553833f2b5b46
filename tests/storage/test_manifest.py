"""Plans and node manifests: the same run goes on, another is refused by name, a longer one starts from the journal."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import RunDirectoryError
from pipeline.graph import Advanced, Done, Ingested
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.manifest import NodeRecord, adopt_plan, commit_node, read_nodes

VALUES = {"seed": 0, "method.n": 4, "generator.model": "abc", "data.shard_rows": 8}


def test_the_same_plan_is_the_same_run(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    first, again = adopt_plan(folder, VALUES, ()), adopt_plan(folder, VALUES, ())
    assert first == again
    assert len(first.run) == 12


def test_another_configuration_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    adopt_plan(folder, VALUES, ())
    with pytest.raises(RunDirectoryError, match=r"(?s)seed: 0 there, 1 now.*journal=.*candidates"):
        adopt_plan(folder, {**VALUES, "seed": 1}, ())
    with pytest.raises(RunDirectoryError, match=r"method\.n: 4 there, 8 now"):
        adopt_plan(folder, {**VALUES, "method.n": 8}, ())


def test_a_longer_horizon_or_other_shards_keep_the_run_and_its_journal_but_no_node(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    plan = adopt_plan(folder, VALUES, ())
    commit_node(folder, plan, NodeRecord("collect-00000", Done(), (), {}))
    folder.write("candidates/part.parquet", b"draws")
    folder.write("results/part-00000.parquet", b"results")
    longer = adopt_plan(folder, {**VALUES, "method.n": 8, "data.shard_rows": 2}, ("method.n",))
    assert longer.run == plan.run
    assert longer.fingerprint != plan.fingerprint
    assert read_nodes(folder, longer) == {}
    assert not folder.exists("results/part-00000.parquet")
    assert folder.read("candidates/part.parquet") == b"draws"


def test_node_records_come_back_as_they_were(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    plan = adopt_plan(folder, VALUES, ())
    records = [
        NodeRecord("ingest-00000", Ingested((3, 2)), (FileRecord("a", 3, 10, "ff"),), {}),
        NodeRecord("advance-00000-000", Advanced(waiting=1), (), {"draws": 5}),
        NodeRecord("collect-00000", Done(), (), {"rows": 3}),
    ]
    for record in records:
        commit_node(folder, plan, record)
    assert read_nodes(folder, plan) == {r.node: r for r in records}


def test_a_torn_write_leaves_the_old_file(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("a.json", b"{}")
    (tmp_path / "a.json.12345678.tmp").write_bytes(b"{")  # a kill in mid-write
    assert folder.names("", ".json") == ["a.json"]
    assert folder.read_json("a.json") == {}
