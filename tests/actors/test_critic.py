"""A critic beside the generator: what goes to which of them, under which name, and in whose words it fails."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from actors.fulfil import Fulfiller
from actors.generator import Generated
from actors.mailbox import Failure
from actors.pool import Pool
from actors.protocol import Generation
from actors.scoring import Scorer
from actors.sources import Sources, Writer
from actors.spec import RunSpec, make_spec
from pipeline import plugin
from pipeline.config import build
from pipeline.driver import Ask
from pipeline.effects import Draw, Effect, Room, Sample
from pipeline.errors import ConfigError, RunDirectoryError
from pipeline.keys import Key
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Replies
from pipeline.storage.schema import CANDIDATES
from pipeline.storage.source import inspect
from pipeline.types import Message, Prompt, RowError

MESSAGES = (Message("user", "hi"),)
PROMPT = Prompt("r", "hi", (136, 137), 8)
TEXTS = {
    "critique": "{question} {chosen} {rejected}",
    "critique_alone": "{question} {chosen}",
    "advice": "advise",
    "rewrite": "{start} {end}",
}
KEY = Key(0, "r")
CRITIQUE = Sample(KEY.child("critique"), MESSAGES, max_tokens=6)
REWRITE = Sample(KEY.child("rewrite"), MESSAGES, kind="revision")
BEFORE = {
    "sample": "b70e0a8704db677d37fe40c2201ab37c",
    "critique": "aa5b5c6f973d712e972181e939674efe",
    "revision": "177e83f867109613155c94a34a8463bc",
}
"""Names of draws as they were when there was no critic yet."""
GENERATOR_BEFORE = "9ea959ab4a810e705de20f4164980344"


def spec_of(tmp_path: Path, out: str = "out", **sections: Any) -> RunSpec:
    data = tmp_path / "prompts.jsonl"
    data.write_text(json.dumps({"prompt": "hi"}) + "\n")
    place = str(tmp_path / out)
    method = {"name": "tpo", "prompts": TEXTS}
    settings = {"out": place, "data": {"input": str(data)}, "generator": "toy", "reward": "toy", "method": method}
    config = build({**settings, **sections})
    return make_spec(config, inspect(config.data), Folder(place))


class RecordingPool:
    """Answers every request with the same reply, and remembers it."""

    def __init__(self, reply: Any) -> None:
        self.reply, self.requests, self.started = reply, cast(list[Any], []), False

    def start(self) -> None:
        self.started = True

    def submit(self, request: Any, _row: str, tell: Callable[[Any], None]) -> None:
        self.requests.append(request)
        tell(self.reply)


class World:
    """A fulfiller between recording pools: ``pools`` by section, ``kept`` rows of the journal, ``told`` replies."""

    def __init__(self, spec: RunSpec, **replies: Any) -> None:
        texts = {"generator": Generated(Generation((1, 0), "stop"), "a"), "critic": None, "reward": 0.5}
        texts["critic"] = Generated(Generation((2, 0), "stop"), "b")
        self.pools = {name: RecordingPool(reply) for name, reply in (texts | replies).items()}
        self.kept: list[dict[str, Any]] = []
        self.told: list[Any] = []
        writers = {
            role: Writer(
                role,
                section,
                spec.generators[role],
                plugin.load("generator", section.engine).load_tokenizer(section),
                cast(Pool, self.pools[role]),
            )
            for role, section in spec.config.generators.items()
        }
        scorer = Scorer(spec.config.reward, spec.scorer, cast(Pool, self.pools["reward"]))
        sources = Sources(Replies(CANDIDATES.empty_table()), writers, {"reward": scorer})
        self._fulfiller = Fulfiller(
            spec, sources, lambda _, reply: self.told.append(reply), self.kept.append, Counter()
        )

    def ask(self, *effects: Effect) -> None:
        for turn, effect in enumerate(effects):
            self._fulfiller.dispatch(Ask("r", turn, 0, effect), PROMPT)


def asked_of_critic(effect: Sample) -> Sample:
    return Sample(effect.key, effect.messages, kind=effect.kind, max_tokens=effect.max_tokens, role="critic")


def test_without_a_critic_every_name_is_what_it_was(tmp_path: Path) -> None:
    spec = spec_of(tmp_path)
    world = World(spec)
    world.ask(Draw(KEY.child("draw")), CRITIQUE, REWRITE)
    assert {row["kind"]: row["draw"] for row in world.kept} == BEFORE
    assert {row["generator"] for row in world.kept} == {GENERATOR_BEFORE} == set(spec.generators.values())
    assert not any("critic." in key for key in spec.plan.values)


OTHER = {"engine": "simulated", "model": "other", "context": 500, "max_tokens": 20, "seed_requests": False}


def test_what_is_asked_of_the_critic_goes_to_its_pool_under_its_name(tmp_path: Path) -> None:
    spec = spec_of(tmp_path, critic=OTHER)
    world = World(spec)
    world.ask(Draw(KEY.child("draw")), asked_of_critic(CRITIQUE), REWRITE)
    rows = {row["kind"]: row for row in world.kept}
    assert [len(world.pools[name].requests) for name in ("generator", "critic", "reward")] == [2, 1, 1]
    assert {kind: row["generator"] for kind, row in rows.items()} == {
        "sample": GENERATOR_BEFORE,
        "critique": spec.generators["critic"],
        "revision": GENERATOR_BEFORE,
    }
    assert spec.generators["critic"] != GENERATOR_BEFORE
    assert rows["sample"]["draw"] == BEFORE["sample"], "another critic draws nothing anew"
    assert rows["revision"]["draw"] == BEFORE["revision"]
    assert rows["critique"]["draw"] != BEFORE["critique"]
    assert (rows["critique"]["response"], rows["revision"]["response"]) == ("b", "a")
    critique, rewrite = world.pools["critic"].requests[0], world.pools["generator"].requests[1]
    assert (min(critique.token_ids) >= 1000, critique.seed, critique.max_tokens) == (True, None, 6)
    assert max(rewrite.token_ids) < 1000, "each model has its own tokenizer"
    assert rewrite.seed == REWRITE.key.child(0).engine_seed()
    assert all(pool.started for pool in world.pools.values()), "all models load at the same time"


def test_caps_and_room_are_those_of_the_model_that_is_asked(tmp_path: Path) -> None:
    world = World(spec_of(tmp_path, critic=OTHER))
    long = (Message("user", "x" * 474),)  # 482 tokens with its role
    world.ask(
        Room(long), Room(long, "critic"), Sample(KEY.child("a"), long, role="critic"), Sample(KEY.child("b"), MESSAGES)
    )
    assert world.told[:2] == [4096 - 481, 500 - 481]
    assert [r.max_tokens for name in ("critic", "generator") for r in world.pools[name].requests] == [500 - 481, 8]
    world.ask(Sample(KEY.child("c"), MESSAGES, role="critic"))
    assert world.pools["critic"].requests[-1].max_tokens == 20


def test_messages_are_rendered_once_for_their_room_and_all_texts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, rendered = spec_of(tmp_path), []
    tokenizer = type(plugin.load("generator", "toy").load_tokenizer(spec.config.generator))
    render = tokenizer.render
    monkeypatch.setattr(tokenizer, "render", lambda self, *given: rendered.append(given) or render(self, *given))
    other = (Message("user", "ho"),)
    World(spec).ask(Room(MESSAGES), CRITIQUE, REWRITE, Room(other), Sample(KEY.child("c"), other))
    assert rendered == [(MESSAGES, "auto"), (other, "auto")]


def test_a_critic_with_the_generators_settings_writes_the_generators_texts(tmp_path: Path) -> None:
    """So its texts are found in the journal of a run without a critic."""
    assert set(spec_of(tmp_path, critic="toy").generators.values()) == {GENERATOR_BEFORE}

    def named(**changes: Any) -> str:
        return spec_of(tmp_path, str(changes), critic={"engine": "toy", **changes}).generators["critic"]

    others = {named(model="m"), named(max_tokens=9), named(temperature=0.5), named(seed_requests=False)}
    assert len(others | {GENERATOR_BEFORE}) == 5
    assert named(replicas=2) == GENERATOR_BEFORE


def test_another_critic_is_another_run_and_the_message_names_both(tmp_path: Path) -> None:
    def says(**sections: Any) -> str:
        with pytest.raises(RunDirectoryError) as error:
            spec_of(tmp_path, **sections)
        return str(error.value)

    one = {"engine": "toy", "model": "one"}
    spec_of(tmp_path, critic=one)
    (tmp_path / "out" / "candidates").mkdir()
    assert '  critic.model: "one" there, "two" now' in says(critic=one | {"model": "two"})
    assert "  critic.temperature: 1.0 there, 0.5 now" in says(critic=one | {"temperature": 0.5})
    assert '  critic.model: "one" has changed since' in says(critic=one | {"letters": 2})
    assert '  critic.model: "one" there, null now' in says()
    spec_of(tmp_path, "alone")
    (tmp_path / "alone" / "candidates").mkdir()
    added = says(out="alone", critic=one)
    assert '  critic.engine: null there, "toy" now' in added
    assert '  critic.model: null there, "one" now' in added


def test_what_the_critic_lacks_is_said_of_its_section(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^critic\.base_url is not set"):
        spec_of(tmp_path, critic={"engine": "openai", "model": "m"})
    server = {"engine": "openai", "model": "m", "base_url": "http://x/v1", "mode": "chat"}
    failed = Failure("ServerError", "generator.base_url = http://x/v1: no usable answer")
    world = World(spec_of(tmp_path, critic=server), critic=failed)
    world.ask(asked_of_critic(CRITIQUE))
    assert world.told == [RowError("generate", "ServerError", "critic.base_url = http://x/v1: no usable answer")]
    world.ask(Sample(KEY.child("empty"), (), role="critic"))
    assert world.told[1] == RowError("generate", "BadPrompt", "the conversation has no turns")
