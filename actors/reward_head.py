"""Which logit of a sequence classifier is the reward, and what shapes it, before any weights are loaded."""

from __future__ import annotations

from hashlib import blake2b

from actors.chat_template import ModelText, PairRenderer
from pipeline.errors import ConfigError

_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


def reward_column(text: ModelText, column: int | None) -> int:
    """The index of the reward among the model's logits.

    Raises ``ConfigError`` for a model without a reward head (its head would be random), for a head with several
    logits where no column is named, and for a column that the head doesn't have.
    """
    config = text.load_config()
    architectures = config.architectures or []
    if any(name.endswith(_LANGUAGE_MODELS) for name in architectures):
        raise ConfigError(
            f"reward.model={text.model!r} is a language model ({architectures[0]}) without a reward head; "
            "give a sequence classification model"
        )
    logits = int(config.num_labels)
    if column is None and logits > 1:
        names = ", ".join(f"{i}: {name}" for i, name in sorted(config.id2label.items()))
        raise ConfigError(
            f"reward.model={text.model!r} has {logits} logits ({names}); say which one with reward.column"
        )
    if column is not None and not 0 <= column < logits:
        raise ConfigError(f"reward.column={column}, but reward.model={text.model!r} has {logits} logit(s), from 0")
    return column or 0


def classifier_fingerprint(text: ModelText, column: int | None, law: str) -> str:
    """What shapes a score: the model by content, its template, the column, and options that change the numbers.

    Raises ``ConfigError`` for a model that gives no reward or has no chat template.
    """
    PairRenderer(text)
    parts = (text.fingerprint, str(reward_column(text, column)), law)
    return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()
