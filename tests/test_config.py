"""Configuration: later ones win, and every mistake is answered with its key and what would be valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pipeline.config import CONF, build, load, to_dict, to_yaml
from pipeline.errors import ConfigError

BASE = ["out=x", "data.input=p.jsonl", "generator=toy", "reward=toy"]


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


@pytest.mark.parametrize("job", sorted(p.stem for p in (CONF / "job").glob("*.yaml")))
def test_every_job_of_the_gallery_loads(job: str) -> None:
    assert load([job]).out


@pytest.mark.parametrize("part", sorted((CONF / "cluster").glob("*.yaml")), ids=lambda p: p.stem)
def test_every_cluster_of_the_gallery_loads(part: Path) -> None:
    assert load(["toy", str(part)]).cluster


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["methd.n=3"], r"unknown key 'methd' \(did you mean 'method'\?\); valid here: cluster, data"),
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
    ],
)
def test_mistakes_are_named(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load([], [*BASE, *overrides])


def test_missing_and_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no configuration file 'conf/job/toi.yaml' \(did you mean 'toy'\?\)"):
        load(["conf/job/toi.yaml"])
    (tmp_path / "a.yaml").write_text("seed: [1\n")
    with pytest.raises(ConfigError, match=r"a\.yaml.*line"):
        load([str(tmp_path / "a.yaml")])
    (tmp_path / "l.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="mapping"):
        load([str(tmp_path / "l.yaml")])


def test_plain_mappings_build_too() -> None:
    settings = yaml.safe_load("{out: x, data: {input: [a, b]}, generator: toy, reward: toy}")
    assert build(settings).data.input == ["a", "b"]
