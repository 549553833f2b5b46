"""The conversation of a refinement step (TPO, arXiv 2501.12895, section 3), kept within the model's context.

Three requests are turns of one conversation: critique, advice, rewrite. So each finds the prefix of the one before it
in the engine's cache. Responses quoted in it are shortened where they would leave too little room for a reply.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, field

from pipeline.effects import Reply, Wish, room
from pipeline.kernels import quoting
from pipeline.sections import MethodConfig
from pipeline.types import Content, Message, Prompt

LEAST_QUOTED = 64
"""Characters. A response of which less could be quoted is not worth a critique: the step is left out."""


@dataclass
class CapsConfig:
    """The most tokens of a critique, of advice and of a rewrite (null: as many as a response may have)."""

    critique: int = 512
    advice: int = 512
    rewrite: int | None = None


@dataclass
class TagsConfig:
    """What a rewrite stands between, and what a reasoning model's thoughts stand between."""

    start: str = "<improved>"
    end: str = "</improved>"
    think_start: str = "<think>"
    think_end: str = "</think>"


@dataclass
class PromptsConfig:
    """The user's turns of the conversation, as texts with fields in braces; ``conf/method/tpo.yaml`` has them.

    ``critique`` compares two responses ({question}, {chosen}, {rejected}), ``critique_alone`` looks at one ({question},
    {chosen}); then come ``advice`` and ``rewrite`` ({start}, {end}: the tags), which may name {question} again.
    """

    critique: str = ""
    critique_alone: str = ""
    advice: str = ""
    rewrite: str = ""


@dataclass
class RefinementConfig(MethodConfig):
    """What a step needs to know. ``n`` >= 1: rewrites. ``alone``: never show a rejected response."""

    n: int = 5
    pair: str = "extremes"
    max_tokens: CapsConfig = field(default_factory=CapsConfig)
    tags: TagsConfig = field(default_factory=TagsConfig)
    prompts: PromptsConfig = field(default_factory=PromptsConfig)

    @property
    def alone(self) -> bool:
        """Whether steps show the chosen response only."""
        return False


class Conversation:
    """The turns of a step about one or two responses, which it quotes with at most so many characters of each.

    ``caps``: the most tokens of a critique, of advice and of a rewrite. ``replies``: the critique, then the advice.
    ``shortened``: characters left out of the quotations in the last messages.
    """

    def __init__(self, chosen: str, rejected: str | None, config: RefinementConfig, prompt: Prompt) -> None:
        self._prompts = config.prompts
        self._fields = {"question": question(prompt.content), "start": config.tags.start, "end": config.tags.end}
        self._quotes = {"chosen": chosen} | ({} if rejected is None else {"rejected": rejected})
        self._limit = max(map(len, self._quotes.values()))
        caps = config.max_tokens
        self.caps = (caps.critique, caps.advice, caps.rewrite or prompt.max_tokens)
        self.replies: list[str] = []
        self.shortened = 0

    def fitted(self, stage: int) -> Generator[Wish, Reply, tuple[Message, ...] | None]:
        """The messages of a stage with quotations as long as they may be; None if they can't be long enough.

        Every stage leaves room for its whole reply, the first one for the two others as well: half a token per
        character of their prompts, and what their replies may have. So quotations are mostly the same in all three.
        """
        need = self.caps[stage]
        if stage == 0:
            need += sum(self.caps[1:]) + (len(self._prompts.advice) + len(self._prompts.rewrite)) // 2
        if not (yield from self._fits(self._limit, need)):
            least, too_long = LEAST_QUOTED, self._limit
            if least >= too_long or not (yield from self._fits(least, need)):
                return None
            while too_long - least > 1:
                limit = (least + too_long) // 2
                if (yield from self._fits(limit, need)):
                    least = limit
                else:
                    too_long = limit
            self._limit = least
        self.shortened = self._shorten(self._limit)[1]
        return self._messages(self._limit)

    def _fits(self, limit: int, need: int) -> Generator[Wish, Reply, bool]:
        return (yield from room(self._messages(limit))) >= need

    def _shorten(self, limit: int) -> tuple[dict[str, str], int]:
        cut = {name: quoting.shortened(text, limit) for name, text in self._quotes.items()}
        return {name: text for name, (text, _) in cut.items()}, sum(left_out for _, left_out in cut.values())

    def _messages(self, limit: int) -> tuple[Message, ...]:
        quotes, _ = self._shorten(limit)
        first = self._prompts.critique if "rejected" in quotes else self._prompts.critique_alone
        turns = [Message("user", first.format(**self._fields, **quotes))]
        for reply, text in zip(self.replies, (self._prompts.advice, self._prompts.rewrite), strict=False):
            turns += [Message("assistant", reply), Message("user", text.format(**self._fields))]
        return tuple(turns)


def question(content: Content) -> str:
    """A prompt as it is quoted: a text or a single turn as it is, else every turn after its role."""
    if isinstance(content, str):
        return content
    if len(content) == 1:
        return content[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in content)
