"""``raylign backtest``: budget policies on recorded or synthetic rewards, without any model."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
from rich.console import Console
from rich.table import Table

from jobs.command import guarded
from jobs.curves import plot
from pipeline import plugin
from pipeline.backtest.compare import REFERENCES, Contender, contest, reference, row
from pipeline.backtest.families import FAMILIES
from pipeline.backtest.recorded import Pool, evaluate, once, pool
from pipeline.backtest.replay import Plan, Trial
from pipeline.config import load_section
from pipeline.errors import ConfigError, InputError
from pipeline.storage.folder import Folder

USAGE = """
usage: raylign backtest [CONF.yaml ...] [key=value ...]

Plays budget policies on draws whose rewards are known, and compares them with uniform best-of-N on the same draws.
Writes OUT/backtest.parquet (one row per policy and setting) and plots.

  raylign backtest out=runs/backtest
  raylign backtest source=runs/demo/candidates budget=[16,32] batch=[5,100]
  raylign backtest source=pool.parquet reward='-log(tokens)' budget=[10]
  raylign backtest 'policies=[gap, "adabon explore=0.75 rounds=1", "auto objective=rank"]'

source    synthetic families, or Parquet files or directories with an id and a reward per draw
reward    a column of theirs, or arithmetic over columns; tokens: the column of lengths, null for none
policies  names, each with settings of its own: explore (draws, or a share below 1), rounds, any policy.* key
batch     prompts that share their budget, or all
batches   how many batches are played; resamples: of the bootstrap

Figures: n_eq is the uniform budget with the same mean reward, bwr the chance that a batch's sum is better than
uniform's (1/2 is uniform), est AdaBoN's survival time (read it beside est_uniform).
"""
POOL = 8
"""A recorded pool should have so many budgets of draws per prompt, and a synthetic one has them."""


@dataclass
class BacktestConfig:
    """What ``raylign backtest`` can be told; see its help."""

    out: str = "runs/backtest"
    seed: int = 0
    source: Any = field(default_factory=lambda: list(FAMILIES))
    id: str = "id"
    reward: str = "reward"
    tokens: str | None = "tokens"
    policies: Any = field(default_factory=lambda: ["adabon explore=0.75 rounds=1", "gap", "adabon", "auto"])
    budget: Any = field(default_factory=lambda: [16, 120])
    batch: Any = field(default_factory=lambda: [5])
    explore: Any = 0.5
    rounds: Any = 8
    batches: int = 100
    resamples: int = 200


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("backtest", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    config = load_section(BacktestConfig, arguments)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    rows: list[dict[str, Any]] = []
    for source in _several(config.source):
        record = None if source in FAMILIES else read_pool(source, config, console)
        for budget in map(int, _several(config.budget)):
            if budget < 1:
                raise ConfigError(f"budget = {budget}: it must be at least one draw per prompt")
            for batch in _several(config.batch):
                rows += setting(config, source, record, budget, batch, console)
                console.print(table(rows, source, budget, batch))
    folder = Folder(config.out)
    folder.write_table("backtest.parquet", pa.Table.from_pylist(rows))
    written = [f"{config.out}/backtest.parquet", *plot(folder, rows)]
    console.print("written: " + ", ".join(written), soft_wrap=True)
    return 0


def setting(
    config: BacktestConfig, source: str, record: Pool | None, budget: int, batch: Any, console: Console
) -> list[dict[str, Any]]:
    """The rows of all policies and references at one source, budget and batch size."""
    rng = np.random.default_rng([config.seed, budget])
    if record is None:
        size, trials = int(batch) if batch != "all" else 100, []
        for first in range(config.batches):
            law = FAMILIES[source](size, rng)
            rewards, responses = law.draw(POOL * budget, rng)
            prompts = np.arange(size) + first * size
            trials.append(Trial(rewards, responses, np.full(size, POOL * budget), prompts, law=law))
    else:
        size = len(record.sizes) if batch == "all" else min(int(batch), len(record.sizes))
        least = int(record.sizes.min())
        if least < budget:
            raise InputError(f"{source}: a prompt has only {least} draws, fewer than the budget of {budget}")
        if least < POOL * budget:
            console.print(
                f"warning: {source} has {least} draws for a prompt, fewer than {POOL} budgets of {budget}: a policy "
                "can't give a prompt as many as it would, and n_eq ends there",
                soft_wrap=True,
            )
        trials = record.trials(size, config.batches, rng)
    base: dict[str, Any] = {"source": source, "batch": size, "budget": budget}
    options: dict[str, Any] = {"recorded": record is not None, "resamples": config.resamples, "seed": config.seed}
    rows = []
    plan = Plan(budget, draws(0.75, budget), 1)
    for name in REFERENCES:
        counts = reference(name, trials, plan, config.seed)
        rows.append(
            {"policy": name, **base, "explore": plan.explore, "rounds": 1, **row(trials, counts, budget, **options)}
        )
    for entry in _several(config.policies):
        for explore in _several(config.explore):
            for rounds in _several(config.rounds):
                contender = entrant(entry, explore, rounds, budget)
                if any(
                    r["policy"] == entry and r["explore"] == contender.explore and r["rounds"] == contender.rounds
                    for r in rows
                ):
                    continue
                counts, _ = contest(trials, budget, contender)
                how = {"explore": contender.explore, "rounds": contender.rounds}
                rows.append({"policy": entry, **base, **how, **row(trials, counts, budget, **options)})
    return rows


def entrant(entry: str, explore: Any, rounds: Any, budget: int) -> Contender:
    """``adabon explore=0.75 rounds=1`` as a contender. Raises ``ConfigError`` that names what is wrong with it."""
    name, *words = str(entry).split()
    if name in REFERENCES and name != "uniform":
        raise ConfigError(f"policies: {name} is among the rows anyhow; leave it out")
    given = {"explore": explore, "rounds": rounds, **dict(w.split("=", 1) for w in words if "=" in w)}
    if wrong := [w for w in words if "=" not in w]:
        raise ConfigError(f"policies: {wrong[0]!r} in {entry!r} is not key=value")
    try:
        explored, decisions = draws(float(given.pop("explore")), budget), int(given.pop("rounds"))
    except ValueError:
        raise ConfigError(f"policies: explore and rounds of {entry!r} must be numbers") from None
    if not 1 <= explored <= budget or decisions < 1:
        raise ConfigError(f"{entry}: exploring {explored} of {budget} draws in {decisions} rounds is not possible")
    module = plugin.load("policy", name)
    config = load_section(module.Config, [f"{k}={v}" for k, v in given.items()], f"policies ({name})")
    if validate := getattr(module, "validate", None):
        try:
            validate(config)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    return Contender(str(entry), module, config, explored, min(decisions, max(budget - explored, 1)))


def draws(explore: float, budget: int) -> int:
    """Exploration draws per prompt, as ``adaptive_best_of_n`` counts them."""
    return max(1, round(explore * budget)) if explore < 1 else int(explore)


def read_pool(source: str, config: BacktestConfig, console: Console) -> Pool:
    """Draws of a Parquet file or directory (``OUT/candidates`` of a run). Raises ``InputError``.

    Where a draw has no finite reward, a warning says what it counts as.
    """
    try:
        data = ds.dataset(source, format="parquet")  # parts of one journal may have columns that others lack
        data = data.replace_schema(pa.unify_schemas([part.physical_schema for part in data.get_fragments()]))
    except (FileNotFoundError, pa.ArrowInvalid) as error:
        known = ", ".join(FAMILIES)
        raise InputError(f"source = {source!r}: {error}; give Parquet or one of the families {known}") from None
    names = set(data.schema.names)
    if config.id not in names:
        raise InputError(f"{source}: there is no column {config.id!r} (id=...); there are: {', '.join(sorted(names))}")
    keep = ds.field("kind") == "sample" if "kind" in names else None
    found = data.to_table(filter=keep)
    if not found.num_rows:
        raise InputError(f"{source}: there are no draws in it")
    numbers = {
        n: found.column(n).to_numpy(zero_copy_only=False).astype(np.float64)
        for n in found.column_names
        if pa.types.is_integer(t := found.schema.field(n).type) or pa.types.is_floating(t) or pa.types.is_boolean(t)
    }
    length = next((n for n in (config.tokens, "generated_tokens") if n in numbers), None)
    said = next((found.column(n).to_pylist() for n in ("response", "token_ids") if n in names), None)
    responses = None if said is None else [str(s) for s in said]
    rewards = evaluate(config.reward, numbers)
    if {"draw", "scorer"} <= names:
        rows = once(list(zip(*(found.column(n).to_pylist() for n in ("draw", "scorer")), strict=True)), rewards)
        found, rewards = found.take(rows), rewards[rows]
        numbers = {name: column[rows] for name, column in numbers.items()}
        responses = None if responses is None else [responses[i] for i in rows]
    if infinite := int(np.isposinf(rewards).sum()):
        raise InputError(
            f"{source}: reward = {config.reward!r} is infinite for {infinite} of {len(rewards)} draws, so that "
            "no means can be compared; give an expression that is finite for the best draws"
        )
    record = pool(found.column(config.id).to_pylist(), rewards, responses, numbers[length] if length else None)
    if unscored := int((~np.isfinite(rewards)).sum()):
        console.print(
            f"warning: {source}: {unscored} of {len(rewards)} draws have no finite reward: they count as the lowest of "
            f"their prompt, and prompts without any reward ({record.left_out}) are left out",
            soft_wrap=True,
        )
    if not len(record.sizes):
        raise InputError(f"{source}: no draw has a finite reward = {config.reward!r}; give another expression")
    return record


def table(rows: Sequence[dict[str, Any]], source: str, budget: int, batch: Any) -> Table:
    """The figures of one setting as a person reads them."""
    chosen = [r for r in rows if r["source"] == source and r["budget"] == budget and batch in (r["batch"], "all")]
    name = source if source in FAMILIES else PurePosixPath(source).name
    found = Table(title=f"{name}, {chosen[-1]['batch']} prompts, {budget} draws each", title_justify="left")
    for column in ("policy", "explore", "rounds", "n_eq (95 %)", "bwr (95 %)", "est", "mean gain", "win rate", "draws"):
        found.add_column(column, justify="left" if column == "policy" else "right")
    for r in chosen:
        found.add_row(
            r["policy"],
            str(r["explore"]),
            str(r["rounds"]),
            f"{r['n_eq']:.1f} ({r['n_eq_low']:.1f} to {r['n_eq_high']:.1f})",
            f"{r['bwr']:.3f} ({r['bwr_low']:.3f} to {r['bwr_high']:.3f})",
            f"{r['est']:.1f}",
            f"{r['mean_gain']:+.4f}",
            f"{r['win_rate']:.3f}",
            f"{r['draws']:.1f}",
        )
    return found


def _several(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


if __name__ == "__main__":
    sys.exit(main())
