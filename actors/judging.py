"""How what a judge says becomes a number: scores and verdicts in a text, or probabilities of one-token answers."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence

from actors.protocol import Tokenizer
from pipeline.errors import ConfigError
from pipeline.kernels.thinking import without_thinking


def check_pattern(pattern: str, key: str, what: str) -> None:
    """Raises ``ValueError`` that names ``key`` for what is no regular expression with a group around ``what``."""
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise ValueError(f"{key} = {pattern!r} is no regular expression: {error}") from None
    if groups < 1:
        raise ValueError(f"{key} = {pattern!r}: it needs a group in parentheses around the {what}")


def score_in(said: str, pattern: re.Pattern[str], lowest: float, highest: float) -> float | None:
    """The last number that ``pattern`` finds outside of thoughts; None if there is none, or none in range."""
    try:
        value = float(_last(said, pattern))
    except ValueError:
        return None
    return value if lowest <= value <= highest else None


def verdict_in(said: str, pattern: re.Pattern[str], values: Mapping[str, float]) -> float | None:
    """The value of the last verdict that ``pattern`` finds outside of thoughts, whatever its case; None if none."""
    found = _last(said, pattern).casefold()
    return next((value for verdict, value in values.items() if verdict.casefold() == found), None) if found else None


def _last(said: str, pattern: re.Pattern[str]) -> str:
    """The first group of the last match, or nothing."""
    matches = list(pattern.finditer(without_thinking(said)))
    return matches[-1][1] or "" if matches else ""


def expected(logprobs: Sequence[float], values: Collection[float]) -> tuple[float, float]:
    """The mean of the labels' values by their probabilities, and what these add up to. Mean NaN where that is 0."""
    likely = [math.exp(value) for value in logprobs]
    share = sum(likely)
    if not share > 0:
        return math.nan, 0.0
    return sum(p * value for p, value in zip(likely, values, strict=True)) / share, share


def label_tokens(labels: Collection[str], lead: str, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The token of each label after the lead. Raises ``ConfigError`` where one has several, or another one's."""
    before = tokenizer.encode(lead)
    found: dict[int, str] = {}
    for label in labels:
        tokens = tokenizer.encode(lead + label)
        own = tokens[len(before) :]
        single = len(own) == 1 and tokens[: len(before)] == before and own[0] not in found
        if not single or tokenizer.decode((own[0],)).strip() != label.strip():
            raise ConfigError(
                f"reward.labels: {label!r} after reward.lead = {lead!r} is not one token of its own for the judge; "
                "take labels of one token each (single letters or digits), with a space before them where the "
                "tokenizer has it"
            )
        found[own[0]] = label
    return tuple(found)
