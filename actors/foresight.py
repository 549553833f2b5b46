"""What will go wrong with some rows of a run, as far as its configuration tells before anything is drawn."""

from __future__ import annotations

from typing import Any, cast

from actors.reward_head import Classifier, ClassifierConfig
from pipeline.sections import RewardConfig, RunConfig


def warnings(config: RunConfig) -> list[str]:
    """Sentences for a person; the run goes on, and the rows that it happens to will be rejects."""
    context, most = reward_context(config.reward), config.generator.max_tokens
    if context is None or most < context or config.generator.none:
        return []
    text = (
        f"generator.max_tokens = {most}, but reward.model={config.reward.model!r} sees {context} tokens of prompt and "
        "response together: rows with a longer response will be rejected; lower generator.max_tokens, or take a "
        "reward model with a longer context"
    )
    return [text]


def reward_context(config: RewardConfig) -> int | None:
    """The most tokens that the reward model can see at once, without loading its weights; None if it doesn't say."""
    return Classifier(cast(Any, config)).renderer.context if isinstance(config, ClassifierConfig) else None
