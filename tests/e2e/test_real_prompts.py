"""Real prompts through real engines with small random models: the responses are nonsense, the plumbing is not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.cluster import Cluster
from actors.executor import Executor
from pipeline.config import load
from pipeline.sections import ClusterConfig
from tests.actors.tiny_models import save_generator, save_reward
from tests.e2e.conftest import candidates, table

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CONTEXT = 2048


@pytest.fixture(scope="module")
def cluster(ray_cluster: None) -> Iterator[Cluster]:
    with Cluster(ClusterConfig()) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("models")
    generator = save_generator(root / "generator", max_position_embeddings=CONTEXT)
    return generator, save_reward(root / "reward", max_position_embeddings=CONTEXT)


@pytest.mark.parametrize(("file", "column"), [("gsm8k_test.jsonl", "question"), ("alpaca_eval.jsonl", "prompt")])
def test_every_row_comes_out_once_with_its_columns(
    file: str, column: str, shared_data: Path, models: tuple[Path, Path], cluster: Cluster, tmp_path: Path
) -> None:
    generator, reward = models
    given = [json.loads(line) for line in (shared_data / file).read_text().splitlines()]
    settings = [
        f"out={tmp_path}/out",
        f"data.input={shared_data / file}",
        f"data.prompt={column}",
        "generator.engine=transformers",
        f"generator.model={generator}",
        "generator.max_tokens=4",
        "reward.engine=transformers",
        f"reward.model={reward}",
        "method.n=1",
    ]
    executor = Executor(load([], settings), cluster, lambda _: None)
    executor.prepare()
    summary = executor.run()
    assert summary["results"] + summary["rejects"] == len(given)
    results = table(tmp_path / "out", "results").to_pylist()
    rejects = table(tmp_path / "out", "rejects").to_pylist() if summary["rejects"] else []
    assert all(r["error_type"] == "PromptTooLong" for r in rejects)
    names = [g.get("id", f"{file.split('.')[0]}-{i}") for i, g in enumerate(given)]
    by_id = {r["id"]: r for r in results + rejects}
    assert set(by_id) == set(names)
    assert [r["id"] for r in results] == [n for n in names if n in {r["id"] for r in results}]
    for name, g in zip(names, given, strict=True):
        assert by_id[name]["prompt"] == g[column]
        for key in g.keys() - {column, "id"}:
            assert by_id[name][key] == g[key]
    drawn = candidates(tmp_path / "out")
    assert len(drawn) == len(results)
    assert all(1 <= len(c["token_ids"]) <= 4 for c in drawn)
