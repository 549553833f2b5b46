"""From prompts and responses to token ids, through a model's own tokenizer and chat template, and back.

A tokenizer is not safe to use from two threads at once ("Already borrowed"): each user keeps to one.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from actors.model_files import fingerprint, locate
from actors.protocol import BadRequest
from pipeline.errors import ConfigError
from pipeline.types import Content, Message

_UNBOUNDED = 10**9
"""Tokenizers without a limit of their own say 1e30."""


@dataclass(frozen=True)
class ModelText:
    """What rendering needs to know of a model. ``section`` is ``generator`` or ``reward``, for error messages.

    ``chat_template``: the path of a jinja file to use in place of the model's own. ``max_model_len``: the context
    to use in place of the model's own.
    """

    section: str
    model: str
    chat_template: str | None = None
    max_model_len: int | None = None
    trust_remote_code: bool = False

    @property
    def fingerprint(self) -> str:
        """The model and the template it is used with, by content."""
        digest = blake2b(digest_size=16)
        digest.update(fingerprint(self.model, f"{self.section}.model").encode())
        digest.update(f"\0{self.template_text() or ''}".encode())
        return digest.hexdigest()

    def template_text(self) -> str | None:
        """The text of the jinja file, or None where the model's own template is used."""
        if self.chat_template is None:
            return None
        try:
            return Path(self.chat_template).expanduser().read_text()
        except OSError as error:
            raise ConfigError(
                f"{self.section}.chat_template={self.chat_template!r} cannot be read ({error}); "
                "give the path of a jinja file"
            ) from error

    def load_config(self) -> Any:
        """The model's ``transformers`` configuration."""
        from transformers import AutoConfig

        return self._load(AutoConfig, "config.json")

    def load_tokenizer(self) -> Any:
        """The model's ``transformers`` tokenizer, with the template that was asked for."""
        from transformers import AutoTokenizer

        tokenizer = self._load(AutoTokenizer, "tokenizer")
        if (template := self.template_text()) is not None:
            tokenizer.chat_template = template
        return tokenizer

    def _load(self, factory: Any, what: str) -> Any:
        key = f"{self.section}.model"
        try:
            return factory.from_pretrained(locate(self.model, key), trust_remote_code=self.trust_remote_code)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{key}={self.model!r}: its {what} cannot be loaded: {error}") from error

    def context(self, config: Any, tokenizer: Any) -> int:
        """The most tokens that the model can see at once."""
        if self.max_model_len is not None:
            return self.max_model_len
        names = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "n_ctx")
        text_config = config.get_text_config()
        limits = [getattr(text_config, name, None) for name in names] + [tokenizer.model_max_length]
        known = [int(limit) for limit in limits if limit is not None and 0 < limit < _UNBOUNDED]
        if not known:
            raise ConfigError(
                f"{self.section}.model={self.model!r} does not say its context; set {self.section}.max_model_len"
            )
        return min(known)


class ChatTokenizer:
    """A generator's tokenizer (``protocol.Tokenizer``)."""

    def __init__(self, text: ModelText) -> None:
        self.fingerprint = text.fingerprint
        config = text.load_config()
        self._tokenizer = text.load_tokenizer()
        self.context = text.context(config, self._tokenizer)
        self.vocabulary = int(config.get_text_config().vocab_size)
        """Token ids are below this."""
        self.stop_ids = stop_ids(text, config, self._tokenizer)
        """The end tokens, sorted."""

    def render(self, content: Content, template: str) -> list[int]:
        """See ``protocol.Tokenizer``. In ``raw``, the tokenizer adds its special tokens, once."""
        if template not in ("auto", "chat", "raw"):
            raise ConfigError(f"data.template={template!r}; use auto, chat or raw")
        has_template = bool(self._tokenizer.chat_template)
        if template == "chat" and not has_template:
            raise BadRequest(
                "the generator's tokenizer has no chat template; set data.template=raw, "
                "or generator.chat_template to a jinja file"
            )
        if template == "raw" or not has_template:
            return _render_raw(self._tokenizer, content)
        return render_chat(self._tokenizer, turns(content), add_generation_prompt=True)

    def check(self, token_ids: tuple[int, ...]) -> None:
        """Raises ``BadRequest`` for a prompt that would kill an engine, or that leaves no room for a new token."""
        if not token_ids:
            raise BadRequest("the prompt has no tokens")
        if len(token_ids) >= self.context:
            raise BadRequest(f"the prompt has {len(token_ids)} tokens; the generator's context is {self.context}")
        if not (min(token_ids) >= 0 and max(token_ids) < self.vocabulary):
            raise BadRequest(f"the prompt has token ids outside the generator's vocabulary of {self.vocabulary}")

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """See ``protocol.Tokenizer``. An end token is left out even where the tokenizer doesn't call it special."""
        ids = list(token_ids)
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        text = self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text)


class PairRenderer:
    """A reward model's tokenizer: (prompt, response) pairs, through the reward model's own template."""

    def __init__(self, text: ModelText) -> None:
        config = text.load_config()
        self._tokenizer = text.load_tokenizer()
        self.context = text.context(config, self._tokenizer)
        self._pad = config.get_text_config().pad_token_id
        if not self._tokenizer.chat_template:
            raise ConfigError(
                f"reward.model={text.model!r} has no chat template; set reward.chat_template to a jinja file "
                "that renders the conversation as the model was trained on it"
            )

    def render(self, content: Content, response: str) -> list[int]:
        """Token ids of the conversation that ends with ``response``. Raises ``BadRequest``, never cuts.

        A sequence classifier pools the last token that is not its pad token, so trailing pad tokens (where it is
        also the end token) are left out here; then every engine pools the same one.
        """
        ids = render_chat(
            self._tokenizer, (*turns(content), Message("assistant", response)), add_generation_prompt=False
        )
        while len(ids) > 1 and ids[-1] == self._pad:
            ids.pop()
        if len(ids) > self.context:
            raise BadRequest(
                f"prompt and response have {len(ids)} tokens for the reward model, whose context is {self.context}"
            )
        return ids


def turns(content: Content) -> tuple[Message, ...]:
    """A prompt as a conversation: a text is one turn of the user."""
    return (Message("user", content),) if isinstance(content, str) else content


def render_chat(tokenizer: Any, messages: tuple[Message, ...], *, add_generation_prompt: bool) -> list[int]:
    """Token ids of a conversation through the tokenizer's template. Raises ``BadRequest`` where it is rejected."""
    from jinja2 import TemplateError

    if not messages:
        raise BadRequest("the conversation has no turns")
    try:
        ids = tokenizer.apply_chat_template(
            [{"role": m.role, "content": m.content} for m in messages],
            add_generation_prompt=add_generation_prompt,
            tokenize=True,
            return_dict=False,
        )
    except (TemplateError, TypeError, ValueError) as error:
        roles = ", ".join(m.role for m in messages)
        raise BadRequest(f"the chat template rejects a conversation of ({roles}): {error}") from error
    return one_bos(list(ids), tokenizer.bos_token_id)


def _render_raw(tokenizer: Any, content: Content) -> list[int]:
    messages = turns(content)
    if len(messages) != 1:
        raise BadRequest(
            f"a conversation of {len(messages)} turns cannot be rendered without a chat template; "
            "set generator.chat_template to a jinja file, or give one text per prompt"
        )
    text = messages[0].content
    ids = list(tokenizer(text, add_special_tokens=True, verbose=False)["input_ids"])
    if ids and ids[-1] == tokenizer.eos_token_id and not text.endswith(tokenizer.eos_token):
        ids.pop()  # some tokenizers close every text; a prompt is to be continued
    if not ids:
        raise BadRequest("the prompt has no tokens")
    return one_bos(ids, tokenizer.bos_token_id)


def one_bos(ids: list[int], bos: int | None) -> list[int]:
    """``ids`` with at most one ``bos`` at the front (a template and a tokenizer may both have put one)."""
    repeated = 0
    while bos is not None and ids[repeated : repeated + 2] == [bos, bos]:
        repeated += 1
    ids = ids[repeated:]
    assert bos is None or ids[:2] != [bos, bos]
    return ids


def stop_ids(text: ModelText, config: Any, tokenizer: Any) -> tuple[int, ...]:
    """All end tokens: those of ``generation_config.json``, of the model's configuration and of its tokenizer.

    The union, since no single one is complete: Llama-3-instruct ends its turns with a token that only its
    generation configuration names.
    """
    found = [getattr(config.get_text_config(), "eos_token_id", None), tokenizer.eos_token_id]
    found.append(_generation_eos(locate(text.model, f"{text.section}.model")))
    ids: set[int] = set()
    for value in found:
        ids.update([value] if isinstance(value, int) else value or [])
    return tuple(sorted(ids))


def _generation_eos(model: str) -> int | list[int] | None:
    from transformers import GenerationConfig

    try:
        eos: int | list[int] | None = GenerationConfig.from_pretrained(model).eos_token_id
    except (OSError, ValueError):  # most base models have no such file
        return None
    return eos
