"""Real transcripts through the demo reward model: its opinions mean nothing there, but every one is as by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actors.protocol import ScoreRequest
from jobs.relabel import main
from pipeline.types import Message
from tests.actors.by_hand import score_by_hand
from tests.conftest import ROOT
from tests.e2e.conftest import table

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
SHORT, SHORT_ROWS, LONG_ROWS = 400, 60, 3
"""Characters: the demo models see 512 tokens, which are characters. Longer rows are to be rejects."""


def test_transcripts_of_hh_rlhf_become_pairs_by_the_reward_models_own_scores(
    shared_data: Path, ray_cluster: None, tmp_path: Path
) -> None:
    every = [json.loads(line) for line in (shared_data / "hh_rlhf_harmless_base_test.jsonl").read_text().splitlines()]
    short = [row for row in every if max(map(len, row.values())) < SHORT][:SHORT_ROWS]
    long = [row for row in every if min(map(len, row.values())) > 2 * SHORT][:LONG_ROWS]
    path, out = tmp_path / "hh.jsonl", tmp_path / "out"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*short, *long]))
    model = ROOT / "demo" / "reward_model"
    arguments = [f"out={out}", f"data.input={path}", "data.transcript=[chosen,rejected]", "export.max_ratio=2"]
    assert main([*arguments, "reward.engine=transformers", f"reward.model={model}"]) == 3

    results, rejects = table(out, "results").to_pylist(), table(out, "rejects").to_pylist()
    assert sorted(r["id"] for r in [*results, *rejects]) == sorted(f"hh-{i}" for i in range(SHORT_ROWS + LONG_ROWS))
    assert {f"hh-{SHORT_ROWS + i}" for i in range(LONG_ROWS)} <= {r["id"] for r in rejects}
    assert {(r["stage"], r["error_type"]) for r in rejects} <= {("score", "BadRequest"), ("prompt", "BadTranscript")}

    data = table(out, "export/candidates").to_pylist()
    blank = sum(text.rstrip().endswith("Assistant:") for r in results for text in (r["chosen"], r["rejected"]))
    assert blank == 1  # the first rows have such a response; it is no candidate
    assert len(data) == 2 * len(results) - blank
    for row in data[::12]:
        content = tuple(Message(m["role"], m["content"]) for m in row["prompt"])
        by_hand = score_by_hand(model, ScoreRequest(content, row["completion"][0]["content"]))
        assert row["score"] == pytest.approx(by_hand, abs=1e-3)

    pairs = table(out, "export/pairs").to_pylist()
    record = json.loads((out / "export.json").read_text())
    assert len(pairs) + sum(record["without"]["pairs"].values()) == len(results)
    assert record["without"]["pairs"]["length"] > 0
    for pair in pairs:
        texts = [pair[name][0]["content"] for name in ("chosen", "rejected")]
        assert pair["score_chosen"] > pair["score_rejected"]
        assert max(map(len, texts)) <= 2 * min(map(len, texts))
        given = short[int(pair["id"].removeprefix("hh-"))]
        assert sorted(texts) == sorted(t.rsplit("\n\nAssistant:", 1)[1].removeprefix(" ") for t in given.values())
