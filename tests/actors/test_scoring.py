"""A response's rewards by several models: whoever answers first, and whoever doesn't."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import permutations
from typing import Any, cast

import pytest

from actors.mailbox import Failure
from actors.pool import Pool
from actors.protocol import ScoreRequest
from actors.rewards import toy, verifier
from actors.scoring import Beside, Scorer, Scoring
from pipeline.keys import digest
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Journal, JournalWriter, Replies, reply_digest
from pipeline.storage.schema import CANDIDATES
from pipeline.types import Prompt

PROMPT = Prompt("r", "question", (1,), 8, reference="aa")
FAILURE = Failure("BadRequest", "no")


class WaitingPool:
    """Holds requests until they are answered."""

    def __init__(self) -> None:
        self.requests: list[ScoreRequest] = []
        self.answers: list[Callable[[Any], None]] = []

    def submit(self, request: ScoreRequest, _row: str, reply: Callable[[Any], None]) -> None:
        self.requests.append(request)
        self.answers.append(reply)


class World:
    """Three models: the selecting one, a verifier, and one that is called as the first."""

    def __init__(self, replies: Replies | None = None) -> None:
        self.pools = {"reward": WaitingPool(), "rewards.right": WaitingPool()}
        self.counts: Counter[str] = Counter()
        plain, exact = toy.Config(think="keep"), verifier.Config()
        pools = {name: cast(Pool, pool) for name, pool in self.pools.items()}
        scorers = {
            "reward": Scorer(plain, "first", pools["reward"]),
            "rewards.right": Scorer(exact, "second", pools["rewards.right"]),
            "rewards.same": Scorer(plain, "first", pools["reward"]),
        }
        self.scoring = Scoring(scorers, replies or Replies(CANDIDATES.empty_table()), self.counts)
        self.told: list[Any] = []

    def score(self, draw: str = "d") -> None:
        self.scoring.score(draw, "<think>b</think>aa", PROMPT, self.told.append, self.told.append)


@pytest.mark.parametrize("order", list(permutations(["reward", "rewards.right"])), ids=" ".join)
def test_the_selecting_reward_is_told_at_once_and_the_others_when_all_are_there(order: tuple[str, ...]) -> None:
    world = World()
    world.score()
    assert world.told == []
    for name, reward in zip(order, (0.5, 0.5), strict=True):
        assert world.scoring.waiting == 1
        world.pools[name].answers[0](reward)
        assert world.told[:1] == ([0.5] if "reward" in order[: order.index(name) + 1] else [])
    assert world.told == [0.5, {"right": 0.5, "same": 0.5}]
    assert world.scoring.waiting == 0
    assert world.counts == {"rewards": 1, "rewards.right": 1}


def test_equal_models_are_asked_once_and_each_for_what_it_looks_at() -> None:
    world = World()
    world.score()
    assert world.pools["reward"].requests == [ScoreRequest("question", "<think>b</think>aa")]
    assert world.pools["rewards.right"].requests == [ScoreRequest("question", "aa", "aa")]
    second = digest(("second", "aa")).hex()
    assert world.scoring.named(PROMPT) == {"right": second, "same": "first"}
    assert world.scoring.reply_name("d", PROMPT) == reply_digest("d", "first", {"right": second, "same": "first"})


@pytest.mark.parametrize("order", list(permutations(["reward", "rewards.right"])), ids=" ".join)
def test_a_further_models_failure_is_a_missing_reward(order: tuple[str, ...]) -> None:
    world = World()
    world.score()
    for name in order:
        world.pools[name].answers[0](0.5 if name == "reward" else FAILURE)
    assert world.told == [0.5, {"right": None, "same": 0.5}]
    assert world.counts == {"rewards": 1, "rewards.right_failed": 1}


@pytest.mark.parametrize("order", list(permutations(["reward", "rewards.right"])), ids=" ".join)
def test_without_the_selecting_reward_nobody_waits(order: tuple[str, ...]) -> None:
    world = World()
    world.score()
    for name in order:
        world.pools[name].answers[0](FAILURE if name == "reward" else 0.5)
    assert world.told == [FAILURE]
    assert world.scoring.waiting == 0
    assert world.counts == {"rewards.right": 1}


def test_what_the_journal_has_is_not_asked_again_whoever_asked(tmp_path: Any) -> None:
    """The reward that selects stands under another name as another run's; the other one is by another answer."""
    journal = Journal(Folder(str(tmp_path)), "run", ["x"])
    row = {"id": "r", "draw": "d", "scorer": "second", "reward": 7.0, "scorer_x": "first", "reward_x": 2.0}
    key = reply_digest("d", digest(("second", "bb")).hex(), {"x": "first"})
    writer = JournalWriter(journal, "run-0", "data", 0, 1)
    writer.flush([{**row, "key": key}])
    writer.commit(["r"])
    world = World(journal.read(journal.parts(), ["r"]))
    world.score()
    assert world.told == [2.0]
    assert world.pools["reward"].requests == []
    world.pools["rewards.right"].answers[0](1.0)
    assert world.told == [2.0, {"right": 1.0, "same": 2.0}]
    assert journal.read(journal.parts(), ["r"]).reward("d", digest(("second", "bb")).hex()) == 7.0
    assert journal.read(journal.parts(), ["r"]).reward("other", "first") is None


def test_of_one_text_scored_twice_the_first_of_the_table_counts() -> None:
    for order in permutations([(0, 0, 1, "b"), (0, 0, 0, "a"), (1, 0, 0, "c")]):
        beside = Beside()
        for place in order:
            beside.note("r", "text", 1.0, place, {"x": float(place[2] + place[0])})
        beside.note("r", "text", float("nan"), (0, 0, 0, "a"), {"x": 9.0})
        assert beside.of("r", "text", 1.0) == {"x": 0.0}
        assert beside.of("r", "text", float("nan")) == {"x": 9.0}
        assert beside.of("r", "another", 1.0) == {}
