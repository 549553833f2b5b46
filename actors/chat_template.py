"""From prompts and responses to token ids, through a model's own tokenizer and chat template, and back.

A tokenizer is not safe to use from two threads at once ("Already borrowed"): each user keeps to one.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from actors.model_files import fingerprint, locate
from actors.protocol import BadRequest
from pipeline.errors import ConfigError
from pipeline.kernels import thinking
from pipeline.types import Content, Message

log = logging.getLogger(__name__)

_PROBE = "Hello, world! It's 12,345 - naïve\n\tprint('x')  # ok"
_UNBOUNDED = 10**9
"""Tokenizers without a limit of their own say 1e30."""


@dataclass(frozen=True)
class ModelText:
    """What rendering needs to know of a model. ``section`` (``generator`` or ``reward``) and ``key`` are where the
    configuration names it, for error messages.

    ``chat_template``: the path of a jinja file to use in place of the model's own. ``max_model_len``: the context
    to use in place of the model's own.
    """

    section: str
    model: str
    chat_template: str | None = None
    max_model_len: int | None = None
    trust_remote_code: bool = False
    key: str = "model"

    @property
    def place(self) -> str:
        """The whole key: ``generator.model``."""
        return f"{self.section}.{self.key}"

    @property
    def fingerprint(self) -> str:
        """The model and the template it is used with, by content."""
        digest = blake2b(digest_size=16)
        digest.update(fingerprint(self.model, self.place).encode())
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

        tokenizer = _as_saved(self._load(AutoTokenizer, "tokenizer"), locate(self.model, self.place))
        if (template := self.template_text()) is not None:
            tokenizer.chat_template = template
        return tokenizer

    def _load(self, factory: Any, what: str) -> Any:
        key = self.place
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
            raise ConfigError(f"{self.place}={self.model!r} does not say its context; set {self.section}.max_model_len")
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
        self._specials = special_ids(self._tokenizer)
        tags = self._tokenizer.convert_tokens_to_ids([thinking.OPEN, thinking.CLOSE])
        self._special_tags = self._specials.intersection(tags) - {self._tokenizer.unk_token_id}
        """Think tags that decoding would leave out."""

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
        return render_chat(self._tokenizer, turns(content), add_generation_prompt=True, section="generator")

    def check(self, token_ids: tuple[int, ...]) -> None:
        """Raises ``BadRequest`` for a prompt that would kill an engine, or that leaves no room for a new token."""
        if not token_ids:
            raise BadRequest("the prompt has no tokens")
        if len(token_ids) >= self.context:
            raise BadRequest(f"the prompt has {len(token_ids)} tokens; the generator's context is {self.context}")
        if not (min(token_ids) >= 0 and max(token_ids) < self.vocabulary):
            raise BadRequest(f"the prompt has token ids outside the generator's vocabulary of {self.vocabulary}")

    def encode(self, text: str) -> list[int]:
        """See ``protocol.Tokenizer``."""
        return list(self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """See ``protocol.Tokenizer``. An end token is left out even where the tokenizer doesn't call it special."""
        ids = list(token_ids)
        if ids and ids[-1] in self.stop_ids:
            ids.pop()
        keeps = not self._special_tags.isdisjoint(ids)
        if keeps:
            ids = [i for i in ids if i in self._special_tags or i not in self._specials]
        text = self._tokenizer.decode(ids, skip_special_tokens=not keeps, clean_up_tokenization_spaces=False)
        return str(text)


def _as_saved(tokenizer: Any, place: str) -> Any:
    """The tokenizer, or the one that tokenizer.json describes where ``AutoTokenizer`` has made another one of it.

    For some architectures (Qwen 2 among them) it takes the vocabulary alone, and a class of its own choice, whatever
    the checkpoint says; texts may then lose words without any error.
    """
    from transformers import PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    wanted = str(get_tokenizer_config(place).get("tokenizer_class") or "").removesuffix("Fast")
    if wanted in ("", type(tokenizer).__name__.removesuffix("Fast")) or type(tokenizer) is PreTrainedTokenizerFast:
        return tokenizer
    try:
        saved = PreTrainedTokenizerFast.from_pretrained(place)
    except (OSError, ValueError):  # no tokenizer.json
        return tokenizer
    ours, theirs = (t(_PROBE, add_special_tokens=False)["input_ids"] for t in (saved, tokenizer))
    if ours == theirs:
        return tokenizer
    log.warning("%s: AutoTokenizer makes a %s of it; tokenizer.json is used instead", place, type(tokenizer).__name__)
    return saved


def turns(content: Content) -> tuple[Message, ...]:
    """A prompt as a conversation: a text is one turn of the user."""
    return (Message("user", content),) if isinstance(content, str) else content


def render_chat(
    tokenizer: Any, messages: tuple[Message, ...], *, add_generation_prompt: bool, section: str
) -> list[int]:
    """Token ids of a conversation through the tokenizer's template. Raises ``BadRequest`` where it is rejected.

    ``section``: ``generator`` or ``reward``, for the message.
    """
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
        raise BadRequest(
            f"the {section}'s chat template rejects a conversation of ({roles}): {error}; change the prompt, "
            f"or give another template with {section}.chat_template"
        ) from error
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


def special_ids(tokenizer: Any) -> frozenset[int]:
    """What ``decode(skip_special_tokens=True)`` leaves out."""
    added = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    return frozenset(added.union(tokenizer.all_special_ids))


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
    found.append(_generation_eos(locate(text.model, text.place)))
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
