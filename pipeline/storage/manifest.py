"""What a run is (its plan), and what of it is done (a manifest per node, and the run's own, written last)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from typing import Any

from pipeline.errors import RunDirectoryError
from pipeline.graph import Advanced, Done, Ingested, NodeOutcome
from pipeline.keys import digest
from pipeline.storage.folder import FileRecord, Folder

FORMAT = 1
TRIALS = "trials"
"""Where a sweep's directory has its runs."""
NAMED = 8
"""How many runs an error names."""
FREE = ("data.shard_rows",)
"""Keys of a plan that may differ when a run is resumed: they decide how the work is cut, not what comes out."""
BESIDE = "rewards."
"""What keys of a plan begin with that may come and go: further rewards, of whatever is drawn already."""

STALE = (
    "manifest.json",
    "summary.json",
    "_nodes",
    "_shards",
    "_outcomes",
    "_shown",
    "_memory",
    "results",
    "rejects",
    "grants",
    "export",
    "export.json",
)
"""What a run makes anew when its plan changes; the journal stays."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that shapes a run's output, flat, and the run's own name (12 hex digits)."""

    run: str
    values: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Digest of the values; node manifests carry it, so that those of another plan don't count."""
        return digest((json.dumps(dict(self.values), sort_keys=True, ensure_ascii=False),)).hex()


def read_plan(folder: Folder) -> Plan:
    """The plan of the run that lies in a folder. Raises ``RunDirectoryError`` if there is none."""
    try:
        value = folder.read_json("_plan.json")
    except FileNotFoundError:
        raise RunDirectoryError(_no_run(folder)) from None
    return Plan(value["run"], value["values"])


def runs_in(folder: Folder) -> list[str]:
    """Names, under a folder that is no run itself, of the runs directly in it, and of the trials of a sweep."""
    names = [*folder.folders(""), *(f"{TRIALS}/{name}" for name in folder.folders(TRIALS))]
    return [name for name in names if folder.exists(f"{name}/_plan.json")]


def _no_run(folder: Folder) -> str:
    if not (found := runs_in(folder)):
        return f"no run lies in {folder.url}: give the directory that was named as out= (it holds config.yaml)"
    names = ", ".join(f"{folder.url}/{name}" for name in found[:NAMED])
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return f"{folder.url} is no run itself, but has runs in it; name one of them: {names}{more}"


def adopt_plan(
    folder: Folder, values: Mapping[str, Any], horizon: tuple[str, ...], names: Mapping[str, str] | None = None
) -> Plan:
    """The plan of the run in this folder: a new one in an empty folder, else the one there if it is the same run.

    ``horizon`` names keys that may grow or shrink (the number of draws, say): what was done for another value
    is done again from the journal. A run that has drawn nothing yet gives way to another one (its input was wrong,
    say, and has been mended). ``names``: what people call values that are fingerprints, for messages. Raises
    ``RunDirectoryError`` that names what differs otherwise.
    """
    values = json.loads(json.dumps(dict(values)))  # as it will be read back
    try:
        before = folder.read_json("_plan.json")
    except FileNotFoundError:
        _refuse_foreign(folder)
        plan = Plan(uuid.uuid4().hex[:12], values)
    else:
        if lines := _refused(folder, before, values, horizon, names or {}):
            raise RunDirectoryError(_refusal(folder, lines))
        plan = Plan(before["run"], values)
        if not _differing(before, values) and not before.get("clearing"):
            return plan
        folder.write_json("_plan.json", {**before, "clearing": True})  # a kill in the middle must not leave half of it
        for stale in STALE:
            folder.remove(stale)
    plan_json = {"format": FORMAT, "run": plan.run, "values": dict(plan.values), "names": dict(names or {})}
    folder.write_json("_plan.json", plan_json)
    return plan


def refused_differences(
    folder: Folder, values: Mapping[str, Any], horizon: tuple[str, ...], names: Mapping[str, str] | None = None
) -> list[str]:
    """Why ``adopt_plan`` would refuse these values: what differs from the run there, a line each; empty if nothing."""
    try:
        before = folder.read_json("_plan.json")
    except FileNotFoundError:
        return []
    return _refused(folder, before, json.loads(json.dumps(dict(values))), horizon, names or {})


def _refused(
    folder: Folder,
    before: Mapping[str, Any],
    values: Mapping[str, Any],
    horizon: tuple[str, ...],
    names: Mapping[str, str],
) -> list[str]:
    differing = _differing(before, values)
    keys = [k for k in differing if k not in (*FREE, *horizon) and not k.startswith(BESIDE)]
    now = {"values": values, "names": names}
    lines = [f"{key}: {text}" for key in keys for text in _difference(key, before, now)]
    return lines if lines and _has_drawn(folder) else []


def _differing(before: Mapping[str, Any], values: Mapping[str, Any]) -> list[str]:
    there = before["values"]
    return [key for key in sorted({*values, *there}) if values.get(key) != there.get(key)]


def _refuse_foreign(folder: Folder) -> None:
    for name in ("manifest.json", "summary.json", "results"):
        if folder.exists(name):
            raise RunDirectoryError(
                f"{folder.url} holds {name}, but no plan of a run (_plan.json); what stands there would be "
                "overwritten: choose another out=, or remove the directory"
            )


def _has_drawn(folder: Folder) -> bool:
    """Whether a run has got beyond reading its input. A shared journal keeps its draws whatever happens here."""
    nodes = folder.names("_nodes", ".json")
    return any(not name.startswith("ingest-") for name in nodes) or folder.exists("candidates")


def _refusal(folder: Folder, lines: Sequence[str]) -> str:
    said = "\n".join(f"  {line}" for line in lines)
    return (
        f"{folder.url} holds a run with another configuration:\n{said}\n"
        f"Choose another out=; with journal={folder.url}/candidates it takes over every draw that is still the same."
    )


def _difference(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    there, here = before["values"].get(key), now["values"].get(key)
    if key == "data.input" and there and here:
        return input_difference(there, here)
    names = before.get("names", {}).get(key), now["names"].get(key)
    if None not in names or (None in (there, here) and any(names)):  # a section may stand on one side only
        there, here = names
        if there == here:
            return [f"{_short(here)} has changed since: other weights, tokenizer, template or options"]
    return [f"{_short(there)} there, {_short(here)} now"]


def input_difference(before: Sequence[Mapping[str, Any]], now: Sequence[Mapping[str, Any]]) -> list[str]:
    """How an input differs from what a plan says of it (see ``Source.describe``), a sentence each for some files."""
    there, here = ({f["file"]: f for f in files} for files in (before, now))
    renamed = _renamed(there, here)
    found = [
        f"file {_short(a)} is called {_short(b)} now; rows are named after it: rename it" for a, b in renamed.items()
    ]
    for file in sorted({*there, *here} - {*renamed, *renamed.values()}):
        if file not in here:
            found.append(f"file {_short(file)} is missing now")
        elif file not in there:
            found.append(f"file {_short(file)} is new")
        elif there[file] != here[file]:
            found.append(f"file {_short(file)} {_file_difference(there[file], here[file])}")
    return found[:5] or ["the files stand in another order"]


def _renamed(there: Mapping[str, Mapping[str, Any]], here: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Files that are gone, and new ones with the same content."""
    new = {f["blake2b"]: name for name, f in here.items() if name not in there}
    gone = (f for name, f in there.items() if name not in here)
    return {f["file"]: name for f in gone if (name := new.get(f["blake2b"])) and f == {**here[name], "file": f["file"]}}


def _file_difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    if there["rows"] != here["rows"]:
        return f"gave {there['rows']} rows, gives {here['rows']} now"
    if there["bytes"] != here["bytes"]:
        return f"had {there['bytes']} bytes, has {here['bytes']} now"
    return "has other content of the same size now"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A finished node: what followed, which files it wrote, and what it counted.

    ``died``: names of the replicas' processes that it saw die, by role; other nodes may have seen the same.
    """

    node: str
    outcome: NodeOutcome
    files: tuple[FileRecord, ...]
    counts: Mapping[str, float]
    died: Mapping[str, Sequence[str]] = field(default_factory=dict)


OUTCOMES: dict[str, type[NodeOutcome]] = {"Ingested": Ingested, "Advanced": Advanced, "Done": Done}


def commit_node(folder: Folder, plan: Plan, record: NodeRecord) -> None:
    """Writes a node's manifest: from now on it is done."""
    outcome = {"type": type(record.outcome).__name__, **asdict(record.outcome)}
    value = {
        "node": record.node,
        "fingerprint": plan.fingerprint,
        "outcome": outcome,
        "files": [f.to_json() for f in record.files],
        "counts": dict(record.counts),
        "died": {role: list(names) for role, names in record.died.items()},
    }
    folder.write_json(f"_nodes/{record.node}.json", value)


def node_counts(folder: Folder, node: str) -> Mapping[str, float]:
    """What a finished node counted. Raises ``FileNotFoundError``."""
    counts: Mapping[str, float] = folder.read_json(f"_nodes/{node}.json")["counts"]
    return counts


def read_nodes(folder: Folder, plan: Plan) -> dict[str, NodeRecord]:
    """Every finished node of this plan, by name."""
    return {record.node: record for record in _records(folder, plan)}


def read_done(folder: Folder, plan: Plan, node: str) -> NodeRecord | None:
    """A node of this plan, if it is finished."""
    try:
        record, fingerprint = read_node(folder, f"{node}.json")
    except FileNotFoundError:
        return None
    return record if fingerprint == plan.fingerprint else None


def _records(folder: Folder, plan: Plan) -> Iterator[NodeRecord]:
    for name in folder.names("_nodes", ".json"):
        record, fingerprint = read_node(folder, name)
        if fingerprint == plan.fingerprint:
            yield record


def read_node(folder: Folder, name: str) -> tuple[NodeRecord, str]:
    """A finished node by its manifest's file name under ``_nodes``, and the fingerprint of the plan it belongs to."""
    value = folder.read_json(f"_nodes/{name}")
    fields = dict(value["outcome"])
    kind: Any = OUTCOMES[fields.pop("type")]
    outcome: NodeOutcome = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
    files = tuple(FileRecord(**f) for f in value["files"])
    return NodeRecord(value["node"], outcome, files, value["counts"], value.get("died", {})), value["fingerprint"]


def shard_starts(folder: Folder, plan: Plan) -> list[int]:
    """The position of each shard's first row in the whole input, and where the last one ends."""
    nodes = read_nodes(folder, plan)
    found = [nodes[name].outcome for name in sorted(nodes)]
    return list(accumulate((n for o in found if isinstance(o, Ingested) for n in o.rows), initial=0))


def commit_run(folder: Folder, plan: Plan, files: list[FileRecord]) -> None:
    """Writes ``manifest.json``, the last file of a run: what it was, and every part of its tables."""
    value = {
        "format": FORMAT,
        "run": plan.run,
        "fingerprint": plan.fingerprint,
        "plan": dict(plan.values),
        "files": [f.to_json() for f in sorted(files, key=lambda f: f.name)],
    }
    folder.write_json("manifest.json", value)
