"""What both engines for sequence classifiers share: their options, which logit is the reward, and what shapes it.

All of it is known before any weights are loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from typing import Protocol

from actors import model_files
from actors.chat_template import ModelText
from actors.pairs import PairRenderer
from pipeline.errors import ConfigError
from pipeline.sections import RewardConfig

_LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")


@dataclass
class ClassifierConfig(RewardConfig):
    """A reward section that names a sequence classifier.

    ``template``: ``chat`` scores the conversation through the model's chat template, ``pair`` scores
    ``tokenizer(prompt, response)`` as many encoders do; ``auto`` is ``chat`` where there is a template, else an error.
    """

    template: str = "auto"


class ClassifierOptions(Protocol):
    """What is asked of a ``Config`` here."""

    model: str
    column: int | None
    template: str
    chat_template: str | None
    max_model_len: int | None
    trust_remote_code: bool

    def law(self) -> str:
        """The engine's options that change the numbers."""
        ...


class Classifier:
    """A reward model as far as it is known without its weights: ``text``, ``column`` (of its logits), ``renderer``.

    Raises ``ConfigError`` for a model that gives no reward, or no single one, or can't be given a pair.
    """

    def __init__(self, config: ClassifierOptions) -> None:
        model_files.check_there(config.model, "reward.model")
        self.text = ModelText(
            "reward", config.model, config.chat_template, config.max_model_len, config.trust_remote_code
        )
        self.column = reward_column(self.text, config.column)
        self.renderer = PairRenderer(self.text, config.template)

    def fingerprint(self, law: str) -> str:
        """What shapes a score: the model by content, its template, the column, and options that change the numbers."""
        parts = [self.text.fingerprint, str(self.column), law]
        if self.renderer.template != "chat":
            parts.append(self.renderer.template)
        return blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


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
