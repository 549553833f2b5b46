"""``raylign status``: where a run stands, from its directory alone."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from actors.session import totals
from jobs.command import guarded
from jobs.display import duration, further, models
from pipeline.config import from_yaml
from pipeline.errors import ConfigError
from pipeline.graph import Ingested
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal
from pipeline.storage.lease import alive, current
from pipeline.storage.manifest import NodeRecord, Plan, read_nodes, read_plan, runs_in
from pipeline.storage.rejected import reasons
from pipeline.storage.status import Status, read_status

USAGE = """
usage: raylign status RUN [--json]

Says where the run in directory RUN (any fsspec URL) stands, while it runs or after it, from the directory alone: it
needs neither Ray nor the machine that the run is on. Of a sweep, or another directory with runs in it, it shows a line
for each of them.

  raylign status runs/first
  watch raylign status runs/first
"""
NODES_SHOWN = 8


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("status", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    places = [a for a in arguments if a != "--json"]
    if len(places) != 1:
        raise ConfigError(f"name one run's directory, not {len(places)}: raylign status runs/first")
    folder = Folder(places[0])
    inside = [] if folder.exists("_plan.json") else runs_in(folder)
    if inside:
        several = {name: standing(Folder(f"{folder.url}/{name}")) for name in inside}
        shown, found = overview(folder.url, several), {"directory": folder.url, "runs": several}
    else:
        found = standing(folder)
        shown = table(found)
    if "--json" in arguments:
        print(json.dumps(found, indent=2))
    else:
        Console(highlight=False).print(shown)
    return 0


def standing(folder: Folder) -> dict[str, Any]:
    """Everything that the directory says of the run. Raises ``RunDirectoryError`` if no run lies there."""
    plan, status = read_plan(folder), read_status(folder)
    nodes = read_nodes(folder, plan)
    finished = folder.exists("manifest.json")
    state, note = state_of(folder, status, finished)
    live = status if status is not None and state == "running" else None
    done = totals(nodes.values())
    told = status.counts if status is not None and not finished else {}  # nodes that it lost had done some of it
    return {
        "run": folder.url,
        "state": state,
        "note": note,
        "what": _what(folder),
        "rows": max(int(done["ended"]), status.rows if status and not finished else 0),
        "total": status.total if status else 0,
        "results": int(done["rows"]),
        "rejects": {reason.what: reason.rows for reason in reasons(folder)},
        "nodes": _nodes(nodes),
        "at_work": {name: dict(c) for name, c in live.nodes.items()} if live else {},
        "counts": {name: int(max(done.get(name, 0), told.get(name, 0))) for name in [*done, *told]},
        "rates": dict(live.rates) if live else {},
        "seconds": status.seconds if status else 0.0,
        "journal": _journal(folder, plan, finished or state == "running"),
        "logs": list(status.logs) if status else [],
        "waits": list(live.waits) if live else [],
    }


def state_of(folder: Folder, status: Status | None, finished: bool) -> tuple[str, str]:
    """What the run does, and a sentence on it. A run that was killed can't say so: its lease does."""
    _, holder = current(folder)
    held = holder is not None and alive(folder, holder)
    if held and holder is not None:
        return "running", holder.describe()
    if finished:
        return "finished", ""
    again = "the same command goes on where it stopped"
    if status is None:
        return "not started", f"it drew nothing yet; {again}"
    ago = duration(max(0.0, time.time() - status.at))
    match status.state:
        case "failed":
            return "failed", f"{ago} ago: {status.message}"
        case "interrupted":
            return "interrupted", f"{ago} ago; {again}"
        case _:
            return "killed", f"it ended without a word, last heard of {ago} ago; {again}"


def _what(folder: Folder) -> str:
    config = config_of(folder)
    return f"{config.method.name} ({config.method.select}), {models(config)}"


def _nodes(nodes: dict[str, NodeRecord]) -> dict[str, int]:
    """How many nodes of each kind are done, and how many shards there are."""
    kinds = Counter(name.split("-")[0] for name in nodes)
    shards = sum(len(r.outcome.rows) for r in nodes.values() if isinstance(r.outcome, Ingested))
    return {"shards": shards, **{f"{kind}_done": n for kind, n in sorted(kinds.items())}}


def _journal(folder: Folder, plan: Plan, closed: bool) -> dict[str, Any]:
    """The run's own replies. ``closed``: it leaves none to the next nodes, or has nodes at work that still count."""
    place = config_of(folder).journal or f"{folder.url}/candidates"
    journal = Journal(Folder(place, "journal"), plan.run)
    own = [part for part in journal.parts() if part.name.startswith(f"{plan.run}-")]
    left = 0 if closed else journal.adoptable()
    return {"url": place, "replies": sum(part.rows for part in own), "parts": len(own), "left": left}


def config_of(folder: Folder) -> RunConfig:
    """The configuration that the run's directory holds."""
    return from_yaml(folder.read("config.yaml").decode())


def overview(place: str, runs: Mapping[str, dict[str, Any]]) -> Table:
    """For people: a line for each of the runs in a directory, a sweep's trials for example."""
    shown = Table(title=f"{len(runs)} runs in {place}", title_justify="left")
    shown.add_column("run", overflow="fold")
    shown.add_column("state")
    for name in ("rows", "draws"):
        shown.add_column(name, justify="right")
    for name, found in runs.items():
        draws = f"{found['counts'].get('draws', 0):,}"
        shown.add_row(escape(name), found["state"], f"{found['rows']:,} of {found['total']:,}", draws)
    return shown


def table(found: dict[str, Any]) -> Table:
    """For people: one line a subject, and only the subjects that there is something to say of."""
    shown = Table("", Column(overflow="fold"), show_header=False, title=found["run"], title_justify="left")
    shown.add_row("state", found["state"] + (f": {found['note']}" if found["note"] else ""))
    for said in found["waits"]:
        shown.add_row("waits for", said)
    shown.add_row("what", found["what"])
    shown.add_row("rows", _rows(found))
    counts, rates = found["counts"], found["rates"]
    for label, key in (("draws", "draws"), ("tokens", "generated_tokens"), ("rewards", "rewards")):
        rate = f", {rates[key]:,.0f} a second" if rates.get(key) else ""
        more = f", and {counts['recalled']:,} from the journal" if key == "draws" and counts.get("recalled") else ""
        shown.add_row(label, f"{counts.get(key, 0):,}{rate}{more}")
    for name, said in further(counts):
        shown.add_row(name, said)
    for reason, rows in found["rejects"].items():
        shown.add_row("rejected", f"{rows:,} rows, {reason} (why: {found['run']}/rejects)")
    nodes = found["nodes"]
    shown.add_row("shards", f"{nodes.get('collect_done', 0)} of {nodes['shards']} collected")
    for name, live in list(found["at_work"].items())[:NODES_SHOWN]:
        shown.add_row("at work", f"{name}: {live.get('ended', 0):,.0f} rows, {live.get('draws', 0):,.0f} draws")
    if counts.get("deaths"):
        shown.add_row("replicas", f"{counts['deaths']:,} died; {counts.get('resent', 0):,} requests were sent again")
    journal = found["journal"]
    shown.add_row("journal", f"{_kept(journal, found['state'])} ({journal['url']})")
    if found["logs"]:
        shown.add_row("engine logs", "\n".join(found["logs"]))
    return shown


def _kept(journal: Mapping[str, Any], state: str) -> str:
    if state == "finished":
        return f"{journal['replies']:,} replies in {journal['parts']} parts"
    if state == "running":
        return f"{journal['replies']:,} replies in {journal['parts']} parts, and those of the nodes at work"
    return f"{journal['replies'] + journal['left']:,} replies are on disk: the next run takes them from there"


def _rows(found: dict[str, Any]) -> str:
    done, total, rate = found["rows"], found["total"], found["rates"].get("rows", 0.0)
    left = f", {duration((total - done) / rate)} left" if rate > 0 and found["state"] == "running" else ""
    return f"{done:,} of {total:,}{left} ({duration(found['seconds'])} in this session)"


if __name__ == "__main__":
    sys.exit(main())
