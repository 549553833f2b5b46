"""The same number of draws for every prompt: the baseline that every other policy must beat."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.batch import Batch, Decision
from pipeline.grants import decide, nothing
from pipeline.grants import validate as validate
from pipeline.sections import PolicyConfig


@dataclass
class Config(PolicyConfig):
    """``uniform`` has no parameters of its own."""

    name: str = "uniform"


def allocate(batch: Batch, config: Config) -> Decision:
    """Shares the round's budget evenly: who has the fewest draws comes first, then who comes first.

    Rewards are not looked at. Raises ``ValueError`` for a negative budget or a budget without prompts.
    """
    batch.check()
    return decide(batch, config, nothing(len(batch)))
