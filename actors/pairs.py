"""(prompt, response) pairs as a reward model reads them: through its chat template, or as two texts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from actors.chat_template import ModelText, one_bos, render_chat, turns
from actors.protocol import BadRequest
from pipeline.errors import ConfigError
from pipeline.types import Content, Message

TEMPLATES = ("auto", "chat", "pair")


@dataclass(frozen=True, slots=True)
class Rendered:
    """One request to a reward model.

    ``types``: as long as ``ids``, 0 in the prompt and 1 in the response, where the model tells them apart; else None.
    """

    ids: list[int]
    types: list[int] | None = None

    def __len__(self) -> int:
        return len(self.ids)


class PairRenderer:
    """A reward model's tokenizer. ``template`` is ``chat`` or ``pair``; ``auto`` is ``chat`` where there is a template.

    ``chat`` renders the conversation that ends with the response, as ``tokenizer.apply_chat_template`` does;
    ``pair`` renders (prompt, response) as ``tokenizer(prompt, response)`` does, so a prompt is one turn of the user.
    Raises ``ConfigError`` where the tokenizer cannot render what was asked for, and for ``auto`` without a template.
    """

    def __init__(self, text: ModelText, template: str = "auto") -> None:
        config = text.load_config()
        self._tokenizer = text.load_tokenizer()
        self.context = text.context(config, self._tokenizer)
        """The most tokens of a pair."""
        self.template = _resolve(template, text, has_template=bool(self._tokenizer.chat_template))
        """``chat`` or ``pair``."""
        self.has_types = self.template == "pair" and _has_types(config, self._tokenizer)
        """Whether the model needs ``Rendered.types``."""
        self._ignored_end = None if is_encoder(config) else config.get_text_config().pad_token_id
        if self.template == "pair":
            self._check_pair(text.model)

    def render(self, content: Content, response: str) -> Rendered:
        """Token ids of the pair, at most one BOS at the front. Raises ``BadRequest``, never cuts.

        A decoder pools the last token that is not its pad token, so trailing pad tokens (where it is also the end
        token) are left out here; then every engine pools the same one.
        """
        rendered = self._pair(content, response) if self.template == "pair" else self._chat(content, response)
        if not rendered.ids:
            raise BadRequest("prompt and response have no tokens for the reward model")
        if len(rendered) > self.context:
            raise BadRequest(
                f"prompt and response have {len(rendered)} tokens for the reward model, whose context is {self.context}"
            )
        return rendered

    def _chat(self, content: Content, response: str) -> Rendered:
        conversation = (*turns(content), Message("assistant", response))
        ids = render_chat(self._tokenizer, conversation, add_generation_prompt=False, section="reward")
        while len(ids) > 1 and ids[-1] == self._ignored_end:
            ids.pop()
        return Rendered(ids)

    def _pair(self, content: Content, response: str) -> Rendered:
        messages = turns(content)
        if [m.role for m in messages] != ["user"]:
            roles = ", ".join(m.role for m in messages)
            raise BadRequest(
                f"reward.template=pair takes a prompt of one user turn, this one has ({roles}); give "
                "reward.chat_template, a jinja file that renders conversations as the model was trained on them"
            )
        # in lists, since an empty response alone would be taken for none, without its separator
        texts = [messages[0].content], [response]
        encoded = self._tokenizer(*texts, return_token_type_ids=self.has_types, verbose=False)
        ids = one_bos(list(encoded["input_ids"][0]), self._tokenizer.bos_token_id)
        if not self.has_types:
            while len(ids) > 1 and ids[-1] == self._ignored_end:
                ids.pop()
            return Rendered(ids)
        return Rendered(ids, list(encoded["token_type_ids"][0])[-len(ids) :])

    def _check_pair(self, model: str) -> None:
        bos = self._tokenizer.bos_token_id
        if bos is not None and self._tokenizer("a", "a")["input_ids"].count(bos) > 1:
            raise ConfigError(
                f"reward.template=pair: the tokenizer of reward.model={model!r} puts a second BOS before the response; "
                "give reward.chat_template, a jinja file that renders the conversation as the model was trained on it"
            )


def is_encoder(config: Any) -> bool:
    """Whether a model is of a family that reads in both directions, and pools no last token."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES


def _resolve(template: str, text: ModelText, *, has_template: bool) -> str:
    if template not in TEMPLATES:
        raise ConfigError(f"reward.template={template!r}; use one of {', '.join(TEMPLATES)}")
    if template == "pair" and text.chat_template is not None:
        raise ConfigError("reward.template=pair uses no chat template; leave one of it and reward.chat_template out")
    if template != "pair" and not has_template:
        raise ConfigError(
            f"reward.model={text.model!r} has no chat template; set reward.chat_template to a jinja file that renders "
            "the conversation as the model was trained on it, or reward.template=pair if it was trained on "
            "tokenizer(prompt, response)"
        )
    return "pair" if template == "pair" else "chat"


def _has_types(config: Any, tokenizer: Any) -> bool:
    if (getattr(config, "type_vocab_size", None) or 0) < 2 or "token_type_ids" not in tokenizer.model_input_names:
        return False
    return any(tokenizer("a", "a", return_token_type_ids=True)["token_type_ids"])
