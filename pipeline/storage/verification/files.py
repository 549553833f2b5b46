"""Files against the manifests that name them: there, of the same bytes, with as many rows. And files nobody names."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import blake2b

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.storage.folder import FileRecord
from pipeline.storage.verification.findings import Findings, Severity
from pipeline.storage.verification.record import Manifest, Record

READERS = 4
"""Files that are read at once: object stores answer slowly, and so many lie in memory."""
TABLES = ("results", "rejects", "grants")
OWN_PLACES = (*TABLES, "_shards", "_outcomes", "_shown")


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a file."""

    kind: str
    text: str


class Tables:
    """The run's Parquet files that are what their manifests say; the others can't be looked into."""

    def __init__(self, record: Record, schemas: dict[str, pa.Schema]) -> None:
        self._record, self._schemas = record, schemas

    def read(self, name: str, columns: list[str] | None = None) -> pa.Table | None:
        """A table, or some of its columns; None where the file isn't sound, which has been said."""
        if name not in self._schemas:
            return None
        folder, path = self._record.locate(name)
        return folder.read_table(path, columns)

    def distrust(self, name: str) -> None:
        """From now on the file isn't sound: its content is wrong, though it is what its manifest says."""
        self._schemas.pop(name, None)

    def schema(self, name: str) -> pa.Schema | None:
        """A table's columns; None where the file isn't sound."""
        return self._schemas.get(name)


def check_files(record: Record, findings: Findings) -> Tables:
    """Compares every file that a manifest names with it; returns the tables that are sound."""
    named = _named(record, findings)
    schemas: dict[str, pa.Schema] = {}
    with ThreadPoolExecutor(READERS) as pool:
        seen = pool.map(lambda item: _look(record, *item), named.values())
        shared: dict[pa.Schema, pa.Schema] = {}  # thousands of parts have one
        for name, found in zip(named, seen, strict=True):
            if isinstance(found, Fault):
                findings.add(found.kind, name, found.text)
            else:
                schemas[name] = shared.setdefault(found, found)
    _check_strays(record, named, findings)
    _check_journal(record, named, findings)
    return Tables(record, schemas)


def _named(record: Record, findings: Findings) -> dict[str, tuple[FileRecord, str]]:
    """Each file with the manifest that names it; two that contradict each other are a finding, the later one counts."""
    named: dict[str, tuple[FileRecord, str]] = {}
    for file, source in _records(record):
        before = named.get(file.name)
        if before is not None and before[0] != file:
            findings.add("conflict", file.name, f"{before[1]} and {source} say different things of it")
        named[file.name] = (file, source)
    if record.manifest is not None:
        _check_manifest(record, record.manifest, named, findings)
    return named


def _records(record: Record) -> Iterator[tuple[FileRecord, str]]:
    for file in record.manifest.files if record.manifest else ():
        yield file, "manifest.json"
    for node in record.nodes.values():
        for file in node.files:
            yield FileRecord(record.named(file), file.rows, file.bytes, file.blake2b), f"_nodes/{node.node}.json"
    for part, file in record.own.items():
        yield file, record.in_journal(f"_manifests/{part.removesuffix('.parquet')}.json")


def _check_manifest(
    record: Record, manifest: Manifest, named: Mapping[str, tuple[FileRecord, str]], findings: Findings
) -> None:
    """``manifest.json`` is this plan's, and names every table."""
    if manifest.fingerprint != record.plan.fingerprint:
        findings.add("other-plan", "manifest.json", "it is the manifest of another plan than _plan.json")
    there = {file.name for file in manifest.files}
    tables = (*(f"{table}/" for table in TABLES), f"{record.journal_name}/")
    for name in named:
        if name.startswith(tables) and name not in there:
            findings.add("conflict", name, f"{named[name][1]} names it, manifest.json doesn't")
    if "summary.json" not in there:
        findings.add("conflict", "summary.json", "manifest.json doesn't name it")


def _look(record: Record, file: FileRecord, source: str) -> pa.Schema | Fault:
    """The columns of a file that is as it was written (none of one that is no table), or what is wrong with it."""
    folder, path = record.locate(file.name)
    try:
        data = folder.read(path)
    except FileNotFoundError:
        return Fault("missing-file", f"it is missing; {source} names it")
    except OSError as error:
        return Fault("unreadable", f"it can't be read: {error}")
    if len(data) != file.bytes:
        return Fault("changed-file", f"it has {len(data):,} bytes, {source} says {file.bytes:,}")
    if blake2b(data, digest_size=16).hexdigest() != file.blake2b:
        return Fault("changed-file", f"it has other content of the same size than when {source} was written")
    if not file.name.endswith(".parquet"):
        return pa.schema([])
    try:
        found = pq.ParquetFile(pa.BufferReader(data))
        rows, schema = found.metadata.num_rows, found.schema_arrow
    except (pa.ArrowException, OSError) as error:
        return Fault("unreadable", f"it is no Parquet file: {error}")
    if rows != file.rows:
        return Fault("rows-in-file", f"it holds {rows:,} rows, {source} says {file.rows:,}")
    return schema


def _check_strays(record: Record, named: Collection[str], findings: Findings) -> None:
    """Files that no manifest names. In a table of a finished run they are errors: whoever reads it takes them in."""
    for place in OWN_PLACES:
        grave = place in TABLES and record.manifest is not None
        why = f", and whoever reads {place}/*.parquet takes its rows in" if grave else ""
        if record.manifest is None:
            why = ": the run was stopped while it wrote it, and will write it again"
        for name in record.folder.names(place, ".parquet"):
            if (file := f"{place}/{name}") not in named:
                severity: Severity = "error" if grave else "warning"
                findings.add("stray-file", file, f"no manifest names it{why}", severity=severity)


def _check_journal(record: Record, named: Collection[str], findings: Findings) -> None:
    """Parts without manifests: those that nodes name can't be seen by any run, those that nobody names are strays."""
    committed = {record.in_journal(part.name) for part in record.parts}
    for name in record.journal.names("", ".parquet"):
        file = record.in_journal(name)
        if file not in committed and file not in named:
            text = "no manifest names it: a run was killed while it wrote this part, or is about to name it"
            findings.add("stray-file", file, text, severity="warning")
    for file in sorted(named):
        if file.startswith(record.in_journal("")) and file not in committed:
            place = record.in_journal(f"_manifests/{record.locate(file)[1].removesuffix('.parquet')}.json")
            findings.add("unnamed-part", place, f"it is missing, so that no run sees the replies of {file}")
