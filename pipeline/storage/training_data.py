"""Training data in a run's directory: ``export/FORMAT/part-SHARD.parquet``, a card beside them, and what was written.

Everything there is made anew each time. The card comes last, so that data with a card are whole.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa

from pipeline.export.card import Provenance, card
from pipeline.export.examples import Example, Exporter, Statistics
from pipeline.keys import digest
from pipeline.sections import ExportConfig, reward_column
from pipeline.storage.folder import FileRecord, Folder
from pipeline.storage.messages import MESSAGES
from pipeline.storage.scored import ScoredRows

PLACE = "export"


def schema(format: str, form: str, rewards: Sequence[str] = ()) -> pa.Schema:
    """The columns of a format in a form; those that TRL reads, and what tells where they come from.

    ``rewards``: names of further reward models, which candidates have columns for.
    """
    text = MESSAGES if form == "conversational" else pa.string()
    prompt = [("id", pa.string()), ("prompt", text)]
    match format:
        case "pairs":
            scores = [("score_chosen", pa.float64()), ("score_rejected", pa.float64())]
            return pa.schema([*prompt, ("chosen", text), ("rejected", text), *scores])
        case "unpaired":
            return pa.schema([*prompt, ("completion", text), ("label", pa.bool_()), ("score", pa.float64())])
        case "sft" if form == "conversational":
            return pa.schema([("id", pa.string()), ("messages", MESSAGES), ("score", pa.float64())])
        case "sft":
            return pa.schema([*prompt, ("completion", text), ("score", pa.float64())])
        case "candidates":
            counts = [(name, pa.int32()) for name in ("chain", "step", "index")]
            drawn = [("finish_reason", pa.string()), ("generated_tokens", pa.int32()), ("generator", pa.string())]
            scored = [("completion", text), ("score", pa.float64()), ("kind", pa.string())]
            others = [(reward_column(name), pa.float64()) for name in rewards]
            return pa.schema([*prompt, *scored, *counts, *drawn, ("key", pa.string()), *others])
    raise ValueError(f"no format is called {format!r}")


def export(run: ScoredRows, config: ExportConfig, measure: Callable[[str], int], provenance: Provenance) -> Statistics:
    """Writes the training data of a finished run. ``measure``: a text's length in ``config.length``."""
    folder = run.folder
    folder.remove("export.json")
    folder.remove(PLACE)
    exporter = Exporter(config, measure, _threshold(run, config))
    files: list[FileRecord] = []
    for shard in range(run.shards):
        made: dict[str, list[Example]] = {name: [] for name in config.formats}
        for row in run.read(shard):
            for name, examples in exporter.examples(row).items():
                made[name] += examples
        schemas = {name: schema(name, config.form, run.further) for name in config.formats}
        files += _write(folder, shard, made, schemas)
    data = digest(part for file in files for part in (file.name, file.blake2b)).hex()
    text = card(exporter.statistics, config, exporter.threshold, provenance, data)
    files.append(folder.write(f"{PLACE}/README.md", text.encode()))
    folder.write_json("export.json", _record(run, config, exporter, files))
    return exporter.statistics


def _threshold(run: ScoredRows, config: ExportConfig) -> float:
    """What rewards must exceed to be labelled true."""
    if config.threshold is not None or "unpaired" not in config.formats:
        return config.threshold or 0.0
    finite = [reward for reward in run.rewards() if reward is not None and abs(reward) < float("inf")]
    return statistics.median(finite) if finite else 0.0


def _write(
    folder: Folder, shard: int, made: Mapping[str, list[Example]], schemas: Mapping[str, pa.Schema]
) -> list[FileRecord]:
    """The shard's parts; none without examples, since ``datasets`` can't read Parquet without rows."""
    return [
        folder.write_table(
            f"{PLACE}/{name}/part-{shard:05d}.parquet", pa.Table.from_pylist(examples, schema=schemas[name])
        )
        for name, examples in made.items()
        if examples
    ]


def _record(run: ScoredRows, config: ExportConfig, exporter: Exporter, files: list[FileRecord]) -> dict[str, Any]:
    """``export.json``: which run, which settings, what came out."""
    found = exporter.statistics
    return {
        "run": run.plan.run,
        "fingerprint": run.plan.fingerprint,
        "settings": {**asdict(config), "threshold": exporter.threshold},
        "rows": found.rows,
        "examples": dict(found.examples),
        "instead": found.instead,
        "without": {name: dict(reasons) for name, reasons in found.without.items()},
        "files": [file.to_json() for file in files],
    }
