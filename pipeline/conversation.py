"""The conversation of a refinement step (TPO, arXiv 2501.12895, section 3), kept within the context of who writes.

Three requests are turns of one conversation: critique, advice, rewrite. So each finds the prefix of the one before it
in the engine's cache. Responses quoted in it are shortened where they would leave too little room for a reply.

The paper has the policy itself write all three. With a critic the first two, which put the reward into words (the
textual loss and gradient), are the critic's; the rewrite (the update) is a response, and so stays with the generator,
who reads the critic's texts as if they were its own turns. Each model's turns keep to its own context.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field

from pipeline.effects import Reply, Wish, room
from pipeline.kernels import quoting
from pipeline.sections import MethodConfig
from pipeline.types import Content, Message, Prompt, Role

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

    ``caps``: the most tokens of a critique, of advice and of a rewrite; ``roles``: whose each of them is. ``replies``:
    the critique, then the advice. ``shortened``: characters left out of the quotations in the last messages.
    """

    def __init__(self, chosen: str, rejected: str | None, config: RefinementConfig, prompt: Prompt) -> None:
        self._prompts = config.prompts
        self._fields = {"question": question(prompt.content), "start": config.tags.start, "end": config.tags.end}
        self._quotes = {"chosen": chosen} | ({} if rejected is None else {"rejected": rejected})
        self._longest = self._limit = max(map(len, self._quotes.values()))
        self.roles: tuple[Role, ...] = ("critic", "critic", "generator") if prompt.critic else ("generator",) * 3
        caps = config.max_tokens
        self.caps = (caps.critique, caps.advice, caps.rewrite or prompt.max_tokens)
        self.replies: list[str] = []
        self.shortened = 0

    def fitted(self, stage: int) -> Generator[Wish, Reply, tuple[Message, ...] | None]:
        """The messages of a stage with quotations as long as they may be; None if they can't be long enough.

        Every stage leaves room for its whole reply in the context of the model that writes it, the first one for that
        model's later ones as well. So quotations are mostly the same in all turns of a model. Where another one takes
        over, they are as long as fits that one; a conversation that it could not end is not begun.
        """
        role = self.roles[stage]
        if stage == 0 and role != "generator":
            everything = self._need((0, 1, 2))
            if not (yield from self._fits(min(LEAST_QUOTED, self._longest), everything, "generator")):
                return None
        if stage > 0 and role != self.roles[stage - 1]:
            self._limit = self._longest
        stages = [i for i, writer in enumerate(self.roles) if writer == role] if stage == 0 else [stage]
        need = self._need(stages)
        if not (yield from self._fits(self._limit, need, role)):
            least, too_long = LEAST_QUOTED, self._limit
            if least >= too_long or not (yield from self._fits(least, need, role)):
                return None
            while too_long - least > 1:
                limit = (least + too_long) // 2
                if (yield from self._fits(limit, need, role)):
                    least = limit
                else:
                    too_long = limit
            self._limit = least
        self.shortened = self._shorten(self._limit)[1]
        return self._messages(self._limit)

    def _need(self, stages: Sequence[int]) -> int:
        """Tokens of the stages' replies, as long as they may be, and half a token per character of prompts between."""
        prompts = ("", self._prompts.advice, self._prompts.rewrite)
        between = sum(len(prompts[stage]) for stage in stages[1:]) // 2
        return sum(self.caps[stage] for stage in stages) + between

    def _fits(self, limit: int, need: int, role: Role) -> Generator[Wish, Reply, bool]:
        return (yield from room(self._messages(limit), role)) >= need

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
