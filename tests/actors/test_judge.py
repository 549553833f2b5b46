"""Generative judges as rewards: scores that are read, asked for again, and missing; through a server and on Ray."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from actors.footprint import least_memory
from actors.judging import verdict_in
from actors.protocol import BadRequest, ScoreRequest
from actors.rewards import judge
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.types import Message
from tests.actors.fake_server import FakeServer, message
from tests.actors.tiny_models import save_generator

REQUEST = ScoreRequest("What is 2 + 2?", "Four {x}.")
DATA = {"input": "p", "reference": "baseline"}


def config_of(url: str = "http://x/v1", **options: Any) -> judge.Config:
    server = {"engine": "openai", "model": "m", "base_url": url, "mode": "chat", "backoff_s": 0.001, "retries": 1}
    section = {"engine": "judge", **options, "generator": {**server, **options.get("generator", {})}}
    run = build({"out": "x", "data": DATA, "generator": "toy", "reward": section})
    assert isinstance(run.reward, judge.Config)
    return run.reward


def score(
    answers: list[Any], request: ScoreRequest = REQUEST, *, usual: Any = 500, **options: Any
) -> tuple[float, FakeServer]:
    """The reward by a judge who gives these answers, and what it was asked."""

    async def main() -> tuple[float, FakeServer]:
        async with FakeServer(usual).then(answers).running() as server:
            engine = judge.create(config_of(server.url, **options))
            try:
                await engine.start()
                return await engine.score(request), server
            finally:
                await engine.stop()

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("said", "reward"),
    [
        ("Score: 7", 7.0),
        ("It is right.\n**Score:** 8.5", 8.5),
        ("score 3\nNo wait.\nScore: 4", 4.0),
        ("Score = 10/10", 10.0),
        ("<think>Score: 2</think>Score: 9", 9.0),
    ],
)
def test_a_score_is_read(said: str, reward: float) -> None:
    found, server = score([message(said)])
    assert found == reward
    (asked,) = server.asked
    text = asked["messages"][0]["content"]
    assert "What is 2 + 2?" in text
    assert "Four {x}." in text


def test_an_answer_without_a_score_is_asked_for_again_with_another_seed() -> None:
    found, server = score([message("It is good."), message("Score: 70"), message("Score: 6")])
    assert found == 6.0
    assert len({asked["seed"] for asked in server.asked}) == 3


def test_a_judge_who_gives_no_score_costs_the_row_and_its_text_is_kept() -> None:
    with pytest.raises(BadRequest, match=r"no score from 1 to 10 in 2 tries.*'Good work\.'"):
        score([message("Score: 11"), message("Good work.")], tries=2)


def test_several_samples_are_averaged() -> None:
    found, server = score([message("Score: 6"), message("Score: 9")], samples=2)
    assert found == 7.5
    assert len({asked["seed"] for asked in server.asked}) == 2


def test_the_same_response_is_asked_about_with_the_same_seed() -> None:
    seeds = [score([message("Score: 6")])[1].asked[0]["seed"] for _ in range(2)]
    other = score([message("Score: 6")], ScoreRequest("What is 2 + 2?", "Five."))[1].asked[0]["seed"]
    assert seeds[0] == seeds[1] != other


def test_conversations_are_quoted_with_their_roles() -> None:
    content = (Message("system", "Be brief."), Message("user", "2 + 2?"))
    _, server = score([message("Score: 6")], ScoreRequest(content, "Four."))
    assert "system: Be brief.\n\nuser: 2 + 2?" in server.asked[0]["messages"][0]["content"]


def test_a_pair_that_is_too_long_for_the_judge_costs_its_row() -> None:
    with pytest.raises(BadRequest, match="whose context is 100"):
        score([message("Score: 6")], generator={"max_model_len": 100})


def test_what_names_a_reward() -> None:
    name = judge.fingerprint(config_of())
    assert judge.fingerprint(config_of("http://elsewhere/v1", replicas=3, generator={"timeout_s": 9})) == name
    changes: list[dict[str, Any]] = [
        {"prompt": "{question} {response}"},
        {"pattern": "(.)"},
        {"highest": 5},
        {"samples": 2},
        {"generator": {"model": "n"}},
        {"generator": {"temperature": 0.5}},
        {"generator": {"max_tokens": 5}},
    ]
    assert len({name, *(judge.fingerprint(config_of(**c)) for c in changes)}) == 1 + len(changes)


def by_labels(model: Path, **options: Any) -> judge.Config:
    generator = {"engine": "transformers", "model": str(model), **options.pop("generator", {})}
    section = {"engine": "judge", "read": "labels", "least": 0.0, **options, "generator": generator}
    run = build({"out": "x", "data": DATA, "generator": "toy", "reward": section})
    assert isinstance(run.reward, judge.Config)
    return run.reward


async def scores(config: judge.Config, requests: list[ScoreRequest]) -> list[float]:
    engine = judge.create(config)
    try:
        await engine.start()
        return list(await asyncio.gather(*map(engine.score, requests)))
    finally:
        await engine.stop()


REQUESTS = [ScoreRequest("w1 w2?", "w3 w4"), ScoreRequest("w1 w2?", "w5 " * 9), ScoreRequest("w7", "")]
LABELS = {"w10": 1.0, "w11": 0.25, "w12": -2.0}


def by_hand(model: Path, config: judge.Config, request: ScoreRequest) -> tuple[float, float]:
    """The reward from the model's own logits, and the labels' share of the probability."""
    return of_text(model, config, question=request.content, response=request.response)


def of_text(model: Path, config: judge.Config, **fields: Any) -> tuple[float, float]:
    """The same for the task with these fields."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(model), AutoModelForCausalLM.from_pretrained(model)
    text = (config.compare_label_prompt if config.compare else config.label_prompt).format(**fields)
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    ids = [*ids, *tokenizer(config.lead, add_special_tokens=False)["input_ids"]]
    with torch.inference_mode():
        law = network(torch.tensor([ids])).logits[0, -1].double().softmax(-1)
    p = [float(law[tokenizer.convert_tokens_to_ids(label)]) for label in config.values]
    return sum(a * b for a, b in zip(p, config.values.values(), strict=True)) / sum(p), sum(p)


@pytest.mark.parametrize("lead", ["", "w20 w21 "])
def test_labels_are_weighed_by_the_judges_own_probabilities(tmp_path: Path, lead: str) -> None:
    """Whatever the temperature and top_p of its draws, and whoever is in the batch."""
    model = save_generator(tmp_path)
    config = by_labels(model, labels=LABELS, lead=lead, generator={"temperature": 0.3, "top_p": 0.5})
    found = asyncio.run(scores(config, REQUESTS))
    expected = [by_hand(model, config, request)[0] for request in REQUESTS]
    assert found == pytest.approx(expected, abs=1e-6)
    assert len(set(found)) == len(REQUESTS)


def test_a_judge_whose_answers_begin_otherwise_costs_the_row(tmp_path: Path) -> None:
    model = save_generator(tmp_path)
    share = by_hand(model, by_labels(model, labels=LABELS), REQUESTS[0])[1]
    asyncio.run(scores(by_labels(model, labels=LABELS, least=0.9 * share), REQUESTS[:1]))
    with pytest.raises(BadRequest, match=rf"w10, w11, w12 only {share:.2%} of the probability"):
        asyncio.run(scores(by_labels(model, labels=LABELS, least=1.1 * share), REQUESTS[:1]))


@pytest.mark.parametrize("labels", [{"w1": 1.0, "w2 w3": 0.0}, {"w1": 1.0, "": 0.0}, {"w1": 1.0, "unknown": 0.0}])
def test_labels_of_several_tokens_are_named_before_anything_is_loaded(tmp_path: Path, labels: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError, match=r"reward\.labels: '(w2 w3|unknown)?' after reward\.lead = '' is not one token"
    ):
        judge.fingerprint(by_labels(save_generator(tmp_path), labels=labels))


def test_what_names_a_reward_by_labels(tmp_path: Path) -> None:
    model = save_generator(tmp_path)
    name = judge.fingerprint(by_labels(model, labels=LABELS))
    assert judge.fingerprint(by_labels(model, labels=LABELS, samples=3, pattern="(.)", least=0.5)) == name
    others: list[dict[str, Any]] = [
        {"labels": {**LABELS, "w10": 2.0}},
        {"labels": LABELS, "lead": "w30 "},
        {"labels": LABELS, "label_prompt": "{question} {response}"},
        {"labels": LABELS, "read": "text"},
    ]
    assert len({name, *(judge.fingerprint(by_labels(model, **o)) for o in others)}) == 1 + len(others)


PAIR = ScoreRequest("What is 2 + 2?", "Four.", "It is 4.")


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two responses in the order in which a judge was shown them."""
    text = body["messages"][0]["content"].split("=== Task")[0]
    first, second = text.split("=== Response A ===")[1].split("=== Response B ===")
    return first.strip(), second.strip()


def by(rule: Callable[[str, str], str]) -> Callable[[dict[str, Any]], Any]:
    """A judge who says by this rule which of two texts is better, at any place of its script."""
    return lambda body: message(f"I looked.\nVerdict: {rule(*shown(body))}")


@pytest.mark.parametrize(
    ("rule", "reward"),
    [
        (lambda first, second: "A", 0.5),
        (lambda first, second: "B", 0.5),
        (lambda first, second: "A" if first == PAIR.response else "B", 1.0),
        (lambda first, second: "B" if first == PAIR.response else "A", 0.0),
        (lambda first, second: "tie", 0.5),
        (lambda first, second: "A" if first == PAIR.response else "tie", 0.75),
        (lambda first, second: "tie" if first == PAIR.response else "A", 0.25),
    ],
    ids=["likes the first", "likes the second", "wins", "loses", "ties", "wins as first only", "loses as second only"],
)
def test_a_place_is_worth_nothing(rule: Callable[[str, str], str], reward: float) -> None:
    found, server = score([], PAIR, usual=by(rule), compare=True)
    assert found == reward
    pair = (PAIR.response, PAIR.reference)
    assert {shown(asked) for asked in server.asked} == {pair, pair[::-1]}
    assert all("What is 2 + 2?" in asked["messages"][0]["content"] for asked in server.asked)


@pytest.mark.parametrize(
    ("said", "worth"),
    [
        ("Verdict: A", 1.0),
        ("**Verdict:** Response A", 1.0),
        ("verdict B, no.\nVerdict: [[A]]", 1.0),
        ("<think>Verdict: B</think>Verdict: A.", 1.0),
        ("Verdict: a tie", 0.5),
        ("Verdict: A tie.", 0.5),
        ("VERDICT: Tie", 0.5),
        ("Verdict: B", 0.0),
        ("Verdict: a good answer", None),
        ("Verdict: Both", None),
        ("A", None),
        ("", None),
    ],
)
def test_a_verdict_is_read(said: str, worth: float | None) -> None:
    config = config_of(compare=True)
    assert verdict_in(said, re.compile(config.compare_pattern), {**config.values, "": 1.0}) == worth


def test_a_verdict_is_asked_for_again_in_each_order_and_its_lack_costs_the_row() -> None:
    found, server = score([message("Hm."), message("Hm.")], PAIR, usual=by(lambda a, b: "A"), compare=True, tries=2)
    assert (found, len(server.asked), len({asked["seed"] for asked in server.asked})) == (0.5, 4, 4)
    only_first = by(lambda first, second: "A" if first == PAIR.response else "neither")
    with pytest.raises(
        BadRequest, match=r"no verdict \(one of A, B, tie\) in 2 tries .*'I looked\.\\nVerdict: neither'"
    ):
        score([], PAIR, usual=only_first, compare=True, tries=2)


def test_several_samples_of_both_orders_are_averaged() -> None:
    found, server = score([message("Verdict: A")] * 3, PAIR, usual=message("Verdict: B"), compare=True, samples=2)
    assert (found, len(server.asked)) in ((0.25, 4), (0.75, 4)), "three of four for the first place"


def test_verdicts_may_have_other_names_and_worth() -> None:
    labels = {"X": 0.0, "Y": 0.8}
    options = {"compare": True, "compare_pattern": "Verdict: (.)", "labels": labels}
    found, _ = score([], PAIR, usual=by(lambda first, second: "Y" if first == PAIR.response else "X"), **options)
    assert found == pytest.approx((0.8 + 1.0) / 2)


def test_thoughts_of_the_other_response_are_not_shown() -> None:
    thought = ScoreRequest("q", "Four.", "<think>hm</think>It is 4.")
    for think, texts in (("strip", {"Four.", "It is 4."}), ("keep", {"Four.", thought.reference})):
        _, server = score([], thought, usual=by(lambda a, b: "A"), compare=True, think=think)
        assert set(shown(server.asked[0])) == texts


def test_there_must_be_a_response_to_compare_with() -> None:
    with pytest.raises(BadRequest, match="no response to compare with"):
        score([], REQUEST, compare=True)
    section = {"engine": "judge", "compare": True, "generator": {"engine": "toy"}}
    with pytest.raises(ConfigError, match=r"data\.reference: reward engine judge compares responses"):
        build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": section})
    assert not config_of().needs_reference


PAIRS = [ScoreRequest("w1 w2?", "w3 w4", "w5"), ScoreRequest("w1 w2?", "w5", "w3 w4"), ScoreRequest("w7", "w8", "w8")]


@pytest.mark.parametrize("lead", ["", "w20 w21 "])
def test_labels_of_both_orders_are_weighed_by_the_judges_own_probabilities(tmp_path: Path, lead: str) -> None:
    model = save_generator(tmp_path)
    labels = {"w10": 1.0, "w11": 0.0, "w12": 0.5}
    config = by_labels(model, compare=True, labels=labels, lead=lead, generator={"temperature": 0.3})
    found = asyncio.run(scores(config, PAIRS))
    for request, reward in zip(PAIRS, found, strict=True):
        orders = ((request.response, request.reference), (request.reference, request.response))
        worth = [of_text(model, config, question=request.content, first=a, second=b)[0] for a, b in orders]
        assert reward == pytest.approx((worth[0] + 1 - worth[1]) / 2, abs=1e-6)
    assert found[0] + found[1] == pytest.approx(1.0, abs=1e-6), "what one wins the other loses"
    assert found[0] != pytest.approx(0.5, abs=1e-6)
    assert found[2] == pytest.approx(0.5, abs=1e-6), "a response is as good as itself"


def test_what_names_a_reward_by_comparison(tmp_path: Path) -> None:
    name = judge.fingerprint(config_of(compare=True))
    unread: dict[str, Any] = {"prompt": "{question} {response}", "pattern": "(.)", "highest": 5}
    assert judge.fingerprint(config_of(compare=True, **unread)) == name
    changes: list[dict[str, Any]] = [
        {"compare": False},
        {"compare_prompt": "{question} {first} {second}"},
        {"compare_pattern": "(.)"},
        {"labels": {"A": 1.0, "B": 0.0, "tie": 0.4}},
        {"samples": 2},
        {"generator": {"model": "n"}},
    ]
    others = [judge.fingerprint(config_of(**{"compare": True, **change})) for change in changes]
    model = save_generator(tmp_path)
    labels = {"labels": {"w10": 1.0, "w11": 0.0}}
    others += [judge.fingerprint(by_labels(model, **labels, compare=compare)) for compare in (True, False)]
    assert len({name, *others}) == 1 + len(others)


def test_a_judge_elsewhere_loads_no_weights_here(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"0" * 64)
    here = {"engine": "judge", "generator": {"engine": "transformers", "model": str(tmp_path)}}
    run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": here})
    assert least_memory(run.reward, on_gpu=True) == 64
    elsewhere = config_of(model=str(tmp_path), generator={"model": str(tmp_path)})
    assert (elsewhere.local_model, least_memory(elsewhere, on_gpu=True)) == ("", 0)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"prompt": "Rate {response}."}, r"reward\.prompt: it must contain \{question\}"),
        ({"pattern": "("}, r"reward\.pattern = '\(' is no regular expression"),
        ({"pattern": "Score"}, "needs a group"),
        ({"lowest": 10}, r"reward\.lowest = 10"),
        ({"tries": 0}, r"reward\.tries = 0"),
        ({"samples": 0}, r"reward\.samples = 0"),
        ({"generator": {"temperature": 0}}, "the same answer again"),
        ({"generator": {"base_url": "x"}}, r"reward\.generator: generator\.base_url = 'x'"),
        ({"read": "probabilities"}, r"reward\.read = 'probabilities': choose one of text, labels"),
        ({"read": "labels"}, r"engine openai tells no probabilities of given tokens"),
        ({"read": "labels", "labels": {"A": 1.0}}, "at least two answers"),
        ({"read": "labels", "labels": {"A": 1.0, "B": 1.0}}, "with different, finite values"),
        ({"read": "labels", "labels": {"A": 1.0, "B": float("inf")}}, "with different, finite values"),
        ({"read": "labels", "least": 1.0}, r"reward\.least = 1"),
        ({"label_prompt": "{question}"}, r"reward\.label_prompt: it must contain \{response\}"),
        ({"compare": True, "labels": {"A": 1.0, "B": -1.0}}, r"what a verdict is worth to the first of two"),
        ({"compare": True, "labels": {"A": 1.0, "B": 1.0}}, "with different, finite values"),
        ({"compare_prompt": "{question} {first}"}, r"reward\.compare_prompt: it must contain \{second\}"),
        ({"compare_label_prompt": "{first} {second}"}, r"reward\.compare_label_prompt: it must contain \{question\}"),
        ({"compare_prompt": "{question} {first} {second} {response}"}, r"no value for \{response\}"),
        (
            {"compare_pattern": "Verdict"},
            r"reward\.compare_pattern = 'Verdict': it needs a group .* around the verdict",
        ),
        ({"generator": {"tokenzier": "x"}}, r"reward\.generator: unknown key .*did you mean 'tokenizer'"),
    ],
    ids=str,
)
def test_wrong_settings_are_refused(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        config_of(**wrong)
