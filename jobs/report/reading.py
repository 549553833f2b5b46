"""A run's directory as a report needs it: prompts under all settings, and what its method tells beside."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from jobs.status import config_of
from pipeline import plugin
from pipeline.errors import InputError
from pipeline.kernels.answers import correct, extract, stated
from pipeline.kernels.choice import votes_on_answers
from pipeline.plugin import nearest
from pipeline.report.measures import Judge, Measured
from pipeline.report.variants import variants
from pipeline.sections import AnswerConfig, RunConfig
from pipeline.storage.finished import finished_plan
from pipeline.storage.folder import Folder
from pipeline.storage.recorded import RecordedRun, RecordedShard

GUESS = "answer"
"""Where right answers stand if nobody says."""


@dataclass
class ReportRun:
    """A run that was read. ``values``: its plan's, with models by the names that people call them.

    ``columns``: what its method tells of each prompt (``Result.columns``), and the ``shard`` it is in.
    """

    name: str
    recorded: RecordedRun
    config: RunConfig
    values: dict[str, Any]
    summary: dict[str, Any]
    measured: Measured
    columns: pa.Table
    warnings: list[str] = field(default_factory=list)


def open_run(place: str) -> tuple[RecordedRun, RunConfig]:
    """A finished run and its configuration. Raises ``RunDirectoryError`` where there is none."""
    folder = Folder(place, "RUN")
    finished_plan(folder)  # without it there is no run, and no configuration
    config = config_of(folder)
    return RecordedRun(folder, config.journal), config


def read_run(
    place: str,
    gold: str | None,
    selections: Sequence[str],
    progress: Callable[[int, int], None],
) -> ReportRun:
    """Reads and replays a run, shard by shard. Raises ``InputError`` where there is no such column ``gold``.

    ``gold``: ``auto`` takes the column ``answer`` if there is one; without right answers no votes are looked at but the
    run's own. ``progress`` is told rows done, and rows in all.
    """
    recorded, config = open_run(place)
    folder, method = recorded.folder, config.method
    gold = _column(recorded.results(0).column_names, gold, place)
    measured = Measured(variants(method, [s for s in selections if gold or not votes_on_answers(s, "")]))
    names = folder.read_json("_plan.json").get("names", {})
    values = {**recorded.plan.values, **{k: PurePosixPath(v).name for k, v in names.items()}}
    summary: dict[str, Any] = folder.read_json("summary.json")
    run = ReportRun(PurePosixPath(place.rstrip("/")).name, recorded, config, values, summary, measured, pa.table({}))
    own, total, tables = ["id", *plugin.columns(method.name)], int(summary["results"]), []
    for number in range(recorded.shards):
        shard = recorded.read(number, config.data, critic=config.critic is not None)
        _take(run, shard, gold)
        where = pa.array([number] * len(shard.results), pa.int64())
        tables.append(shard.results.select(own).append_column("shard", where))
        progress(len(measured.ids) + measured.lost, total)
    run.columns = pa.concat_tables(tables)
    if measured.lost:
        run.warnings.append(f"{place}: {measured.lost} of {total} prompts are not wholly on record, and left out")
    if measured.differing:
        run.warnings.append(
            f"{place}: {measured.differing} of {total} prompts have another result than their record leads to; "
            "was the run or its journal changed? `raylign verify` tells"
        )
    return run


def _take(run: ReportRun, shard: RecordedShard, gold: str | None) -> None:
    ids, responses = (shard.results.column(name).to_pylist() for name in ("id", "response"))
    kept = dict(zip(ids, responses, strict=True))
    right = {} if gold is None else dict(zip(ids, shard.results.column(gold).to_pylist(), strict=True))
    seed = run.recorded.plan.values["seed"]
    for prompt in shard.prompts:
        if prompt.id in kept:
            judge = _judge(right.get(prompt.id), getattr(run.config.method, "answer", AnswerConfig()))
            run.measured.take(prompt, seed, shard.replies, judge, kept[prompt.id])


def _column(known: Sequence[str], gold: str | None, place: str) -> str | None:
    if gold == "auto":
        return GUESS if GUESS in known else None
    if gold is not None and gold not in known:
        raise InputError(
            f"gold = {gold}: {place} has no such column{nearest(gold, list(known))}; there are: {', '.join(known)}"
        )
    return gold


def _judge(gold: Any, answer: AnswerConfig) -> Judge:
    if gold is None:
        return lambda response: float("nan")
    wanted = stated(str(gold), answer.how, answer.pattern)
    known: dict[str, float] = {}

    def judge(response: str) -> float:
        if response not in known:
            said = extract(response, answer.how, answer.pattern)
            known[response] = float(correct(said, wanted, answer.how))
        return known[response]

    return judge
