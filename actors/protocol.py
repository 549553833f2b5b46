"""What an engine and a reward model must be, and what is sent to them. No Ray here, and no torch.

An engine plugin (``actors/engines/NAME.py``) has

    Config                          a dataclass that inherits from GeneratorConfig
    load_tokenizer(config)          -> Tokenizer; cheap, without weights; runners call it
    create(config)                  -> Engine; called in the replica's own process
    validate(config)                optional; raises ValueError, with the key at fault, before anything starts
    TELLS_PROBABILITIES             optional; True if requests may have labels (see ``GenerateRequest``)

and a reward plugin (``actors/rewards/NAME.py``) has

    Config                          a dataclass that inherits from RewardConfig; its property needs_reference says
                                    whether a reward depends on the row's own reference (``data.reference``)
    fingerprint(config)             -> str; what shapes a score: model by content, template, column
    create(config)                  -> RewardEngine
    check_reference(reference)      optional; raises ValueError for one that no reward can go by. Runners ask before
                                    anything is drawn for its row

and the ``vllm`` plugin of either kind may have

    serves(model)                   -> bool; whether ``engine: auto`` takes it for this model, by its config.json

Heavy packages are imported inside ``load_tokenizer`` and ``create``, never when the module is: the command line
reads every ``Config`` before it starts anything. Requests and replies have a ``__reduce__`` of their own: they
travel by the thousand, and pickling a frozen dataclass costs twice as much without.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from pipeline.types import Content, FinishReason


class BadRequest(Exception):
    """This request can never succeed (too long, cannot be rendered). It costs its row, never the replica."""


class EngineDead(Exception):
    """The engine cannot serve anything any more. The replica's process ends, and Ray starts a new one."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Continue ``token_ids`` (prompt and, at its end, ``prefix_tokens`` tokens of the response).

    At most ``max_tokens`` (>= 1) new tokens, the end token included. ``seed`` in [0, 2**63), or None for a
    request that may differ from run to run. ``labels``: tokens whose probabilities as the first new one are wanted,
    from engines that have ``TELLS_PROBABILITIES``.
    """

    token_ids: tuple[int, ...]
    max_tokens: int
    seed: int | None = None
    prefix_tokens: int = 0
    labels: tuple[int, ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return GenerateRequest, (self.token_ids, self.max_tokens, self.seed, self.prefix_tokens, self.labels)


@dataclass(frozen=True, slots=True)
class Generation:
    """New tokens only. With ``finish_reason`` ``stop`` the last of them is the end token that the model drew.

    ``cached_tokens``: prompt tokens that were not computed again, where the engine tells. An engine that gets text and
    no token ids gives the ``text``, and how many tokens were drawn for it (``text_tokens``). ``label_logprobs``: of the
    request's labels, each as the first new token, by the model's own law (temperature 1, all tokens).
    """

    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    cached_tokens: int = 0
    text: str | None = None
    text_tokens: int = 0
    label_logprobs: tuple[float, ...] = ()

    @property
    def drawn(self) -> int:
        """How many tokens were drawn."""
        return len(self.token_ids) if self.text is None else self.text_tokens

    def __reduce__(self) -> tuple[Any, ...]:
        parts = (self.token_ids, self.finish_reason, self.cached_tokens, self.text, self.text_tokens)
        return Generation, (*parts, self.label_logprobs)


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """The reward of ``response`` as the answer to ``content``. ``reference``: the row's, for those that need it."""

    content: Content
    response: str
    reference: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return ScoreRequest, (self.content, self.response, self.reference)


class Tokenizer(Protocol):
    """The generator's own way from prompts to tokens and back."""

    context: int
    """The most tokens of prompt and response together."""
    fingerprint: str
    """What shapes the rendering and the model's law: tokenizer, template and weights, by content."""

    def render(self, content: Content, template: str) -> list[int]:
        """Token ids of a prompt, at most one BOS at the front. ``template``: ``auto``, ``chat`` or ``raw``.

        Raises ``BadRequest`` where the template rejects the prompt or there is none to render it with.
        """
        ...

    def encode(self, text: str) -> list[int]:
        """Token ids of a text within a conversation: no BOS, nothing around it."""
        ...

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """The text of response tokens, special tokens left out (but ``<think>`` and ``</think>`` are text)."""
        ...


class Engine(Protocol):
    """A generator. ``generate`` runs many times at once on one event loop; the engine batches.

    An engine may also have ``progress() -> Hashable``: a value that changes with every token that any request gets.
    Without it only finished requests tell the watchdog that the engine is alive.
    """

    async def start(self) -> dict[str, Any]:
        """Loads the model; returns the settings as resolved, for the run's summary."""
        ...

    async def generate(self, request: GenerateRequest) -> Generation:
        """Raises ``BadRequest`` or ``EngineDead``."""
        ...

    async def stop(self) -> None:
        """Frees what it holds, child processes included."""
        ...


class RewardEngine(Protocol):
    """A reward model. ``score`` runs many times at once on one event loop; the engine batches."""

    async def start(self) -> dict[str, Any]:
        """Loads the model; returns the settings as resolved, for the run's summary."""
        ...

    async def score(self, request: ScoreRequest) -> float:
        """The raw reward (no sigmoid), larger is better. Raises ``BadRequest`` or ``EngineDead``."""
        ...

    async def stop(self) -> None:
        """Frees what it holds, child processes included."""
        ...
