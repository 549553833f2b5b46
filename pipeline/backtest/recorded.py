"""Recorded rewards as trials: many draws per prompt, dealt out again and again in another order."""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.backtest.laws import Atoms
from pipeline.backtest.replay import Trial
from pipeline.batch import Floats, Ints
from pipeline.errors import InputError

FUNCTIONS: dict[str, Callable[..., Any]] = {
    "log": np.log,
    "exp": np.exp,
    "sqrt": np.sqrt,
    "abs": np.abs,
    "minimum": np.minimum,
    "maximum": np.maximum,
}
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}


@dataclass(frozen=True, slots=True)
class Pool:
    """Draws of n prompts, padded to the longest: ``rewards``, ``responses``, ``tokens`` (n, draws), ``sizes`` (n,).

    ``left_out``: further prompts, none of whose draws has a finite reward.
    """

    rewards: Floats
    responses: Ints
    tokens: Ints | None
    sizes: Ints
    left_out: int = 0

    def trials(self, batch: int, batches: int, rng: np.random.Generator) -> list[Trial]:
        """Batches of ``batch`` different prompts; each time all prompts are dealt out, with their draws permuted."""
        n = len(self.sizes)
        width = min(batch, n)
        found: list[Trial] = []
        while len(found) < batches:
            order = rng.permutation(n)
            for start in range(0, n - width + 1, width):
                found.append(self._trial(order[start : start + width], rng))
        return found[:batches]

    def _trial(self, prompts: Ints, rng: np.random.Generator) -> Trial:
        sizes = self.sizes[prompts]
        key = rng.random((len(prompts), self.rewards.shape[1]))
        key[np.arange(key.shape[1]) >= sizes[:, None]] = 2.0  # padding stays at the end
        order = np.argsort(key, axis=1)
        deal = (prompts[:, None], order)
        inside = np.arange(key.shape[1]) < sizes[:, None]
        values = np.where(inside, self.rewards[prompts], self.rewards[prompts, :1])
        law = Atoms(values, inside / sizes[:, None])
        tokens = None if self.tokens is None else self.tokens[deal]
        return Trial(self.rewards[deal], self.responses[deal], sizes, prompts, tokens, law)


def pool(ids: list[Any], rewards: Floats, responses: list[Any] | None, tokens: Floats | None) -> Pool:
    """Groups draws by prompt, in the order in which ids first appear. Draws without known tokens cost the mean.

    Those without a finite reward count as the lowest of their prompt; a prompt without any is left out.
    """
    order: dict[Any, list[int]] = {}
    for i, name in enumerate(ids):
        order.setdefault(name, []).append(i)
    every = len(order)
    order = {name: rows for name, rows in order.items() if np.isfinite(rewards[rows]).any()}
    sizes = np.array([len(rows) for rows in order.values()], np.int64)
    shape = (len(order), int(sizes.max(initial=1)))
    own, own_responses, own_tokens = np.full(shape, np.nan), np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    filled = None if tokens is None else np.where(np.isnan(tokens), np.nanmean(tokens), tokens).round()
    for k, rows in enumerate(order.values()):
        finite = np.isfinite(rewards[rows])
        own[k, : len(rows)] = np.where(finite, rewards[rows], rewards[rows][finite].min())
        names: dict[Any, int] = {}
        said = range(len(rows)) if responses is None else [names.setdefault(responses[i], len(names)) for i in rows]
        own_responses[k, : len(rows)] = list(said)
        if filled is not None:
            own_tokens[k, : len(rows)] = filled[rows]
    return Pool(own, own_responses, None if tokens is None else own_tokens, sizes, every - len(order))


def once(labels: Sequence[Any], rewards: Floats) -> Ints:
    """Places of the first of each label with a finite reward, or of its first, in order.

    A run that was given a further reward model writes its draws into the journal anew.
    """
    chosen: dict[Any, int] = {}
    finite = np.isfinite(rewards)
    for i, label in enumerate(labels):
        if label not in chosen or (finite[i] and not finite[chosen[label]]):
            chosen[label] = i
    return np.array(sorted(chosen.values()), np.int64)


def evaluate(expression: str, columns: Mapping[str, Floats]) -> Floats:
    """The reward of every draw: a column, or arithmetic over columns (``-log(tokens)``).

    Raises ``InputError`` that names what is not understood and what there is.
    """

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Expression(body=body):
                return value(body)
            case ast.Constant(value=int() | float() as number):
                return np.float64(number)
            case ast.Name(id=name) if name in columns:
                return columns[name]
            case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(left), value(right))
            case ast.UnaryOp(op=op, operand=operand) if type(op) in OPERATORS:
                return OPERATORS[type(op)](value(operand))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in FUNCTIONS:
                return FUNCTIONS[name](*map(value, arguments))
        part = ast.unparse(node)
        raise InputError(
            f"reward = {expression!r}: {part!r} is not understood; columns are {', '.join(sorted(columns))}, "
            f"functions {', '.join(sorted(FUNCTIONS))}, operators + - * / **"
        )

    try:
        tree = ast.parse(expression, mode="eval")
    except SyntaxError as error:
        raise InputError(f"reward = {expression!r}: {error.msg}; write a column or arithmetic over columns") from None
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(value(tree), np.float64)
