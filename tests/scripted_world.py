"""A world in which a script says what the model writes, so that every branch of a method can be walked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pipeline.driver import Ask
from pipeline.effects import Draw, Room, Sample, Score
from pipeline.types import Candidate, Message, Prompt, Role, RowError, Text
from tests.toy_world import ToyWorld

Writes = Callable[[str, int, int], str | RowError]
"""From (``critique``, ``advice`` or ``rewrite``; step; index) to a reply."""


class ScriptedWorld(ToyWorld):
    """``draws`` are the first responses, ``writes`` what follows; ``rewards``: of each text, 0.0 if it has none.

    A token is two characters. ``context`` is the generator's, ``critic`` the critic's. ``asked`` holds every sample by
    its name, ``scored`` every response that was scored, and ``scores`` the same by its name.
    """

    def __init__(
        self,
        draws: Sequence[str],
        writes: Writes,
        rewards: Mapping[str, float],
        context: int = 100_000,
        critic: int = 100_000,
    ) -> None:
        super().__init__()
        self._draws, self._writes, self._rewards = draws, writes, rewards
        self._contexts: dict[Role, int] = {"generator": context, "critic": critic}
        self.asked: dict[Any, tuple[Sample, str | RowError]] = {}
        self.scored: list[str] = []
        self.scores: dict[Any, Score] = {}

    def answer(self, ask: Ask, prompt: Prompt) -> Any:
        """The reply to one part of an effect."""
        effect = ask.effect
        if isinstance(effect, Draw):
            self.seen.append(ask.key)
            response = self._draws[ask.index]
            return Candidate(response, (1, 2, 3), "stop", self._rewards.get(response, 0.0), 3)
        if isinstance(effect, Score):
            assert ask.key not in self.scores, "two rewards share a name"
            self.scores[ask.key] = effect
            self.scored.append(effect.responses[ask.part])
            return self._rewards.get(effect.responses[ask.part], 0.0)
        if isinstance(effect, Room):
            return self._contexts[effect.role] - tokens(effect.messages)
        assert isinstance(effect, Sample)
        assert effect.max_tokens is not None
        assert tokens(effect.messages) + effect.max_tokens <= self._contexts[effect.role], (
            "a request exceeds the context"
        )
        stage = str(effect.key.path[-1])
        reply = self._writes(stage, effect.step, ask.index if stage == "rewrite" else 0)
        assert ask.key not in self.asked, "two texts share a name"
        self.asked[ask.key] = effect, reply
        return reply if isinstance(reply, RowError) else Text(reply, (1, 2), "stop", 2)


def tokens(messages: Sequence[Message]) -> int:
    """A token is two characters, and a turn costs four more."""
    return sum(4 + (len(message.content) + 1) // 2 for message in messages)
