"""Generation by a server that speaks OpenAI's protocol: vLLM's own, a provider's, whatever stands behind a URL.

``mode: completions`` sends prompts as token ids and takes token ids back. vLLM's server can do that
(``return_token_ids``), so that everything here works as with an engine of our own, QAlign included. It needs the
model's tokenizer on this machine (``tokenizer``: a directory with config.json and the tokenizer's files, no weights).

``mode: chat`` sends messages and takes text back, as any such server can. Then there is no tokenizer: prompts count as
many tokens as they have bytes (which is never too few), responses have no ``token_ids``, only their number if the
server says it, and methods that continue a prefix are refused. A server may then sample with defaults of its own or of
the model (vLLM's takes top_k from generation_config.json): ``extra_body`` can say otherwise.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from actors.chat_template import ChatTokenizer, ModelText, turns
from actors.protocol import BadRequest, GenerateRequest, Generation, Tokenizer
from actors.remote import Patience, Remote
from pipeline.errors import ConfigError
from pipeline.kernels import thinking
from pipeline.keys import digest
from pipeline.sections import GeneratorConfig
from pipeline.types import Content, FinishReason

MODES = ("completions", "chat")
_A_URL = "give the server's, up to and with /v1: http://localhost:8000/v1"
UNBOUNDED = 10**9
"""The context of a server that isn't asked for it."""
# fmt: off
OWN = frozenset({
    "model", "prompt", "messages", "n", "stream", "seed", "max_tokens", "max_completion_tokens", "temperature", "top_p",
    "return_token_ids", "stop_token_ids",
})
# fmt: on
"""What a request says of itself; the others can be changed, or left out with null, by ``extra_body``."""


@dataclass
class Config(GeneratorConfig):
    """The generator section with ``engine: openai``. ``model``: as the server calls it.

    ``base_url``: up to and with ``/v1``. ``api_key_env``: the environment variable (on the nodes) that holds the API
    key; null for none. ``tokenizer``: for ``mode: completions``, the model's directory or Hugging Face name.
    ``max_model_len``: context in tokens; the tokenizer's by default, in chat mode none. ``version``: any text that
    tells one model from another that the server calls by the same name; it is part of every draw's name, as the URL is
    not. ``length_field``: how the server calls the cap in chat mode (``max_completion_tokens`` for OpenAI's own).
    ``extra_body``: further fields of every request; null leaves one out.
    """

    LOADS: ClassVar[bool] = False
    engine: str = "openai"
    base_url: str = ""
    mode: str = "completions"
    api_key_env: str | None = None
    tokenizer: str = ""
    chat_template: str | None = None
    max_model_len: int | None = None
    version: str = ""
    length_field: str = "max_tokens"
    timeout_s: float = 300.0
    retries: int = 5
    backoff_s: float = 1.0
    concurrency: int = 64
    requests_per_s: float | None = None
    extra_body: dict[str, Any] = field(default_factory=dict)


def validate(config: Config) -> None:
    """Raises ``ValueError``, with the key at fault, for what no server could be asked."""
    if config.base_url and not config.base_url.startswith(("http://", "https://")):
        raise ValueError(f"generator.base_url = {config.base_url!r}: {_A_URL}")
    if config.mode not in MODES:
        raise ValueError(f"generator.mode = {config.mode!r}: choose one of {', '.join(MODES)}")
    if own := sorted(OWN & config.extra_body.keys()):
        raise ValueError(f"generator.extra_body.{own[0]} is set by raylign itself: use the keys of generator for it")
    least = {"retries": 0, "concurrency": 1}
    for name, low in least.items():
        if getattr(config, name) < low:
            raise ValueError(f"generator.{name} = {getattr(config, name)}: it must be at least {low}")
    for name in ("timeout_s", "backoff_s", "requests_per_s", "max_model_len"):
        value = getattr(config, name)
        if value is not None and not value > 0:
            raise ValueError(f"generator.{name} = {value}: it must be positive")
    if config.hang_s is not None and config.timeout_s >= config.hang_s:
        raise ValueError(
            f"generator.timeout_s = {config.timeout_s:g}: it must be below generator.hang_s = {config.hang_s:g}, "
            "or waiting for a slow server would count as hanging"
        )


def _check_named(config: Config) -> None:
    """Raises ``ConfigError`` for what has no default and was not given."""
    if not config.base_url:
        raise ConfigError(f"generator.base_url is not set: {_A_URL}")
    if not config.model:
        raise ConfigError("generator.model is not set: give the name that the server has for its model")
    if config.mode == "completions" and not config.tokenizer:
        raise ConfigError(
            "generator.tokenizer is not set: mode = completions sends token ids, so give the model's directory or "
            "Hugging Face name (weights are not needed), or set generator.mode=chat"
        )


class MessageTokenizer:
    """``protocol.Tokenizer`` without a tokenizer: a prompt is the bytes of its messages as JSON."""

    def __init__(self, config: Config) -> None:
        self.context = config.max_model_len or UNBOUNDED
        self.fingerprint = _fingerprint(config, "")

    def render(self, content: Content, template: str) -> list[int]:
        """See ``protocol.Tokenizer``."""
        if template == "raw":
            raise BadRequest("generator.mode = chat sends messages: set data.template=chat, or mode=completions")
        messages = turns(content)
        if not messages:
            raise BadRequest("the conversation has no turns")
        return list(json.dumps([[m.role, m.content] for m in messages]).encode())

    def encode(self, text: str) -> list[int]:
        """The text's bytes."""
        return list(text.encode())

    def decode(self, token_ids: tuple[int, ...]) -> str:
        """The bytes as text."""
        return bytes(token_ids).decode("utf-8", "replace")

    @staticmethod
    def messages(token_ids: tuple[int, ...]) -> list[dict[str, str]]:
        """What ``render`` was given."""
        return [{"role": role, "content": content} for role, content in json.loads(bytes(token_ids))]


def load_tokenizer(config: Config) -> Tokenizer:
    """The model's own tokenizer, or none in chat mode. Raises ``ConfigError`` for what is missing."""
    _check_named(config)
    if config.mode == "chat":
        return MessageTokenizer(config)
    return _chat_tokenizer(config)


def _chat_tokenizer(config: Config) -> ChatTokenizer:
    text = ModelText(
        "generator",
        config.tokenizer,
        config.chat_template,
        config.max_model_len,
        config.trust_remote_code,
        key="tokenizer",
    )
    tokenizer = ChatTokenizer(text)
    tokenizer.fingerprint = _fingerprint(config, tokenizer.fingerprint)
    return tokenizer


def _fingerprint(config: Config, tokenizer: str) -> str:
    extra = json.dumps(config.extra_body, sort_keys=True)
    return digest(("openai", config.mode, config.model, config.version, tokenizer, extra)).hex()


def create(config: Config) -> OpenAIEngine:
    """An engine that is yet to be started. Raises ``ConfigError`` for what is missing, the API key included."""
    _check_named(config)
    api_key = None
    if config.api_key_env is not None:
        api_key = os.environ.get(config.api_key_env)
        if not api_key:
            raise ConfigError(
                f"generator.api_key_env = {config.api_key_env!r}: there is no such environment variable on this node"
            )
    return OpenAIEngine(config, api_key)


class OpenAIEngine:
    """``protocol.Engine`` over a server."""

    def __init__(self, config: Config, api_key: str | None) -> None:
        self._config = config
        self._tokenizer = _chat_tokenizer(config) if config.mode == "completions" else None
        patience = Patience(
            config.timeout_s, config.retries, config.backoff_s, config.concurrency, config.requests_per_s
        )
        self._server = Remote(config.base_url, api_key, patience, "generator.base_url")

    async def start(self) -> dict[str, Any]:
        """See ``protocol.Engine``. Raises ``ConfigError`` if there is no such server, model, or token ids."""
        await self._server.start()
        try:
            served = await self._server.ask("GET", "/models", None, lambda said: [m["id"] for m in said["data"]])
        except BadRequest:  # not every server lists its models
            served = []
        if served and self._config.model not in served:
            raise ConfigError(
                f"generator.model = {self._config.model!r}: the server at {self._config.base_url} has no such model; "
                f"it has {', '.join(served[:10])}"
            )
        if self._tokenizer is not None:
            await self._probe(tuple(self._tokenizer.render("Hello", "auto")))
        return {"engine": "openai", "base_url": self._config.base_url, "mode": self._config.mode, "served": served}

    async def _probe(self, prompt: tuple[int, ...]) -> None:
        """One token, so that a server that can't do what every row needs is found before the first of them."""
        try:
            await self.generate(GenerateRequest(prompt, 1, 0))
        except BadRequest as error:
            raise ConfigError(
                f"generator.base_url = {self._config.base_url}: {error}; if it doesn't know a field, leave that out "
                "with null in generator.extra_body, or set generator.mode=chat"
            ) from error

    async def generate(self, request: GenerateRequest) -> Generation:
        """See ``protocol.Engine``. In completions mode it stops at the context, if that comes before ``max_tokens``."""
        if self._tokenizer is not None:
            self._tokenizer.check(request.token_ids)
            return await self._server.ask("POST", "/completions", self._completion(request), self._read_tokens)
        if request.prefix_tokens:
            raise BadRequest("generator.mode = chat can't continue a prefix; use mode=completions")
        return await self._server.ask("POST", "/chat/completions", self._chat(request), _read_message)

    def progress(self) -> int:
        """See ``protocol.Engine``: tries that have ended."""
        return self._server.tries

    async def stop(self) -> None:
        """See ``protocol.Engine``."""
        await self._server.stop()

    def _completion(self, request: GenerateRequest) -> dict[str, Any]:
        """Every sampling parameter, so that no default of the server or of the model shapes a draw."""
        assert self._tokenizer is not None
        room = self._tokenizer.context - len(request.token_ids)
        own = self._common(request) | {
            "prompt": list(request.token_ids),
            "max_tokens": min(request.max_tokens, room),
            "return_token_ids": True,
            "stop_token_ids": list(self._tokenizer.stop_ids),
        }
        neutral = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "add_special_tokens": False}
        return own | self._extra(neutral)

    def _chat(self, request: GenerateRequest) -> dict[str, Any]:
        messages = MessageTokenizer.messages(request.token_ids)
        own = self._common(request) | {"messages": messages, self._config.length_field: request.max_tokens}
        return own | self._extra({})

    def _common(self, request: GenerateRequest) -> dict[str, Any]:
        config = self._config
        seed = {} if request.seed is None else {"seed": request.seed}
        return {"model": config.model, "temperature": config.temperature, "top_p": config.top_p, **seed}

    def _extra(self, fields: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in (fields | self._config.extra_body).items() if value is not None}

    def _read_tokens(self, said: Any) -> Generation:
        assert self._tokenizer is not None
        choice = said["choices"][0]
        finish = _finish(choice)
        if choice.get("token_ids") is None:
            raise ConfigError(
                f"the server at {self._config.base_url} returns no token ids (vLLM's does, since 0.10.2); set "
                "generator.mode=chat, for methods that continue no prefix"
            )
        tokens = tuple(int(token) for token in choice["token_ids"])
        if not tokens or (finish == "stop" and tokens[-1] not in self._tokenizer.stop_ids):
            raise ValueError("a response that has ended without an end token of generator.tokenizer")
        details = (said.get("usage") or {}).get("prompt_tokens_details") or {}
        return Generation(tokens, finish, int(details.get("cached_tokens") or 0))


def _read_message(said: Any) -> Generation:
    """The text of a chat completion. Thoughts that the server gives apart stand before it in a think block."""
    choice = said["choices"][0]
    message, usage = choice["message"], said.get("usage") or {}
    text = message.get("content") or ""
    if not isinstance(text, str):
        raise TypeError("the content of the message is no text")
    if thoughts := message.get("reasoning_content") or message.get("reasoning"):
        text = f"{thinking.OPEN}{thoughts}{thinking.CLOSE}{text}"
    count = usage.get("completion_tokens")
    cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens")
    return Generation((), _finish(choice), int(cached or 0), text, 0 if count is None else int(count))


def _finish(choice: Any) -> FinishReason:
    reason = choice["finish_reason"]
    if reason == "content_filter":
        raise BadRequest("the server withholds the response (content_filter)")
    if reason == "stop":
        return "stop"
    if reason == "length":
        return "length"
    raise ValueError(f"finish_reason = {reason!r}")
