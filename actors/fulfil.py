"""Grants the wishes of a shard's programs: from the journal where it has the reply, else from the pools.

Replies come back as callbacks on the runner's event loop. Each reply that was paid for is kept as a row of the
journal, under the digest of everything that shaped it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from actors.generator import Generated
from actors.mailbox import Failure
from actors.protocol import BadRequest, GenerateRequest
from actors.scoring import Beside, Scoring
from actors.sources import Sources, Writer
from actors.spec import RunSpec
from pipeline import plugin
from pipeline.driver import Ask, PartReply, Suspended
from pipeline.effects import Draw, Grant, Room, Sample, Score, Verdict
from pipeline.keys import Key
from pipeline.sections import reward_column
from pipeline.storage.journal import draw_digest, given_digest, reply_digest
from pipeline.storage.schema import SCORER
from pipeline.types import Candidate, Message, Prompt, Role, RowError, Text

Tell = Callable[[Ask, PartReply | RowError | Suspended], None]
Keep = Callable[[dict[str, Any]], None]


class Fulfiller:
    """``dispatch`` an ask; ``tell`` is called once with its reply, ``keep`` once with each new row of the journal."""

    def __init__(self, spec: RunSpec, sources: Sources, tell: Tell, keep: Keep, counts: Counter[str]) -> None:
        self._spec, self._sources = spec, sources
        self._tell, self._keep, self._counts = tell, keep, counts
        self._scoring = Scoring(sources.scorers, sources.replies, counts)
        self._unjudged: dict[Key, dict[str, Any]] = {}
        self._unscored: set[str] = set()
        self._named: dict[Key, str] = {}
        self._rendered: tuple[Role, tuple[Message, ...], tuple[int, ...]] = ("generator", (), ())
        self.asked: dict[str, Grant] = {}
        """Rows that wait for a grant, and what they showed."""
        self.replies: Counter[str] = Counter()
        """Replies of each row, the journal's included."""
        self._carried = sources.carried
        self.scored: defaultdict[str, list[str]] = defaultdict(list)
        """The ``key`` of every candidate of each row that has a reward, the journal's included."""
        self.beside = Beside()

    @property
    def waiting(self) -> int:
        """Responses that further reward models are still asked about. Programs don't wait for them."""
        return self._scoring.waiting

    def dispatch(self, ask: Ask, prompt: Prompt) -> None:
        """Begins to find the reply; may tell it at once."""
        match ask.effect:
            case Draw():
                self._draw(ask, ask.effect, prompt)
            case Sample():
                self._sample(ask, ask.effect, prompt)
            case Room():
                self._tell_room(ask, ask.effect)
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
        row = self._unjudged.pop(verdict.draw, None)
        if row is not None and row["key"] in self._unscored:
            row["accepted"] = verdict.accepted
        elif row is not None:
            self._keep({**row, "accepted": verdict.accepted})

    def _draw(self, ask: Ask, effect: Draw, prompt: Prompt) -> None:
        writer = self._sources.writers["generator"]
        draw = draw_digest(writer.fingerprint, ask.key, prompt.token_ids, effect.prefix)
        key = self._scoring.reply_name(draw, prompt)
        if known := self._recall(ask, key, scored=True):
            row = self._sources.replies.open_row(key)
            if row is not None and row["accepted"] is None:  # its node was killed before it could say
                self._unjudged[ask.key] = row
            self._tell(ask, known)
            return
        if known := self._sources.replies.drawn(draw):  # by an earlier run, with another reward model
            self._counts["rescored"] += 1
            self._score(ask, draw, known, prompt)
            return

        def on_reply(new: Generated) -> None:
            self._counts["draws"] += 1
            self._score(ask, draw, _candidate(new, effect.prefix), prompt)

        self._scoring.start()
        for other in self._sources.writers.values():
            other.pool.start()  # all models load at the same time
        self._generate(ask, writer, prompt.token_ids, effect.prefix, prompt.max_tokens, on_reply)

    def _sample(self, ask: Ask, effect: Sample, prompt: Prompt) -> None:
        token_ids = self._render(ask, effect)
        if token_ids is None:
            return
        writer = self._sources.writers[effect.role]
        cap = min(effect.max_tokens or writer.config.max_tokens, writer.tokenizer.context - len(token_ids))
        draw = draw_digest(f"{writer.fingerprint} max_tokens={cap}", ask.key, token_ids, ())
        self._named[ask.key] = draw
        if known := self._recall(ask, reply_digest(draw, ""), scored=False):
            self._tell(ask, _text(known))
            return

        def on_reply(new: Generated) -> None:
            self._counts["samples"] += 1
            self.replies[ask.row] += 1
            text = _candidate(new, ())
            row = self._row(ask, draw, text, prompt, scorer="")
            self._keep({**row, "prompt_tokens": len(token_ids), **self._quoted(effect, prompt)})
            self._tell(ask, _text(text))

        self._generate(ask, writer, token_ids, (), cap, on_reply)

    def _tell_room(self, ask: Ask, effect: Room) -> None:
        token_ids = self._render(ask, effect)
        if token_ids is not None:
            self._tell(ask, self._sources.writers[effect.role].tokenizer.context - len(token_ids))

    def _render(self, ask: Ask, effect: Sample | Room) -> tuple[int, ...] | None:
        """The messages' tokens for the model that is asked; None where the ask has been told that there are none.

        Through the chat template wherever there is one: the method wrote them, whatever the prompts are. The last ones
        are remembered: a method asks for room and then for n texts, which the driver hands out one after the other.
        """
        role, messages, token_ids = self._rendered
        if (role, messages) != (effect.role, effect.messages):
            try:
                token_ids = tuple(self._sources.writers[effect.role].tokenizer.render(effect.messages, "auto"))
            except BadRequest as error:
                self._tell(ask, RowError("generate", "BadPrompt", plugin.respelled(str(error), effect.role)))
                return None
        self._rendered = (effect.role, effect.messages, token_ids)
        return token_ids

    def _quoted(self, effect: Sample, prompt: Prompt) -> dict[str, Any]:
        """The columns that say what a text is about."""
        if effect.quoted is None:
            return {}
        names = {"chosen": effect.quoted.chosen, "rejected": effect.quoted.rejected}
        found = {column: None if key is None else self._name(key, prompt) for column, key in names.items()}
        return {**found, "shortened": effect.quoted.shortened}

    def _name(self, key: Key, prompt: Prompt) -> str:
        """``draw`` of a reply: remembered for texts and given responses, else that of a plain draw."""
        writer = self._sources.writers["generator"]
        return self._named.get(key) or draw_digest(writer.fingerprint, key, prompt.token_ids, ())

    def _score_given(self, ask: Ask, effect: Score, prompt: Prompt) -> None:
        response = effect.responses[ask.part]
        draw = given_digest(response, ask.key, prompt.content)
        self._named[ask.key] = draw
        if known := self._recall(ask, self._scoring.reply_name(draw, prompt), scored=True):
            self._tell(ask, known.reward)
            return
        self._score(ask, draw, Candidate(response, (), "stop"), prompt)

    def _recall(self, ask: Ask, key: str, *, scored: bool) -> Candidate | None:
        known = self._sources.replies.scored(key)
        if known is not None:
            self.replies[ask.row] += 1
            if scored:
                self._note(ask, key, known, self._sources.replies.rewards(key, self._scoring.names))
            again = self._carried > 0
            self._carried -= again
            self._counts["replayed" if again else "recalled"] += 1
        return known

    def _generate(
        self,
        ask: Ask,
        writer: Writer,
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
                self._tell(ask, RowError("generate", reply.error_type, plugin.respelled(reply.error, writer.role)))
                return
            made = reply.generation
            self._count_tokens(writer.role, made.drawn, len(prompt) + len(prefix), made.cached_tokens)
            on_reply(reply)

        seed = ask.key.engine_seed() if writer.config.seed_requests else None
        request = GenerateRequest(prompt + prefix, cap - len(prefix), seed, len(prefix))
        writer.pool.submit(request, ask.row, on_generated)

    def _count_tokens(self, role: Role, generated: int, prompt: int, cached: int) -> None:
        """In all, and a critic's beside that."""
        for prefix in ("",) if role == "generator" else ("", f"{role}_"):
            self._counts[f"{prefix}generated_tokens"] += generated
            self._counts[f"{prefix}prompt_tokens"] += prompt
            self._counts[f"{prefix}cached_tokens"] += cached

    def _score(self, ask: Ask, draw: str, candidate: Candidate, prompt: Prompt) -> None:
        """Tells the reward at once. The row is kept when further models have said theirs."""
        row: dict[str, Any] = {}

        def on_reward(reply: float | Failure) -> None:
            if isinstance(reply, Failure):
                self._tell(ask, RowError("score", reply.error_type, reply.error))
                return
            self.replies[ask.row] += 1
            scored = _scored(candidate, reply)
            row.update(self._row(ask, draw, scored, prompt, self._spec.scorer))
            if row["kind"] == "proposal":
                self._unjudged[ask.key] = row
            self._unscored.add(row["key"])
            self._tell(ask, scored if isinstance(ask.effect, Draw) else reply)

        def on_whole(others: Mapping[str, float | None]) -> None:
            row.update({reward_column(name): reward for name, reward in others.items()})
            row.update({f"{SCORER}{name}": by for name, by in self._scoring.named(prompt).items()})
            self._unscored.discard(row["key"])
            self._note(ask, row["key"], _scored(candidate, row["reward"]), others)
            self._keep(row)

        self._scoring.score(draw, candidate.response, prompt, on_reward, on_whole)

    def _note(self, ask: Ask, key: str, known: Candidate, others: Mapping[str, float | None]) -> None:
        """That a row has this candidate."""
        self.scored[ask.row].append(key)
        if others:
            assert isinstance(ask.effect, Draw | Score)
            chain = ask.effect.chain if isinstance(ask.effect, Draw) else 0
            order = (chain, ask.effect.step, ask.index, ask.key.name)
            self.beside.note(ask.row, known.response, known.reward, order, others)

    def _row(self, ask: Ask, draw: str, candidate: Candidate, prompt: Prompt, scorer: str) -> dict[str, Any]:
        """A row of the candidates table (schema ``CANDIDATES``)."""
        effect = ask.effect
        assert isinstance(effect, Draw | Sample | Score)  # other replies cost nothing, and are not kept
        drawn = isinstance(effect, Draw | Sample)
        return {
            "id": ask.row,
            "step": effect.step,
            "index": ask.index,
            "chain": effect.chain if isinstance(effect, Draw) else 0,
            "kind": effect.kind,
            "response": candidate.response,
            "token_ids": candidate.token_ids,
            "finish_reason": candidate.finish_reason if drawn else None,
            "reward": candidate.reward if scorer else None,
            "cut": len(effect.prefix) if isinstance(effect, Draw) else None,
            "accepted": None,
            "key": self._scoring.reply_name(draw, prompt) if scorer else reply_digest(draw, ""),
            "draw": draw,
            "generator": self._sources.writers[_role(effect)].fingerprint if drawn else None,
            "scorer": scorer or None,
            "generated_tokens": candidate.generated_tokens,
            "prompt_tokens": len(prompt.token_ids),
            "source": self._named.get(effect.source) if isinstance(effect, Score) and effect.source else None,
            "seed": ask.key.seed,
            "name": ask.key.name,
        }


def _role(effect: Draw | Sample | Score) -> Role:
    return effect.role if isinstance(effect, Sample) else "generator"


def _candidate(new: Generated, prefix: tuple[int, ...]) -> Candidate:
    made = new.generation
    return Candidate(new.response, prefix + made.token_ids, made.finish_reason, generated_tokens=made.drawn)


def _text(candidate: Candidate) -> Text:
    return Text(candidate.response, candidate.token_ids, candidate.finish_reason, candidate.generated_tokens)


def _scored(candidate: Candidate, reward: float) -> Candidate:
    """As ``dataclasses.replace`` would make it, at a fifth of its price; it is made for every draw."""
    return Candidate(
        candidate.response, candidate.token_ids, candidate.finish_reason, reward, candidate.generated_tokens
    )
