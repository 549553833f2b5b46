"""The values that pass between all parts of Raylign. Frozen, without behaviour, without dependencies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

FinishReason = Literal["stop", "length"]
"""``stop``: the model drew an end token (it is the last of ``token_ids``); ``length``: the cap was reached."""

Kind = Literal["sample", "proposal", "revision", "critique", "given", "grant"]

Role = Literal["generator", "critic"]
"""Which model writes a text. The generator writes every response; a critic, where a run has one, writes about them."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


Content = str | tuple[Message, ...]
"""A prompt as the user gave it: one text, or the turns of a conversation."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """One input row, rendered.

    ``token_ids`` is the prompt through the generator's template, at most one BOS. ``max_tokens`` is the most
    tokens a *whole* response to this prompt may have, its end token included (at least 1). ``critic``: whether the
    run has a critic beside the generator. ``given``: responses that the row came with.
    ``reference``: the right answer, a response to compare with, or whatever else of the row rewards depend on.
    """

    id: str
    content: Content
    token_ids: tuple[int, ...]
    max_tokens: int
    critic: bool = False
    given: tuple[str, ...] = ()
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """A whole response with its reward.

    ``token_ids`` holds the response from its first token, the end token included if the model drew it;
    ``generated_tokens`` counts those that were drawn for it (all but the prefix it was continued from).
    ``reward`` is unbounded, larger is better, NaN where the reward model gave no number.
    """

    response: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    reward: float = math.nan
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Text:
    """One reply to a ``Sample``: text for the method itself, never scored. ``generated_tokens``: end token included."""

    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    generated_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a method returns for its prompt.

    ``steps``: serial rounds of drawing; ``candidates``: whole responses considered; ``generated_tokens``: tokens
    drawn for them, whether in this run or in an earlier one whose journal is shared.
    """

    response: str
    reward: float
    steps: int
    candidates: int
    generated_tokens: int
    columns: dict[str, float | int | str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RowError:
    """Why a row has no result. ``stage`` says where (``prompt``, ``generate``, ``score``, ``method``)."""

    stage: str
    error_type: str
    error: str


Outcome = Result | RowError
