"""Whether memory grows with rows: ``python -m jobs.memory 10000 100000 [key=value ...]``, a run of each size.

One draw a row on simulated engines, unless overrides say otherwise: ``method=adaptive_best_of_n method.budget=2
method.explore=1 method.rounds=1 policy=uniform`` has the scheduler at work. Prints a line of JSON for each size: the
peak of each kind of process, in MB of its own (neither the object store nor files that are mapped).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

EVERY_S = 0.2
KINDS = {
    "run_advance": "runner",
    "run_collect": "collector",
    "BudgetScheduler": "scheduler",
    "Scoreboard": "scoreboard",
    "Generator": "generator",
    "RewardModel": "reward_model",
}
"""What Ray calls the processes of a run (``ray::NAME``), and what we call them."""
SETTINGS = (
    "generator=simulated",
    "generator.capacity=4096",
    "generator.max_in_flight=1024",
    "reward=simulated",
    "reward.capacity=4096",
    "reward.max_in_flight=1024",
    "method=best_of_n",
    "method.n=1",
    "data.shard_rows=2000",
    "cluster.shards_in_flight=2",
)


def measure(rows: int, overrides: list[str]) -> dict[str, float]:
    """Runs ``align`` over so many rows; seconds, and the peak of each kind of process in MB."""
    with tempfile.TemporaryDirectory() as scratch:
        prompts = Path(scratch, "prompts.jsonl")
        with prompts.open("w") as file:
            file.writelines(f'{{"prompt": "Prompt {i} of a long table. {i:064d}"}}\n' for i in range(rows))
        given = [f"data.input={prompts}", f"out={scratch}/run", *_settings(overrides), *overrides]
        log = Path(scratch, "log")
        begun = time.monotonic()
        with log.open("w") as out:
            run = subprocess.Popen([sys.executable, "-m", "jobs.align", *given], stdout=out, stderr=out)
            peaks = _watch(run)
        if run.returncode:
            raise SystemExit(f"the run of {rows} rows failed:\n{log.read_text()[-2000:]}")
        return {"rows": rows, "seconds": round(time.monotonic() - begun, 1), **peaks}


def _settings(overrides: list[str]) -> list[str]:
    """Ours, without those of our method where another one was asked for."""
    other = any(override.startswith("method=") for override in overrides)
    return [setting for setting in SETTINGS if not (other and setting.startswith("method"))]


def _watch(run: subprocess.Popen[bytes]) -> dict[str, float]:
    peaks: defaultdict[str, float] = defaultdict(float)
    while run.poll() is None:
        for pid in (run.pid, *_below(run.pid)):
            kind = "driver" if pid == run.pid else _kind(pid)
            if kind is not None:
                peaks[f"{kind}_mb"] = max(peaks[f"{kind}_mb"], _own_mb(pid))
        time.sleep(EVERY_S)
    return dict(sorted(peaks.items()))


def _below(root: int) -> list[int]:
    """Every process that another of them has started, Ray's workers among them."""
    children: defaultdict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has just ended
            continue
        children[int(fields[1])].append(int(stat.parent.name))
    found = list(children[root])
    for pid in found:
        found += children[pid]
    return found


def _kind(pid: int) -> str | None:
    try:
        title = Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except OSError:
        return None
    name = title.removeprefix("ray::").partition(".")[0].strip("\0 ")
    return KINDS.get(name) if title.startswith("ray::") else None


def _own_mb(pid: int) -> float:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon:")), 0.0)


def main(arguments: list[str] | None = None) -> int:
    """Prints one line of JSON for each number of rows; returns 0."""
    given = sys.argv[1:] if arguments is None else arguments
    overrides = [a for a in given if "=" in a]
    for rows in map(int, [a for a in given if "=" not in a] or ["10000", "100000"]):
        print(json.dumps(measure(rows, overrides)), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
