"""Runs a method's program on the toy model in this process: no Ray, no storage, no event loop."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from actors.engines.toy import END, ToyLanguageModel
from actors.rewards.toy import reward
from pipeline.driver import Ask, Driver, Suspended
from pipeline.effects import Draw, Grant, Room, Sample, Score
from pipeline.types import Candidate, Outcome, Prompt, Role, Text

WEIGHTS = {"a": 1.0, "b": -0.5}
LETTERS = 2


def toy_prompt(name: str = "row", max_tokens: int = 4, *, critic: bool = False) -> Prompt:
    """A prompt of the toy model."""
    tokens = tuple(32 + b for b in name.encode())
    return Prompt(name, name, tokens, max_tokens, critic, ("ab", "ba", f"aa{name}"))


def text(tokens: tuple[int, ...]) -> str:
    """The letters of a response."""
    return "".join(chr(ord("a") + t - 1) for t in tokens if t != END)


class ToyWorld:
    """Answers asks from the toy model.

    ``seen`` records every draw's key, ``roles`` who was to write, ``granted`` whether a budget was asked.
    """

    def __init__(self, model: str = "toy", weights: Mapping[str, float] = WEIGHTS) -> None:
        self.model = ToyLanguageModel(model, LETTERS)
        self.weights = dict(weights)
        self.seen: list[Any] = []
        self.roles: set[Role] = set()
        self.granted = False

    def answer(self, ask: Ask, prompt: Prompt) -> Any:
        """The reply to one part of an effect."""
        effect = ask.effect
        if isinstance(effect, Room | Sample):
            self.roles.add(effect.role)
        if isinstance(effect, Draw):
            return self._draw(ask, effect, prompt)
        if isinstance(effect, Score):
            return reward(effect.responses[ask.part], self.weights)
        if isinstance(effect, Grant):
            self.granted = True
            return 2
        if isinstance(effect, Room):
            return 4096
        assert isinstance(effect, Sample)
        tokens = self.model.sample(prompt.token_ids, (), prompt.max_tokens, ask.key.rng())
        return Text(text(tokens), tokens, "stop" if tokens[-1] == END else "length", len(tokens))

    def _draw(self, ask: Ask, effect: Draw, prompt: Prompt) -> Candidate:
        self.seen.append(ask.key)
        room = prompt.max_tokens - len(effect.prefix)
        new = self.model.sample(prompt.token_ids, effect.prefix, room, ask.key.rng())
        whole = effect.prefix + new
        finish = "stop" if whole[-1] == END else "length"
        return Candidate(text(whole), whole, finish, reward(text(whole), self.weights), len(new))  # type: ignore[arg-type]

    def run(
        self, programs: Mapping[str, Any], prompts: Mapping[str, Prompt], shuffle: int | None = None
    ) -> dict[str, Any]:
        """Every program's outcome; replies arrive in the order of asking, or shuffled by a seed."""
        driver = Driver()
        for name, program in programs.items():
            driver.start(name, program)
        order = random.Random(shuffle)
        outcomes: dict[str, Outcome | Suspended] = {}
        pending: list[Ask] = []
        while driver.running:
            pending += driver.asks()
            ask = pending.pop(0 if shuffle is None else order.randrange(len(pending)))
            driver.tell(ask, self.answer(ask, prompts[ask.row]))
            outcomes.update(driver.outcomes())
        outcomes.update(driver.outcomes())
        return outcomes
