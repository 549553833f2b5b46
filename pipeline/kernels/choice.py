"""From the name of a selection to the index of the response it keeps (METHODS.md, *Best-of-N and its relatives*)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pipeline.kernels import answers, rouge, selection
from pipeline.kernels.thinking import without_thinking

SELECTIONS = ("best", "last", "soft", "majority", "weighted_majority", "mbr")
UTILITIES = ("rouge1", "exact")


def votes_on_answers(rule: str, utility: str) -> bool:
    """Whether a selection looks at extracted answers."""
    return rule in ("majority", "weighted_majority") or (rule == "mbr" and utility == "exact")


def choose(
    rule: str,
    responses: Sequence[str],
    rewards: Sequence[float],
    rng: Callable[[], np.random.Generator],
    *,
    beta: float = 1.0,
    utility: str = "rouge1",
    answer: str = "math",
    pattern: str | None = None,
    weights: ArrayLike | None = None,
    given: Sequence[int | None] | None = None,
) -> int:
    """Index of the response that ``rule`` keeps, in [0, len(responses)).

    ``answer`` and ``pattern`` say how answers are extracted for the votes and for ``utility="exact"``, unless their
    classes are ``given``; ``rng`` is called by ``soft`` alone. ``weights``, (n,), finite and >= 0: how often each
    response occurs, for the votes and MBR. Votes and ``mbr``
    look at responses without their think blocks. Raises ``ValueError`` for an unknown rule or utility, or without
    responses.
    """
    if not responses:
        raise ValueError("there is no response to choose from")

    def classes() -> Sequence[int | None]:
        return classify(responses, answer, pattern) if given is None else given

    match rule:
        case "best":
            return selection.best(rewards)
        case "last":
            return selection.last(rewards)
        case "soft":
            return selection.soft(rewards, beta, rng())
        case "majority":
            return selection.majority(classes(), weights)
        case "weighted_majority":
            return selection.weighted_majority(classes(), rewards, beta, weights)
        case "mbr" if utility == "rouge1":
            return selection.mbr(rouge.pairwise([without_thinking(text) for text in responses]), weights)
        case "mbr" if utility == "exact":
            return selection.mbr(rouge.exact_match(classes()), weights)
    raise ValueError(f"no selection is called {rule!r} with utility {utility!r}; there are: {', '.join(SELECTIONS)}")


def classify(responses: Sequence[str], answer: str, pattern: str | None = None) -> list[int | None]:
    """The class of each response's extracted answer; None where there is none (see ``answers``)."""
    return answers.classes([answers.extract(text, answer, pattern) for text in responses], answer)
