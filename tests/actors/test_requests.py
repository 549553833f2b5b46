"""What reaches a model, one case per kind of tokenizer, template and prompt: one BOS at most, and no guess."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from actors.chat_template import ChatTokenizer, ModelText
from actors.pairs import PairRenderer
from actors.protocol import BadRequest
from pipeline.types import Content, Message
from tests.actors import tiny_models as tiny

TEMPLATES = {
    "own": tiny.TEMPLATE,
    "without BOS": tiny.TEMPLATE.removeprefix("{{ bos_token }}"),
    "two BOS": "{{ bos_token }}" + tiny.TEMPLATE,
    # as Gemma's
    "no system": tiny.TEMPLATE.replace("'tool'", "'system'").replace("tools are not", "System role not"),
    # as Mistral's: roles must alternate
    "alternating": tiny.TEMPLATE.replace(
        "{% if m.role == 'tool' %}{{ raise_exception('tools are not supported') }}{% endif %}",
        "{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate user/assistant') }}{% endif %}",
    ),
    "none": None,
}
ONE: Content = "w1"
MARKED: Content = "<s> w1"
SYSTEM: Content = (Message("system", "w0"), Message("user", "w1"))
CHAT: Content = (Message("user", "w1"), Message("assistant", "w2"), Message("user", "w3"))
TWO_USERS: Content = (Message("user", "w1"), Message("user", "w2"))


@dataclass(frozen=True)
class Case:
    """``bos``: whether the tokenizer has one and puts it before every text. ``expected``: words, or a message."""

    template: str
    content: Content
    expected: str
    bos: bool = True
    mode: str = "auto"


GENERATOR = {
    "template and tokenizer have a BOS": Case("own", ONE, "<s> <|user|> w1 <|turn|> <|assistant|>"),
    "the template has none": Case("without BOS", ONE, "<|user|> w1 <|turn|> <|assistant|>"),
    "the template has two": Case("two BOS", ONE, "<s> <|user|> w1 <|turn|> <|assistant|>"),
    "the tokenizer has none": Case("own", ONE, "<|user|> w1 <|turn|> <|assistant|>", bos=False),
    "raw": Case("own", ONE, "<s> w1", mode="raw"),
    "raw, and the text has a BOS": Case("own", MARKED, "<s> w1", mode="raw"),
    "raw, and the tokenizer has none": Case("own", ONE, "w1", bos=False, mode="raw"),
    "a base model": Case("none", ONE, "<s> w1"),
    "a base model without a BOS": Case("none", ONE, "w1", bos=False),
    "a base model, and a list of one turn": Case("none", (Message("user", "w1"),), "<s> w1"),
    "a base model, and a conversation": Case("none", CHAT, "error: conversation of 3 turns .* generator.chat_template"),
    "a base model that is to chat": Case("none", ONE, "error: no chat template; set data.template=raw", mode="chat"),
    "a system turn": Case("own", SYSTEM, "<s> <|system|> w0 <|turn|> <|user|> w1 <|turn|> <|assistant|>"),
    "several turns": Case(
        "own", CHAT, "<s> <|user|> w1 <|turn|> <|assistant|> w2 <|turn|> <|user|> w3 <|turn|> <|assistant|>"
    ),
    "a template without system role": Case(
        "no system", SYSTEM, r"error: generator's chat template rejects .*\(system, user\): System role not supported"
    ),
    "a template without system role, several turns": Case(
        "no system", CHAT, "<s> <|user|> w1 <|turn|> <|assistant|> w2 <|turn|> <|user|> w3 <|turn|> <|assistant|>"
    ),
    "roles that must alternate": Case("alternating", TWO_USERS, "error: roles must alternate"),
    "the remedy": Case("alternating", TWO_USERS, "error: another template with generator.chat_template"),
}
REWARD = {
    "template and tokenizer have a BOS": Case("own", ONE, "<s> <|user|> w1 <|turn|> <|assistant|> w9 <|turn|>"),
    "the template has none": Case("without BOS", ONE, "<|user|> w1 <|turn|> <|assistant|> w9 <|turn|>"),
    "the template has two": Case("two BOS", ONE, "<s> <|user|> w1 <|turn|> <|assistant|> w9 <|turn|>"),
    "the tokenizer has none": Case("own", ONE, "<|user|> w1 <|turn|> <|assistant|> w9 <|turn|>", bos=False),
    "a system turn": Case("own", SYSTEM, "<s> <|system|> w0 <|turn|> <|user|> w1 <|turn|> <|assistant|> w9 <|turn|>"),
    "several turns": Case(
        "own", CHAT, "<s> <|user|> w1 <|turn|> <|assistant|> w2 <|turn|> <|user|> w3 <|turn|> <|assistant|> w9 <|turn|>"
    ),
    "a template without system role": Case(
        "no system", SYSTEM, r"error: reward's chat template rejects .*\(system, user, assistant\): System role not"
    ),
    "two texts": Case("none", ONE, "w1 w9", bos=False, mode="pair"),
    "two texts, several turns": Case("none", CHAT, "error: one user turn", bos=False, mode="pair"),
}


def check(case: Case, ids: list[int]) -> None:
    assert [(tiny.SPECIALS + tiny.WORDS)[i] for i in ids] == case.expected.split()
    assert ids.count(tiny.BOS) <= 1


@pytest.mark.parametrize("name", GENERATOR)
def test_a_request_to_a_generator(name: str, tmp_path: Path) -> None:
    case = GENERATOR[name]
    tiny.llama_config(architectures=["LlamaForCausalLM"]).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path, TEMPLATES[case.template], bos=case.bos)
    tokenizer = ChatTokenizer(ModelText("generator", str(tmp_path)))
    if case.expected.startswith("error: "):
        with pytest.raises(BadRequest, match=case.expected.removeprefix("error: ")):
            tokenizer.render(case.content, case.mode)
    else:
        check(case, tokenizer.render(case.content, case.mode))


@pytest.mark.parametrize("name", REWARD)
def test_a_request_to_a_reward_model(name: str, tmp_path: Path) -> None:
    case = REWARD[name]
    tiny.llama_config(num_labels=1, architectures=["LlamaForSequenceClassification"]).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path, TEMPLATES[case.template], bos=case.bos)
    renderer = PairRenderer(ModelText("reward", str(tmp_path)), case.mode)
    if case.expected.startswith("error: "):
        with pytest.raises(BadRequest, match=case.expected.removeprefix("error: ")):
            renderer.render(case.content, "w9")
    else:
        check(case, renderer.render(case.content, "w9").ids)


def test_a_template_may_open_every_exchange_with_a_bos(tmp_path: Path) -> None:
    """Llama 2's does, and the model was trained on it: what is taken out is a second one at the front."""
    tiny.llama_config().save_pretrained(tmp_path)
    template = "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token }}{% endif %}{{ m.content }} {% endfor %}"
    tiny.save_tokenizer(tmp_path, template)
    ids = ChatTokenizer(ModelText("generator", str(tmp_path))).render(CHAT, "chat")
    words = [len(tiny.SPECIALS) + i for i in (1, 2, 3)]
    assert ids == [tiny.BOS, words[0], words[1], tiny.BOS, words[2]]
