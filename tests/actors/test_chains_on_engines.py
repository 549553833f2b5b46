"""QAlign's chains on real engines: a model of eight tokens, whose every response can be enumerated exactly."""

from __future__ import annotations

import asyncio
import importlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.protocol import GenerateRequest
from pipeline.config import build
from pipeline.driver import Ask, Driver
from pipeline.effects import Draw
from pipeline.keys import Key
from pipeline.methods import qalign
from pipeline.types import Candidate, Prompt, Result
from tests.actors import tiny_models as tiny
from tests.law.exact_chain import ExactChain, Item, Tokens
from tests.law.test_toy_model import p_value

# importing vLLM warns of what it and torch have deprecated
pytestmark = pytest.mark.filterwarnings("ignore")

VOCABULARY = 8
STOPS = (tiny.EOS, tiny.TURN)
CAP = 3
PROMPT = (tiny.BOS, tiny.USER, 3, tiny.ASSISTANT)
WORTH = (0.8, -0.6, 0.3, 1.1, -0.2, 0.5, -0.9, 0.0)
"""What each token of a response is worth."""
CHAINS = {"transformers": 2_000, "vllm": 1_000}
STEPS = {0.8: 24, 2.0: 8}
"""Steps at each beta: as many as it takes."""
RIGHT = 1e-3
"""The least p-value of a chi-squared test of so many chains, with fixed seeds."""


def reward(tokens: Tokens) -> float:
    return float(sum(WORTH[t] for t in tokens))


class ModelChain(ExactChain):
    """All responses of the model, by its own probabilities, computed by hand."""

    def __init__(self, model: Path) -> None:
        self.prompt = Prompt("p", "p", PROMPT, CAP)
        law = dict(responses(model))
        self.items = [Item(y, reward(y), p) for y, p in sorted(law.items())]
        self.p = np.array([item.p for item in self.items])
        self.lengths = np.array([len(item.tokens) for item in self.items])
        self._given = {}


def responses(model: Path) -> Iterator[tuple[Tokens, float]]:
    """Every response of at most ``CAP`` tokens with its probability."""
    import torch
    from transformers import AutoModelForCausalLM

    network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float64)
    beginnings: dict[Tokens, float] = {(): 1.0}
    for length in range(1, CAP + 1):
        with torch.inference_mode():
            logits = network(input_ids=torch.tensor([[*PROMPT, *y] for y in beginnings])).logits[:, -1]
        laws = torch.softmax(logits, -1).numpy()
        whole = {
            (*y, t): p * float(law[t])
            for (y, p), law in zip(beginnings.items(), laws, strict=True)
            for t in range(VOCABULARY)
        }
        yield from ((y, p) for y, p in whole.items() if y[-1] in STOPS or length == CAP)
        beginnings = {y: p for y, p in whole.items() if y[-1] not in STOPS}


class Engine:
    """A started generator, and the loop that it lives on."""

    def __init__(self, runner: asyncio.Runner, engine: Any, chains: int) -> None:
        self.runner, self._engine, self.chains = runner, engine, chains

    def last_states(self, rewards: Any, chains: int | None = None, **method: Any) -> list[Tokens]:
        """The last state of each of many chains of one prompt."""
        chosen = {"name": "qalign", "select": "last", **method}
        run = build({"out": "x", "data": {"input": "p"}, "generator": "toy", "reward": "toy", "method": chosen})
        return self.runner.run(self._run(rewards, run.method, chains or self.chains))

    async def _run(self, rewards: Any, config: Any, chains: int) -> list[Tokens]:
        prompt, driver = Prompt("p", "p", PROMPT, CAP), Driver()
        wake, pending = asyncio.Event(), set()
        texts: dict[str, Tokens] = {}

        async def answer(ask: Ask) -> None:
            assert isinstance(ask.effect, Draw)
            prefix = ask.effect.prefix
            request = GenerateRequest(PROMPT + prefix, CAP - len(prefix), ask.key.engine_seed(), len(prefix))
            new = await self._engine.generate(request)
            whole = prefix + new.token_ids
            text = " ".join(map(str, whole))
            texts[text] = whole
            driver.tell(ask, Candidate(text, whole, new.finish_reason, rewards(whole), len(new.token_ids)))
            wake.set()

        for seed in range(chains):
            driver.start(str(seed), qalign.run(prompt, config, Key(seed, "p")))
        found: dict[str, Result] = {}
        while driver.running:
            for ask in driver.asks():
                task = asyncio.create_task(answer(ask))
                pending.add(task)
                task.add_done_callback(pending.discard)
            await wake.wait()
            wake.clear()
            found.update(driver.outcomes())  # type: ignore[arg-type]
        assert all(isinstance(o, Result) for o in found.values()), next(iter(found.values()))
        return [texts[found[str(seed)].response] for seed in range(chains)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.save_generator(tmp_path_factory.mktemp("law") / "model", vocab_size=VOCABULARY, initializer_range=0.15)


@pytest.fixture(scope="module")
def exact(model: Path) -> ModelChain:
    return ModelChain(model)


@pytest.fixture(
    scope="module", params=["transformers", pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.slow])]
)
def engine(request: pytest.FixtureRequest, model: Path) -> Iterator[Engine]:
    module = importlib.import_module(f"actors.engines.{request.param}")
    small = {"kv_cache_gib": 0.25} if request.param == "vllm" else {}
    with asyncio.Runner() as runner:
        engine = module.create(module.Config(model=str(model), **small))
        runner.run(engine.start())
        try:
            yield Engine(runner, engine, CHAINS[request.param])
        finally:
            runner.run(engine.stop())


def test_the_model_has_many_responses_of_every_length(exact: ModelChain) -> None:
    assert len(exact.items) == sum(6**n * 2 for n in range(CAP - 1)) + 6 ** (CAP - 1) * 8
    assert exact.p.sum() == pytest.approx(1, abs=1e-9)
    assert all(exact.p[exact.lengths == n].sum() > 0.05 for n in range(1, CAP + 1))


@pytest.mark.parametrize("beta", sorted(STEPS))
def test_final_states_follow_the_aligned_distribution(engine: Engine, exact: ModelChain, beta: float) -> None:
    law = exact.p @ np.linalg.matrix_power(exact.matrix(beta), STEPS[beta])
    target = exact.target(beta)
    assert np.abs(law - target).sum() / 2 < 0.03, "the chain is long enough to speak of its target"
    assert np.abs(exact.p - target).sum() / 2 > 0.1, "and the target isn't the model's own law"
    states = Counter(engine.last_states(reward, beta=beta, steps=STEPS[beta]))
    names = {item.tokens: p for item, p in zip(exact.items, law, strict=True)}
    assert p_value(states, names) > RIGHT
    assert p_value(states, dict(zip(names, exact.p, strict=True))) < 1e-6, "plain draws are seen"


def test_with_a_constant_reward_lengths_stay_those_of_plain_draws(engine: Engine, exact: ModelChain) -> None:
    """Without the length term they would be drawn to long responses, with it inverted to very long ones."""
    states = engine.last_states(lambda _: 1.0, chains=200, beta=1.0, steps=50)
    law = {n: float(exact.p[exact.lengths == n].sum()) for n in range(1, CAP + 1)}
    assert p_value(Counter(map(len, states)), law) > RIGHT
    tilted = {n: p * n for n, p in law.items()}
    wrong = {n: p / sum(tilted.values()) for n, p in tilted.items()}
    assert p_value(Counter(map(len, states)), wrong) < 1e-6, "the wrong law would be seen"
