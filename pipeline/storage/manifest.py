"""What a run is (its plan), and what of it is done (a manifest per node, and the run's own, written last)."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.errors import RunDirectoryError
from pipeline.graph import Advanced, Done, Ingested, NodeOutcome
from pipeline.keys import digest
from pipeline.storage.folder import FileRecord, Folder

FORMAT = 1
FREE = ("data.shard_rows",)
"""Keys of a plan that may differ when a run is resumed: they decide how the work is cut, not what comes out."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that shapes a run's output, flat, and the run's own name (12 hex digits)."""

    run: str
    values: Mapping[str, Any]

    @property
    def fingerprint(self) -> str:
        """Digest of the values; node manifests carry it, so that those of another plan don't count."""
        return digest((json.dumps(dict(self.values), sort_keys=True, ensure_ascii=False),)).hex()


def adopt_plan(folder: Folder, values: Mapping[str, Any], horizon: tuple[str, ...]) -> Plan:
    """The plan of the run in this folder: a new one in an empty folder, else the one there if it is the same run.

    ``horizon`` names keys that may grow or shrink (the number of draws, say): what was done for another value
    is done again from the journal. Raises ``RunDirectoryError`` that names what differs otherwise.
    """
    values = json.loads(json.dumps(dict(values)))  # as it will be read back
    try:
        before = folder.read_json("_plan.json")
    except FileNotFoundError:
        plan = Plan(uuid.uuid4().hex[:12], values)
    else:
        differing = [k for k in sorted({*values, *before["values"]}) if values.get(k) != before["values"].get(k)]
        refused = [k for k in differing if k not in (*FREE, *horizon)]
        if refused:
            raise RunDirectoryError(_refusal(folder, refused, before["values"], values))
        plan = Plan(before["run"], values)
        if not differing:
            return plan
        for stale in (
            "manifest.json",
            "summary.json",
            "_nodes",
            "_shards",
            "_outcomes",
            "results",
            "rejects",
            "grants",
        ):
            folder.remove(stale)
    folder.write_json("_plan.json", {"format": FORMAT, "run": plan.run, "values": dict(plan.values)})
    return plan


def _refusal(folder: Folder, keys: list[str], before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    lines = [f"  {k}: {_short(before.get(k))} there, {_short(now.get(k))} now" for k in keys]
    return (
        f"{folder.url} holds a run with another configuration:\n" + "\n".join(lines) + "\n"
        f"Choose another out=; with journal={folder.url}/candidates it takes over every draw that is still the same."
    )


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 100 else text[:97] + "..."


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """A finished node: what followed, which files it wrote, and what it counted."""

    node: str
    outcome: NodeOutcome
    files: tuple[FileRecord, ...]
    counts: Mapping[str, float]


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
    }
    folder.write_json(f"_nodes/{record.node}.json", value)


def read_nodes(folder: Folder, plan: Plan) -> dict[str, NodeRecord]:
    """Every finished node of this plan, by name."""
    return {record.node: record for record in _records(folder, plan)}


def _records(folder: Folder, plan: Plan) -> Iterator[NodeRecord]:
    for name in folder.names("_nodes", ".json"):
        value = folder.read_json(f"_nodes/{name}")
        if value["fingerprint"] != plan.fingerprint:
            continue
        fields = dict(value["outcome"])
        kind: Any = OUTCOMES[fields.pop("type")]
        outcome: NodeOutcome = kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        yield NodeRecord(value["node"], outcome, tuple(FileRecord(**f) for f in value["files"]), value["counts"])


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
