"""How fault schedules end, in virtual time and in real: what is wrong with each, and what all of them come to."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

WRONGS = ("lost", "doubled", "different")


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a schedule ended: the faults that happened in it, and what is wrong (empty: nothing)."""

    happened: Counter[str]
    lost: str = ""
    doubled: str = ""
    different: str = ""

    @property
    def wrong(self) -> str:
        """Everything that is wrong, in a sentence."""
        return "; ".join(filter(None, (self.lost, self.doubled, self.different)))


@dataclass
class Tally:
    """Verdicts added up."""

    happened: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    schedules: int = 0
    first: int | None = None
    """The seed of the first schedule with anything wrong."""
    begun: float = field(default_factory=time.monotonic)

    def add(self, seed: int, verdict: Verdict) -> None:
        """Takes the verdict on a seed's schedule."""
        self.schedules += 1
        self.happened += verdict.happened
        self.wrong.update(kind for kind in WRONGS if getattr(verdict, kind))
        if verdict.wrong and self.first is None:
            self.first = seed

    def lines(self) -> Iterator[str]:
        """For people: how many, how fast, what happened, and what was wrong."""
        seconds = time.monotonic() - self.begun
        yield f"{self.schedules} schedules in {seconds:.0f} s, {60 * self.schedules / seconds:.1f} a minute"
        for kind, count in sorted(self.happened.items()):
            yield f"{count:8d} {kind}"
        counts = ", ".join(f"{kind} {self.wrong[kind]}" for kind in WRONGS)
        yield f"{counts}; first failure: {self.first}"


def twice(values: Sequence[str]) -> list[str]:
    """Those that are there more than once."""
    return [value for value, n in Counter(values).items() if n > 1]


def listed(what: str, values: Iterable[str]) -> str:
    """Some of the values, by name; empty if there are none."""
    found = sorted(values)
    return f"{what} {', '.join(found[:3])}" if found else ""
