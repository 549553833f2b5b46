"""What a run's directory says of the run: its plan, its nodes, its journal's parts, its own manifest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from pipeline.graph import Graph
from pipeline.sections import PromptFrom
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.journal import Part
from pipeline.storage.manifest import NodeRecord, Plan, read_node
from pipeline.storage.schema import Columns
from pipeline.storage.verification.findings import Findings

T = TypeVar("T")
OWN_JOURNAL = "candidates"


@dataclass(frozen=True)
class Setting:
    """What a verification needs to know beside the run's directory.

    ``journal``: the configuration's (None: the directory's own). ``generators``, ``scorer`` and ``data``: what replies
    and parts of this plan are named after. ``columns``: the method's own. ``best_of_all``: whether a result is the best
    of all its candidates. ``prompt``: what prompts are read from. ``rewards``: names of further reward models.
    """

    journal: str | None
    generators: tuple[str, ...]
    scorer: str
    data: str
    columns: Columns
    best_of_all: bool
    prompt: PromptFrom = "prompt"
    rewards: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Manifest:
    """What ``manifest.json`` says: the fingerprint of its plan, and the files of a finished run."""

    fingerprint: str
    files: tuple[FileRecord, ...]


@dataclass(frozen=True)
class Record:
    """Everything of a run that isn't a table.

    ``graph``: as far as the nodes' manifests lead. ``parts``: of the journal, also those of other runs; ``own``: the
    run's own as files. Names of files are relative to ``folder``, those of the journal begin with ``journal_name``.
    """

    folder: Folder
    journal: Folder
    journal_name: str
    plan: Plan
    setting: Setting
    nodes: Mapping[str, NodeRecord]
    graph: Graph
    parts: tuple[Part, ...]
    own: Mapping[str, FileRecord]
    manifest: Manifest | None

    def locate(self, name: str) -> tuple[Folder, str]:
        """The folder in which a file lies, and its name there."""
        prefix = f"{self.journal_name}/"
        return (self.journal, name.removeprefix(prefix)) if name.startswith(prefix) else (self.folder, name)

    def in_journal(self, part: str) -> str:
        """A part's name among the run's files."""
        return f"{self.journal_name}/{part}"

    def named(self, file: FileRecord) -> str:
        """A file of a node by its name among the run's files: advance nodes call parts by their bare names."""
        return file.name if "/" in file.name else self.in_journal(file.name)


def read_record(folder: Folder, plan: Plan, setting: Setting, findings: Findings) -> Record:
    """Reads it all; what can't be read is a finding, and left out."""
    journal_name = setting.journal or OWN_JOURNAL
    journal = Folder(setting.journal or f"{folder.url}/{OWN_JOURNAL}", "journal")
    nodes = _read_nodes(folder, plan, findings)
    graph = Graph(len(plan.values["data.input"]), plan.values["policy.batch"])
    graph.replay({name: record.outcome for name, record in nodes.items()})
    parts, own = _read_parts(journal, journal_name, plan, findings)
    manifest = _read("manifest.json", findings, _read_manifest, folder)
    return Record(folder, journal, journal_name, plan, setting, nodes, graph, parts, own, manifest)


def _read_manifest(folder: Folder) -> Manifest:
    value = folder.read_json("manifest.json")
    return Manifest(value["fingerprint"], tuple(FileRecord(**file) for file in value["files"]))


def _read_nodes(folder: Folder, plan: Plan, findings: Findings) -> dict[str, NodeRecord]:
    nodes: dict[str, NodeRecord] = {}
    for name in folder.names("_nodes", ".json"):
        file = f"_nodes/{name}"
        if (found := _read(file, findings, read_node, folder, name)) is None:
            continue
        record, fingerprint = found
        if fingerprint != plan.fingerprint or name != f"{record.node}.json":
            findings.add("stray-file", file, "it is the manifest of another plan or node", severity="warning")
        else:
            nodes[record.node] = record
    return nodes


def _read_parts(
    journal: Folder, journal_name: str, plan: Plan, findings: Findings
) -> tuple[tuple[Part, ...], dict[str, FileRecord]]:
    parts: list[Part] = []
    own: dict[str, FileRecord] = {}
    for name in journal.names("_manifests", ".json"):
        file = f"{journal_name}/_manifests/{name}"
        if (found := _read(file, findings, _read_part, journal, f"_manifests/{name}")) is None:
            continue
        part, record = found
        parts.append(part)
        if name.startswith(f"{plan.run}-"):
            own[part.name] = replace(record, name=f"{journal_name}/{part.name}")
    return tuple(parts), own


def _read_part(journal: Folder, path: str) -> tuple[Part, FileRecord]:
    value = journal.read_json(path)
    part = Part(value["name"], value["data"], value["first"], value["stop"], value["rows"])
    return part, FileRecord(part.name, part.rows, value["bytes"], value["blake2b"])


def _read(file: str, findings: Findings, read: Callable[..., T], *arguments: Any) -> T | None:
    """What ``read`` gives; None of a file that isn't there, and of one that is damaged, which is a finding."""
    try:
        return read(*arguments)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        findings.add("unreadable", file, f"it can't be read: {type(error).__name__}: {error}")
        return None
