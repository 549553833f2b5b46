"""``raylign plan``: what a run will cost at most, before anything is spent."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from jobs.command import guarded, split
from jobs.display import checking, duration
from pipeline import plugin
from pipeline.config import load, merge
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig
from pipeline.storage import given
from pipeline.storage.rejected import Reason, by_reason
from pipeline.storage.shards import Row, cut, prompts
from pipeline.storage.source import Source, inspect
from pipeline.sweep.plan import Sweep, is_sweep, load_sweep
from pipeline.sweep.sharing import drawing
from pipeline.types import RowError

USAGE = """
usage: raylign plan [CONF.yaml ...] [key=value ...] [tokens_per_second=N] [rewards_per_second=N] [--json]

Checks a run's configuration and input, and says how many draws, tokens and rewards it needs at most. Nothing is loaded
and nothing is written; the input is read for its number of rows. Where it has responses (data.responses,
data.transcript) they are counted, and it is said which rows would be rejected, and why. Of a sweep it says what all
trials need together: those that differ in draws, steps or selection alone count once, with the most of them. Trials of
several methods or budgets share their first draws too, so that they need less than is said.

  raylign plan conf/job/tpo_d5n20.yaml data.input=prompts.parquet
  raylign plan conf/job/best_of_n.yaml data.input=prompts.parquet tokens_per_second=2500 rewards_per_second=80
  raylign plan conf/sweep/demo.yaml

tokens_per_second, rewards_per_second: what one replica makes (`raylign bench` measures it); with them come hours of the
replicas. Further reward models (rewards.NAME) are asked as often as the first one, at their own speed. Draws that
a shared journal has already cost nothing, and responses that end before generator.max_tokens cost less: both make it
cheaper than said.
"""
RATES = ("tokens_per_second", "rewards_per_second")
AMOUNTS = ("draws", "tokens", "rewards")
SECONDS = tuple(f"{work}_{key}" for work in ("generator", "reward") for key in ("hours", "seconds_wall"))
"""What may be added up over runs that go one after another."""
ROWS_AT_ONCE = 4096


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("plan", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    rates = {name: _rate(name, arguments) for name in RATES}
    own = [a for a in arguments if a != "--json" and a.partition("=")[0] not in RATES]
    files, overrides = split(own)
    sweep = is_sweep(merge(files, overrides))
    found = plan_sweep(load_sweep(files, overrides, checking), rates) if sweep else plan(load(files, overrides), rates)
    if "--json" in arguments:
        print(json.dumps(found, indent=2))
    else:
        Console(highlight=False).print(sweep_table(found) if sweep else table(found))
    return 0


def _rate(name: str, arguments: list[str]) -> float | None:
    text = next((a.partition("=")[2] for a in reversed(arguments) if a.startswith(f"{name}=")), None)
    if text is None:
        return None
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate < float("inf"):
        raise ConfigError(f"{name} = {text}: it must be a positive number")
    return rate


@dataclass
class Looked:
    """What rows come with: responses to score, some without text that are left out, and why rows would be rejected."""

    responses: int = 0
    blank: int = 0
    rejected: list[Reason] = field(default_factory=list)


def plan(config: RunConfig, rates: dict[str, float | None]) -> dict[str, Any]:
    """Rows, and what they need at most together. Raises ``InputError``."""
    return _needed(config, *_counted(config), rates)


def plan_sweep(sweep: Sweep, rates: dict[str, float | None]) -> dict[str, Any]:
    """What all trials need at most together, and what they would apart. Raises ``InputError``.

    ``each``: the plans of the trials whose draws those of all others are part of (see ``drawing``).
    """
    counted: dict[str, tuple[int, Looked]] = {}
    plans = []
    for trial in sweep.trials:
        read = repr((trial.config.data, plugin.scores_alone(trial.config.method)))
        if read not in counted:
            counted[read] = _counted(trial.config)
        plans.append(_needed(trial.config, *counted[read], rates))
    places = drawing([trial.config for trial in sweep.trials])
    together = [plans[i] for i in places]
    return {
        "sweep": sweep.out,
        "trials": len(plans),
        **_sum(together, [*AMOUNTS, *SECONDS]),
        "further_rewards": _sum([found["further_rewards"] for found in together]),
        "apart": _sum(plans, AMOUNTS),
        "each": [{"trial": sweep.trials[i].name, **plans[i]} for i in places],
    }


def _sum(parts: Sequence[Mapping[str, Any]], keys: Sequence[str] | None = None) -> dict[str, Any]:
    """Of those ``keys``, by default of all, that any of the parts has."""
    there = dict.fromkeys(key for part in parts for key in part if keys is None or key in keys)
    return {key: sum(part.get(key, 0) for part in parts) for key in there}


def _counted(config: RunConfig) -> tuple[int, Looked]:
    """The input's rows, and what they came with."""
    source = inspect(config.data)
    return source.rows, _look(config, source) if given.columns(config.data) else Looked()


def _needed(config: RunConfig, whole: int, looked: Looked, rates: dict[str, float | None]) -> dict[str, Any]:
    rows = whole - sum(reason.rows for reason in looked.rejected)
    method = plugin.load("method", config.method.name)
    cost, with_one = (method.at_most(config.method, config.generator.max_tokens, n) for n in (0, 1))
    rewards = cost.rewards * rows + (with_one.rewards - cost.rewards) * looked.responses
    tokens = cost.tokens * rows
    found = {
        "method": config.method.name,
        "rows": whole,
        "given": looked.responses,
        "blank_given": looked.blank,
        "rejected": [asdict(reason) for reason in looked.rejected],
        "draws": cost.draws * rows,
        "tokens": tokens,
        "rewards": rewards,
        "further_rewards": {name: rewards for name in config.models if name.startswith("rewards.")},
        "depth": cost.depth,
    }
    for work, amount, rate, bounds in (
        ("generator", tokens, rates["tokens_per_second"], config.generator.bounds),
        ("reward", rewards, rates["rewards_per_second"], config.reward.bounds),
    ):
        if rate is not None:
            found |= {
                f"{work}_hours": amount / rate / 3600,
                f"{work}_replicas": bounds.max,
                f"{work}_seconds_wall": amount / rate / max(bounds.max, 1),
                f"{work}_replicas_min": bounds.min,
                f"{work}_seconds_wall_min": amount / rate / max(bounds.min, 1),
            }
    return found


def _look(config: RunConfig, source: Source) -> Looked:
    looked = Looked()

    def wrong() -> Iterator[RowError]:
        for row in _rows(config, source):
            looked.blank += row.blank
            if isinstance(row.content, RowError):
                yield row.content
            else:
                looked.responses += len(row.given)

    looked.rejected = by_reason(wrong())
    return looked


def _rows(config: RunConfig, source: Source) -> Iterator[Row]:
    """Every row as a run reads it."""
    for i in range(len(source.files)):
        for _, shard in cut(source, i, ROWS_AT_ONCE):
            yield from prompts(shard, config.data, scores_alone=plugin.scores_alone(config.method))


def table(found: dict[str, Any]) -> Table:
    """For people: the whole run, and per row in brackets."""
    shown = Table(show_header=False, title=f"{found['method']}, at most", title_justify="left")
    rejected = [Reason(**reason) for reason in found["rejected"]]
    rows = max(found["rows"] - sum(reason.rows for reason in rejected), 1)
    shown.add_row("rows", f"{found['rows']:,}" + (f", with {found['given']:,} responses" if found["given"] else ""))
    if found["blank_given"]:
        shown.add_row("left out", f"{found['blank_given']:,} responses without any text")
    for reason in rejected:
        shown.add_row("to be rejected", Text(reason.said()))
    for name in ("draws", "tokens", "rewards"):
        shown.add_row(name, f"{found[name]:,} ({found[name] / rows:,.0f} a row)")
    for name, amount in found["further_rewards"].items():
        shown.add_row(name, f"{amount:,} ({amount / rows:,.0f} a row)")
    shown.add_row("depth", f"{found['depth']:,} requests one after another")
    for work in ("generator", "reward"):
        if f"{work}_hours" in found:
            walls = {found[f"{work}_replicas{m}"]: duration(found[f"{work}_seconds_wall{m}"]) for m in ("_min", "")}
            said = ", ".join(f"{wall} with {replicas:,}" for replicas, wall in walls.items())
            shown.add_row(f"{work} hours", f"{found[f'{work}_hours']:,.2f} of one replica: {said}")
    return shown


def sweep_table(found: dict[str, Any]) -> Table:
    """For people: all trials together, and in brackets what they would need without each other's draws.

    Where none has all of its draws from another, nothing is known of what they share.
    """
    title = f"sweep in {found['sweep']}, at most"
    shown = Table(show_header=False, title=title, title_justify="left", min_width=len(title))
    others = found["trials"] - len(found["each"])
    shown.add_row(
        "trials", f"{found['trials']:,}" + (f", {others:,} of them draw nothing of their own" if others else "")
    )
    for name in AMOUNTS:
        shown.add_row(
            name, f"{found[name]:,}" + (f" ({found['apart'][name]:,} as runs of their own)" if others else "")
        )
    for name, amount in found["further_rewards"].items():
        shown.add_row(name, f"{amount:,}")
    for work in ("generator", "reward"):
        if f"{work}_hours" in found:
            wall = duration(found[f"{work}_seconds_wall"])
            shown.add_row(
                f"{work} hours", f"{found[f'{work}_hours']:,.2f} of one replica: {wall} with those configured"
            )
    return shown


if __name__ == "__main__":
    sys.exit(main())
