"""What a method tells of itself beside quality and cost: chains how they mixed, refinements their steps, budgets
where they went."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow.compute as pc
from markupsafe import Markup

from jobs.report import figures
from jobs.report.reading import ReportRun
from pipeline.kernels.diagnostics import of_data_set

CHAINS = (
    "acceptance",
    "changed",
    "answer_changed",
    "rhat_reward",
    "ess_reward",
    "rhat_length",
    "ess_length",
    "plain_ess",
)
STEP_COUNTS = ("added", "no_start", "no_end", "empty", "duplicate")
Section = dict[str, Any]


def sections(run: ReportRun, cases: int) -> list[Section]:
    """The sections of a run, by what its results and its directory hold."""
    names = set(run.columns.column_names)
    made: list[Section] = []
    if "acceptance" in names:
        made.append(_chains(run))
    if "trajectory" in names:
        made.append(_refinement(run, cases))
    if run.recorded.folder.names("grants", ".parquet"):
        made.append(_budget(run))
    return made


def _chains(run: ReportRun) -> Section:
    """QAlign's diagnostics over the data set, and when plain draws would do."""
    kept = [name for name in CHAINS if name in run.columns.column_names]
    values = {name: run.columns.column(name).to_pylist() for name in kept}
    rows = [dict(zip(kept, row, strict=True)) for row in zip(*values.values(), strict=True)]
    table = of_data_set([{k: v for k, v in row.items() if v is not None} for row in rows])
    shown = [
        name
        for name in ("acceptance", "rhat_reward", "ess_reward", "plain_ess")
        if figures.finite(values.get(name, ()))
    ]
    return {
        "kind": "chains",
        "run": run.name,
        "table": table,
        "plot": Markup(figures.histograms([(name, figures.finite(values[name])) for name in shown])) if shown else None,
    }


def _refinement(run: ReportRun, cases: int) -> Section:
    """TPO's steps: rewards, lengths and what became of the rewrites; and a few prompts in full."""
    texts = run.columns.column("trajectory").to_pylist()
    trajectories = [json.loads(text) for text in texts]
    rows = [
        _step(step, [t[step] for t in trajectories if len(t) > step]) for step in range(max(map(len, trajectories)))
    ]
    rewards = [("best_so_far", "best so far"), ("best", "best of the step"), ("mean", "mean"), ("worst", "worst")]
    gains = [_gain(t) for t in trajectories]
    order = sorted(range(len(gains)), key=lambda i: -gains[i])
    picked = [order[round(k * (len(order) - 1) / max(cases - 1, 1))] for k in range(min(cases, len(order)))]
    ids, shards = (run.columns.column(name).to_pylist() for name in ("id", "shard"))
    return {
        "kind": "refinement",
        "run": run.name,
        "steps": rows,
        "plot": Markup(
            figures.steps(rows, rewards, "reward") + figures.steps(rows, [("characters", "characters")], "length")
        ),
        "cases": [
            case for i in dict.fromkeys(picked) if (case := _case(run, shards[i], ids[i], trajectories[i], gains[i]))
        ],
    }


def _step(step: int, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    def mean(name: str) -> float:
        known = figures.finite([r.get(name) for r in records])
        return float(np.mean(known)) if known else math.nan

    total = sum(sum(r.get(name) or 0 for name in STEP_COUNTS) for r in records)
    found = {name: mean(name) for name in ("mean", "best", "worst", "best_so_far", "characters", "tokens")}
    shares = {name: sum(r.get(name) or 0 for r in records) / total if total else math.nan for name in STEP_COUNTS}
    return {"step": step, **found, **shares, "left_out": sum(bool(r.get("left_out")) for r in records)}


def _gain(trajectory: Sequence[Mapping[str, Any]]) -> float:
    first, last = trajectory[0]["best_so_far"], trajectory[-1]["best_so_far"]
    return -math.inf if first is None or last is None else float(last - first)


def _case(
    run: ReportRun, shard: int, name: str, trajectory: Sequence[Mapping[str, Any]], gain: float
) -> Section | None:
    """The step of a prompt that made the largest gain: what was compared, what was said, what came of it."""
    table = run.recorded.rows_of(shard, name)
    rows = table.to_pylist()
    by_draw = {row["draw"]: row for row in rows if row["reward"] is not None}
    best = {s["step"]: -math.inf if s["best_so_far"] is None else s["best_so_far"] for s in trajectory}
    said = [row for row in rows if row["kind"] == "critique"]
    if not said:
        return None
    number = max({row["step"] for row in said}, key=lambda s: (best.get(s, -math.inf) - best.get(s - 1, -math.inf), -s))
    critique, *advice = sorted((r for r in said if r["step"] == number), key=lambda r: r["index"])
    rewrites = [r for r in rows if r["kind"] == "revision" and r["step"] == number and r["reward"] is not None]
    top = max(rewrites, key=lambda r: r["reward"], default=None)
    return {
        "id": name,
        "gain": gain,
        "step": number,
        "question": _question(run, shard, name),
        "turns": [
            _turn("chosen", by_draw.get(critique["chosen"])),
            _turn("rejected", by_draw.get(critique["rejected"])),
            ("critique", critique["response"], None),
            *(("advice", row["response"], None) for row in advice),
            _turn("best rewrite", top),
        ],
    }


def _turn(title: str, row: Mapping[str, Any] | None) -> tuple[str, str | None, float | None]:
    return (title, None, None) if row is None else (title, row["response"], row["reward"])


def _question(run: ReportRun, shard: int, name: str) -> str:
    rows = run.recorded.results(shard, ["id", "prompt"])
    prompt = rows.filter(pc.equal(rows.column("id"), name)).column("prompt")[0].as_py()
    return prompt if isinstance(prompt, str) else "\n\n".join(f"{m['role']}: {m['content']}" for m in prompt)


def _budget(run: ReportRun) -> Section:
    """Where an adaptive budget went, round by round, and the ledger."""
    folder = run.recorded.folder
    drawn: dict[str, int] = {}
    rounds: dict[int, dict[str, float]] = defaultdict(lambda: {"prompts": 0, "with": 0, "granted": 0, "expected": 0.0})
    for part in folder.names("grants", ".parquet"):
        table = folder.read_table(f"grants/{part}")
        for row in table.select(["id", "explored", "granted", "round"]).to_pylist():
            drawn[row["id"]] = max(drawn.get(row["id"], 0), row["explored"] + row["granted"])
        number = rounds[table.column("round")[0].as_py()]
        number["prompts"] += len(table)
        number["with"] += pc.sum(pc.greater(table.column("granted"), 0)).as_py() or 0
        number["granted"] += pc.sum(table.column("granted")).as_py()
        if "expected_gain" in table.column_names:
            number["expected"] += pc.sum(table.column("expected_gain")).as_py() or 0.0
    return {
        "kind": "budget",
        "run": run.name,
        "policy": run.config.policy.name,
        "ledger": run.summary["budget"],
        "rounds": sorted(rounds.items()),
        "plot": Markup(figures.histograms([("draws", list(drawn.values()))])),
    }
