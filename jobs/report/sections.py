"""What a method tells of itself beside quality and cost: chains how they mixed, refinements their steps, budgets
where they went."""

from __future__ import annotations

from typing import Any

import numpy as np
from markupsafe import Markup

from jobs.report import budget, figures
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
SHOWN = ("acceptance", "rhat_reward", "ess_reward", "plain_ess")
Section = dict[str, Any]


def sections(run: ReportRun, cases: int, resamples: int) -> list[Section]:
    """The sections of a run, by what its results and its directory hold."""
    made: list[Section] = []
    if "acceptance" in run.columns:
        made.append(_chains(run))
    if run.refinement is not None and (steps := run.refinement.steps()):
        made.append(_refinement(run, steps, cases))
    if run.agreement is not None and (agreed := run.agreement.table(resamples)):
        made.append({"kind": "agreement", "run": run.name, "agreed": agreed})
    if run.recorded.folder.names("grants", ".parquet"):
        made.append(_budget(run, resamples))
    return made


def _chains(run: ReportRun) -> Section:
    """QAlign's diagnostics over the data set, and when plain draws would do."""
    shown = [(name, v) for name in SHOWN if len(v := figures.finite(run.columns.get(name, np.zeros(0))))]
    return {
        "kind": "chains",
        "run": run.name,
        "table": of_data_set({name: run.columns[name] for name in CHAINS if name in run.columns}),
        "plot": Markup(figures.histograms(shown)) if shown else None,
    }


def _refinement(run: ReportRun, steps: list[dict[str, float]], cases: int) -> Section:
    """TPO's steps: rewards, lengths and what became of the rewrites; and a few prompts in full."""
    rewards = [("best_so_far", "best so far"), ("best", "best of the step"), ("mean", "mean"), ("worst", "worst")]
    lengths = [("characters", "characters")]
    assert run.refinement is not None
    return {
        "kind": "refinement",
        "run": run.name,
        "steps": steps,
        "plot": Markup(figures.steps(steps, rewards, "reward") + figures.steps(steps, lengths, "length")),
        "cases": run.refinement.cases(run.recorded, cases),
    }


def _budget(run: ReportRun, resamples: int) -> Section:
    """Where an adaptive budget went, round by round, the ledger, and what it was worth."""
    folder = run.recorded.folder
    found, said = budget.worth(run, resamples)
    return {
        "kind": "budget",
        "run": run.name,
        "policy": run.config.policy.name,
        "ledger": run.summary["budget"],
        "rounds": budget.rounds(folder),
        "plot": Markup(figures.histograms([("draws", budget.drawn(folder))])),
        "figures": found,
        "said": said,
    }
