"""What a run is called: by all that shapes its output, and by nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.spec import RunSpec, make_spec
from pipeline.config import load
from pipeline.storage.folder import Folder
from pipeline.storage.source import inspect

JUDGED = ["reward.engine=judge", "reward.generator.engine=toy", "reward.generator.context=100000"]


@pytest.mark.parametrize("reward", [["reward=toy"], JUDGED], ids=["toy", "judge"])
def test_the_number_of_replicas_names_neither_run_nor_reply(tmp_path: Path, reward: list[str]) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "p"}\n')

    def spec(*overrides: str) -> RunSpec:
        config = load([], [f"out={tmp_path}", f"data.input={tmp_path}/p.jsonl", "generator=toy", *reward, *overrides])
        return make_spec(config, inspect(config.data), Folder(config.out))  # of the same directory: another is refused

    one = spec()
    for replicas in ("3", "{min: 1, max: 4}"):
        again = spec(f"generator.replicas={replicas}", f"reward.replicas={replicas}", "cluster.idle_s=5")
        assert (again.plan, again.generators, again.scorer) == (one.plan, one.generators, one.scorer)
    inner = spec("reward.generator.replicas={min: 1, max: 4}") if reward is JUDGED else one
    assert inner.scorer == one.scorer
    assert spec("generator.letters=2", f"out={tmp_path}/other").generators != one.generators
