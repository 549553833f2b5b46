"""Plans and node manifests: the same run goes on, another is refused by name, a longer one starts from the journal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import RunDirectoryError
from pipeline.graph import Advanced, Done, Ingested
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.manifest import NodeRecord, adopt_plan, commit_node, read_nodes, read_plan, runs_in

ADVANCED = NodeRecord("advance-00000-000", Advanced(), (), {})
VALUES: dict[str, Any] = {"seed": 0, "method.n": 4, "generator.model": "abc", "data.shard_rows": 8}


def test_the_same_plan_is_the_same_run(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    first, again = adopt_plan(folder, VALUES, ()), adopt_plan(folder, VALUES, ())
    assert first == again
    assert len(first.run) == 12


def test_another_configuration_is_refused_and_what_differs_is_named(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    commit_node(folder, adopt_plan(folder, VALUES, ()), ADVANCED)
    with pytest.raises(RunDirectoryError, match=r"(?s)seed: 0 there, 1 now.*journal=.*candidates"):
        adopt_plan(folder, {**VALUES, "seed": 1}, ())
    with pytest.raises(RunDirectoryError, match=r"method\.n: 4 there, 8 now"):
        adopt_plan(folder, {**VALUES, "method.n": 8}, ())


def refusal(folder: Folder, values: dict[str, Any], names: dict[str, str]) -> str:
    with pytest.raises(RunDirectoryError) as refused:
        adopt_plan(folder, values, (), names)
    return str(refused.value)


def test_models_and_files_are_named_as_people_know_them(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    file = {"file": "p", "rows": 3, "bytes": 90, "blake2b": "aa"}
    values = {**VALUES, "data.input": [file]}
    commit_node(folder, adopt_plan(folder, values, (), {"generator.model": "org/one"}), ADVANCED)
    other = {**values, "generator.model": "def"}
    assert 'generator.model: "org/one" there, "org/two" now' in refusal(folder, other, {"generator.model": "org/two"})
    assert 'generator.model: "org/one" has changed' in refusal(folder, other, {"generator.model": "org/one"})
    changes = {
        "gave 3 rows, gives 4 now": [{**file, "rows": 4}],
        "had 90 bytes, has 91 now": [{**file, "bytes": 91}],
        "has other content of the same size": [{**file, "blake2b": "bb"}],
        'file "q" is new': [file, {**file, "file": "q"}],
        'file "p" is missing': [{**file, "file": "q", "rows": 4}],
        'file "p" is called "q" now; rows are named after it: rename it': [{**file, "file": "q"}],
    }
    for said, files in changes.items():
        assert f"data.input: file {'' if said.startswith('file') else chr(34) + 'p' + chr(34) + ' '}" in refusal(
            folder, {**values, "data.input": files}, {}
        )
        assert said in refusal(folder, {**values, "data.input": files}, {})


def test_a_run_that_has_drawn_nothing_gives_way(tmp_path: Path) -> None:
    """Else who mends a wrong input would have to find another directory."""
    folder = Folder(str(tmp_path))
    plan = adopt_plan(folder, VALUES, ())
    commit_node(folder, plan, NodeRecord("ingest-00000", Ingested((3,)), (), {}))
    folder.write("_shards/shard-00000.parquet", b"old")
    other = adopt_plan(folder, {**VALUES, "seed": 1}, ())
    assert other.values["seed"] == 1
    assert not folder.exists("_shards/shard-00000.parquet")
    folder.write("candidates/_open/part/000000.parquet", b"a draw")
    assert "seed: 1 there, 2 now" in refusal(folder, {**VALUES, "seed": 2}, {})


def test_results_without_a_plan_are_not_overwritten(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    folder.write("results/part-00000.parquet", b"someone's")
    assert "no plan" in refusal(folder, VALUES, {})


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


def test_runs_in_a_directory_are_found(tmp_path: Path) -> None:
    for name in ("first", "second", *(f"trials/{i}" for i in range(9))):
        adopt_plan(Folder(f"{tmp_path}/{name}"), VALUES, ())
    folder = Folder(str(tmp_path))
    folder.write("journal/part.parquet", b"draws")
    folder.write("trials/not-begun/other.json", b"{}")
    assert runs_in(folder) == ["first", "second", *(f"trials/{i}" for i in range(9))]
    with pytest.raises(RunDirectoryError, match=r"has runs in it; name one of them: .*/first, .*/trials/5 and 3 more$"):
        read_plan(folder)


def test_node_records_come_back_as_they_were(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path))
    plan = adopt_plan(folder, VALUES, ())
    records = [
        NodeRecord("ingest-00000", Ingested((3, 2)), (FileRecord("a", 3, 10, "ff"),), {}),
        NodeRecord("advance-00000-000", Advanced(waiting=1), (), {"draws": 5}, {"reward": ["ab", "cd"]}),
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


def test_a_kill_while_another_plan_takes_over_leaves_nothing_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Folder(str(tmp_path))
    commit_node(folder, adopt_plan(folder, VALUES, ()), ADVANCED)
    folder.write("grants/part-00000-000.parquet", b"")

    def interrupted(self: Folder, name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as killed:
        killed.setattr(Folder, "remove", interrupted)
        with pytest.raises(KeyboardInterrupt):
            adopt_plan(folder, {**VALUES, "data.shard_rows": 4}, ())
    adopt_plan(folder, VALUES, ())
    assert not folder.exists("grants")
    assert not folder.exists("_nodes")
    assert adopt_plan(folder, VALUES, ()) == adopt_plan(folder, VALUES, ())
