"""Both generators and both reward engines against each other, against the models called by hand, and their errors."""

from __future__ import annotations

import asyncio
import importlib
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from actors.decoding import Sampler
from actors.protocol import BadRequest, EngineDead, GenerateRequest, Generation, ScoreRequest
from pipeline.errors import ConfigError
from pipeline.types import Message
from tests.actors import tiny_models as tiny
from tests.actors.by_hand import drawn_by_hand, score_by_hand, vllm_law_error

VLLM = pytest.param("vllm", marks=[pytest.mark.vllm, pytest.mark.slow])
ENGINES = ["transformers", VLLM]

# importing vLLM warns of what it and torch have deprecated
pytestmark = pytest.mark.filterwarnings("ignore")

PROMPT = (tiny.BOS, tiny.USER, 20, 21, 22, tiny.TURN, tiny.ASSISTANT)
LONG_PROMPT = (tiny.BOS, tiny.USER, *range(20, 90), tiny.TURN, tiny.ASSISTANT)


@dataclass
class Pair:
    """A generator and a reward model of one kind, started, and the loop that they live on."""

    runner: asyncio.Runner
    generator: Any
    reward: Any
    settings: list[dict[str, Any]]

    def generate(self, *requests: GenerateRequest) -> list[Generation]:
        """All at once."""

        async def run() -> list[Generation]:
            return list(await asyncio.gather(*(self.generator.generate(r) for r in requests)))

        return self.runner.run(run())

    def score(self, *requests: ScoreRequest) -> list[float]:
        """All at once."""

        async def run() -> list[float]:
            return list(await asyncio.gather(*(self.reward.score(r) for r in requests)))

        return self.runner.run(run())


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    directory = tmp_path_factory.mktemp("models")
    return tiny.save_generator(directory / "generator"), tiny.save_reward(directory / "reward")


def plugins(name: str) -> tuple[Any, Any]:
    return importlib.import_module(f"actors.engines.{name}"), importlib.import_module(f"actors.rewards.{name}")


def started(name: str, models: tuple[Path, Path], **options: Any) -> Iterator[Pair]:
    """Both engines of a kind. ``options``: of the reward section."""
    engines, rewards = plugins(name)
    small = {"kv_cache_gib": 0.25} if name == "vllm" else {}
    with asyncio.Runner() as runner:
        generator = engines.create(engines.Config(model=str(models[0]), **small))
        reward = rewards.create(rewards.Config(model=str(models[1]), **small, **options))

        async def start() -> list[dict[str, Any]]:
            return list(await asyncio.gather(generator.start(), reward.start()))

        async def stop() -> None:
            await asyncio.gather(generator.stop(), reward.stop())

        try:
            yield Pair(runner, generator, reward, runner.run(start()))
        finally:
            runner.run(stop())


@pytest.fixture(scope="module")
def transformers_pair(models: tuple[Path, Path]) -> Iterator[Pair]:
    yield from started("transformers", models)


@pytest.fixture(scope="module")
def vllm_pair(models: tuple[Path, Path]) -> Iterator[Pair]:
    yield from started("vllm", models)


@pytest.fixture(params=ENGINES)
def pair(request: pytest.FixtureRequest) -> Pair:
    found: Pair = request.getfixturevalue(f"{request.param}_pair")
    return found


@pytest.fixture(scope="module")
def next_token_law(models: tuple[Path, Path]) -> np.ndarray:
    """The exact distribution of the first token after ``PROMPT``."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(models[0], dtype=torch.float32)
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([PROMPT])).logits[0, -1].double()
    return np.asarray(torch.softmax(logits, -1))


def most_likely(pair: Pair, *requests: GenerateRequest) -> list[Generation]:
    """What the generator gives at temperature 0."""
    generator = pair.generator
    config = generator._config
    if pair.settings[0]["engine"] == "vllm":
        generator._config = replace(config, temperature=0.0)
        try:
            return pair.generate(*requests)
        finally:
            generator._config = config
    sampler, generator._decoder._sampler = generator._decoder._sampler, Sampler(0.0, 1.0)
    try:
        return pair.generate(*requests)
    finally:
        generator._decoder._sampler = sampler


def mixed_requests(count: int) -> list[GenerateRequest]:
    """Prompts and caps of many lengths, a seed each."""
    draw = random.Random(1)
    return [
        GenerateRequest((*PROMPT[:-1], *range(8, 8 + draw.randint(0, 60)), tiny.ASSISTANT), draw.randint(1, 80), seed=i)
        for i in range(count)
    ]


# Generation


def test_a_seed_gives_the_same_tokens_alone_and_among_others(pair: Pair) -> None:
    requests = mixed_requests(32)
    together = pair.generate(*requests)
    shuffled = requests[:]
    random.Random(2).shuffle(shuffled)
    again = dict(zip((r.seed for r in shuffled), pair.generate(*shuffled), strict=True))
    tokens = [g.token_ids for g in together]
    assert tokens == [again[r.seed].token_ids for r in requests]
    assert tokens[:8] == [pair.generate(r)[0].token_ids for r in requests[:8]]
    assert len(set(tokens)) > 28


def test_without_a_seed_draws_differ(pair: Pair) -> None:
    drawn = pair.generate(*[GenerateRequest(PROMPT, 20)] * 8)
    assert len({g.token_ids for g in drawn}) == 8


def test_the_end_token_is_the_last_one_drawn(pair: Pair) -> None:
    stops = {tiny.EOS, tiny.TURN}
    requests = mixed_requests(64)
    drawn = pair.generate(*requests)
    for request, generation in zip(requests, drawn, strict=True):
        *before, last = generation.token_ids
        assert not stops & set(before)
        if last in stops:
            assert generation.finish_reason == "stop"
        else:
            assert generation.finish_reason == "length"
            assert len(generation.token_ids) == request.max_tokens
    endings = {g.token_ids[-1] for g in drawn if g.finish_reason == "stop"}
    assert endings == stops, "the token that only generation_config.json names ends a response as well"
    assert {g.finish_reason for g in drawn} == {"stop", "length"}


def test_a_cap_of_one_token_may_be_the_end_token(pair: Pair) -> None:
    drawn = pair.generate(*(GenerateRequest(PROMPT, 1, seed=i) for i in range(200)))
    assert {len(g.token_ids) for g in drawn} == {1}
    assert all((g.finish_reason == "stop") == (g.token_ids[0] in (tiny.EOS, tiny.TURN)) for g in drawn)


def test_draws_follow_the_models_law(pair: Pair, next_token_law: np.ndarray) -> None:
    """No temperature, top_k or top_p of ``generation_config.json`` (it has all three) shapes a draw."""
    count = 2000
    drawn = pair.generate(*(GenerateRequest(PROMPT, 1, seed=i) for i in range(count)))
    observed = np.bincount([g.token_ids[0] for g in drawn], minlength=tiny.VOCABULARY)
    expected = next_token_law * count
    common = expected >= 5
    table = np.array([[*a[common], a[~common].sum()] for a in (observed, expected)])
    assert stats.chisquare(*table).pvalue > 1e-3


def test_a_prefix_is_continued(pair: Pair) -> None:
    """With greedy draws, a continuation of a part is the rest of the whole."""
    [whole] = most_likely(pair, GenerateRequest(LONG_PROMPT, 30))
    assert len(whole.token_ids) > 12
    cut = 10
    prefix = LONG_PROMPT + whole.token_ids[:cut]
    [rest] = most_likely(pair, GenerateRequest(prefix, 30 - cut, prefix_tokens=cut))
    assert whole.token_ids == whole.token_ids[:cut] + rest.token_ids
    assert whole.finish_reason == rest.finish_reason


def test_the_context_bounds_prompt_and_response(pair: Pair) -> None:
    with pytest.raises(BadRequest, match="context is 256"):
        pair.generate(GenerateRequest((20,) * tiny.CONTEXT, 1))
    drawn = pair.generate(*(GenerateRequest((20,) * (tiny.CONTEXT - 4), 50, seed=i) for i in range(20)))
    assert {len(g.token_ids) for g in drawn if g.finish_reason == "length"} == {4}


def test_bad_requests_cost_only_themselves(pair: Pair) -> None:
    async def run() -> list[Generation | BaseException]:
        bad = [GenerateRequest((tiny.VOCABULARY,), 5), GenerateRequest((), 5), GenerateRequest((1,) * 999, 5)]
        good = mixed_requests(8)
        asked = (pair.generator.generate(r) for r in [*bad, *good])
        return list(await asyncio.gather(*asked, return_exceptions=True))

    answers = pair.runner.run(run())
    assert [type(a) for a in answers] == [BadRequest] * 3 + [Generation] * 8


def test_the_settings_are_told(pair: Pair) -> None:
    for settings in pair.settings:
        assert (settings["device"], settings["dtype"], settings["context"]) == ("cpu", "float32", tiny.CONTEXT)
        assert settings["torch"]
        if settings["engine"] == "vllm":
            assert settings["max_num_batched_tokens"] == 4096
            assert (settings["block_size"], settings["chunked_prefill"]) == (32, False)
            assert settings["executor"] == "uni", "a scheduler and a worker of their own would spin on these cores"


@pytest.mark.vllm
@pytest.mark.slow
def test_the_generators_agree(vllm_pair: Pair, transformers_pair: Pair) -> None:
    requests = [replace(r, seed=None) for r in mixed_requests(32)]
    a, b = most_likely(vllm_pair, *requests), most_likely(transformers_pair, *requests)
    assert [(g.token_ids, g.finish_reason) for g in a] == [(g.token_ids, g.finish_reason) for g in b]


def test_transformers_draws_what_the_model_says(transformers_pair: Pair, models: tuple[Path, Path]) -> None:
    """By inversion at its own uniform numbers, so a batch gives what each request gives by hand, without a cache."""
    requests = mixed_requests(24)
    expected = [drawn_by_hand(models[0], r, {tiny.EOS, tiny.TURN}) for r in requests]
    assert [g.token_ids for g in transformers_pair.generate(*requests)] == expected


@pytest.mark.vllm
@pytest.mark.slow
def test_vllm_draws_from_the_same_law_at_every_step(vllm_pair: Pair, models: tuple[Path, Path]) -> None:
    off, _ = vllm_law_error(vllm_pair.runner, vllm_pair.generator, models[0], mixed_requests(24))
    assert off < 1e-4


def test_labels_have_the_models_own_probabilities(pair: Pair, next_token_law: np.ndarray) -> None:
    """Of the first token, at temperature 1, whatever is drawn and how much, alone and among requests without labels."""
    labels = (9, 40, tiny.EOS, 11)
    asked = [replace(r, labels=labels if r.token_ids == PROMPT else ()) for r in mixed_requests(6)]
    asked += [GenerateRequest(PROMPT, n, seed=n, labels=labels) for n in (1, 5)]
    plain = pair.generate(*(replace(r, labels=()) for r in asked))
    found = pair.generate(*asked)
    assert [g.token_ids for g in found] == [g.token_ids for g in plain]
    for request, made in zip(asked, found, strict=True):
        expected = np.log(next_token_law[list(labels)]) if request.labels else ()
        assert made.label_logprobs == pytest.approx(expected, abs=2e-5)
    [cold] = most_likely(pair, GenerateRequest(PROMPT, 2, labels=labels))
    assert cold.label_logprobs == pytest.approx(np.log(next_token_law[list(labels)]), abs=2e-5)


@pytest.mark.vllm
@pytest.mark.slow
def test_cached_prefixes_are_told_and_change_nothing(vllm_pair: Pair) -> None:
    request = GenerateRequest((tiny.BOS, *LONG_PROMPT[1:]), 20, seed=77)
    [first] = vllm_pair.generate(request)
    [second] = vllm_pair.generate(request)
    assert second.cached_tokens == 64, "whole blocks of 32, and never the last token"
    assert second.token_ids == first.token_ids


# Rewards


def mixed_pairs(count: int) -> list[ScoreRequest]:
    draw = random.Random(3)

    def words(most: int) -> str:
        return " ".join(draw.choices(tiny.WORDS, k=draw.randint(1, most)))

    chat = (Message("system", "w1"), Message("user", "w2"), Message("assistant", "w3"), Message("user", "w4"))
    return [ScoreRequest(chat if i % 5 == 0 else words(60), words(60)) for i in range(count)]


def test_scores_equal_the_model_called_by_hand(pair: Pair, models: tuple[Path, Path]) -> None:
    requests = mixed_pairs(12)
    assert pair.score(*requests) == pytest.approx([score_by_hand(models[1], r) for r in requests], abs=1e-5)


def test_scores_do_not_depend_on_order_neighbours_or_number(pair: Pair) -> None:
    requests = mixed_pairs(64)
    together = pair.score(*requests)
    assert np.ptp(together) > 0.5
    assert pair.score(*reversed(requests)) == pytest.approx(together[::-1], abs=1e-5)
    assert [pair.score(r)[0] for r in requests] == pytest.approx(together, abs=1e-5)


def test_rewards_are_raw(pair: Pair) -> None:
    scores = pair.score(*mixed_pairs(64))
    assert min(scores) < 0 or max(scores) > 1, "a sigmoid would keep them between 0 and 1"


def test_a_pair_that_is_too_long_is_rejected_not_cut(pair: Pair) -> None:
    with pytest.raises(BadRequest, match="context is 256"):
        pair.score(ScoreRequest("w1", "w2 " * 260))
    fits = tiny.CONTEXT - len((tiny.BOS, tiny.USER, 8, tiny.TURN, tiny.ASSISTANT, tiny.TURN))
    assert math.isfinite(pair.score(ScoreRequest("w1", "w2 " * fits))[0])


def test_a_conversation_that_the_template_rejects(pair: Pair) -> None:
    with pytest.raises(BadRequest, match="tools are not supported"):
        pair.score(ScoreRequest((Message("tool", "w1"),), "w2"))


@pytest.mark.vllm
@pytest.mark.slow
def test_the_reward_engines_agree(vllm_pair: Pair, transformers_pair: Pair) -> None:
    requests = mixed_pairs(200)
    assert vllm_pair.score(*requests) == pytest.approx(transformers_pair.score(*requests), abs=1e-4)


# Models that are not what they should be, and failures


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_what_is_wrong_is_said_before_any_weights_are_loaded(
    name: str, models: tuple[Path, Path], tmp_path: Path
) -> None:
    engines, rewards = plugins(name)
    several = tiny.save_reward(tmp_path / "several", num_labels=3)
    with pytest.raises(ConfigError, match=r"3 logits \(0: LABEL_0, .*reward\.column"):
        rewards.create(rewards.Config(model=str(several)))
    with pytest.raises(ConfigError, match=r"reward\.column=3"):
        rewards.create(rewards.Config(model=str(several), column=3))
    with pytest.raises(ConfigError, match="without a reward head"):
        rewards.create(rewards.Config(model=str(models[0])))
    with pytest.raises(ConfigError, match=r"generator\.top_p=0"):
        engines.create(engines.Config(model=str(models[0]), top_p=0))
    with pytest.raises(ConfigError, match=r"generator\.temperature=-1"):
        engines.create(engines.Config(model=str(models[0]), temperature=-1))
    with pytest.raises(ConfigError, match=r"generator\.model='/nowhere'"):
        engines.load_tokenizer(engines.Config(model="/nowhere"))
    with pytest.raises(ConfigError, match=r"reward\.model='/nowhere'"):
        rewards.fingerprint(rewards.Config(model="/nowhere"))


@pytest.mark.parametrize("name", ["transformers", "vllm"])
def test_fingerprints_hold_what_shapes_a_reply(name: str, models: tuple[Path, Path], tmp_path: Path) -> None:
    engines, rewards = plugins(name)
    generator, reward = str(models[0]), str(models[1])
    other = tiny.save_generator(tmp_path / "other", seed=5)
    configs = [engines.Config(model=m, dtype=d) for m in (generator, str(other)) for d in ("auto", "bfloat16")]
    assert len({engines.load_tokenizer(c).fingerprint for c in configs}) == 4
    same = [rewards.Config(model=reward), rewards.Config(model=reward, column=0, replicas=3)]
    assert len({rewards.fingerprint(c) for c in same}) == 1
    several = str(tiny.save_reward(tmp_path / "several", num_labels=3))
    changed = [rewards.Config(model=several, column=0), rewards.Config(model=several, column=1)]
    changed.append(rewards.Config(model=reward, dtype="float16"))
    assert len({rewards.fingerprint(c) for c in [*same, *changed]}) == 4
    for model, column in ((several, None), (reward, 1), (generator, None)):
        with pytest.raises(ConfigError, match=r"reward\.(model|column)"):
            rewards.fingerprint(rewards.Config(model=model, column=column))


def run_reward(config: Any, *requests: ScoreRequest) -> list[float]:
    from actors.rewards import transformers as rewards

    async def run() -> list[float]:
        engine = rewards.create(config)
        await engine.start()
        try:
            return list(await asyncio.gather(*(engine.score(r) for r in requests)))
        finally:
            await engine.stop()

    return asyncio.run(run())


def test_a_column_among_several(tmp_path: Path) -> None:
    from actors.rewards.transformers import Config

    model = str(tiny.save_reward(tmp_path, num_labels=3))
    requests = mixed_pairs(4)
    columns = [run_reward(Config(model=model, column=c), *requests) for c in range(3)]
    assert columns[0] == pytest.approx([score_by_hand(Path(model), r) for r in requests], abs=1e-5)
    assert len({round(scores[0], 4) for scores in columns}) == 3


def test_a_reward_model_without_a_pad_token(tmp_path: Path) -> None:
    """The last real token is pooled, even where every text ends in the end token."""
    from actors.rewards.transformers import Config

    ending = tiny.TEMPLATE.replace("<|turn|>", "</s>")
    model = tiny.save_reward(tmp_path, pad_token_id=None, template=ending)
    requests = mixed_pairs(24)
    assert run_reward(Config(model=str(model)), *requests) == pytest.approx(
        [score_by_hand(model, r) for r in requests], abs=1e-5
    )


def test_models_that_load_at_once_leave_the_library_as_it_was(models: tuple[Path, Path]) -> None:
    """Else the next model of this process would have no tied weights: random answers, and no error."""
    import torch
    from transformers import PreTrainedModel

    for pair in started("transformers", models):
        assert pair.settings[0]["engine"] == "transformers"
    assert torch.nn.init.constant_.__module__ == "torch.nn.init"
    assert PreTrainedModel.tie_weights.__name__ == "tie_weights"


def test_nan_is_a_score(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaForSequenceClassification

    from actors.rewards.transformers import Config

    tiny.save_reward(tmp_path)
    model = LlamaForSequenceClassification.from_pretrained(tmp_path)
    torch.nn.init.constant_(model.score.weight, math.nan)
    model.save_pretrained(tmp_path)
    assert all(math.isnan(score) for score in run_reward(Config(model=str(tmp_path)), *mixed_pairs(3)))


def test_weights_that_are_missing_are_not_made_up(models: tuple[Path, Path], tmp_path: Path) -> None:
    from transformers import LlamaForCausalLM

    from actors.rewards.transformers import Config

    tiny.save_reward(tmp_path)
    headless = LlamaForCausalLM.from_pretrained(models[0]).model
    headless.config.architectures = ["LlamaForSequenceClassification"]
    headless.config.num_labels = 1
    headless.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"no weights for score\.weight"):
        run_reward(Config(model=str(tmp_path)), *mixed_pairs(1))


class Forgetful:
    """A model on a device too small for more than ``limit`` tokens at a time."""

    def __init__(self, model: Any, limit: int) -> None:
        self._model, self._limit = model, limit
        self.config, self.forward, self.refused = model.config, model.forward, 0

    def __call__(self, input_ids: Any, **rest: Any) -> Any:
        import torch

        size = rest.get("attention_mask", input_ids).numel()
        if size > self._limit:
            self.refused += 1
            raise torch.OutOfMemoryError(f"{size} tokens")
        return self._model(input_ids=input_ids, **rest)


def test_scoring_halves_when_out_of_memory_and_remembers(transformers_pair: Pair) -> None:
    scorer = transformers_pair.reward._scorer
    requests = mixed_pairs(64)
    expected = transformers_pair.score(*requests)
    model, budget = scorer._model, scorer.budget
    scorer._model = Forgetful(model, 1000)
    try:
        assert transformers_pair.score(*requests) == pytest.approx(expected, abs=1e-5)
        assert scorer.budget <= 1000
        refused = scorer._model.refused
        assert transformers_pair.score(*requests) == pytest.approx(expected, abs=1e-5)
        assert scorer._model.refused == refused
        scorer._model = Forgetful(model, 3)
        with pytest.raises(BadRequest, match="does not fit"):
            transformers_pair.score(requests[0])
    finally:
        scorer._model, scorer.budget = model, budget


def test_generation_starts_again_in_smaller_batches_when_out_of_memory(transformers_pair: Pair) -> None:
    engine = transformers_pair.generator
    requests = mixed_requests(32)
    expected = transformers_pair.generate(*requests)
    model, budget = engine._decoder._model, engine._budget
    engine._decoder._model = Forgetful(model, 600)
    try:
        assert transformers_pair.generate(*requests) == expected
        assert engine._decoder._model.refused
        assert engine._budget < budget
        engine._decoder._model = Forgetful(model, 3)
        with pytest.raises(BadRequest, match="does not fit"):
            transformers_pair.generate(requests[0])
    finally:
        engine._decoder._model, engine._budget = model, budget


def test_sampling_by_inversion_is_exact() -> None:
    import torch

    logits = torch.log(torch.tensor([0.5, 0.0, 0.3, 0.15, 0.05]))
    numbers = [(i + 0.5) / 1000 for i in range(1000)]
    many = logits.expand(1000, -1)

    def frequencies(temperature: float, top_p: float) -> list[float]:
        drawn = Sampler(temperature, top_p)(many, numbers)
        return [drawn.count(token) / 1000 for token in range(5)]

    assert frequencies(1.0, 1.0) == pytest.approx([0.5, 0, 0.3, 0.15, 0.05], abs=0.002)
    assert frequencies(1.0, 0.7) == pytest.approx([0.625, 0, 0.375, 0, 0], abs=0.002)
    assert frequencies(1.0, 0.81) == pytest.approx([0.5 / 0.95, 0, 0.3 / 0.95, 0.15 / 0.95, 0], abs=0.002)
    squares = np.array([0.25, 0, 0.09, 0.0225, 0.0025])
    assert frequencies(0.5, 1.0) == pytest.approx(squares / squares.sum(), abs=0.002)
    assert frequencies(0.0, 1.0) == [1, 0, 0, 0, 0]
    assert Sampler(1.0, 1.0)(logits[None], [1 - 2**-53]) == [4]
    assert Sampler(1.0, 0.9)(torch.full((1, 5), math.nan), [0.5]) == [-1]


# Last, since it ends the engines


@pytest.mark.vllm
@pytest.mark.slow
def test_a_dead_vllm_says_so_and_leaves_no_process(models: tuple[Path, Path]) -> None:
    from actors.engines.vllm import Config, create

    async def run() -> list[int]:
        engine = create(Config(model=str(models[0]), kv_cache_gib=0.1))
        await engine.start()
        processes = [p.pid for p in engine._process._engine.engine_core.resources.engine_manager.processes]
        waiting = asyncio.gather(
            *(engine.generate(GenerateRequest(PROMPT, 200, seed=i)) for i in range(50)), return_exceptions=True
        )
        await asyncio.sleep(0.05)
        os.kill(processes[0], signal.SIGKILL)
        answers = await asyncio.wait_for(waiting, 60)
        assert {type(a) for a in answers} <= {EngineDead, Generation}
        assert any(isinstance(a, EngineDead) for a in answers)
        with pytest.raises(EngineDead):
            await engine.generate(GenerateRequest(PROMPT, 5))
        await engine.stop()
        await engine.stop()
        return processes

    for process in asyncio.run(run()):
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


OWNER = """
import asyncio, sys
from actors.engines.vllm import Config, create

async def main():
    engine = create(Config(model=sys.argv[1], kv_cache_gib=0.1))
    await engine.start()
    print(*(p.pid for p in engine._process._engine.engine_core.resources.engine_manager.processes), flush=True)
    await asyncio.sleep(600)

if __name__ == "__main__":
    asyncio.run(main())
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_no_process_outlives_a_killed_owner(models: tuple[Path, Path], tmp_path: Path) -> None:
    script = tmp_path / "owner.py"
    script.write_text(OWNER)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, str(script), str(models[0])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as owner:
        assert owner.stdout is not None
        processes = [int(word) for word in owner.stdout.readline().split()]
        assert processes
        assert all(name_of(process).startswith("VLLM") for process in processes)
        owner.kill()
    deadline = time.monotonic() + 20
    while any(name_of(process).startswith("VLLM") for process in processes):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def name_of(process: int) -> str:
    """The name of a process, empty if there is none."""
    try:
        return Path(f"/proc/{process}/comm").read_text()
    except FileNotFoundError:
        return ""
