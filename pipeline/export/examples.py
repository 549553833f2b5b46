"""What each row of a finished run gives to each format, and the counts that its card tells."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.export import forms
from pipeline.kernels.pairing import Limits, Pair, Scored, distinct, pair, usable
from pipeline.keys import Key
from pipeline.sections import ExportConfig, reward_column
from pipeline.types import Content

Example = dict[str, Any]
NO_TEXT = "no_text"
"""Why a row makes nothing in plain text: its conversation has no transcript."""


@dataclass(frozen=True, slots=True)
class ScoredCandidate:
    """A candidate of a row, as the journal has it. ``others``: rewards by further models, null where one gave none."""

    response: str
    reward: float
    kind: str
    step: int
    index: int
    chain: int
    finish_reason: str | None
    generated_tokens: int
    generator: str | None
    key: str
    others: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ScoredRow:
    """A row with a result: its prompt, what was kept, and every candidate, those that were given first."""

    id: str
    content: Content
    response: str
    reward: float
    candidates: Sequence[ScoredCandidate]


@dataclass
class Statistics:
    """What the examples come to. ``without``: rows that gave none, by format and reason. ``instead``: supervised
    examples with another response than the one that was kept, which can't be learned from.

    ``rewards`` and ``lengths`` hold one number per candidate, or per pair's better and worse response.
    """

    rows: int = 0
    examples: Counter[str] = field(default_factory=Counter)
    without: dict[str, Counter[str]] = field(default_factory=dict)
    instead: int = 0
    labels: Counter[bool] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    rewards: dict[str, array[float]] = field(default_factory=dict)
    lengths: dict[str, array[int]] = field(default_factory=dict)

    def note(self, name: str, reward: float, length: int) -> None:
        """Adds a response to the figures of ``candidates``, ``chosen`` or ``rejected``."""
        self.rewards.setdefault(name, array("d")).append(reward)
        self.lengths.setdefault(name, array("q")).append(length)

    def refuse(self, format: str, reason: str) -> None:
        """Counts a row that gives nothing to a format."""
        self.without.setdefault(format, Counter())[reason] += 1


class Exporter:
    """Makes examples. ``measure``: the length of a text, in the unit of the limits. ``threshold``: of labels."""

    def __init__(self, config: ExportConfig, measure: Callable[[str], int], threshold: float) -> None:
        self._config, self._measure, self.threshold = config, measure, threshold
        self._limits = Limits(config.margin, config.max_ratio, config.max_difference)
        self.statistics = Statistics()

    def examples(self, row: ScoredRow) -> dict[str, list[Example]]:
        """The row's examples by format. Every format of the configuration is there, if only with none."""
        config = self._config
        self.statistics.rows += 1
        try:
            prompt = {"id": row.id, "prompt": forms.prompt(row.content, config.form)}
        except ValueError:
            for name in config.formats:
                self.statistics.refuse(name, NO_TEXT)
            return {name: [] for name in config.formats}
        scored = [self._scored(candidate) for candidate in row.candidates]
        for s, c in zip(scored, row.candidates, strict=True):
            self.statistics.note("candidates", s.reward, s.length)
            self.statistics.kinds[c.kind] += 1
        makers: dict[str, Callable[[], list[Example] | str]] = {
            "pairs": lambda: self._pairs(row, prompt, scored),
            "unpaired": lambda: self._unpaired(row, prompt, scored),
            "sft": lambda: self._sft(row, scored),
            "candidates": lambda: self._candidates(row, prompt),
        }
        return {name: self._counted(name, makers[name]()) for name in config.formats}

    def _scored(self, candidate: ScoredCandidate) -> Scored:
        text, given = candidate.response, candidate.kind == "given"
        others = [candidate.others[name] for name in self._config.agree]
        known = tuple(math.nan if reward is None else reward for reward in others)
        return Scored(text, candidate.reward, self._measure(text), given, known)

    def _counted(self, format: str, made: list[Example] | str) -> list[Example]:
        if isinstance(made, str):
            self.statistics.refuse(format, made)
            return []
        self.statistics.examples[format] += len(made)
        return made

    def _pairs(self, row: ScoredRow, prompt: Example, scored: list[Scored]) -> list[Example] | str:
        config = self._config
        made = pair(scored, config.rule, self._limits, Key(config.seed, row.id, ("export", "pair")).rng())
        if not isinstance(made, Pair):
            return made
        chosen, rejected = scored[made.chosen], scored[made.rejected]
        example = {
            **prompt,
            "chosen": forms.completion(row.content, chosen.text, config.form),
            "rejected": forms.completion(row.content, rejected.text, config.form),
            "score_chosen": chosen.reward,
            "score_rejected": rejected.reward,
        }
        for name, one in (("chosen", chosen), ("rejected", rejected)):
            self.statistics.note(name, one.reward, one.length)
        return [example]

    def _unpaired(self, row: ScoredRow, prompt: Example, scored: list[Scored]) -> list[Example] | str:
        kept = [scored[i] for i in distinct(scored, usable(scored))]
        for one in kept:
            self.statistics.labels[one.reward > self.threshold] += 1
        made = [
            {
                **prompt,
                "completion": forms.completion(row.content, one.text, self._config.form),
                "label": one.reward > self.threshold,
                "score": one.reward,
            }
            for one in kept
        ]
        return made or "no_candidate"

    def _sft(self, row: ScoredRow, scored: list[Scored]) -> list[Example] | str:
        """What was kept; or the best with text and a finite reward, where that lacks one: a model may end at once."""
        kept = Scored(row.response, row.reward, 0)
        if not usable([kept]):
            others = [scored[i] for i in usable(scored)]
            if not others:
                return "no_candidate"
            kept = max(others, key=lambda s: s.reward)
            self.statistics.instead += 1
        whole = forms.whole(row.content, kept.text, self._config.form)
        return [{"id": row.id, **whole, "score": kept.reward}]

    def _candidates(self, row: ScoredRow, prompt: Example) -> list[Example]:
        return [
            {
                **prompt,
                "completion": forms.completion(row.content, c.response, self._config.form),
                "score": c.reward,
                "kind": c.kind,
                "chain": c.chain,
                "step": c.step,
                "index": c.index,
                "finish_reason": c.finish_reason,
                "generated_tokens": c.generated_tokens,
                "generator": c.generator,
                "key": c.key,
                **{reward_column(name): reward for name, reward in c.others.items()},
            }
            for c in row.candidates
        ]
