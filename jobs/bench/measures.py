"""What ``raylign bench`` measures, one function each."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import ray

from actors.protocol import ScoreRequest
from jobs.bench import refinement
from jobs.bench.measured import Thread, threads_of
from jobs.bench.passes import Bench, Comparison, bench, note
from jobs.bench.rates import rates
from pipeline.config import build, to_dict
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig


def generation(config: RunConfig, scratch: Path, rounds: int, *, lockstep: bool = False) -> dict[str, Any]:
    """Tokens per second of a method through the pipeline against the same requests straight into the engine.

    The reward model is a simulated one, so that the engine has the machine to itself in both; a first pass warms the
    prefix cache and records the requests. With ``lockstep`` the requests also go through as chains that wait for
    each other at every step.
    """
    config = _with(config, reward={"engine": "simulated"})
    with bench(config, scratch) as b:
        b.pipeline()
        threads = threads_of(b.take("generator"))
        found = _alternate(b, "generator", threads, rounds, "tokens/s")
        measured = found.to_json() | {"threads": len(threads)}
        if lockstep:
            slow = rates(b.engine("generator", threads, in_step=True))
            measured["lockstep"] = slow.whole
            measured["gain_over_lockstep"] = _mean([r.whole for r in found.ours]) / slow.whole
        return measured


def tpo(config: RunConfig, scratch: Path, rounds: int, prompts_of_client: int) -> dict[str, Any]:
    """Tokens per second of TPO through the pipeline, all prompts in flight at once, against the engine's own.

    The engine alone gets the same requests as fast as a prompt's own order allows: critique, advice and rewrites wait
    for each other, and for nothing else. Beside it a client like the published one has the same replicas and the
    first prompts (see ``refinement``). The reward model is simulated; with the run's own settings, if it is so there.
    """
    if config.reward.engine != "simulated":
        config = _with(config, reward={"engine": "simulated"})
    with bench(config, scratch) as b:
        b.pipeline()
        threads = refinement.threads_of(b.take("generator"), b.replies(refinement.COLUMNS))
        without_steps = sum(len(thread) == 1 for thread in threads)
        if without_steps == len(threads):
            raise ConfigError(
                "bench.parts: tpo: no critique fits the context of generator.model; take a model with a longer one "
                "(bench.random=tiny makes one), or lower generator.max_tokens and method.max_tokens"
            )
        found = _alternate(b, "generator", threads, rounds, "tokens/s")
        client = refinement.through_client(
            threads[:prompts_of_client],
            lambda stage: b.ask("generator", stage),
            lambda response: b.ask("reward", [ScoreRequest("", response)]),
        )
        gain = _mean([r.whole for r in found.ours]) / client["tokens_per_second"]
        measured = {"threads": len(threads), "without_steps": without_steps}
        return found.to_json() | measured | {"client": client, "gain_over_client": gain}


def scoring(config: RunConfig, scratch: Path, rounds: int) -> dict[str, Any]:
    """Scores per second through the pipeline against the reward engine alone, on the same pairs.

    The responses are drawn once and lie in a journal without rewards of this model, so that nothing is generated.
    """
    drawn = scratch / "drawn"
    unlike = {"engine": "simulated", "model": "of the draws"}  # another one than is measured, also if that is simulated
    with bench(_with(config, reward=unlike), scratch / "draws") as b:
        b.pipeline(journal=str(drawn))
    with bench(config, scratch) as b:
        b.pipeline(journal=_copy(drawn, b))
        threads = threads_of(b.take("reward"))
        found = Comparison("scores/s")
        for turn in range(2 * rounds):
            if turn % 4 in (0, 3):
                note(found, b.engine("reward", threads))
            else:
                _, wall_s = b.pipeline(journal=_copy(drawn, b))
                note(found, [served for _, served in b.take("reward")], wall_s)
        return found.to_json()


def driver(config: RunConfig, scratch: Path, rows: int, draws: int) -> dict[str, Any]:
    """What a draw costs outside the engines, and how many a second this host can drive: simulated engines.

    ``runner_ms_per_draw``: CPU of the runners and of the executor, their start and the tables included.
    """
    source = scratch / "prompts.jsonl"
    scratch.mkdir(parents=True, exist_ok=True)
    source.write_text(
        "".join(f'{{"prompt": "Prompt {i} of a benchmark, as long as many are. {i:064d}"}}\n' for i in range(rows))
    )
    places = {"engine": "simulated", "capacity": 4096, "latency_s": 0.1, "max_in_flight": 1024}
    config = _with(
        config,
        data={"input": str(source), "shard_rows": max(1, rows // 8)},
        generator=places | {"max_tokens": 512},
        reward=places | {"latency_s": 0.02},
        method={"name": "best_of_n", "n": draws},
    )
    with bench(config, scratch) as b:
        b.pipeline(data=to_dict(config)["data"] | {"limit": min(rows, 64)})  # starts the workers
        b.take("generator")
        replicas = b.replicas("generator") + b.replicas("reward")
        begun, before = time.process_time(), sum(ray.get([a.cpu_s.remote() for a in replicas]))
        summary, wall_s = b.pipeline()
        own = time.process_time() - begun
        theirs = sum(ray.get([a.cpu_s.remote() for a in replicas])) - before
        found = rates([served for _, served in b.take("generator")])
    made = summary["counts"]["draws"]
    return {
        "draws": made,
        "draws_per_second": found.steady * made / found.work,
        "draws_per_second_whole": made / wall_s,
        "runner_ms_per_draw": 1e3 * (summary["runner_cpu_s"] + own) / made,
        "replica_ms_per_draw": 1e3 * theirs / made,
        "tokens_per_draw": found.work / made,
    }


def _alternate(b: Bench, kind: str, threads: list[Thread], rounds: int, unit: str) -> Comparison:
    """Engine, pipeline, pipeline, engine, and so on: what drifts hits both."""
    found = Comparison(unit)
    for turn in range(2 * rounds):
        if turn % 4 in (0, 3):
            note(found, b.engine(kind, threads))
        else:
            _, wall_s = b.pipeline()
            note(found, [served for _, served in b.take(kind)], wall_s)
    return found


def _copy(journal: Path, b: Bench) -> str:
    place = b.path("journal")
    shutil.copytree(journal, place)
    return str(place)


def _with(config: RunConfig, **changes: dict[str, Any]) -> RunConfig:
    """The same run with other settings; a plugin section that names another plugin is replaced whole."""
    settings = to_dict(config)
    for section, values in changes.items():
        same = "engine" not in values and "name" not in values
        settings[section] = settings[section] | values if same else values
    return build(settings)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
