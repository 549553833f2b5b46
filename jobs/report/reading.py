"""A run's directory as a report needs it: prompts under all settings, and what its method tells beside."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from jobs.report.refinement import Refinement
from jobs.status import config_of
from pipeline import fingerprints, plugin
from pipeline.errors import InputError
from pipeline.kernels.answers import correct, extract, stated
from pipeline.kernels.choice import votes_on_answers
from pipeline.plugin import nearest
from pipeline.report.agreement import Agreement
from pipeline.report.measures import Judge, Judges, Measured, unknown
from pipeline.report.variants import variants
from pipeline.sections import AnswerConfig, RunConfig, reward_column
from pipeline.storage.finished import finished_plan
from pipeline.storage.folder import Folder
from pipeline.storage.held_out import HeldOut, Rewards
from pipeline.storage.recorded import RecordedRun, RecordedShard
from pipeline.types import Prompt

GUESS = "answer"
"""Where right answers stand if nobody says."""


@dataclass(frozen=True)
class Wanted:
    """What to look at. ``gold``: the column with right answers, ``auto`` for ``answer`` where there is one."""

    gold: str | None = "auto"
    selections: Sequence[str] = ()


@dataclass
class ReportRun:
    """A run, and what was read of it. ``gold``: its column with right answers; ``names``: what people call values of
    its plan that are fingerprints.

    ``columns``: numbers that its method tells of each prompt (``Result.columns``); ``refinement``: its steps, where it
    has any; ``agreement``: of its reward models, where it has several; ``unheld``: prompts that the held-out runs don't
    have.
    """

    name: str
    recorded: RecordedRun
    config: RunConfig
    summary: dict[str, Any]
    measured: Measured
    gold: str | None = None
    columns: Mapping[str, np.ndarray[Any, np.dtype[np.float64]]] = field(default_factory=dict)
    refinement: Refinement | None = None
    agreement: Agreement | None = None
    unheld: int = 0
    names: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def reward_columns(self) -> list[str]:
        """The columns of rewards: the one that was selected by, and those of further models."""
        return ["reward", *map(reward_column, self.recorded.further)]

    @property
    def place(self) -> str:
        """Its directory."""
        return self.recorded.folder.url


def open_run(place: str, key: str = "RUN") -> tuple[RecordedRun, RunConfig]:
    """A finished run and its configuration. Raises ``RunDirectoryError`` where there is none."""
    folder = Folder(place, key)
    finished_plan(folder)  # without it there is no run, and no configuration
    config = config_of(folder)
    return RecordedRun(folder, config.journal), config


def begin(place: str, wanted: Wanted) -> ReportRun:
    """A run of which nothing is read yet but what it is. Raises ``InputError`` where it lacks the column ``gold``.

    Without right answers no votes are looked at but the run's own.
    """
    recorded, config = open_run(place)
    gold = gold_column(recorded.results(0).column_names, wanted.gold, place)
    selections = [s for s in wanted.selections if gold or not votes_on_answers(s, "")]
    names = recorded.folder.read_json("_plan.json").get("names", {})
    return ReportRun(
        name=PurePosixPath(place.rstrip("/")).name,
        recorded=recorded,
        config=config,
        summary=recorded.folder.read_json("summary.json"),
        measured=Measured(variants(config.method, selections)),
        gold=gold,
        names={key: PurePosixPath(name).name for key, name in names.items()},
    )


def read_run(run: ReportRun, held_out: HeldOut | None, progress: Callable[[int, int], None]) -> None:
    """Reads and replays a run, shard by shard. ``progress`` is told rows done, and rows in all."""
    recorded, config, measured = run.recorded, run.config, run.measured
    kinds, total = plugin.columns(config.method.name), int(run.summary["results"])
    numbers: dict[str, list[np.ndarray[Any, Any]]] = {name: [] for name, kind in kinds.items() if kind is not str}
    run.refinement = Refinement() if "trajectory" in kinds else None
    run.agreement = Agreement(run.reward_columns) if recorded.further else None
    for number in range(recorded.shards):
        shard = recorded.read(number, config.data, critic=config.critic is not None)
        _take(run, shard, held_out)
        for name, parts in numbers.items():
            parts.append(_floats(shard.results.column(name)))
        if run.refinement is not None:
            run.refinement.take(number, shard.results.column("trajectory"))
        progress(len(measured.ids) + measured.lost, total)
    run.columns = {name: np.concatenate(parts) for name, parts in numbers.items()}
    run.warnings = _warnings(run, total)


def _warnings(run: ReportRun, total: int) -> list[str]:
    found = []
    if run.measured.lost:
        found.append(f"{run.place}: {run.measured.lost} of {total} prompts are not wholly on record, and left out")
    if run.measured.differing:
        found.append(
            f"{run.place}: {run.measured.differing} of {total} prompts have another result than their record leads to; "
            "was the run or its journal changed? `raylign verify` tells"
        )
    if run.unheld:
        found.append(
            f"{run.place}: {run.unheld} of {total} prompts are not in the held-out run, or it has another prompt under "
            "their id; held-out rewards are those of the others"
        )
    return found


def _take(run: ReportRun, shard: RecordedShard, held_out: HeldOut | None) -> None:
    ids, responses = (shard.results.column(name).to_pylist() for name in ("id", "response"))
    kept = dict(zip(ids, responses, strict=True))
    right = {} if run.gold is None else dict(zip(ids, shard.results.column(run.gold).to_pylist(), strict=True))
    seed, answer = run.recorded.plan.values["seed"], getattr(run.config.method, "answer", AnswerConfig())
    chosen = [prompt for prompt in shard.prompts if prompt.id in kept]
    others = None if held_out is None else held_out.rewards(chosen)
    for prompt in chosen:
        said = shard.replies.by_text(prompt.id, run.reward_columns) if run.agreement else {}
        further = [_known(said.get(column, {})) for column in run.measured.further]
        judges = Judges(_accuracy(right.get(prompt.id), answer), _rewards(run, prompt, others), further)
        if run.agreement is not None:
            run.agreement.take(said)
        run.measured.take(prompt, seed, shard.replies, judges, kept[prompt.id])


def _rewards(run: ReportRun, prompt: Prompt, others: Rewards | None) -> Judge:
    """Of a prompt's responses, by the held-out reward model."""
    if others is None:
        return unknown
    run.unheld += prompt.id not in others.prompts
    return _known(others.of(prompt.id))


def _known(rewards: Mapping[str, float]) -> Judge:
    """Rewards by text, NaN of those that there is none of."""
    return lambda response: rewards.get(response, math.nan)


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Numbers, NaN where they are null."""
    return np.asarray(pc.cast(column, pa.float64()).to_numpy(zero_copy_only=False), np.float64)


def gold_column(known: Sequence[str], gold: str | None, place: str) -> str | None:
    """The column of right answers among those of results. Raises ``InputError`` that names ``place`` if there is none.

    ``gold``: see ``Wanted``.
    """
    if gold == "auto":
        return GUESS if GUESS in known else None
    if gold is not None and gold not in known:
        raise InputError(
            f"gold = {gold}: {place} has no such column{nearest(gold, list(known))}; there are: {', '.join(known)}"
        )
    return gold


def _accuracy(gold: Any, answer: AnswerConfig) -> Judge:
    if gold is None:
        return unknown
    wanted = stated(str(gold), answer.how, answer.pattern)
    known: dict[str, float] = {}

    def judge(response: str) -> float:
        if response not in known:
            said = extract(response, answer.how, answer.pattern)
            known[response] = float(correct(said, wanted, answer.how))
        return known[response]

    return judge


def further_rewards(runs: Sequence[ReportRun]) -> list[str]:
    """Has every run measure what the further reward models of any of them say; returns warnings about these."""
    named: dict[str, dict[str, str]] = {}
    warnings = []
    for run in runs:
        values = run.recorded.plan.values
        for name in run.recorded.further:
            scorer = fingerprints.scorer(values, f"rewards.{name}")
            named.setdefault(name, {}).setdefault(scorer, run.name)
            if scorer == fingerprints.scorer(values):
                warnings.append(f"{reward_column(name)}: {run.place} was selected by this reward model itself")
    for run in runs:
        run.measured.further = list(map(reward_column, named))
    return warnings + [
        f"{reward_column(name)}: {' and '.join(models.values())} have different reward models under this name; compare "
        "their numbers by it with nothing"
        for name, models in named.items()
        if len(models) > 1
    ]


def open_held_out(places: Sequence[str], runs: Sequence[ReportRun]) -> tuple[HeldOut | None, list[str]]:
    """Other runs' rewards, and warnings about them. Raises ``InputError`` where all ``runs`` were selected by them."""
    if not places:
        return None, []
    opened = [open_run(place, "held_out") for place in places]
    found = HeldOut([(other, config.data) for other, config in opened])
    same = [run.place for run in runs if fingerprints.scorer(run.recorded.plan.values) == found.scorer]
    if len(same) == len(runs):
        raise InputError(
            f"held_out = {', '.join(places)}: its rewards are by the reward model that {same[0]} selected with; a "
            "held-out reward is one that nothing was selected by"
        )
    return found, [f"{place}: was selected by the held-out reward model itself" for place in same]
