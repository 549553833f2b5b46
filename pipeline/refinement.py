"""One step of textual refinement (TPO, arXiv 2501.12895, section 3): critique, advice, rewrites, scores.

Rewrites of a step run side by side, and are scored as answers to the row's own prompt. What became of each is counted:
added + invalid + empty + duplicate = N.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.conversation import Conversation, RefinementConfig, TagsConfig
from pipeline.effects import Quoted, Reply, Wish, sample, score, together
from pipeline.kernels import preference, selection
from pipeline.kernels.tags import between
from pipeline.kernels.thinking import without_thinking
from pipeline.keys import Key
from pipeline.types import Candidate, Prompt, Text


@dataclass(frozen=True, slots=True)
class Entry:
    """A scored response. ``text``: without thoughts; ``response``: whole. ``step`` 0: drawn; ``key``: its name."""

    response: str
    text: str
    reward: float
    key: Key
    step: int
    index: int


class Cache:
    """All scored responses of a prompt, in the order in which they are named."""

    def __init__(self, tags: TagsConfig) -> None:
        self._think = (tags.think_start, tags.think_end)
        self.entries: list[Entry] = []
        self._texts: set[str] = set()

    def start(self, drawn: Sequence[Candidate], key: Key) -> None:
        """Takes the first draws as they are: also those that are equal, since they are the draws of best-of-N."""
        for i, candidate in enumerate(drawn):
            self.add(candidate.response, candidate.reward, key.child(i), 0, i)

    def add(self, response: str, reward: float, key: Key, step: int, index: int) -> None:
        """Takes a response in."""
        text = self.answer(response)
        self._texts.add(text)
        self.entries.append(Entry(response, text, reward, key, step, index))

    def holds(self, text: str) -> bool:
        """Whether a response has this text."""
        return text in self._texts

    def answer(self, text: str) -> str:
        """A text of the model without its thoughts and without white space around it."""
        return without_thinking(text, *self._think).strip()

    @property
    def rewards(self) -> list[float]:
        """Of each entry."""
        return [entry.reward for entry in self.entries]

    def best(self) -> Entry:
        """First of equals; NaN never wins."""
        return self.entries[selection.best(self.rewards)]


@dataclass
class Step:
    """What a step did. ``no_start`` and ``no_end`` are the invalid rewrites; ``left_out``: it did not fit the context.

    ``shortened``: characters left out of quotations in its last request. ``tokens``: generated for it.
    """

    number: int
    chosen: Entry | None = None
    rejected: Entry | None = None
    added: list[Entry] = field(default_factory=list)
    no_start: int = 0
    no_end: int = 0
    empty: int = 0
    duplicate: int = 0
    shortened: int = 0
    tokens: int = 0
    left_out: bool = False

    @property
    def invalid(self) -> int:
        """Rewrites without a whole pair of tags."""
        return self.no_start + self.no_end

    @property
    def alone(self) -> bool:
        """Whether it was done without a rejected response."""
        return self.number > 0 and not self.left_out and self.rejected is None

    def record(self, best_so_far: float) -> dict[str, Any]:
        """As JSON. Numbers of the added ones (``mean``, ``best``, ``worst``, ``characters`` on average) or null."""
        mean, best, worst = preference.summary([entry.reward for entry in self.added])
        lengths = [len(entry.text) for entry in self.added]
        return {
            "step": self.number,
            "chosen": _place(self.chosen),
            "rejected": _place(self.rejected),
            "added": len(self.added),
            **{name: getattr(self, name) for name in ("no_start", "no_end", "empty", "duplicate", "shortened")},
            "left_out": self.left_out,
            "mean": _number(mean),
            "best": _number(best),
            "worst": _number(worst),
            "best_so_far": _number(best_so_far),
            "characters": sum(lengths) / len(lengths) if lengths else None,
            "tokens": self.tokens,
        }


def refine(
    cache: Cache, number: int, config: RefinementConfig, prompt: Prompt, key: Key
) -> Generator[Wish, Reply, Step]:
    """Step ``number`` (from 1): puts what it makes of the best response into the cache. ``key`` names the step."""
    chosen, rejected = preference.pair(
        [entry.text for entry in cache.entries], cache.rewards, config.pair, key.child("rejected").rng()
    )
    step = Step(number, cache.entries[chosen])
    if rejected is not None and not config.alone:
        step.rejected = cache.entries[rejected]
    texts = yield from _converse(step, cache, config, prompt, key)
    yield from _take(texts, step, cache, config, key)
    return step


def _converse(
    step: Step, cache: Cache, config: RefinementConfig, prompt: Prompt, key: Key
) -> Generator[Wish, Reply, tuple[Text, ...]]:
    """Critique, advice, then the rewrites, which are returned; none where the conversation doesn't fit the context."""
    assert step.chosen is not None
    talk = Conversation(step.chosen.text, step.rejected.text if step.rejected else None, config, prompt)
    texts: tuple[Text, ...] = ()
    for stage, (name, n) in enumerate((("critique", 1), ("advice", 1), ("rewrite", config.n))):
        if (messages := (yield from talk.fitted(stage))) is None:
            step.left_out = True
            return ()
        step.shortened = talk.shortened
        texts = yield from sample(
            key.child(name),
            messages,
            n,
            start=1 if name == "advice" else 0,  # beside the critique in the candidates table
            kind="revision" if name == "rewrite" else "critique",
            step=step.number,
            max_tokens=talk.caps[stage],
            quoted=Quoted(step.chosen.key, step.rejected.key if step.rejected else None, talk.shortened),
            role=talk.roles[stage],
        )
        step.tokens += sum(text.generated_tokens for text in texts)
        talk.replies.append(cache.answer(texts[0].text))
    return texts


def _take(
    texts: Iterable[Text], step: Step, cache: Cache, config: RefinementConfig, key: Key
) -> Generator[Wish, Reply, None]:
    """Scores the rewrites that are new and adds them."""
    fresh: dict[str, int] = {}
    for i, text in enumerate(texts):
        body = between(cache.answer(text.text), config.tags.start, config.tags.end)
        if body.fault is not None:
            setattr(step, body.fault, getattr(step, body.fault) + 1)
        elif cache.holds(body.text) or body.text in fresh:
            step.duplicate += 1
        else:
            fresh[body.text] = i
    name = key.child("scored")
    scores = [
        score(name, (rewrite,), kind="revision", step=step.number, start=i, source=key.child("rewrite", i))
        for rewrite, i in fresh.items()
    ]
    for (rewrite, i), (reward,) in zip(fresh.items(), (yield from together(scores)), strict=True):
        cache.add(rewrite, reward, name.child(i), step.number, i)
        step.added.append(cache.entries[-1])


def _place(entry: Entry | None) -> str | None:
    """A candidate as ``STEP/INDEX``, as its columns in the candidates table say."""
    return None if entry is None else f"{entry.step}/{entry.index}"


def _number(value: float) -> float | None:
    """JSON has no NaN and no infinities."""
    return value if math.isfinite(value) else None
