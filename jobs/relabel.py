"""``raylign relabel``: scores the responses of a data set, draws more if asked to, and exports training data."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.chat_template import ModelText
from actors.cluster import Cluster
from jobs.align import align
from jobs.command import REJECTED, guarded, split
from jobs.display import models
from pipeline.config import build, merge
from pipeline.errors import ConfigError
from pipeline.export.card import REASONS, Provenance
from pipeline.export.examples import Statistics
from pipeline.sections import RunConfig, reward_column
from pipeline.storage.folder import Folder
from pipeline.storage.lease import take
from pipeline.storage.rejected import reasons
from pipeline.storage.scored import ScoredRows
from pipeline.storage.training_data import PLACE, export

USAGE = """
usage: raylign relabel [CONF.yaml ...] [key=value ...]

Scores the responses that a data set has, draws method.n more per prompt if asked to, and exports training data to
OUT/export: preference pairs, unpaired labels, supervised examples and all candidates, with a data set card. The method
is rescore unless another one is named. The same command with other export settings exports again, and draws and
scores nothing.

  raylign relabel conf/job/relabel.yaml data.input=pairs.parquet data.responses=[chosen,rejected] reward.model=...
  raylign relabel conf/job/relabel.yaml data.input=hh.jsonl data.transcript=[chosen,rejected] reward.model=...

Exit status: as of align.
"""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("relabel", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    config = build(with_rescore(merge(*split(arguments))))
    measure = measure_of(config)
    console = Console(highlight=False)
    with Cluster(config.cluster) as cluster:
        summary = align(config, cluster, console)
    found = export_run(config, summary, measure)
    console.print(export_table(found, config.export.formats, summary["rejects"], f"{config.out}/{PLACE}"))
    return REJECTED if summary["rejects"] else 0


def with_rescore(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with method ``rescore`` where they name none."""
    method = settings.get("method") or {}
    if isinstance(method, Mapping) and "name" not in method:
        method = {"name": "rescore", **method}
    return {**settings, "method": method}


def measure_of(config: RunConfig) -> Callable[[str], int]:
    """The length of a text, in ``export.length``. Raises ``ConfigError`` for a tokenizer that isn't there."""
    if config.export.length == "characters":
        return len
    generator = config.generator
    name = config.export.tokenizer or getattr(generator, "tokenizer", "") or generator.model
    if not name:
        raise ConfigError("export.length = tokens, but there is no generator: set export.tokenizer to a model's name")
    tokenizer = ModelText("export", name, key="tokenizer").load_tokenizer()
    return lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])


def export_run(config: RunConfig, summary: Mapping[str, Any], measure: Callable[[str], int]) -> Statistics:
    """Exports a finished run. Raises ``RunDirectoryError`` if it isn't, or if another process writes there."""
    folder = Folder(config.out)
    lease = take(folder)
    try:
        run = ScoredRows(folder, config.journal)
        return export(run, config.export, measure, _provenance(config, summary, run))
    finally:
        lease.release()


def _provenance(config: RunConfig, summary: Mapping[str, Any], run: ScoredRows) -> Provenance:
    values = run.plan.values
    used = {
        "reward model" if name == "reward" else f"`{reward_column(name.removeprefix('rewards.'))}`": (
            f"{section.model} on {section.engine} (`{values[f'{name}.model']}`)"
        )
        for name, section in config.scorers.items()
    }
    if not config.generator.none:
        generator = f"{config.generator.model} on {config.generator.engine} (`{values['generator.model']}`)"
        used = {"generator": generator, **used}
    return Provenance(
        title=f"{config.method.name}: {models(config)}",
        method=config.method.name,
        models=used,
        seed=config.seed,
        run=run.plan.run,
        files=values["data.input"],
        rejected=summary["rejects"],
        versions=summary["versions"],
        blank=summary["counts"].get("blank_given", 0),
        reasons={reason.what: reason.rows for reason in reasons(run.folder)},
    )


def export_table(found: Statistics, formats: Sequence[str], rejected: int, place: str) -> Table:
    """What was exported, and why rows gave nothing."""
    table = Table(show_header=False, title=place, title_justify="left")
    for name in formats:
        table.add_row(name, f"{found.examples[name]:,}")
    for name in formats:
        for reason, count in sorted(found.without.get(name, {}).items()):
            table.add_row(f"no {name}", f"{_rows(count)}: {REASONS[reason]}")
    if rejected:
        table.add_row("rejected", f"{_rows(rejected)} without a result")
    return table


def _rows(count: int) -> str:
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


if __name__ == "__main__":
    sys.exit(main())
