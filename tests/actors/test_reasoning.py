"""Reasoning models from tokens to rewards: decoding and tables keep the thoughts, rewards don't see them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from actors.chat_template import ChatTokenizer, ModelText
from actors.fulfil import Fulfiller
from actors.generator import response_text
from actors.pool import Pool
from actors.protocol import ScoreRequest
from actors.scoring import Scorer
from actors.sources import Sources
from actors.spec import RunSpec, make_spec
from pipeline.config import build
from pipeline.driver import Ask
from pipeline.effects import Score
from pipeline.errors import ConfigError
from pipeline.keys import Key, digest
from pipeline.storage.folder import Folder
from pipeline.storage.journal import Replies
from pipeline.storage.schema import CANDIDATES
from pipeline.storage.source import inspect
from pipeline.types import Prompt
from tests.actors import tiny_models as tiny

THINK, END_THINK = tiny.VOCABULARY, tiny.VOCABULARY + 1
W1, W2 = len(tiny.SPECIALS) + 1, len(tiny.SPECIALS) + 2


@pytest.fixture(params=[True, False], ids=["special tags", "ordinary tags"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> ChatTokenizer:
    """One whose think tags are tokens of their own; special ones are left out by ``skip_special_tokens``."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tiny.llama_config(vocab_size=tiny.VOCABULARY + 2).save_pretrained(tmp_path)
    tiny.save_tokenizer(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    saved.add_tokens([AddedToken(tag, special=request.param) for tag in ("<think>", "</think>")])
    saved.save_pretrained(tmp_path)
    assert (saved.decode([THINK, W1], skip_special_tokens=True) == "w1") == request.param
    return ChatTokenizer(ModelText("generator", str(tmp_path)))


def test_decoding_keeps_think_tags_and_leaves_other_special_tokens_out(tokenizer: ChatTokenizer) -> None:
    decoded = tokenizer.decode((THINK, W1, END_THINK, tiny.USER, W2, tiny.TURN))
    assert decoded.split() == ["<think>", "w1", "</think>", "w2"]
    assert tokenizer.decode((tiny.USER, W2, tiny.TURN)) == "w2"


@pytest.mark.parametrize(
    ("prompt_end", "opened"), [((THINK,), True), ((), False), ((THINK, END_THINK), False), ((THINK, W1), False)]
)
def test_a_block_that_the_prompt_opened_begins_the_text(
    tokenizer: ChatTokenizer, prompt_end: tuple[int, ...], opened: bool
) -> None:
    """Else a response that was cut in its thoughts would look like an answer."""
    prompt = (tiny.BOS, tiny.USER, *[W1] * 40, tiny.TURN, tiny.ASSISTANT, *prompt_end)
    assert response_text(tokenizer, prompt, (W1, W2)) == ("<think>w1 w2" if opened else "w1 w2")


class RecordingPool:
    """Answers every request with 0.5, and remembers it."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def start(self) -> None:
        """Nothing to load."""

    def submit(self, request: Any, _row: str, reply: Callable[[Any], None]) -> None:
        self.requests.append(request)
        reply(0.5)


def spec_of(tmp_path: Path, **reward: Any) -> RunSpec:
    data = tmp_path / "prompts.jsonl"
    data.write_text(json.dumps({"prompt": "hi"}) + "\n")
    settings = {
        "out": str(tmp_path / "out"),
        "data": {"input": str(data)},
        "generator": "toy",
        "reward": {"engine": "toy", **reward},
    }
    config = build(settings)
    return make_spec(config, inspect(config.data), Folder(f"{tmp_path}/{reward.get('think', 'default')}"))


@pytest.mark.parametrize(
    ("think", "scored"), [("strip", "so w2"), ("keep", "<think>w1</think> so w2"), (None, "so w2")]
)
def test_rewards_do_not_see_thoughts_and_tables_do(think: str | None, scored: str, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, **({} if think is None else {"think": think}))
    pool, kept, told = RecordingPool(), [], []
    response = "<think>w1</think> so w2"
    scorer = Scorer(spec.config.reward, spec.scorer, cast(Pool, pool))
    sources = Sources(Replies(CANDIDATES.empty_table()), {}, {"reward": scorer})
    fulfiller = Fulfiller(spec, sources, lambda _, reply: told.append(reply), kept.append, Counter())
    ask = Ask(row="r", turn=0, part=0, effect=Score(Key(1, "r"), (response,)))
    fulfiller.dispatch(ask, Prompt("r", "hi", (1, 2), 8))
    assert pool.requests == [ScoreRequest("hi", scored)]
    assert [(row["response"], row["reward"]) for row in kept] == [(response, 0.5)]
    assert told == [0.5]


def test_what_the_reward_sees_belongs_to_its_name(tmp_path: Path) -> None:
    """Rewards of whole responses keep the name that they had before there was a choice."""
    strip, keep = (spec_of(tmp_path, think=think) for think in ("strip", "keep"))
    assert strip.scorer == spec_of(tmp_path).scorer != keep.scorer
    assert keep.scorer == digest(("toy", keep.plan.values["reward.model"])).hex()
    assert (strip.plan.values["reward.think"], strip.generators) == ("strip", keep.generators)


def test_another_word_for_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"reward\.think = 'yes': choose one of strip, keep"):
        spec_of(tmp_path, think="yes")
