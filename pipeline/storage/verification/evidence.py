"""Results against the replies that the journal has of their rows.

Results say how many candidates each row considered, what tokens were drawn for them, and which one was kept. The
journal may hold more: draws of other runs that share it, or of a longer run that was cut short. So there must be *at
least* so many candidates with this run's reward model, and so many tokens; where there are exactly as many candidates,
and nothing else, the tokens must agree, and so must the best reward where the best is what was kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.sections import reward_column
from pipeline.storage.schema import CANDIDATES, SCORER, with_rewards
from pipeline.storage.verification.comparison import Rows, comparable, places, repeats
from pipeline.storage.verification.findings import SHOWN
from pipeline.storage.verification.record import Setting

REPLIES = pa.schema(
    [CANDIDATES.field(n) for n in ("id", "response", "reward", "generator", "scorer", "generated_tokens")]
)
"""The columns of the journal that bear on results, beside those of further reward models."""


@dataclass(frozen=True)
class Problem:
    """Rows of the results that the journal doesn't bear out; ``text`` says it of one of the first ``SHOWN``."""

    kind: str
    rows: Rows
    text: Callable[[int], str]


@dataclass(frozen=True)
class Evidence:
    """What the journal has of each of n rows.

    ``scored`` (n,): candidates with this run's reward model; ``texts`` (n,): replies that are never scored; ``tokens``
    (n,): generated for all of them. ``best`` (n,): the highest reward, NaN where none is a number. ``kept`` (n,):
    whether a candidate has the response and the rewards that the row's result says.
    """

    scored: Rows
    texts: Rows
    tokens: Rows
    best: NDArray[np.float64]
    kept: NDArray[np.bool_]


def judge(results: pa.Table, ids: pa.ChunkedArray, known: list[pa.Table], setting: Setting) -> list[Problem]:
    """What of a shard's results the replies in ``known`` don't bear out. ``ids``: the shard's."""
    asked = places(results.column("id"), ids)
    rows = np.flatnonzero(asked >= 0)
    rows = np.delete(rows, repeats(asked[rows]))  # those that stand here rightly, and once
    said = results.take(rows)
    columns = with_rewards(REPLIES, setting.rewards)
    there = [t.select([name for name in columns.names if name in t.column_names]) for t in known]
    found = weigh(said, pa.concat_tables([columns.empty_table(), *there], promote_options="default"), setting)
    candidates, tokens, rewards = (said.column(c).to_numpy() for c in ("candidates", "generated_tokens", "reward"))
    few = found.scored < candidates
    whole = found.scored == candidates
    exact = whole & (found.texts == 0)
    worse = whole & (rewards != found.best) & ~(np.isnan(rewards) & np.isnan(found.best)) & setting.best_of_all
    miscounted = ~few & ((found.tokens < tokens) | (exact & (found.tokens != tokens)))
    wrong: list[tuple[str, NDArray[np.bool_], Callable[[int], str]]] = [
        (
            "missing-reply",
            ~found.kept,
            lambda i: f"the journal has no such response of {_said(said, i, setting)} for it",
        ),
        (
            "missing-draws",
            few,
            lambda i: f"{candidates[i]} candidates were considered for it, the journal has {found.scored[i]}",
        ),
        (
            "generated-tokens",
            miscounted,
            lambda i: f"{tokens[i]} tokens were generated for it, by the journal {found.tokens[i]}",
        ),
        (
            "not-the-best",
            worse,
            lambda i: f"its reward is {rewards[i]}, the best of its candidates has {found.best[i]}",
        ),
    ]
    return [_problem(kind, rows, np.flatnonzero(mask), text) for kind, mask, text in wrong if mask.any()]


def weigh(results: pa.Table, replies: pa.Table, setting: Setting) -> Evidence:
    """Adds up the replies of each row. ``results``: rows of different ids."""
    n = len(results)
    row = places(replies.column("id"), results.column("id"))
    drawn_here = _mask(pc.is_in(replies.column("generator"), pa.array(setting.generators, pa.string())))
    unscored = _mask(pc.is_null(replies.column("scorer")))
    given = _mask(pc.is_null(replies.column("generator")))
    scored = (row >= 0) & _equals(replies.column("scorer"), setting.scorer) & (drawn_here | given)
    for name in setting.rewards:  # not those that stand there from before there was this model
        scored &= _mask(pc.is_valid(replies.column(f"{SCORER}{name}")))
    texts = (row >= 0) & unscored & drawn_here
    counted = scored | texts
    generated = np.nan_to_num(replies.column("generated_tokens").to_numpy().astype(np.float64))
    rewards = replies.column("reward").to_numpy()
    best = np.full(n, np.nan)
    np.fmax.at(best, row[scored], rewards[scored])
    kept = np.zeros(n, bool)
    of = row[scored]
    same = np.ones(len(of), bool)
    for name in ("response", "reward", *map(reward_column, setting.rewards)):
        there = comparable(replies.column(name)).filter(pa.array(scored))
        here = comparable(results.column(name)).take(pa.array(of))
        same &= _mask(pc.or_kleene(pc.equal(there, here), pc.and_(pc.is_null(there), pc.is_null(here))))
    kept[of[same]] = True
    return Evidence(
        scored=np.bincount(row[scored], minlength=n),
        texts=np.bincount(row[texts], minlength=n),
        tokens=np.bincount(row[counted], weights=generated[counted], minlength=n).astype(np.int64),
        best=best,
        kept=kept,
    )


def _said(results: pa.Table, row: int, setting: Setting) -> str:
    """The rewards of a row of the results."""
    said = [f"reward {results.column('reward')[row].as_py()}"]
    said += [f"{name} {results.column(name)[row].as_py()}" for name in map(reward_column, setting.rewards)]
    return ", ".join(said)


def _problem(kind: str, rows: Rows, wrong: Rows, text: Callable[[int], str]) -> Problem:
    texts = {int(rows[i]): text(i) for i in wrong[:SHOWN].tolist()}
    return Problem(kind, rows[wrong], texts.__getitem__)


def _equals(column: pa.ChunkedArray, value: str) -> NDArray[np.bool_]:
    return _mask(pc.equal(column, value))


def _mask(column: pa.Array | pa.ChunkedArray) -> NDArray[np.bool_]:
    """As NumPy has it; null is False."""
    return np.asarray(pc.fill_null(column, False).to_numpy(zero_copy_only=False), bool)
