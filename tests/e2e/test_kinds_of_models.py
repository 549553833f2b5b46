"""Whole runs with a base, an instruct and a reasoning model: every reward is the one computed by hand."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.kernels.thinking import without_thinking
from tests.actors import model_families as families
from tests.actors import tiny_models as tiny
from tests.e2e.conftest import align, candidates, table

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
PROMPTS = [f"w{i} w{i + 1}" for i in range(6)]
CONVERSATION = [{"role": role, "content": f"w{i}"} for i, role in enumerate(("user", "assistant", "user"))]


@dataclass(frozen=True)
class Kind:
    """``template`` of the generator; ``reward`` family and the options it needs."""

    template: str | None
    reward: str
    options: tuple[str, ...] = ()


KINDS = {
    # no chat template anywhere; vLLM has no DeBERTa, so that auto takes transformers
    "base": Kind(None, "deberta-v2", ("data.template=raw", "reward.engine=auto", "reward.template=pair")),
    "instruct": Kind(tiny.TEMPLATE, "gemma3", ("reward.engine=transformers",)),
    "reasoning": Kind(
        tiny.TEMPLATE.replace("<|assistant|>{% endif %}", "<|assistant|><think>{% endif %}"),
        "llama",
        ("reward.engine=transformers",),
    ),
}


def save_generator(directory: Path, template: str | None) -> Path:
    """A Llama whose vocabulary has think tags, special ones; they, too, are drawn at random."""
    from tokenizers import AddedToken
    from transformers import AutoTokenizer

    tiny.save_generator(directory, template=template, vocab_size=tiny.VOCABULARY + 2)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    tokenizer.add_tokens([AddedToken(tag, special=True) for tag in ("<think>", "</think>")])
    tokenizer.save_pretrained(directory)
    return directory


class ModelCard:
    """A reward model called by hand."""

    def __init__(self, directory: Path, *, pair: bool) -> None:
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(directory)
        self._model = AutoModelForSequenceClassification.from_pretrained(directory)
        self._pair = pair

    def score(self, turns: list[dict[str, str]], response: str) -> float:
        import torch

        if self._pair:
            inputs = self._tokenizer([turns[0]["content"]], [response], return_tensors="pt")
        else:
            chat = [*turns, {"role": "assistant", "content": response}]
            ids = self._tokenizer.apply_chat_template(chat, return_tensors="pt", return_dict=True)["input_ids"]
            inputs = {"input_ids": ids}
        with torch.inference_mode():
            return float(self._model(**inputs).logits[0, 0])


@pytest.mark.parametrize("name", KINDS)
def test_a_run(name: str, ray_cluster: None, tmp_path: Path) -> None:
    kind = KINDS[name]
    generator = save_generator(tmp_path / "generator", kind.template)
    reward = families.save_reward(kind.reward, tmp_path / "reward")
    prompts = {f"r{i}": [{"role": "user", "content": text}] for i, text in enumerate(PROMPTS)}
    if kind.template is not None:
        prompts["chat"] = CONVERSATION
    data = tmp_path / "prompts.jsonl"
    data.write_text("".join(json.dumps({"id": i, "prompt": turns}) + "\n" for i, turns in prompts.items()))
    out = tmp_path / "out"
    summary = align(
        f"out={out}",
        f"data.input={data}",
        "generator.engine=transformers",
        f"generator.model={generator}",
        "generator.max_tokens=48",
        f"reward.model={reward}",
        "method.n=4",
        *kind.options,
    )
    assert (summary["results"], summary["rejects"]) == (len(prompts), 0)
    rows = candidates(out)
    assert len(rows) == 4 * len(prompts)
    card = ModelCard(reward, pair="reward.template=pair" in kind.options)
    answers = [without_thinking(row["response"]) for row in rows]
    by_hand = [card.score(prompts[row["id"]], answer) for row, answer in zip(rows, answers, strict=True)]
    assert [row["reward"] for row in rows] == pytest.approx(by_hand, abs=1e-4)
    best = {name: max(row["reward"] for row in rows if row["id"] == name) for name in prompts}
    assert {row["id"]: row["reward"] for row in table(out, "results").to_pylist()} == best
    if name == "reasoning":
        assert all(row["response"].startswith("<think>") for row in rows), "the table keeps the thoughts"
        assert {bool(answer) for answer in answers} == {True, False}, "some were cut in their thoughts"
