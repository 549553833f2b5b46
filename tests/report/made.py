"""Finished runs without Ray: the real nodes, one after another in this process, with engines that are functions."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from actors.engines.toy import ToyLanguageModel
from actors.generator import Generated
from actors.nodes import collect_shard
from actors.protocol import GenerateRequest, Generation, ScoreRequest
from actors.rewards.toy import reward
from actors.runner import advance
from actors.schedule import Schedule
from actors.scheduler import allocate
from actors.session import Session, summarize
from actors.spec import RunSpec, make_spec
from pipeline.config import load, to_yaml
from pipeline.graph import Advance, Allocate, Collect, Node
from pipeline.keys import Key
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal
from pipeline.storage.manifest import NodeRecord, commit_run
from pipeline.storage.source import Source, inspect
from tests.simulation.replicas import Replica, unheard
from tests.toy_world import text

LETTERS = 3
Generate = Callable[[GenerateRequest], Generated]


def make(out: Path, *overrides: str, generate: Generate | None = None) -> Path:
    """A finished run in ``out``; every setting of ``raylign align`` may be overridden. Toy engines unless told."""
    config = load([], [f"out={out}", "generator=toy", "reward=toy", *overrides])
    folder, source = Folder(config.out), inspect(config.data)
    spec = make_spec(config, source, folder)
    folder.write("config.yaml", to_yaml(config).encode())
    journal = Journal(Folder(spec.journal), spec.plan.run)
    schedule, session = Schedule(spec, source, folder, journal), Session()
    answers = {"generator": generate or _toy(ToyLanguageModel("toy", LETTERS)), "reward": _scores(config.reward)}
    while not schedule.graph.finished:
        node = schedule.graph.begin()
        assert node is not None
        schedule.complete(node, _work(spec, source, schedule, node, answers))
        session.nodes.append(node.name)
    summary = summarize(session, schedule.done, source.rows, {})
    commit_run(folder, spec.plan, [*journal.own_files(), folder.write_json("summary.json", summary)])
    return out


def _work(
    spec: RunSpec, source: Source, schedule: Schedule, node: Node, answers: dict[str, Callable[[Any], Any]]
) -> NodeRecord:
    match node:
        case Advance():
            replicas = {name: [Replica(answer, random.Random(0), 0.0, 0.0)] for name, answer in answers.items()}
            return asyncio.run(advance(spec, node, schedule.parts_for(node), replicas, unheard))
        case Allocate():
            return allocate(spec, node, schedule.shown_by(node))
        case Collect():
            return collect_shard(spec, source, node, schedule.segments(node))
    raise TypeError(node)


def _toy(model: ToyLanguageModel) -> Generate:
    def generate(request: GenerateRequest) -> Generated:
        cut = len(request.token_ids) - request.prefix_tokens
        prompt, prefix = request.token_ids[:cut], request.token_ids[cut:]
        tokens = model.sample(prompt, prefix, request.max_tokens, Key(request.seed or 0, "toy").rng())
        return Generated(Generation(tokens, "stop" if tokens[-1] == 0 else "length"), text(prefix + tokens))

    return generate


def _scores(config: Any) -> Callable[[ScoreRequest], float]:
    return lambda request: reward(request.response, config.weights)
