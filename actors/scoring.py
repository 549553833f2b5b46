"""A response's rewards by all of a run's reward models: the one that is selected by, and further ones beside it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from actors.mailbox import Failure
from actors.pool import Pool
from actors.protocol import ScoreRequest
from pipeline import plugin
from pipeline.kernels.thinking import without_thinking
from pipeline.keys import digest
from pipeline.sections import RewardConfig, RunConfig
from pipeline.storage.journal import Replies, reply_digest
from pipeline.types import Prompt, RowError

SELECTING = "reward"
"""The section of the model that is selected by; those of others are ``rewards.NAME``."""


@dataclass(frozen=True)
class Scorer:
    """A reward model: its section and fingerprint, and the pool of its replicas."""

    config: RewardConfig
    fingerprint: str
    pool: Pool

    def named(self, prompt: Prompt) -> str:
        """All that shapes its rewards of responses to a prompt, the right answer where it looks at one."""
        if prompt.reference is None or not self.config.needs_reference:
            return self.fingerprint
        return digest((self.fingerprint, prompt.reference)).hex()

    def request(self, prompt: Prompt, response: str) -> ScoreRequest:
        """What it is asked. Thoughts are left out unless it keeps them, and so is an answer that it doesn't look at."""
        text = without_thinking(response) if self.config.think == "strip" else response
        return ScoreRequest(prompt.content, text, prompt.reference if self.config.needs_reference else None)


def reference_of(text: str | None, config: RunConfig) -> str | RowError | None:
    """What rewards of a row's responses depend on, or why it is nothing that the selecting model could go by.

    None where they depend on nothing. Further models go without a reward where the row has nothing for them.
    """
    if not any(section.needs_reference for section in config.scorers.values()):
        return None
    reference = text if (text or "").strip() else None
    if not config.reward.needs_reference:
        return reference
    if reference is None:
        columns = " or ".join(map(repr, config.data.reference_columns))
        return RowError("prompt", "NoReference", f"there is nothing to compare with in column {columns}")
    try:
        if check := getattr(plugin.load("reward", config.reward.engine), "check_reference", None):
            check(reference)
    except ValueError as error:
        return RowError("prompt", "BadReference", str(error))
    return reference


Order = tuple[int | str, ...]
OnReward = Callable[[float | Failure], None]
OnWhole = Callable[[dict[str, float | None]], None]


class Scoring:
    """Asks every reward model for its reward of a response, unless the journal has it. Equal models are asked once.

    Methods wait for the selecting model alone; ``waiting`` counts responses that others are still asked about.
    ``counts`` takes the rewards that models gave, and those that further ones gave none of after all tries.
    """

    def __init__(self, scorers: Mapping[str, Scorer], replies: Replies, counts: Counter[str]) -> None:
        self._scorers, self._replies, self._counts = scorers, replies, counts
        self.names = [section.removeprefix("rewards.") for section in scorers if section != SELECTING]
        self.waiting = 0

    def start(self) -> None:
        """Has all models load."""
        for scorer in self._scorers.values():
            scorer.pool.start()

    def named(self, prompt: Prompt) -> dict[str, str]:
        """What shapes the rewards of responses to a prompt by further models, by their names."""
        return {name: self._scorers[f"rewards.{name}"].named(prompt) for name in self.names}

    def reply_name(self, draw: str, prompt: Prompt) -> str:
        """The name of a response with its rewards."""
        return reply_digest(draw, self._scorers[SELECTING].named(prompt), self.named(prompt))

    def score(self, draw: str, response: str, prompt: Prompt, on_reward: OnReward, on_whole: OnWhole) -> None:
        """``on_reward`` is called once with the selecting model's reward, or with its failure.

        After a reward ``on_whole`` is called once when the others are there too: by name, None for a failure.
        """
        missing = set(self._scorers)
        others: dict[str, float | None] = {}
        self.waiting += 1

        def take(sections: list[str], reply: float | Failure) -> None:
            if SELECTING in sections:
                on_reward(reply)
            if SELECTING in sections and isinstance(reply, Failure):
                self.waiting -= 1  # the response is lost, and never whole
                return
            missing.difference_update(sections)
            others.update((s.removeprefix("rewards."), _number(reply)) for s in sections if s != SELECTING)
            if not missing:
                self.waiting -= 1
                on_whole(others)

        for named, sections in self._by_name(prompt).items():
            self._ask(draw, named, sections, prompt, response, partial(take, sections))

    def _by_name(self, prompt: Prompt) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for section, scorer in self._scorers.items():
            found.setdefault(scorer.named(prompt), []).append(section)
        return found

    def _ask(self, draw: str, named: str, sections: list[str], prompt: Prompt, response: str, take: OnReward) -> None:
        if (known := self._replies.reward(draw, named)) is not None:
            take(known)
            return

        def on_reply(reply: float | Failure) -> None:
            if isinstance(reply, Failure):
                self._counts.update(f"{section}_failed" for section in sections if SELECTING not in sections)
            else:
                self._counts["rewards" if sections[0] == SELECTING else sections[0]] += 1
            take(reply)

        scorer = self._scorers[sections[0]]
        scorer.pool.submit(scorer.request(prompt, response), prompt.id, on_reply)


class Beside:
    """What further models say of the responses of each row: of a response and its reward, as a method may keep them.

    Where one text has one reward twice (a judge that samples has seen it), that of the first in the table's order.
    """

    def __init__(self) -> None:
        self._rows: defaultdict[str, dict[tuple[str, str], tuple[Order, Mapping[str, float | None]]]] = defaultdict(
            dict
        )

    def note(self, row: str, response: str, reward: float, order: Order, others: Mapping[str, float | None]) -> None:
        """Takes a candidate's. ``order``: its chain, step, index and name."""
        known = self._rows[row].setdefault((response, repr(reward)), (order, others))
        if order < known[0]:
            self._rows[row][response, repr(reward)] = order, others

    def of(self, row: str, response: str, reward: float) -> Mapping[str, float | None]:
        """Those of what was kept; none of a response that is no candidate."""
        return self._rows[row].get((response, repr(reward)), ((), {}))[1]


def _number(reply: float | Failure) -> float | None:
    return None if isinstance(reply, Failure) else reply
