"""Reports on whole runs with the toy engine: what they say of other settings is what runs with those settings give."""

from __future__ import annotations

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from jobs import report
from jobs.report.reading import Wanted, begin, read_run
from pipeline.report.measures import MEASURES
from tests.e2e.conftest import align, table

pytestmark = pytest.mark.ray

ROWS = 9
TPO = ["method=tpo", "method.n=4", "method.tags={start: a, end: b}", "method.max_tokens.critique=6"]
ANSWER = ["method.answer.how=regex", "method.answer.pattern=(a+)"]


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("prompts") / "p.jsonl"
    rows = [
        {"id": f"<b>{i}</b>", "prompt": f"question <i>{i}</i>" if i != 2 else "", "answer": "aa"} for i in range(ROWS)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("journal"))


def run(out: Path, data: str, journal: str, *overrides: str) -> Path:
    """A run on the journal that all of this module's runs share."""
    toy = [f"out={out}", f"data.input={data}", "generator=toy", "reward=toy", "data.shard_rows=4", f"journal={journal}"]
    align(*toy, "generator.max_tokens=8", *overrides)
    return out


@pytest.fixture(scope="module")
def runs(ray_cluster: None, prompts: str, journal: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Runs of every kind, several of which ask for draws of the same place: two seeds, two betas."""
    folder = tmp_path_factory.mktemp("runs")
    chains = ["method=qalign", "method.steps=8", "method.select=majority", *ANSWER]
    made = {
        "other": ["method.n=8", "seed=5", *ANSWER],
        "plain": ["method.n=8", *ANSWER],
        "hot": [*chains, "method.beta=4"],
        "chains": [*chains, "method.beta=0.5", "cluster.segment=3"],
        "refined": [*TPO, *ANSWER, "method.steps=3"],
        "budget": ["method=adaptive_best_of_n", "method.budget=6", "method.rounds=2", "policy=adabon", *ANSWER],
    }
    return {name: run(folder / name, prompts, journal, *settings) for name, settings in made.items()}


def measured(place: Path) -> dict[tuple[str, int], dict[str, list[float]]]:
    """Reward, accuracy, tokens, ... of every prompt under each variant, by selection and horizon."""
    found = begin(str(place), Wanted("auto", ["best", "majority"]))
    read_run(found, None, lambda done, total: None)
    reward, tokens = MEASURES.index("reward"), MEASURES.index("tokens")
    assert (found.measured.lost, found.measured.differing) == (0, 0)
    return {
        (v.config.select, v.value): {
            name: [float(row[k, reward]), float(row[k, tokens])]
            for name, row in zip(found.measured.ids, found.measured.values, strict=True)
        }
        for k, v in enumerate(found.measured.variants)
    }


@pytest.mark.parametrize(
    ("name", "variant", "settings"),
    [
        ("plain", ("best", 4), ["method.n=4"]),
        ("plain", ("majority", 2), ["method.n=2", "method.select=majority", *ANSWER]),
        ("other", ("best", 4), ["method.n=4", "seed=5"]),
        ("chains", ("best", 4), ["method=qalign", "method.beta=0.5", "method.steps=4", "method.select=best"]),
        (
            "hot",
            ("majority", 2),
            ["method=qalign", "method.beta=4", "method.steps=2", "method.select=majority", *ANSWER],
        ),
        ("refined", ("best", 1), [*TPO, "method.steps=1"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_replay_is_what_a_run_gives(
    runs: dict[str, Path],
    prompts: str,
    journal: str,
    tmp_path: Path,
    name: str,
    variant: tuple[str, int],
    settings: list[str],
) -> None:
    real = table(run(tmp_path / "real", prompts, journal, *settings), "results").to_pylist()
    expected = {r["id"]: [r["reward"], float(r["generated_tokens"])] for r in real}
    assert measured(runs[name])[variant] == expected
    assert len(expected) == ROWS - 1


def test_a_budget_is_read_as_it_was_granted(runs: dict[str, Path]) -> None:
    expected = {
        r["id"]: [r["reward"], float(r["generated_tokens"])] for r in table(runs["budget"], "results").to_pylist()
    }
    assert measured(runs["budget"])[("best", 0)] == expected


class Page(HTMLParser):
    """Which tags a page has, and what text; every tag that was opened must be closed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.add(tag)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_shows_every_kind_of_run(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report.main([*map(str, runs.values()), f"out={tmp_path}", "resamples=200"]) == 0
    text = (tmp_path / "report.html").read_text()
    page = Page(text)
    assert not page.open
    for words in (
        "Quality against tokens",
        "Over-optimisation",
        "Chains: chains",
        "Refinement: refined",
        "Budget: budget",
    ):
        assert words in page.text, words
    assert text.count("<svg") >= 7
    assert "question <i>" in page.text
    assert not {"b", "i", "script"} & page.tags, "what comes from the data is escaped"
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "https://matplotlib.org", ""
    ).replace("http://creativecommons.org", ""), "nothing is fetched"
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    series = {r["series"] for r in rows}
    assert {"best_of_n best", "qalign beta=0.5 majority", "qalign beta=4.0 majority", "tpo best"} <= series
    assert {r["seeds"] for r in rows if r["series"] == "best_of_n best"} == {"2"}
    for r in rows:
        assert float(r["accuracy_low"]) <= float(r["accuracy"]) <= float(r["accuracy_high"])
    shown = capsys.readouterr().out
    assert f"{ROWS - 1} prompts" in shown
    assert "warning" not in shown


def test_results_that_the_record_does_not_lead_to_are_said(
    runs: dict[str, Path], prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = run(tmp_path / "own", prompts, str(tmp_path / "journal"), "method.n=4", *ANSWER)
    part = next((own / "results").glob("part-00000*"))
    whole = pq.read_table(part)
    changed = pc.if_else(pc.equal(whole["id"], "<b>1</b>"), "another", whole["response"])
    pq.write_table(whole.set_column(whole.schema.get_field_index("response"), "response", changed), part)
    assert report.main([str(own), f"out={tmp_path}/report", "resamples=100"]) == 0
    assert "1 of 8 prompts have another result than their record leads to" in " ".join(capsys.readouterr().out.split())


def test_replies_that_are_gone_are_said(
    runs: dict[str, Path], prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = run(tmp_path / "own", prompts, str(tmp_path / "journal"), "method.n=4")
    part = next((tmp_path / "journal").glob("*.parquet"))
    whole = pq.read_table(part)
    pq.write_table(whole.filter(pc.not_equal(whole["name"], "draw/3")), part)
    assert report.main([str(own), f"out={tmp_path}/report", "resamples=100"]) == 0
    assert "of 8 prompts are not wholly on record" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name at least one run's directory"),
        (["nowhere"], "no run lies in"),
        (["{plain}", "gold=anser"], "no such column (did you mean 'answer'?)"),
        (["{plain}", "select=[bets]"], "'bets' (did you mean 'best'?)"),
        (["{plain}", "resamples=3"], "at least 100"),
        (["{plain}", "nonsense=3"], "unknown key 'nonsense'"),
        (["{unfinished}"], "is not finished: the same command goes on with it"),
        (["{plain}", "{stranger}"], "no prompt in common"),
    ],
)
def test_bad_input_is_named(
    runs: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    unfinished, stranger = tmp_path / "unfinished", tmp_path / "stranger"
    places = {"plain": runs["plain"], "unfinished": unfinished, "stranger": stranger}
    unfinished.mkdir()
    (unfinished / "_plan.json").write_bytes((runs["plain"] / "_plan.json").read_bytes())
    if "{stranger}" in arguments:
        other = tmp_path / "p.jsonl"
        other.write_text('{"id": "z", "prompt": "another"}\n')
        run(stranger, str(other), str(tmp_path / "journal"), "method.n=2")
    assert report.main([f"out={tmp_path}/report", *(a.format(**places) for a in arguments)]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
