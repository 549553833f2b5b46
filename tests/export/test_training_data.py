"""Exports: what ``datasets`` and TRL read, in both forms; counts that add up; the same bytes every time; the card."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import Dataset, load_dataset
from hypothesis import given
from hypothesis import strategies as st

from pipeline.export.card import BAR, REASONS, Provenance, histogram, size_category
from pipeline.export.examples import Exporter, ScoredCandidate, ScoredRow
from pipeline.kernels import pairing
from pipeline.run_checks import FORMATS
from pipeline.sections import ExportConfig
from pipeline.storage.folder import Folder
from pipeline.storage.manifest import Plan
from pipeline.storage.training_data import export
from pipeline.types import Content, Message

CHAT: Content = (Message("user", "q"), Message("assistant", "a"), Message("user", "r"))
REJECTED = {"prompt: EmptyPrompt": 2}
SOURCE = Provenance("a run", "rescore", {"reward model": "m"}, 0, "run", [], 2, {"raylign": "0"}, reasons=REJECTED)


def candidate(text: str, reward: float, kind: str = "sample", index: int = 0) -> ScoredCandidate:
    return ScoredCandidate(text, reward, kind, 0, index, 0, "stop", 3, "g", f"{text}{index}")


def row(name: str, content: Content, *candidates: ScoredCandidate) -> ScoredRow:
    best = max(candidates, key=lambda c: c.reward)
    return ScoredRow(name, content, best.response, best.reward, candidates)


ROWS = [
    row("r0", "p", candidate("good", 2.0, "given"), candidate("bad", -1.0)),
    row("r1", CHAT, candidate("worse", 0.0), candidate("better", 0.5), candidate("", 9.0)),
    row("r2", "p", candidate("same", 1.0), candidate("other", 1.0)),
    row("r3", (Message("system", "s"), Message("user", "q")), candidate("x", 1.0), candidate("y", 0.0)),
]


class Finished:
    """A finished run of two shards, as ``export`` sees one."""

    def __init__(self, folder: Folder) -> None:
        self.folder, self.plan, self.shards = folder, Plan("run", {}), 2
        self.further: list[str] = []

    def read(self, shard: int) -> Iterator[ScoredRow]:
        yield from ROWS[2 * shard : 2 * shard + 2]

    def rewards(self) -> Iterator[float]:
        yield from (c.reward for r in ROWS for c in r.candidates)


def exported(out: Path, **settings: Any) -> tuple[dict[str, Dataset], dict[str, Any]]:
    """Each format as ``datasets`` reads it by the card's own configuration, and ``export.json``."""
    config = ExportConfig(**settings)
    export(Finished(Folder(str(out))), config, len, SOURCE)  # type: ignore[arg-type]
    loaded = {
        name: load_dataset(str(out / "export"), name, split="train", cache_dir=str(out / "cache"))
        for name in config.formats
    }
    return loaded, json.loads((out / "export.json").read_text())


def turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def test_conversational_form_is_what_trl_documents(tmp_path: Path) -> None:
    data, _ = exported(tmp_path)
    assert data["pairs"].column_names == ["id", "prompt", "chosen", "rejected", "score_chosen", "score_rejected"]
    assert data["pairs"].to_list()[:2] == [
        {
            "id": "r0",
            "prompt": [turn("user", "p")],
            "chosen": [turn("assistant", "good")],
            "rejected": [turn("assistant", "bad")],
            "score_chosen": 2.0,
            "score_rejected": -1.0,
        },
        {
            "id": "r1",
            "prompt": [turn("user", "q"), turn("assistant", "a"), turn("user", "r")],
            "chosen": [turn("assistant", "better")],
            "rejected": [turn("assistant", "worse")],
            "score_chosen": 0.5,
            "score_rejected": 0.0,
        },
    ]
    assert data["unpaired"].column_names == ["id", "prompt", "completion", "label", "score"]
    first = data["unpaired"][0]
    assert (first["completion"], first["label"], first["score"]) == ([turn("assistant", "good")], True, 2.0)
    assert data["unpaired"].features["label"].dtype == "bool"
    assert data["sft"].column_names == ["id", "messages", "score"]
    assert data["sft"][0]["messages"] == [turn("user", "p"), turn("assistant", "good")]
    assert [c["key"] for c in data["candidates"].to_list()] == [c.key for r in ROWS for c in r.candidates]


def test_plain_text_is_what_trl_documents(tmp_path: Path) -> None:
    data, record = exported(tmp_path, form="text")
    pairs = {r["id"]: r for r in data["pairs"].to_list()}
    assert (pairs["r0"]["prompt"], pairs["r0"]["chosen"], pairs["r0"]["rejected"]) == ("p", "good", "bad")
    chat = "\n\nHuman: q\n\nAssistant: a\n\nHuman: r\n\nAssistant:"
    assert (pairs["r1"]["prompt"], pairs["r1"]["chosen"]) == (chat, " better")
    assert data["sft"].column_names == ["id", "prompt", "completion", "score"]
    assert data["sft"][0]["prompt"] + data["sft"][0]["completion"] == "pgood"
    assert "r3" not in pairs  # a system turn has no transcript
    assert record["without"]["pairs"] == {"tie": 1, "no_text": 1}
    assert record["without"]["candidates"] == {"no_text": 1}


def test_other_data_are_never_taken_from_the_cache(tmp_path: Path) -> None:
    """``datasets`` tells local data sets apart by their card alone."""

    def pairs(out: Path, **settings: Any) -> list[str]:
        export(Finished(Folder(str(out))), ExportConfig(**settings), len, SOURCE)  # type: ignore[arg-type]
        data = load_dataset(str(out / "export"), "pairs", split="train", cache_dir=str(tmp_path / "cache"))
        return [str(name) for name in data["id"]]

    assert pairs(tmp_path / "a") == ["r0", "r1", "r3"]
    assert pairs(tmp_path / "b", margin=0.75) == ["r0", "r3"]
    assert pairs(tmp_path / "a", margin=2.5) == ["r0"]
    assert pairs(tmp_path / "b", margin=0.75) == ["r0", "r3"]


def test_rows_that_give_nothing_are_counted_by_reason(tmp_path: Path) -> None:
    data, record = exported(tmp_path, margin=0.75)
    assert record["without"] == {"pairs": {"margin": 1, "tie": 1}}
    assert record["examples"] == {name: data[name].num_rows for name in FORMATS}
    assert record["rows"] == len(ROWS)
    card = (tmp_path / "export" / "README.md").read_text()
    for reason in ("margin", "tie"):
        assert f"| none: {REASONS[reason]} | 1 |" in card


def test_what_was_kept_gives_way_in_supervised_examples_if_nothing_can_be_learned_from_it(tmp_path: Path) -> None:
    """As after a draw that ended at once and was rewarded for it. It is in no pair either, better or worse."""
    data, record = exported(tmp_path)
    kept = {r["id"]: (r["messages"][-1], r["score"]) for r in data["sft"].to_list()}
    assert kept["r1"] == (turn("assistant", "better"), 0.5)
    assert kept["r2"] == (turn("assistant", "same"), 1.0)
    assert record["instead"] == 1
    card = (tmp_path / "export" / "README.md").read_text()
    assert "the one that was kept has no text or no finite reward: 1." in card
    exporter = Exporter(ExportConfig(), len, 0.0)
    made = exporter.examples(row("r", "p", candidate("text", 1.0), candidate(" ", 2.0), candidate("", -1.0)))
    assert (made["pairs"], len(made["sft"]), len(made["candidates"])) == ([], 1, 3)
    assert exporter.examples(row("r", "p", candidate("", 1.0)))["sft"] == []
    assert exporter.statistics.without["sft"] == {"no_candidate": 1}


def test_labels_follow_the_threshold_or_the_median(tmp_path: Path) -> None:
    data, record = exported(tmp_path / "median")
    assert record["settings"]["threshold"] == 1.0
    assert data["unpaired"].filter(lambda r: r["label"])["id"][:] == ["r0"]
    data, record = exported(tmp_path / "given", threshold=0.0)
    assert sum(data["unpaired"]["label"]) == 5
    assert data["unpaired"].num_rows == 8  # all but the blank one


def test_only_the_formats_that_were_asked_for_are_there_and_old_ones_go(tmp_path: Path) -> None:
    exported(tmp_path)
    data, _ = exported(tmp_path, formats=["sft", "pairs"], margin=2.5)
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["README.md", "pairs", "sft"]
    assert data["pairs"]["id"][:] == ["r0"]
    assert [p.name for p in (tmp_path / "export" / "pairs").iterdir()] == ["part-00000.parquet"]


def test_a_format_without_examples_has_no_files_and_the_card_says_so(tmp_path: Path) -> None:
    config = ExportConfig(formats=["pairs", "sft"], margin=100.0)
    export(Finished(Folder(str(tmp_path))), config, len, SOURCE)  # type: ignore[arg-type]
    assert sorted(p.name for p in (tmp_path / "export").iterdir()) == ["README.md", "sft"]
    card = (tmp_path / "export" / "README.md").read_text()
    assert [c["config_name"] for c in yaml.safe_load(card.split("---\n")[1])["configs"]] == ["sft"]
    assert "| `pairs` | preference pairs (DPO, reward models) | 0 |" in card


def test_the_same_export_again_is_the_same_to_the_byte(tmp_path: Path) -> None:
    _, first = exported(tmp_path / "a", rule="best_random")
    _, again = exported(tmp_path / "b", rule="best_random")
    assert first == again
    assert len(first["files"]) == 4 * 2 + 1


def test_a_random_choice_depends_on_the_seed_and_the_row_alone() -> None:
    pool = [candidate("best", 9.0), *(candidate(f"t{i}", i / 10) for i in range(8))]
    rows = [row(f"r{i}", "p", *pool) for i in range(12)]

    def chosen(rows: list[ScoredRow], seed: int = 0) -> dict[str, float]:
        exporter = Exporter(ExportConfig(formats=["pairs"], rule="best_random", seed=seed), len, 0.0)
        made = [exporter.examples(r)["pairs"][0] for r in rows]
        return {e["id"]: e["score_rejected"] for e in made}

    assert chosen(rows) == chosen(rows[::-1])
    assert len(set(chosen(rows).values())) > 2
    assert chosen(rows) != chosen(rows, seed=1)


def test_it_is_written_to_any_file_system() -> None:
    folder = Folder("memory://relabel/run")
    for _ in range(2):  # what stands there gives way
        export(Finished(folder), ExportConfig(), len, SOURCE)  # type: ignore[arg-type]
    assert folder.names("export") == ["README.md"]
    assert folder.read_table("export/pairs/part-00000.parquet").column("id").to_pylist() == ["r0", "r1"]


def test_the_card_begins_with_what_the_hub_reads(tmp_path: Path) -> None:
    exported(tmp_path)
    _, front, text = (tmp_path / "export" / "README.md").read_text().split("---\n", 2)
    found = yaml.safe_load(front)
    assert [c["config_name"] for c in found["configs"]] == list(FORMATS)
    assert found["configs"][0]["data_files"] == [{"split": "train", "path": "pairs/*.parquet"}]
    assert found["size_categories"] == ["n<1K"]
    assert "Of 6 input rows 4 have a result and 2 were rejected." in text
    assert "| prompt: EmptyPrompt | 2 |" in text
    assert "mean lengths are 3.667 and 3 characters." in text


contents = st.sampled_from(["p", CHAT, (Message("system", "s"), Message("user", "q"))])
candidates = st.builds(
    candidate,
    st.sampled_from(["", "a", "b", "cc"]),
    st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf]),
    st.sampled_from(["given", "sample"]),
)
rows = st.lists(st.builds(row, st.uuids().map(str), contents, candidates, candidates, candidates), max_size=6)


@given(rows, st.sampled_from(["conversational", "text"]), st.sampled_from(pairing.RULES))
def test_every_row_gives_something_or_a_reason(rows: list[ScoredRow], form: str, rule: str) -> None:
    exporter = Exporter(ExportConfig(form=form, rule=rule, max_ratio=1.5), len, 0.25)
    made = [exporter.examples(r) for r in rows]
    found = exporter.statistics
    assert found.rows == len(rows)
    for name in FORMATS:
        gave = sum(bool(m[name]) for m in made)
        assert gave + sum(found.without.get(name, {}).values()) == len(rows)
        assert found.examples[name] == sum(len(m[name]) for m in made)
        assert found.without.get(name, {}).keys() <= REASONS.keys()
    for example in (e for m in made for e in m["pairs"]):
        assert example["score_chosen"] > example["score_rejected"]
        assert example["chosen"] != example["rejected"]


@given(st.lists(st.floats(width=64), max_size=30))
def test_histograms_count_every_value_whatever_it_is(values: list[float]) -> None:
    lines = [line.split("#")[0] for line in histogram(values).splitlines()]
    counted = [int(line.split()[-1].replace(",", "")) for line in lines if line != "none"]
    assert sum(counted) == len(values)
    assert all(line.count("#") <= BAR for line in histogram(values).splitlines())


@pytest.mark.parametrize(
    ("rows", "name"), [(0, "n<1K"), (1000, "1K<n<10K"), (10**7, "10M<n<100M"), (10**9, "100M<n<1B")]
)
def test_sizes_have_the_hubs_names(rows: int, name: str) -> None:
    assert size_category(rows) == name
