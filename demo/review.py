"""What a careful reader says of a worked solution: a critique, and advice on what to do again.

These are the turns of a refinement step (TPO) in the demo's own domain, worked out from the problem, for the refiner to
learn from. They say where a solution fails, and leave it to the rewrites to find what should stand there: several are
drawn, so that they can differ.
"""

from __future__ import annotations

from dataclasses import dataclass

from demo.problems import Problem, worked_solution


@dataclass(frozen=True)
class Review:
    """How far a solution holds. ``holds``: its lines before the first fault; ``whole``: whether there is none."""

    holds: int
    whole: bool

    @property
    def critique(self) -> str:
        """Line by line up to the first fault, such as "1 ok, 2 no."."""
        verdicts = [f"{line + 1} ok" for line in range(self.holds)]
        return ", ".join(verdicts if self.whole else [*verdicts, f"{self.holds + 1} no"]) + "."

    @property
    def advice(self) -> str:
        """What to keep, and from where on to do it again."""
        if self.whole:
            return "Keep all."
        again = f"redo {self.holds + 1}."
        return f"Keep {self.holds}, {again}" if self.holds else again.capitalize()

    @property
    def in_short(self) -> str:
        """One half-sentence on a solution that is only compared with."""
        return "holds" if self.whole else f"fails at {self.holds + 1}"


def review(problem: Problem, solution: str) -> Review:
    """Reads a solution line by line. Lines after a right answer count as a fault too."""
    due = worked_solution(problem).split("\n")
    lines = solution.split("\n")
    for place, (line, right) in enumerate(zip(lines, due, strict=False)):
        if line != right:
            return Review(place, whole=False)
    return Review(min(len(lines), len(due)), whole=len(lines) == len(due))


def critique(problem: Problem, chosen: str, rejected: str | None) -> str:
    """The critique of the chosen solution, with a word on the rejected one where there is one."""
    own = review(problem, chosen).critique
    return own if rejected is None else f"B {review(problem, rejected).in_short}. A: {own}"
