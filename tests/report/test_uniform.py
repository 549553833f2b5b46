"""Adaptive runs against uniform best-of-N on the same draws: by hand, and where the record can't tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from jobs.report.budget import drawn, worth
from jobs.report.reading import Wanted, begin, read_run
from pipeline.report.uniform import Played, against_uniform
from pipeline.storage.folder import Folder
from tests.report.conftest import write_rows
from tests.report.made import make

BUDGET = 4
ADAPTIVE = [
    "method=adaptive_best_of_n",
    f"method.budget={BUDGET}",
    "method.rounds=2",
    "policy=adabon",
    "policy.batch=3",
]
Tell = Callable[..., tuple[int, str]]


def test_figures_by_hand() -> None:
    rewards = np.array([[0.0, 1.0, 2.0, 3.0], [0.0, 0.0, 0.0, 0.0]])
    worse = np.array([[5.0, 0.0, 0.0, 0.0], [0.0, 7.0, 9.0, 9.0]])
    sizes = np.array([4, 4])
    played = [Played(rewards, sizes, np.array([3, 1])), Played(worse, sizes, np.array([3, 1]))]
    found = against_uniform(played, 2, 100)
    values = {name: value for name, (value, _, _) in found.values.items()}
    # sums: 2 against 1 at the budget, then 5 against 12
    assert values["bwr"] == 0.5
    assert values["mean_gain"] == pytest.approx((2 - 1 + 0 - 0 + 5 - 5 + 0 - 7) / 4)
    assert values["win_rate"] == pytest.approx((1 + 0.5 + 0.5 + 0) / 4)
    assert values["est"] == pytest.approx((3 + 1) / 2), "2 beats 0, 1 and 2 of 0, 1, 2, 3; 5 beats 5 of 5, 12, 14, 14"
    assert values["est_uniform"] == pytest.approx((2 + 2) / 2)
    assert (found.batches, found.size, found.draws) == (2, 2, 4)


def test_a_prompt_may_have_made_more_draws_than_others_have() -> None:
    rewards = np.array([[0.0, 1.0, 9.0, 0.0], [0.0, 0.0, np.nan, np.nan]])
    found = against_uniform([Played(rewards, np.array([4, 2]), np.array([3, 1]))], 2, 100)
    assert found.draws == 2
    assert found.values["mean_gain"][0] == pytest.approx((9 - 1 + 0) / 2)


def test_survival_needs_twice_the_budget() -> None:
    played = [Played(np.array([[0.0, 1.0, np.nan]]), np.array([2]), np.array([2]))]
    found = against_uniform(played, 2, 100)
    assert found.values["bwr"][0] == 0.5
    assert np.isnan(found.values["est"][0])
    with pytest.raises(ValueError, match="can't tell of a budget of 3"):
        against_uniform(played, 3, 100)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adaptive run alone, and one whose journal has the draws of uniform runs too."""
    made = tmp_path_factory.mktemp("budgets")
    data = [write_rows(made / "p.jsonl", 13), "data.shard_rows=2", "generator.max_tokens=12"]
    make(made / "alone", *data, *ADAPTIVE)
    make(made / "uniform", *data, f"method.n={2 * BUDGET}", f"journal={made / 'journal'}")
    make(made / "shared", *data, *ADAPTIVE, f"journal={made / 'journal'}")
    make(made / "tokens", *data, *ADAPTIVE, "policy.cost=tokens")
    return made


def test_a_run_is_compared_on_its_journals_draws(folder: Path) -> None:
    run, uniform = (begin(str(folder / name), Wanted()) for name in ("shared", "uniform"))
    for each in (run, uniform):
        read_run(each, None, lambda done, total: None)
    found, said = worth(run, 100)
    assert found is not None
    assert (found.batches, found.size, found.draws) == (4, 3, 2 * BUDGET)
    assert "1 batches with rejected rows, or of another size, are left out" in said
    at_budget = next(
        k for k, v in enumerate(uniform.measured.variants) if v.value == BUDGET and v.config.select == "best"
    )
    gains = run.measured.values[:12, 0, 0] - uniform.measured.values[:12, at_budget, 0]
    assert found.values["mean_gain"][0] == pytest.approx(gains.mean())
    assert gains.any(), "the test needs prompts that got another number of draws"
    sums = gains.reshape(4, 3).sum(1)
    assert found.values["bwr"][0] == pytest.approx(((sums > 1e-9) + (np.abs(sums) <= 1e-9) / 2).mean())
    assert drawn(Folder(str(folder / "shared"))).sum() == 13 * BUDGET


@pytest.mark.parametrize(
    ("name", "message"),
    [("alone", "The journal has fewer than 4 plain draws"), ("tokens", "The budget is one of tokens")],
)
def test_what_the_record_cannot_tell_is_said(folder: Path, tell: Tell, tmp_path: Path, name: str, message: str) -> None:
    assert tell(folder / name)[0] == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert message in page
    assert f"raylign backtest source={folder / name / 'candidates'}" in page
    assert "survival time" not in page


def test_the_page_shows_the_figures(folder: Path, tell: Tell, tmp_path: Path) -> None:
    assert tell(folder / "shared")[0] == 0
    page = (tmp_path / "report" / "report.html").read_text()
    assert "(BWR)" in page
    assert "uniform&#39;s own survival time" in page
