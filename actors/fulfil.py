"""Grants the wishes of a shard's programs: from the journal where it has the reply, else from the pools.

Replies come back as callbacks on the runner's event loop. Each reply that was paid for is kept as a row of the
journal, under the digest of everything that shaped it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actors.generator import Generated
from actors.mailbox import Failure
from actors.pool import Pool
from actors.protocol import BadRequest, GenerateRequest, ScoreRequest, Tokenizer
from actors.spec import RunSpec
from pipeline.driver import Ask, PartReply, Suspended
from pipeline.effects import Draw, Grant, Sample, Score, Verdict
from pipeline.kernels.thinking import without_thinking
from pipeline.keys import Key
from pipeline.storage.journal import Replies, draw_digest, reply_digest
from pipeline.types import Candidate, Prompt, RowError, Text


@dataclass(frozen=True)
class Sources:
    """Where replies come from: the tokenizer, the journal's replies for this shard, and the two pools."""

    tokenizer: Tokenizer
    replies: Replies
    generators: Pool
    rewards: Pool
    grants: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """What each row was granted in each round so far."""


Tell = Callable[[Ask, PartReply | RowError | Suspended], None]
Keep = Callable[[dict[str, Any]], None]


class Fulfiller:
    """``dispatch`` an ask; ``tell`` is called once with its reply, ``keep`` once with each new row of the journal."""

    def __init__(self, spec: RunSpec, sources: Sources, tell: Tell, keep: Keep, counts: Counter[str]) -> None:
        self._spec, self._sources = spec, sources
        self._tell, self._keep, self._counts = tell, keep, counts
        self._unjudged: dict[Key, dict[str, Any]] = {}
        self.asked: dict[str, Grant] = {}
        """Rows that wait for a grant, and what they showed."""
        self.drawn: Counter[str] = Counter()
        """Draws of each row that have a reward, the journal's included."""

    def dispatch(self, ask: Ask, prompt: Prompt) -> None:
        """Begins to find the reply; may tell it at once."""
        match ask.effect:
            case Draw():
                self._draw(ask, ask.effect, prompt)
            case Sample():
                self._sample(ask, ask.effect, prompt)
            case Score():
                self._score_given(ask, ask.effect, prompt)
            case Grant():
                self._grant(ask, ask.effect)

    def _grant(self, ask: Ask, effect: Grant) -> None:
        granted = self._sources.grants.get((ask.row, effect.round))
        if granted is None:  # the row goes on in another node, when its whole batch has shown what it saw
            self.asked[ask.row] = effect
            self._tell(ask, Suspended("grant"))
        else:
            self._tell(ask, granted)

    def judge(self, verdict: Verdict) -> None:
        """Notes in the journal whether a proposal was accepted, unless the journal has it already."""
        if row := self._unjudged.pop(verdict.draw, None):
            self._keep({**row, "accepted": verdict.accepted})

    def _draw(self, ask: Ask, effect: Draw, prompt: Prompt) -> None:
        draw = draw_digest(self._spec.generator, ask.key, prompt.token_ids, effect.prefix)
        if known := self._recall(draw, self._spec.scorer):
            row = self._sources.replies.open_row(reply_digest(draw, self._spec.scorer))
            if row is not None and row["accepted"] is None:  # its node was killed before it could say
                self._unjudged[ask.key] = row
            self.drawn[ask.row] += 1
            self._tell(ask, known)
            return
        if known := self._sources.replies.drawn(draw):  # by an earlier run, with another reward model
            self._counts["rescored"] += 1
            self._score(ask, draw, known, prompt)
            return

        def on_reply(new: Generated) -> None:
            self._counts["draws"] += 1
            self._score(ask, draw, _candidate(new, effect.prefix), prompt)

        self._sources.rewards.start()  # both models load at the same time
        self._generate(ask, prompt.token_ids, effect.prefix, prompt.max_tokens, on_reply)

    def _sample(self, ask: Ask, effect: Sample, prompt: Prompt) -> None:
        tokenizer = self._sources.tokenizer
        try:
            token_ids = tuple(tokenizer.render(effect.messages, self._spec.config.data.template))
        except BadRequest as error:
            self._tell(ask, RowError("generate", "BadPrompt", str(error)))
            return
        draw = draw_digest(self._spec.generator, ask.key, token_ids, ())
        if known := self._recall(draw, ""):
            self._tell(ask, Text(known.response, known.token_ids, known.finish_reason))
            return

        def on_reply(new: Generated) -> None:
            self._counts["samples"] += 1
            text = _candidate(new, ())
            self._keep(self._row(ask, draw, text, prompt, scorer=""))
            self._tell(ask, Text(text.response, text.token_ids, text.finish_reason))

        cap = min(effect.max_tokens or self._spec.config.generator.max_tokens, tokenizer.context - len(token_ids))
        self._generate(ask, token_ids, (), cap, on_reply)

    def _score_given(self, ask: Ask, effect: Score, prompt: Prompt) -> None:
        response = effect.responses[ask.part]
        draw = draw_digest(f"given {response}", ask.key, prompt.token_ids, ())
        if known := self._recall(draw, self._spec.scorer):
            self._tell(ask, known.reward)
            return
        self._score(ask, draw, Candidate(response, (), "stop"), prompt)

    def _recall(self, draw: str, scorer: str) -> Candidate | None:
        known = self._sources.replies.scored(reply_digest(draw, scorer))
        if known is not None:
            self._counts["recalled"] += 1
        return known

    def _generate(
        self,
        ask: Ask,
        prompt: tuple[int, ...],
        prefix: tuple[int, ...],
        cap: int,
        on_reply: Callable[[Generated], None],
    ) -> None:
        """Continues ``prefix`` so that the whole has at most ``cap`` tokens."""
        if cap - len(prefix) < 1:
            taken = f"a prompt of {len(prompt)} tokens and a prefix of {len(prefix)}"
            self._tell(ask, RowError("generate", "NoRoom", f"{taken} leave no room for a response"))
            return

        def on_generated(reply: Generated | Failure) -> None:
            if isinstance(reply, Failure):
                self._tell(ask, RowError("generate", reply.error_type, reply.error))
                return
            self._counts["generated_tokens"] += len(reply.generation.token_ids)
            self._counts["prompt_tokens"] += len(prompt) + len(prefix)
            self._counts["cached_tokens"] += reply.generation.cached_tokens
            on_reply(reply)

        request = GenerateRequest(prompt + prefix, cap - len(prefix), self._seed(ask.key), len(prefix))
        self._sources.generators.submit(request, ask.row, on_generated)

    def _seed(self, key: Key) -> int | None:
        return key.engine_seed() if self._spec.config.generator.seed_requests else None

    def _score(self, ask: Ask, draw: str, candidate: Candidate, prompt: Prompt) -> None:
        def on_reward(reply: float | Failure) -> None:
            if isinstance(reply, Failure):
                self._tell(ask, RowError("score", reply.error_type, reply.error))
                return
            self._counts["rewards"] += 1
            scored = _scored(candidate, reply)
            row = self._row(ask, draw, scored, prompt, self._spec.scorer)
            if row["kind"] == "proposal":
                self._unjudged[ask.key] = row
            self._keep(row)
            self.drawn[ask.row] += 1
            self._tell(ask, scored if isinstance(ask.effect, Draw) else reply)

        strips = self._spec.config.reward.think == "strip"
        scored_text = without_thinking(candidate.response) if strips else candidate.response
        self._sources.rewards.submit(ScoreRequest(prompt.content, scored_text), ask.row, on_reward)

    def _row(self, ask: Ask, draw: str, candidate: Candidate, prompt: Prompt, scorer: str) -> dict[str, Any]:
        """A row of the candidates table (schema ``CANDIDATES``)."""
        effect = ask.effect
        drawn = isinstance(effect, Draw | Sample)
        return {
            "id": ask.row,
            "step": 0 if isinstance(effect, Grant) else effect.step,
            "index": ask.index,
            "chain": effect.chain if isinstance(effect, Draw) else 0,
            "kind": "grant" if isinstance(effect, Grant) else effect.kind,
            "response": candidate.response,
            "token_ids": candidate.token_ids,
            "finish_reason": candidate.finish_reason if drawn else None,
            "reward": candidate.reward if scorer else None,
            "cut": len(effect.prefix) if isinstance(effect, Draw) else None,
            "accepted": None,
            "key": reply_digest(draw, scorer),
            "draw": draw,
            "generator": self._spec.generator if drawn else None,
            "scorer": scorer or None,
            "generated_tokens": candidate.generated_tokens,
            "prompt_tokens": len(prompt.token_ids),
        }


def _candidate(new: Generated, prefix: tuple[int, ...]) -> Candidate:
    tokens = new.generation.token_ids
    return Candidate(new.response, prefix + tokens, new.generation.finish_reason, generated_tokens=len(tokens))


def _scored(candidate: Candidate, reward: float) -> Candidate:
    """As ``dataclasses.replace`` would make it, at a fifth of its price; it is made for every draw."""
    return Candidate(
        candidate.response, candidate.token_ids, candidate.finish_reason, reward, candidate.generated_tokens
    )
