"""``raylign verify``: proves from a run's files alone that its output is complete and unchanged."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from rich.console import Console

from actors.session import outcome
from jobs.command import guarded
from jobs.status import config_of, state_of
from pipeline import fingerprints, plugin
from pipeline.answering import AnsweringConfig
from pipeline.errors import ConfigError, RunDirectoryError
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.manifest import Plan, read_plan
from pipeline.storage.source import data_name
from pipeline.storage.status import read_status
from pipeline.storage.verification.check import Report, verify
from pipeline.storage.verification.findings import REMEDIES, SHOWN, Finding, Severity
from pipeline.storage.verification.record import Setting

USAGE = f"""
usage: raylign verify RUN [--json]

Proves from the files alone that the output of the run in directory RUN (any fsspec URL) is complete, without
duplicates, and unchanged since its manifests: every input row is in results or in rejects once, in order, beside its
own columns and with the outcome that its program came to; every file has its checksum, size, rows and columns; the
journal's keys are unique, and it has the replies that results rest on; grants and ledger add up and explain every
draw; the summary agrees with the tables. It needs neither Ray nor models, and changes nothing.

  raylign verify runs/first
  raylign verify s3://my-bucket/runs/first --json

Each finding names its file and row, and what to do about it; at most {SHOWN} of a kind are shown, and all are counted.

Exit status: 0 all is well (warnings and notes may be shown); 1 something is wrong, or the run isn't finished; 2 bad
arguments, or no run lies there.
"""
LOOKED_AT = ("finished", "rows", "shards", "collected", "results", "rejects", "replies")
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
T = TypeVar("T")


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("verify", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    places = [a for a in arguments if a != "--json"]
    if len(places) != 1 or places[0].startswith("-"):
        raise ConfigError(f"name one run's directory, not {' '.join(places) or 'none'}: raylign verify runs/first")
    folder = Folder(places[0])
    report = verified(folder)
    found = summary(folder, report)
    if "--json" in arguments:
        print(json.dumps(found, indent=2))
    else:
        console = Console(highlight=False)
        for line in lines(found):
            console.print(line, soft_wrap=True, markup=False)
    return 1 if found["errors"] else 0


def verified(folder: Folder) -> Report:
    """Checks the run in a folder. Raises ``RunDirectoryError`` if none lies there."""
    report = Report()
    plan = _readable("_plan.json", report, lambda: read_plan(folder))
    config = _readable("config.yaml", report, lambda: config_of(folder))
    if plan is None or config is None:
        return report
    setting = _readable("_plan.json", report, lambda: _setting(plan, config))
    return report if setting is None else verify(folder, plan, setting, config.data, outcome)


def _setting(plan: Plan, config: RunConfig) -> Setting:
    return Setting(
        journal=config.journal,
        generators=tuple(fingerprints.generator(plan.values, role) for role in config.generators),
        scorer=fingerprints.scorer(plan.values),
        data=data_name(plan.values["data.input"]),
        columns=plugin.result_columns(config),
        best_of_all=isinstance(config.method, AnsweringConfig) and config.method.select == "best",
        prompt=config.data.prompt_from,
        rewards=tuple(config.rewards),
    )


def _readable(file: str, report: Report, read: Callable[[], T]) -> T | None:
    """What everything else depends on; None if it is damaged, which is all that can be said then."""
    try:
        return read()
    except RunDirectoryError:
        raise
    except Exception as error:  # of JSON, of YAML, of the configuration, of the file system
        text = f"nothing can be verified without it: {type(error).__name__}: {error}"
        report.findings.add("unreadable", file, text)
        return None


def summary(folder: Folder, report: Report) -> dict[str, Any]:
    """What was looked at and found, as JSON can hold it."""
    findings = report.findings
    standing = _readable("_status.json", report, lambda: state_of(folder, read_status(folder), report.finished))
    state, note = standing or ("damaged", "")
    groups: dict[tuple[Severity, str], list[Finding]] = {}
    for finding in findings.kept:
        groups.setdefault((finding.severity, finding.kind), []).append(finding)
    return {
        "run": folder.url,
        "state": state,
        "note": note,
        **{name: getattr(report, name) for name in LOOKED_AT},
        **{f"{severity}s": findings.count(severity) for severity in SEVERITIES},
        "findings": [
            {
                "severity": severity,
                "kind": kind,
                "count": findings.counts[severity, kind],
                "remedy": REMEDIES[kind],
                "places": [{"file": f.file, "row": f.row, "id": f.id, "text": f.text} for f in found],
            }
            for (severity, kind), found in sorted(groups.items(), key=lambda item: SEVERITIES.index(item[0][0]))
        ],
    }


def lines(found: dict[str, Any]) -> Iterator[str]:
    """For people: what was looked at, each kind of finding with what to do about it, and the verdict."""
    yield (f"{found['run']}: {found['state']}" + (f" ({found['note']})" if found["note"] else ""))
    yield (
        f"{found['rows']:,} input rows in {found['shards']:,} shards, {found['collected']:,} collected: "
        f"{found['results']:,} results, {found['rejects']:,} rejects; {found['replies']:,} replies of its own"
    )
    for group in found["findings"]:
        yield f"{group['severity']}: {group['kind']}, {group['count']:,} found"
        for place in group["places"]:
            row = "" if place["row"] is None else f", row {place['row']} ({place['id']!r})"
            yield f"  {place['file']}{row}: {place['text']}"
        if (more := group["count"] - len(group["places"])) > 0:
            yield f"  and {more:,} more"
        yield f"  what to do: {group['remedy']}"
    if found["errors"]:
        yield f"NOT verified: {found['errors']:,} errors, {found['warnings']:,} warnings"
    else:
        yield "verified: complete, without duplicates, and unchanged since its manifests"


if __name__ == "__main__":
    sys.exit(main())
