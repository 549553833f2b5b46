"""Configuration: later ones win, and every mistake is answered with its key and what would be valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.config import CONF, build, from_yaml, load, to_dict, to_yaml
from pipeline.errors import ConfigError
from pipeline.sections import Replicas

BASE = ["out=x", "data.input=p.jsonl", "generator=toy", "reward=toy"]

TPO = ["method=tpo"]
QALIGN = ["method=qalign", "method.beta=0.5"]


def test_files_then_overrides_and_later_ones_win(tmp_path: Path) -> None:
    a, b = tmp_path / "a.yaml", tmp_path / "b.yaml"
    a.write_text("seed: 1\nmethod: {name: best_of_n, n: 3}\n")
    b.write_text("seed: 2\n")
    run = load([str(a), str(b)], [*BASE, "method.select=soft"])
    assert (run.seed, run.method.select, to_dict(run)["method"]["n"]) == (2, "soft", 3)


def test_the_yaml_of_a_configuration_gives_it_back(tmp_path: Path) -> None:
    run = load([], [*BASE, "method.n=5", "generator.letters=2", "cluster.shards_in_flight=7"])
    (tmp_path / "config.yaml").write_text(to_yaml(run))
    assert load([str(tmp_path / "config.yaml")]) == run


def test_an_infinite_rung_survives_its_yaml(tmp_path: Path) -> None:
    run = load([], [*BASE, *QALIGN, "method.ladder=[2,.inf]"])
    (tmp_path / "config.yaml").write_text(to_yaml(run))
    assert load([str(tmp_path / "config.yaml")]) == run
    assert to_dict(run)["method"]["ladder"] == [2.0, float("inf")]


@pytest.mark.parametrize("job", sorted(p.stem for p in (CONF / "job").glob("*.yaml")))
def test_every_job_of_the_gallery_loads(job: str) -> None:
    assert load([job]).out


@pytest.mark.parametrize("part", sorted((CONF / "cluster").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_cluster_of_the_gallery_loads(part: Path) -> None:
    assert load(["toy", str(part)]).cluster


@pytest.mark.parametrize("job", ["qalign_general", "qalign_task", "tpo_d2n5", "tpo_d5n20", "best_of_n"])
@pytest.mark.parametrize("part", sorted((CONF / "data").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_data_set_of_the_gallery_goes_with_every_job(part: Path, job: str) -> None:
    run = load([job, f"conf/data/{part.name}"])
    assert run.data.limit == 128
    assert run.method.name == job.partition("_")[0] or job == "best_of_n"


GIVEN = [*BASE[:2], "reward=toy", "method=rescore"]


def test_a_method_that_draws_nothing_needs_no_generator_and_gets_none() -> None:
    without = load([], [*GIVEN, "data.responses=r"])
    assert without.generator.engine == "none"
    assert without == load([], [*GIVEN, "data.responses=r", "generator=toy", "generator.letters=2"])
    assert load([], [*GIVEN, "data.responses=r", "generator=toy", "method.n=1"]).generator.engine == "toy"
    assert load([], [*GIVEN, "data.responses=[a,b]"]).data.response_columns == ("a", "b")


def test_of_responses_and_transcripts_the_last_one_named_counts(tmp_path: Path) -> None:
    run = load(["relabel"], ["reward=toy", "data.transcript=[chosen,rejected]"])
    assert (run.data.responses, run.data.prompt_from) == (None, ("chosen", "rejected"))
    assert from_yaml(to_yaml(run)) == run
    (tmp_path / "a.yaml").write_text("data: {prompt: question, responses: r}\n")
    run = load(["relabel", str(tmp_path / "a.yaml")], ["reward=toy", "data.transcript=t"])
    assert (run.data.prompt, run.data.responses, run.data.prompt_from) == ("prompt", None, ("t",))
    run = load(["relabel"], ["reward=toy"])
    assert run.reward.model == "toy"  # not that of the file's own engine, which isn't loaded
    assert (run.data.response_columns, run.data.prompt_from) == (("responses",), "prompt")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (GIVEN, r"data.responses: method rescore scores responses that the input has; name the column"),
        ([*GIVEN, "data.responses=r", "data.transcript=t"], r"data.responses and data.transcript: name one of them"),
        (
            [*GIVEN, "data.transcript=t", "data.prompt=question"],
            r"data.prompt = 'question' and data.transcript: transcripts begin with their prompts.*leave data.prompt",
        ),
        ([*GIVEN, "data.transcript=[a,b]", "data.prompt='{question}?'"], r"data.prompt = '{question}\?' and data.tr"),
        ([*GIVEN, "data.responses=[]"], r"data.responses = \[\]: expected a column or a list of columns"),
        ([*GIVEN, "data.transcript={a: b}"], r"data.transcript = \{'a': 'b'\}: expected a column or a list of"),
        ([*GIVEN, "data.responses=r", "method.n=-1"], r"method.n = -1: it must not be negative"),
        ([*GIVEN, "data.responses=r", "generator.lettrs=1", "generator=toy"], r"unknown key 'generator.lettrs'"),
        (["generator=none"], r"generator.engine = none: method best_of_n draws, so name a generator"),
        (["export.formats=[pairs,sfd]"], r"export.formats holds 'sfd': choose any of pairs, unpaired, sft, cand"),
        (["export.form=chat"], r"export.form = 'chat': choose one of conversational, text"),
        (["export.rule=worst"], r"export.rule = 'worst': choose one of best_worst, best_random, best_given"),
        (["export.length=words"], r"export.length = 'words': choose one of characters, tokens"),
        (["export.margin=-1"], r"export.margin = -1.0: it must be a number of at least 0"),
        (["export.margin=.nan"], r"export.margin = nan: it must be a number of at least 0"),
        (["export.max_ratio=0.5"], r"export.max_ratio = 0.5: it must be a number of at least 1"),
        (["export.threshold=.inf"], r"export.threshold = inf: give a reward, or null"),
        (["export.margn=1"], r"unknown key 'export.margn' \(did you mean 'margin'"),
        (["methd.n=3"], r"unknown key 'methd' \(did you mean 'method'\?\); valid here: cluster, critic, data"),
        (["n=4"], r"unknown key 'n' \(did you mean 'method.n'\?\); valid here: cluster, critic, data"),
        (["method=qalign", "method.beta=1", "chians=4"], r"unknown key 'chians' \(did you mean 'method.chains'\?\)"),
        (["model=x"], r"unknown key 'model' \(did you mean 'generator.model' or 'reward.model'\?\)"),
        ([*TPO, "critic=toy", "letters=2"], r"'letters' \(did you mean 'generator.letters' or 'critic.letters'\?\)"),
        (["how=math"], r"unknown key 'how' \(did you mean 'method.answer.how'\?\)"),
        (["answer.how=math"], r"unknown key 'answer' \(did you mean 'method.answer'\?\)"),
        (["method=nothing", "select=best"], r"unknown key 'select' \(did you mean 'method.select'\?\)"),
        (["qqq=3"], r"unknown key 'qqq'; valid here"),
        (["data.promt=x"], r"unknown key 'data.promt' \(did you mean 'prompt'\?\)"),
        (["method.N=3"], r"unknown key 'method.N'"),
        (["generator.replica=3"], r"'generator.replica' \(did you mean 'replicas'\?\)"),
        (["method.n=three"], r"method.n = 'three': expected a whole number"),
        (["data.shard_rows=[1]"], r"data.shard_rows = \[1\]"),
        (["data.shard_rows=null"], r"data.shard_rows = null: it needs a value"),
        (["method.n=1.5"], r"method.n = 1.5: expected a whole number"),
        (["generator.seed_requests=perhaps"], r"generator.seed_requests = 'perhaps': expected true or false"),
        (["method.answer=3"], r"method.answer = 3: expected settings \(how, pattern\)"),
        (["data.input=3"], r"data.input = 3: expected a path"),
        (["data.input={a: b}"], r"data.input = .*: expected a path"),
        (["data.input=[a, 3]"], r"data.input = .*: expected a path"),
        (["generator.cpus=-1"], r"generator.cpus = -1.0: it must be a number of at least 0"),
        (["reward.gpus=.nan"], r"reward.gpus = nan"),
        (["method.name=best_of_m"], r"no method is called 'best_of_m' \(did you mean 'best_of_n'\?\)"),
        (["generator.engine=vlm"], r"no generator is called 'vlm' \(did you mean 'vllm'\?\)"),
        (["method.n=0"], r"method.n = 0: best-of-N needs at least one draw"),
        (["method.select=bets"], r"method.select = 'bets': choose one of best, last"),
        (["method.beta=0"], r"method.beta = 0"),
        (["method.beta=nan"], r"method.beta = nan"),
        (["generator.temperature=0"], r"generator.temperature = 0.*only samples"),
        (["generator=vllm", "generator.temperature=0", "method.n=2"], r"makes all draws the same: set method.n=1"),
        (["generator=vllm", "generator.temperature=-1"], r"generator.temperature = -1"),
        (["generator.top_p=1.5"], r"generator.top_p = 1.5"),
        (["data.template=jinja"], r"data.template = 'jinja': choose one of auto, chat, raw"),
        (["generator.replicas=0"], r"generator.replicas = 0: it must be at least 1"),
        (
            ["generator.replicas=many"],
            r"generator.replicas = 'many': expected a whole number, or .*min: 1, max: 4",
        ),
        (["generator.replicas=2.5"], r"generator.replicas = 2.5: expected a whole number"),
        (["generator.replicas=[1,4]"], r"generator.replicas = \[1, 4\]: expected a whole number, or"),
        (["generator.replicas=null"], r"generator.replicas = null: it needs a value"),
        (["generator.replicas.max=4"], r"generator.replicas.min is missing: give min and max, or one number"),
        (["reward.replicas={min: 2}"], r"reward.replicas.max is missing: give min and max"),
        (["generator.replicas={}"], r"generator.replicas.min is missing"),
        (
            ["generator.replicas={min: 3, max: 2}"],
            r"replicas.min = 3: .* more than generator.replicas.max = 2",
        ),
        (["reward.replicas={min: 0, max: 2}"], r"reward.replicas.min = 0: it must be at least 1"),
        (["generator.replicas={min: 1, max: many}"], r"generator.replicas.max = 'many': expected a whole number"),
        (["generator.replicas={min: 1, max: 1.5}"], r"generator.replicas.max = 1.5: expected a whole number"),
        (["generator.replicas={min: 1, max: null}"], r"generator.replicas.max = null: it needs a value"),
        (
            ["generator.replicas={min: 1, mx: 2}"],
            r"unknown key 'generator.replicas.mx' \(did you mean 'max'\?\); valid here: max, min",
        ),
        (["cluster.idle_s=-1"], r"cluster.idle_s = -1.0: it must be a number of at least 0"),
        (["data.limit=0"], r"data.limit = 0"),
        (["seed=-1"], r"seed = -1"),
        (["out=''"], r"out: name the run's directory"),
        (["data.input=null"], r"data.input: name a Parquet"),
        (["data=3"], r"data: expected a mapping"),
        (["generator.letters=27"], r"generator.letters = 27: choose 1 to 26"),
        (
            ["method.answer.hwo=math"],
            r"key 'method.answer.hwo' \(did you mean 'how'\?\); valid here: how, pattern",
        ),
        (["method.answer.how=maths"], r"method.answer: .*maths"),
        (["method.answer.how=regex"], r"method.answer: .*pattern"),
        (["method.answer.how=regex", "method.answer.pattern='(1'"], r"method.answer: "),
        ([*QALIGN, "method.beta=null"], r"method.beta is missing: .*choose it on prompts of their own"),
        (["method=qalign"], r"method.beta is missing"),
        ([*QALIGN, "method.beta=0"], r"method.beta = 0.*positive and finite"),
        ([*QALIGN, "method.beta=-0.5"], r"method.beta = -0.5: it must be positive"),
        ([*QALIGN, "method.beta=.nan"], r"method.beta = nan: it must be positive"),
        ([*QALIGN, "method.beta=.inf"], r"method.beta = inf: it must be positive and finite"),
        ([*QALIGN, "method.steps=-1"], r"method.steps = -1: it must be at least 0"),
        ([*QALIGN, "method.chains=0"], r"method.chains = 0: it must be at least 1"),
        ([*QALIGN, "method.proposals=0"], r"method.proposals = 0: it must be at least 1"),
        ([*QALIGN, "method.swap_every=0"], r"method.swap_every = 0: it must be at least 1"),
        ([*QALIGN, "method.thin=0"], r"method.thin = 0: it must be at least 1"),
        ([*QALIGN, "method.steps=4", "method.burn_in=5"], r"method.burn_in = 5: of 4 steps none would be left"),
        ([*QALIGN, "method.ladder=[2.0,1.5]"], r"method.ladder = \[2.0, 1.5\]: betas must rise from method.beta = 0.5"),
        ([*QALIGN, "method.ladder=[0.5]"], r"method.ladder = \[0.5\]: betas must rise"),
        ([*QALIGN, "method.select=soft"], r"method.select = 'soft': choose one of mbr"),
        ([*QALIGN, "method.utility=bleu"], r"method.utility = 'bleu'"),
        ([*QALIGN, "method.stop.every=1"], r"method.stop.every = 1: a check needs at least 4 steps"),
        ([*QALIGN, "method.stop.every=8", "method.stop.rhat=1"], r"method.stop.rhat = 1.0: it must be above 1"),
        ([*QALIGN, "method.stop.ess=0"], r"method.stop.ess = 0.0: it must be positive"),
        ([*QALIGN, "method.answer.how=maths"], r"method.answer: .*maths"),
        ([*QALIGN, "generator=vllm", "generator.temperature=0"], r"temperature = 0: every proposal would be the curr"),
        (["generator=vllm", "generator.repetition_penalty=1.1"], r"repetition_penalty is refused: a penalty treats"),
        (["generator=vllm", "generator.presence_penalty=1"], r"generator.presence_penalty is refused: a penalty"),
        (
            ["generator=transformers", "generator.stop=[END]"],
            r"generator.stop is refused: a stop string .* across a cut",
        ),
        (["generator=vllm", "generator.min_tokens=5"], r"generator.min_tokens is refused: a least number of tokens"),
        (["generator=vllm", "generator.guided_decoding.regex=a"], r"guided_decoding is refused: a grammar"),
        (
            [*QALIGN, "generator=vllm", "generator.engine_args.override_generation_config.repetition_penalty=1.2"],
            r"generator.engine_args.override_generation_config.repetition_penalty is refused: a penalty",
        ),
        ([*QALIGN, "generator=vllm", "generator.engine_args.logits_processors=[x]"], r"logits_processors is refused"),
        (
            ["critic=toy"],
            r"critic: method.name = best_of_n asks for no critiques; leave .* \(critic=null\), or .*: tpo",
        ),
        ([*QALIGN, "critic=toy"], r"critic: method.name = qalign asks for no critiques"),
        ([*TPO, "critic.lettres=2", "critic.engine=toy"], r"key 'critic.lettres' \(did you mean 'letters'\?\)"),
        ([*TPO, "critic=tyo"], r"no critic is called 'tyo' \(did you mean 'toy'\?\)"),
        ([*TPO, "critic=toy", "critic.letters=27"], r"^critic.letters = 27: choose 1 to 26"),
        ([*TPO, "critic=toy", "critic.cpus=many"], r"critic.cpus = 'many': expected a number"),
        ([*TPO, "critic=openai", "critic.base_url=x"], r"^critic.base_url = 'x': give the server's"),
        ([*TPO, "critic=vllm", "critic.temperature=-1"], r"critic.temperature = -1"),
        ([*TPO, "critic=vllm", "critic.top_p=0"], r"critic.top_p = 0"),
        ([*TPO, "critic=toy", "critic.replicas=0"], r"critic.replicas = 0: it must be at least 1"),
        ([*TPO, "critic=toy", "critic.max_tokens=0"], r"critic.max_tokens = 0: it must be at least 1"),
        ([*TPO, "critic=toy", "critic.gpus=-1"], r"critic.gpus = -1"),
        ([*TPO, "critic=toy", "critic.hang_s=0"], r"critic.hang_s = 0"),
        ([*TPO, "critic=[toy]"], r"critic"),
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load([], [*BASE, *overrides])


def test_replicas_are_a_number_or_its_bounds(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("generator: {engine: toy, replicas: 4}\nreward: {engine: toy, replicas: {min: 2, max: 3}}\n")
    base = ["out=x", "data.input=p"]
    run = load([str(job)], base)
    assert (run.generator.replicas, run.generator.bounds, run.generator.elastic) == (4, Replicas(4, 4), False)
    assert (run.reward.replicas, run.reward.bounds, run.reward.elastic) == (Replicas(2, 3), Replicas(2, 3), True)
    bounds = ["generator.replicas.min=1", "generator.replicas.max=4", "reward.replicas.max=9"]
    run = load([str(job)], [*base, *bounds])
    assert (run.generator.replicas, run.reward.replicas) == (Replicas(1, 4), Replicas(2, 9))
    assert from_yaml(to_yaml(run)) == run
    run = load([str(job)], [*base, *bounds, "generator.replicas=2", "reward.replicas='5'"])
    assert (run.generator.replicas, run.reward.replicas) == (2, 5)


def test_a_critic_is_a_generator_section_that_a_run_may_be_without(tmp_path: Path) -> None:
    job = tmp_path / "job.yaml"
    job.write_text("method: tpo\ngenerator: toy\nreward: toy\ncritic: {engine: simulated, tokens: 9}\n")
    base = ["out=x", "data.input=p"]
    run = load([str(job)], base)
    assert run.critic is not None
    assert run.critic == load([], [*base, "generator.engine=simulated", "generator.tokens=9"]).generator
    assert list(run.models) == ["generator", "critic", "reward"]
    (tmp_path / "config.yaml").write_text(to_yaml(run))
    assert load([str(tmp_path / "config.yaml")]) == run
    other = load([str(job)], [*base, "critic=toy", "critic.letters=2"]).critic
    assert other is not None
    assert other.engine == "toy", "another engine makes way for its own settings"
    for without in (load([str(job)], [*base, "critic=null"]), load([], [*BASE, "method=tpo"])):
        assert without.critic is None
        assert list(without.models) == ["generator", "reward"]
        (tmp_path / "config.yaml").write_text(to_yaml(without))
        assert load([str(tmp_path / "config.yaml")]) == without


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file 'conf/job/toi.yaml' \(did you mean 'toy'\?\)"):
        load(["conf/job/toi.yaml"])
    (tmp_path / "a.yaml").write_text("seed: [1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml.*line"):
        load([str(tmp_path / "a.yaml")])
    (tmp_path / "l.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping"):
        load([str(tmp_path / "l.yaml")])


def test_another_method_makes_way_for_its_own_settings(tmp_path: Path) -> None:
    """What only the method of the job's file knows goes; what both know stays; mistakes are still mistakes."""
    job = tmp_path / "job.yaml"
    job.write_text("method: {name: best_of_n, n: 8, select: soft, beta: 0.3}\ngenerator: toy\nreward: toy\n")
    run = load([str(job)], ["out=x", "data.input=p", "method=adaptive_best_of_n", "method.budget=9"])
    assert (run.method.name, run.method.select, run.method.beta, run.method.budget) == (
        "adaptive_best_of_n",
        "soft",
        0.3,
        9,
    )
    with pytest.raises(ConfigError, match=r"unknown key 'method.n'"):
        load([str(job)], ["out=x", "data.input=p", "method=adaptive_best_of_n", "method.n=9"])
    job.write_text("method: {name: best_of_n, nn: 8}\ngenerator: toy\nreward: toy\n")
    with pytest.raises(ConfigError, match=r"unknown key 'method.nn'"):
        load([str(job)], ["out=x", "data.input=p", "method=adaptive_best_of_n"])


def test_a_verifier_does_not_keep_the_model_of_the_job_s_file() -> None:
    """Banner and data set card would name it as the judge of what it never saw."""
    run = load(["relabel"], ["reward=verifier", "data.reference=answer"])
    assert (run.reward.engine, run.reward.model) == ("verifier", "")
    assert load(["relabel"], ["reward=transformers"]).reward.model.startswith("Skywork/")
    assert load(["best_of_n"], ["generator=transformers"]).generator.model.startswith("Qwen/")


def test_settings_that_python_finds_equal_are_told_apart() -> None:
    """Sections that were checked once are kept: 1, 1.0 and true are one key of a dictionary, but not one setting."""
    assert load([], [*BASE, "data.shard_rows=1"]).data.shard_rows == 1
    for other in ("1.0", "true"):
        with pytest.raises(ConfigError, match=r"data.shard_rows = (1.0|True): expected a whole number"):
            load([], [*BASE, f"data.shard_rows={other}"])


def test_plain_mappings_build_too() -> None:
    settings = yaml.safe_load("{out: x, data: {input: [a, b]}, generator: toy, reward: toy}")
    assert build(settings).data.input == ["a", "b"]


@pytest.mark.parametrize("override", ["method.n=[1", "data.prompt={", "method.n='", "method.n=@1"])
def test_an_override_that_is_no_yaml_is_shown(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load([], [*BASE, override])
    assert str(caught.value).startswith(f"{override!r} can't be read: ")
    assert "quote a text" in str(caught.value)


def test_a_list_where_another_place_has_settings(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("data: [p.jsonl]\n")
    with pytest.raises(ConfigError, match="data: settings in one place and a list in another"):
        load([str(tmp_path / "a.yaml")], BASE)
