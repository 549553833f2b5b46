"""What will go wrong with some rows of a run, as far as its configuration tells before anything is drawn."""

from __future__ import annotations

from typing import Any, cast

from actors.reward_head import Classifier, ClassifierConfig
from pipeline.sections import RewardConfig, RunConfig, reward_column


def warnings(config: RunConfig) -> list[str]:
    """Sentences for a person; the run goes on, and the rows that it happens to will be rejects."""
    most = config.generator.max_tokens
    contexts = {name: reward_context(section) for name, section in config.scorers.items()}
    return [
        f"generator.max_tokens = {most}, but {name}.model={config.scorers[name].model!r} sees {context} tokens of "
        f"prompt and response together: {_lost(name)}; lower generator.max_tokens, or take a reward model with a "
        "longer context"
        for name, context in contexts.items()
        if context is not None and most >= context and not config.generator.none
    ]


def _lost(name: str) -> str:
    """What becomes of a longer response, by the section of the reward model that can't see it."""
    if name == "reward":
        return "rows with a longer response will be rejected"
    return f"longer responses will have no {reward_column(name.removeprefix('rewards.'))}"


def reward_context(config: RewardConfig) -> int | None:
    """The most tokens that the reward model can see at once, without loading its weights; None if it doesn't say."""
    return Classifier(cast(Any, config)).renderer.context if isinstance(config, ClassifierConfig) else None
