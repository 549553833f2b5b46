"""The command: its configuration, its table, and ``bench.json``."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from actors.session import versions
from jobs.bench import measures
from jobs.bench.packing import packing
from jobs.bench.random_models import SIZES, make
from jobs.command import guarded
from pipeline import plugin
from pipeline.config import build, merge, section, to_dict
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig
from pipeline.storage.folder import Folder
from pipeline.storage.source import inspect, read

USAGE = """
usage: raylign bench [CONF.yaml ...] [key=value ...]

Measures, in one run, what the pipeline keeps of the engines' speed: the same requests through the whole pipeline and
straight into the same engine, in turns. Starts from conf/job/bench.yaml (the demo models); writes OUT/bench.json.

  raylign bench
  raylign bench generator=vllm generator.model=/models/llama-8b reward.model=/models/rm data.input=prompts.parquet
  raylign bench bench.parts=[driver]
  raylign bench bench.parts=[tpo] bench.random=tiny data.input=alpaca_eval.jsonl method=tpo method.steps=1
  raylign bench bench.parts=[packing] bench.random=tiny data.input=alpaca_eval.jsonl bench.responses=responses

bench.parts: generation, chains, scoring, driver (what a draw costs outside the engines; simulated engines), tpo
(bench.prompts at once, all of them in flight, and the first bench.client of them through a client with four threads, as
TPO was published with; the model's context must hold two responses and what is said of them), packing (transformers
scoring against plain batches of eight, on responses that the input holds in column bench.responses).
bench.rounds: pairs of passes; an even number cancels drift. bench.random: tiny, 1b or 8b make random Llama models of
that size in place of generator.model and reward.model.
"""
PARTS = ["generation", "chains", "scoring", "driver", "tpo", "packing"]


@dataclass
class BenchConfig:
    """``chains`` prompts get one QAlign chain of ``steps`` each; ``driver_rows`` times ``driver_draws`` simulated.

    ``prompts`` are in flight at once in the part ``tpo``; its client gets the first ``client`` of them.
    """

    parts: list[str] = field(default_factory=lambda: PARTS[:4])
    rounds: int = 2
    chains: int = 256
    steps: int = 16
    driver_rows: int = 1024
    driver_draws: int = 64
    prompts: int = 512
    client: int = 32
    random: str = ""
    responses: str = "responses"


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("bench", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    config, options = _read(arguments)
    console = Console(highlight=False)
    scratch = Path(tempfile.mkdtemp(prefix="raylign-bench-"))
    found: dict[str, Any] = {}
    try:
        if options.random:
            config = _with_random_models(config, options.random, scratch)
        for part in options.parts:
            console.print(f"measuring: {part}")
            found[part] = _measure(part, config, options, scratch / part)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    report = headline(found) | {"parts": found, "config": to_dict(config), "versions": versions()}
    report["cores"] = len(os.sched_getaffinity(0))
    Folder(config.out).write("bench.json", json.dumps(report, indent=2).encode())
    console.print(table(found))
    console.print(f"everything measured: {config.out}/bench.json", soft_wrap=True)
    return 0


def _read(arguments: list[str]) -> tuple[RunConfig, BenchConfig]:
    files = ["conf/job/bench.yaml", *(a for a in arguments if "=" not in a)]
    settings = merge(files, [a for a in arguments if "=" in a])
    options = section("bench", BenchConfig, settings.pop("bench", {}))
    for part in options.parts:
        if part not in PARTS:
            raise ConfigError(f"bench.parts: {part!r}{plugin.nearest(part, PARTS)}; there are: {', '.join(PARTS)}")
    if options.random not in ("", *SIZES):
        raise ConfigError(f"bench.random = {options.random!r}: choose one of {', '.join(SIZES)}")
    for key in ("rounds", "chains", "steps", "driver_rows", "driver_draws", "prompts", "client"):
        if getattr(options, key) < 1:
            raise ConfigError(f"bench.{key} = {getattr(options, key)}: it must be at least 1")
    config = build(settings)
    for made in (chains, tpo):
        made(config, options)  # a mistake must show before anything is measured
    return config, options


def _with_random_models(config: RunConfig, size: str, scratch: Path) -> RunConfig:
    """The same run with random models of this size, their tokenizer trained on the input's prompts."""
    console = Console(highlight=False, stderr=True)
    console.print(f"making random models of size {size}")
    source = inspect(config.data)
    tables = (table for file in source.files for table in read(source, file, 1024))
    prompts = [str(text) for table in tables for text in table.column(config.data.prompt).to_pylist()]
    settings = to_dict(config)
    for kind in ("generator", "reward"):
        settings[kind]["model"] = str(make(scratch / f"random-{kind}", size, prompts, reward=kind == "reward"))
    return build(settings)


def _measure(part: str, config: RunConfig, options: BenchConfig, scratch: Path) -> dict[str, Any]:
    match part:
        case "generation":
            return measures.generation(config, scratch, options.rounds)
        case "chains":
            return measures.generation(chains(config, options), scratch, options.rounds, lockstep=True)
        case "tpo":
            return measures.tpo(tpo(config, options), scratch, options.rounds, options.client)
        case "scoring":
            return measures.scoring(config, scratch, options.rounds)
        case "packing":
            return packing(config, options.rounds, options.responses)
        case _:
            return measures.driver(config, scratch, options.driver_rows, options.driver_draws)


def chains(config: RunConfig, options: BenchConfig) -> RunConfig:
    """One QAlign chain for each of the first prompts. Rewards are simulated, so beta hardly matters."""
    settings = to_dict(config)
    settings["data"] |= {"limit": options.chains}
    settings["method"] = {"name": "qalign", "steps": options.steps, "beta": 1.0, "select": "last"}
    return build(settings)


def tpo(config: RunConfig, options: BenchConfig) -> RunConfig:
    """TPO on the first prompts, all of them in flight at once, with the run's own settings of it if it has any.

    One model writes all; requests have seeds, by which those of one prompt are found.
    """
    settings = to_dict(config)
    rows = math.ceil(options.prompts / config.cluster.shards_in_flight)
    settings["data"] |= {"limit": options.prompts, "shard_rows": rows}
    settings["generator"] |= {"seed_requests": True}
    settings["critic"] = None
    if config.method.name != "tpo":
        settings["method"] = {"name": "tpo"}
    return build(settings)


def headline(found: dict[str, Any]) -> dict[str, float]:
    """The public figures of ``bench.json``; those of parts that were not measured are missing."""
    figures = {
        f"{name}_ratio": found[part]["steady_ratio"]["mean"]
        for part, name in (("generation", "generation"), ("chains", "chain"), ("scoring", "scoring"), ("tpo", "tpo"))
        if part in found
    }
    if "driver" in found:
        figures["runner_ms_per_draw"] = found["driver"]["runner_ms_per_draw"]
        figures["driver_draws_per_second"] = found["driver"]["draws_per_second"]
    return figures


def table(found: dict[str, Any]) -> Table:
    """What was measured, for people."""
    shown = Table(title="pipeline against engine", title_justify="left")
    for column in ("part", "engine alone", "pipeline", "steady ratio", "whole-run ratio", "tail"):
        shown.add_column(column, justify="left" if column == "part" else "right")
    for part, values in found.items():
        if part in ("driver", "packing"):
            continue
        ours, bound = values["pipeline"], values["engine"]
        shown.add_row(
            part,
            f"{_mean(bound, 'steady'):,.0f} {values['unit']}",
            f"{_mean(ours, 'steady'):,.0f} {values['unit']}",
            _ratio(values["steady_ratio"]),
            _ratio(values["whole_ratio"]),
            f"{_mean(ours, 'tail'):.1%}",
        )
        if "lockstep" in values:
            gain = f"{values['gain_over_lockstep']:.2f} x"
            shown.add_row("in lockstep", f"{values['lockstep']:,.0f} {values['unit']}", gain, "", "", "")
        if "client" in values:
            rate = f"{values['client']['tokens_per_second']:,.0f} {values['unit']}"
            shown.add_row("client", rate, f"{values['gain_over_client']:.1f} x", "", "", "")
    if "driver" in found:
        values = found["driver"]
        rate = f"{values['draws_per_second']:,.0f} draws/s"
        cost = f"{values['runner_ms_per_draw']:.3f} ms CPU a draw"
        shown.add_row("driver", "simulated", rate, cost, f"{values['draws_per_second_whole']:,.0f} draws/s", "")
    if "packing" in found:
        values = found["packing"]
        plain, ours = (f"{sum(values[way]) / len(values[way]):,.1f} scores/s" for way in ("plain", "ours"))
        shown.add_row("packing", f"batches of 8: {plain}", ours, _ratio(values["packing_ratio"]), "", "")
    return shown


def _ratio(values: dict[str, float]) -> str:
    return f"{values['mean']:.3f} ({values['low']:.3f} to {values['high']:.3f})"


def _mean(passes: list[dict[str, float]], key: str) -> float:
    return sum(p[key] for p in passes) / len(passes)
