"""Prompts become token ids once, through the model's own template, with one BOS at most."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.chat_template import ChatTokenizer, ModelText, one_bos
from actors.protocol import BadRequest
from pipeline.errors import ConfigError
from pipeline.types import Message
from tests.actors import tiny_models as tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_generator(tmp_path_factory.mktemp("chat"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model, without a chat template."""
    return tiny.save_generator(tmp_path_factory.mktemp("plain"), template=None)


def tokenizer(model: Path, chat_template: str | None = None, max_model_len: int | None = None) -> ChatTokenizer:
    return ChatTokenizer(ModelText("generator", str(model), chat_template, max_model_len))


def word(i: int) -> int:
    return len(tiny.SPECIALS) + i


def test_a_text_is_one_turn_of_the_user(model: Path) -> None:
    expected = [tiny.BOS, tiny.USER, word(1), word(2), tiny.TURN, tiny.ASSISTANT]
    for content in ("w1 w2", (Message("user", "w1 w2"),)):
        for template in ("auto", "chat"):
            assert tokenizer(model).render(content, template) == expected


def test_a_conversation(model: Path) -> None:
    content = (Message("system", "w0"), Message("user", "w1"), Message("assistant", "w2"), Message("user", "w3"))
    ids = tokenizer(model).render(content, "auto")
    assert ids.count(tiny.BOS) == 1
    assert ids[1:] == [
        *(tiny.SYSTEM, word(0), tiny.TURN, tiny.USER, word(1), tiny.TURN),
        *(tiny.ASSISTANT, word(2), tiny.TURN, tiny.USER, word(3), tiny.TURN, tiny.ASSISTANT),
    ]


def test_raw_adds_special_tokens_once(model: Path, plain: Path) -> None:
    expected = [tiny.BOS, word(1), word(2)]
    assert tokenizer(model).render("w1 w2", "raw") == expected
    assert tokenizer(plain).render("w1 w2", "auto") == expected
    assert tokenizer(plain).render("<s> w1 w2", "auto") == expected, "a BOS in the text itself is not doubled"
    assert tokenizer(plain).render((Message("user", "w1 w2"),), "raw") == expected


@pytest.mark.parametrize(
    ("ids", "expected"), [([1, 1, 5], [1, 5]), ([1, 1, 1], [1]), ([1, 5, 1, 1], [1, 5, 1, 1]), ([], [])]
)
def test_one_bos(ids: list[int], expected: list[int]) -> None:
    assert one_bos(ids, 1) == expected
    assert one_bos(ids, None) == ids


def test_what_cannot_be_rendered_is_a_bad_request(model: Path, plain: Path) -> None:
    with pytest.raises(BadRequest, match=r"data\.template=raw"):
        tokenizer(plain).render("w1", "chat")
    with pytest.raises(BadRequest, match="conversation of 2 turns"):
        tokenizer(plain).render((Message("system", "w0"), Message("user", "w1")), "auto")
    with pytest.raises(BadRequest, match=r"\(user, tool\): tools are not supported"):
        tokenizer(model).render((Message("user", "w1"), Message("tool", "w2")), "chat")
    with pytest.raises(BadRequest, match="no turns"):
        tokenizer(model).render((), "chat")
    with pytest.raises(ConfigError, match="auto, chat or raw"):
        tokenizer(model).render("w1", "Chat")


def test_another_template(model: Path, plain: Path, tmp_path: Path) -> None:
    path = tmp_path / "short.jinja"
    path.write_text("{{ bos_token }}{{ bos_token }}<|user|> {{ messages[-1].content }}")
    for directory in (model, plain):
        assert tokenizer(directory, str(path)).render("w1", "chat") == [tiny.BOS, tiny.USER, word(1)]
    assert tokenizer(model, str(path)).fingerprint != tokenizer(model).fingerprint
    with pytest.raises(ConfigError, match=r"generator\.chat_template='/no/file'"):
        tokenizer(model, "/no/file")


def test_end_tokens_of_all_sources(model: Path, plain: Path) -> None:
    assert tokenizer(model).stop_ids == (tiny.EOS, tiny.TURN)
    config = json.loads((plain / "config.json").read_text())
    (plain / "generation_config.json").unlink(missing_ok=True)
    (plain / "config.json").write_text(json.dumps(config | {"eos_token_id": 9}))
    assert tokenizer(plain).stop_ids == (tiny.EOS, 9)


def test_decoding_leaves_special_tokens_out(model: Path) -> None:
    assert tokenizer(model).decode((word(1), tiny.USER, word(2), tiny.TURN)) == "w1 w2"
    assert tokenizer(model).decode(()) == ""


def test_context(model: Path) -> None:
    assert tokenizer(model).context == tiny.CONTEXT
    assert tokenizer(model, max_model_len=64).context == 64
    assert tokenizer(model).vocabulary == tiny.VOCABULARY


def test_prompts_that_would_kill_an_engine(model: Path) -> None:
    for ids in ((), (1,) * tiny.CONTEXT, (1, tiny.VOCABULARY), (-1,)):
        with pytest.raises(BadRequest):
            tokenizer(model).check(ids)
    tokenizer(model).check((1,) * (tiny.CONTEXT - 1))


def test_a_tokenizer_is_what_was_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``AutoTokenizer`` makes byte-level BPE of any tokenizer of a Qwen2 model; the words of this one would be lost."""
    from transformers import AutoTokenizer, Qwen2Config

    Qwen2Config(vocab_size=tiny.VOCABULARY, max_position_embeddings=tiny.CONTEXT).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)("w1 w2", add_special_tokens=False)["input_ids"] == []
    expected = [tiny.BOS, tiny.USER, word(1), word(2), tiny.TURN, tiny.ASSISTANT]
    assert tokenizer(tmp_path).render("w1 w2", "chat") == expected
    assert "tokenizer.json is used instead" in caplog.text


def test_a_model_that_does_not_load(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"generator\.model=.* cannot be loaded"):
        tokenizer(tmp_path)
