"""The openai engine against a server that is busy, down, slow or wrong, and against vLLM's own."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from actors.engines import openai
from actors.protocol import BadRequest, GenerateRequest, Generation
from actors.remote import ServerError, retry_after
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.types import Message
from tests.actors import tiny_models as tiny
from tests.actors.fake_server import FakeServer, completion, message

QUICK: dict[str, Any] = {"backoff_s": 0.001, "retries": 3, "timeout_s": 5.0}
CHAT = (Message("system", "Be brief."), Message("user", 'Ü "quoted" \n?'))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model; the engine needs its tokenizer only."""
    return tiny.save_generator(tmp_path_factory.mktemp("model"))


def config_of(url: str, **options: Any) -> openai.Config:
    return openai.Config(**{"model": "m", "base_url": url, "mode": "chat", **QUICK, **options})


def request_of(config: openai.Config, content: Any = CHAT, **more: Any) -> GenerateRequest:
    prompt = openai.load_tokenizer(config).render(content, "auto")
    return GenerateRequest(tuple(prompt), **{"max_tokens": 9, "seed": 7, **more})


def with_engine(
    server: FakeServer, use: Callable[[openai.OpenAIEngine, openai.Config], Awaitable[Any]], **options: Any
) -> Any:
    """Runs a fake server and an engine that has started, and uses it."""

    async def main() -> Any:
        async with server.running():
            config = config_of(server.url, **options)
            engine = openai.create(config)
            try:
                await engine.start()
                return await use(engine, config)
            finally:
                await engine.stop()

    return asyncio.run(main())


def generate(server: FakeServer, **options: Any) -> Any:
    async def use(engine: openai.OpenAIEngine, config: openai.Config) -> Generation:
        return await engine.generate(request_of(config))

    return with_engine(server, use, **options)


# Chat


def test_chat_sends_the_messages_and_takes_the_text() -> None:
    server = FakeServer(message("Four."))
    assert generate(server, temperature=0.5) == Generation((), "stop", 0, "Four.", 3)
    assert server.asked == [
        {
            "model": "m",
            "messages": [{"role": m.role, "content": m.content} for m in CHAT],
            "max_tokens": 9,
            "temperature": 0.5,
            "top_p": 1.0,
            "seed": 7,
        }
    ]


def test_fields_can_be_renamed_added_and_left_out() -> None:
    server = FakeServer(message("Four."))
    generate(server, length_field="max_completion_tokens", extra_body={"reasoning_effort": "low", "x": None})
    assert server.asked[0]["max_completion_tokens"] == 9
    assert server.asked[0]["reasoning_effort"] == "low"
    assert not {"max_tokens", "x"} & server.asked[0].keys()


def test_thoughts_that_come_apart_stand_in_a_think_block() -> None:
    for name in ("reasoning", "reasoning_content"):
        assert generate(FakeServer(message("Four.", **{name: "2+2"}))).text == "<think>2+2</think>Four."
    assert generate(FakeServer(message(None, "length"))).text == ""


def test_the_api_key_comes_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    server = FakeServer(message("Four."))
    monkeypatch.setenv("SOME_KEY", "secret")
    generate(server, api_key_env="SOME_KEY")
    assert server.headers[0]["Authorization"] == "Bearer secret"
    monkeypatch.delenv("SOME_KEY")
    with pytest.raises(ConfigError, match="SOME_KEY"):
        openai.create(config_of("http://x", api_key_env="SOME_KEY"))


def test_a_prefix_cannot_be_continued_in_chat() -> None:
    async def use(engine: openai.OpenAIEngine, config: openai.Config) -> None:
        with pytest.raises(BadRequest, match="mode=completions"):
            await engine.generate(request_of(config, prefix_tokens=2))

    with_engine(FakeServer(message("x")), use)


# What goes wrong

TROUBLE: dict[str, list[Any]] = {
    "busy": [429, (429, {"Retry-After": "0.01"}), (503, {"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"})],
    "broken": [500, 502, 504],
    "garbage": ["<html>", {"choices": []}, {"error": "x"}],
    "no JSON object": ["[1, 2", "null", '"text"'],
    "half an answer": [{"choices": [{"finish_reason": "stop"}]}, message("x", "abort"), {"choices": [None]}],
}


@pytest.mark.parametrize("name", TROUBLE)
def test_trouble_that_passes_is_waited_for(name: str) -> None:
    server = FakeServer(message("Four.")).then(TROUBLE[name])
    assert generate(server).text == "Four."
    assert len(server.asked) == 4
    assert server.asked[0] == server.asked[3]


@pytest.mark.parametrize(("answer", "says"), [(429, "429"), (500, "it says why"), ("<html>", "<html>")])
def test_trouble_that_stays_ends_in_an_error_that_says_what_it_was(answer: Any, says: str) -> None:
    server = FakeServer(answer)
    with pytest.raises(ServerError, match="in 4 tries") as error:
        generate(server)
    assert says in str(error.value)
    assert len(server.asked) == 4


def test_a_server_that_hangs_is_asked_again() -> None:
    server = FakeServer(message("Four.")).then(["hang", "hang"])
    assert generate(server, timeout_s=0.3).text == "Four."
    assert len(server.asked) == 3


def test_a_request_that_is_refused_is_not_repeated() -> None:
    for status in (400, 404, 422):
        server = FakeServer(status)
        with pytest.raises(BadRequest, match="it says why"):
            generate(server)
        assert len(server.asked) == 1
    with pytest.raises(BadRequest, match="content_filter"):
        generate(FakeServer(message("", "content_filter")))
    with pytest.raises(ConfigError, match="API key"):
        generate(FakeServer(401))


def test_a_server_that_is_not_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, but nobody listens
        engine = openai.create(config_of(f"http://127.0.0.1:{taken.getsockname()[1]}/v1", retries=1))

        async def start() -> None:
            try:
                await engine.start()
            finally:
                await engine.stop()

        with pytest.raises(ServerError, match=r"generator\.base_url = http://127"):
            asyncio.run(start())


def test_a_model_that_the_server_does_not_have() -> None:
    with pytest.raises(ConfigError, match="it has other"):
        generate(FakeServer(message("x"), models={"data": [{"id": "other"}]}))
    assert generate(FakeServer(message("x"), models=404)).text == "x"  # some servers list none


def test_no_more_requests_at_once_than_allowed() -> None:
    async def use(engine: openai.OpenAIEngine, config: openai.Config) -> None:
        await asyncio.gather(*(engine.generate(request_of(config, seed=i)) for i in range(40)))
        assert engine.progress() == 41

    server = FakeServer(message("x"))
    with_engine(server, use, concurrency=3, requests_per_s=2000.0)
    assert server.most_at_once <= 3
    assert sorted(asked["seed"] for asked in server.asked) == list(range(40))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0),
        ("2", 2),
        ("0.5", 0.5),
        ("-3", 0),
        ("1e9", 600),
        ("nan", 0),
        ("soon", 0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
    ],
)
def test_retry_after(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


# Completions


def test_completions_send_and_take_token_ids(model: Path) -> None:
    server = FakeServer(completion([20, tiny.TURN], "stop"))
    assert generate(server, mode="completions", tokenizer=str(model)) == Generation((20, tiny.TURN), "stop", 2)
    asked = server.asked[1]
    assert asked["prompt"][0] == tiny.BOS
    assert asked["stop_token_ids"] == [tiny.EOS, tiny.TURN]
    neutral = {k: asked[k] for k in ("top_k", "min_p", "repetition_penalty", "add_special_tokens", "return_token_ids")}
    assert neutral == {
        "top_k": 0,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "add_special_tokens": False,
        "return_token_ids": True,
    }
    generate(server, mode="completions", tokenizer=str(model), extra_body={"top_k": None})
    assert "top_k" not in server.asked[-1]


def test_completions_never_ask_for_more_than_the_context(model: Path) -> None:
    async def use(engine: openai.OpenAIEngine, config: openai.Config) -> None:
        await engine.generate(GenerateRequest((20,) * 250, 100))
        with pytest.raises(BadRequest, match="context is 256"):
            await engine.generate(GenerateRequest((20,) * 256, 1))

    server = FakeServer(completion([20]))
    with_engine(server, use, mode="completions", tokenizer=str(model))
    assert server.asked[-1]["max_tokens"] == 6


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (completion(None), ConfigError, "generator.mode=chat"),
        (400, ConfigError, "generator.extra_body"),
        (completion([20, 21], "stop"), ServerError, "end token"),
        (completion([]), ServerError, "end token"),
    ],
)
def test_a_server_without_token_ids_is_found_at_the_start(
    model: Path, answer: Any, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        generate(FakeServer(answer), mode="completions", tokenizer=str(model))


# Configuration


def settings(**generator: Any) -> dict[str, Any]:
    section = {"engine": "openai", "model": "m", "base_url": "http://x/v1", "mode": "chat", **generator}
    return {"out": "x", "data": {"input": "p"}, "reward": "toy", "generator": section}


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"base_url": "localhost"}, "generator.base_url = 'localhost'"),
        ({"mode": "text"}, "choose one of completions, chat"),
        ({"extra_body": {"temperature": 0}}, "generator.extra_body.temperature"),
        ({"timeout_s": 700}, "below generator.hang_s"),
        ({"concurrency": 0}, "generator.concurrency = 0"),
        ({"requests_per_s": 0}, "generator.requests_per_s = 0"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build(settings(**wrong))


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ({"base_url": ""}, "generator.base_url is not set"),
        ({"model": ""}, "generator.model is not set"),
        ({"mode": "completions"}, "generator.tokenizer is not set"),
        ({"mode": "completions", "tokenizer": "./none"}, "generator.tokenizer='./none' is no directory"),
    ],
    ids=str,
)
def test_what_is_missing_is_said_before_anything_starts(missing: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        openai.load_tokenizer(cast(openai.Config, build(settings(**missing)).generator))


@pytest.mark.parametrize("method", [{"name": "qalign", "beta": 1.0}, {"name": "suffix_resampling"}])
def test_methods_that_continue_prefixes_need_token_ids(method: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"generator\.mode = chat"):
        build({**settings(), "method": method})
    tokens = {"mode": "completions", "tokenizer": "t"}
    build({**settings(**tokens), "method": method})
    with pytest.raises(ConfigError, match=r"generator\.extra_body\.presence_penalty is refused"):
        build({**settings(**tokens, extra_body={"presence_penalty": 1.0}), "method": method})


def test_the_name_of_a_draw_says_which_model_but_not_where() -> None:
    def name(**options: Any) -> str:
        return openai.load_tokenizer(config_of(**{"url": "http://a/v1", **options})).fingerprint

    assert name() == name(url="http://b/v1") == name(timeout_s=9)
    others = [name(model="n"), name(version="2"), name(extra_body={"x": 1})]
    assert len({name(), *others}) == 4


def test_raw_prompts_are_refused_in_chat() -> None:
    with pytest.raises(BadRequest, match=r"data\.template=chat"):
        openai.load_tokenizer(config_of("http://x")).render("a", "raw")


# vLLM's own server


@pytest.fixture(scope="module")
def vllm_url(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """vLLM's server on the tiny model, on a free port of the loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("vllm") / "log"
    command = f"-m vllm.entrypoints.openai.api_server --model {model} --served-model-name m --host 127.0.0.1"
    options = f"--port {port} --dtype float32 --enforce-eager --max-model-len {tiny.CONTEXT} --max-num-seqs 16"
    environment = {**os.environ, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, *f"{command} {options}".split()],
            env=environment,
            stdout=file,
            stderr=file,
            start_new_session=True,
        )
    try:
        _await_server(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _await_server(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(400):
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(1.0)
    raise AssertionError(log.read_text()[-3000:])


def against_vllm(url: str, requests: list[GenerateRequest], **options: Any) -> tuple[dict[str, Any], list[Generation]]:
    async def main() -> tuple[dict[str, Any], list[Generation]]:
        engine = openai.create(config_of(url, **options))
        try:
            settings = await engine.start()
            return settings, list(await asyncio.gather(*(engine.generate(r) for r in requests)))
        finally:
            await engine.stop()

    return asyncio.run(main())


@pytest.mark.vllm
@pytest.mark.slow
@pytest.mark.parametrize("mode", openai.MODES)
def test_vllm_serves_it(vllm_url: str, model: Path, mode: str) -> None:
    options: dict[str, Any] = {"mode": mode, "tokenizer": str(model), "timeout_s": 120.0}
    if mode == "chat":  # the model's generation_config.json says top_k = 1, which the server would take over
        options["extra_body"] = {"top_k": 0}
    requests = [request_of(config_of(vllm_url, **options), "w1 w2 w3", max_tokens=40, seed=s) for s in (1, 2, 1, 3)]
    settings, found = against_vllm(vllm_url, requests, **options)
    assert settings["served"] == ["m"]
    assert found[0] == found[2]
    assert len({repr(f) for f in found}) == 3
    for generation in found:
        assert 1 <= generation.drawn <= 40
        if mode == "completions":
            assert (generation.finish_reason == "stop") == (generation.token_ids[-1] in (tiny.EOS, tiny.TURN))
        assert (generation.text is None) == (mode == "completions")
    if mode == "completions":
        long = GenerateRequest((tiny.BOS, *[20] * 254), 50, 1)
        assert len(against_vllm(vllm_url, [long], **options)[1][0].token_ids) == 1
