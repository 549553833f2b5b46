"""Rewards from a ``transformers`` sequence classifier: raw logits, in length-sorted batches of padded tokens."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from inspect import signature
from typing import Any

from actors.batching import Inbox, Ticket, by_padded_tokens
from actors.pairs import Rendered
from actors.protocol import BadRequest, ScoreRequest
from actors.reward_head import Classifier, ClassifierConfig
from actors.torch_models import TorchOptions, is_out_of_memory, load, release_memory

log = logging.getLogger(__name__)

CPU_BATCH_TOKENS = 2048
"""A batch's padded tokens on a CPU. What doesn't stay in its caches is slower, and small batches waste no padding."""


@dataclass
class Config(TorchOptions, ClassifierConfig):
    """The reward section with ``engine: transformers``."""

    engine: str = "transformers"


def fingerprint(config: Config) -> str:
    """What shapes a score (see ``Classifier``). Raises ``ConfigError`` for what is known without the weights."""
    return Classifier(config).fingerprint(config.law())


def create(config: Config) -> TransformersReward:
    """A reward engine that is yet to be started. Raises ``ConfigError`` for a model that gives no reward."""
    return TransformersReward(config)


class TransformersReward:
    """``protocol.RewardEngine`` with one thread that renders and scores whatever has arrived."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._classifier = Classifier(config)
        self._renderer = self._classifier.renderer
        self._inbox: Inbox[ScoreRequest, float] = Inbox("transformers reward model")
        self._scorer: Any = None

    async def start(self) -> dict[str, Any]:
        """See ``protocol.RewardEngine``."""
        config = self._config
        name = "AutoModelForSequenceClassification"
        loaded = await asyncio.to_thread(load, name, self._classifier.text, config, config.threads, CPU_BATCH_TOKENS)
        self._scorer = Scorer(loaded.model, loaded.device, loaded.max_batch_tokens, self._classifier.column)
        self._inbox.start(self._work)
        return loaded.settings | {
            "context": self._renderer.context,
            "column": self._classifier.column,
            "template": self._renderer.template,
        }

    async def score(self, request: ScoreRequest) -> float:
        """See ``protocol.RewardEngine``. NaN and infinities are returned as they are."""
        return await self._inbox.ask(request)

    async def stop(self) -> None:
        """See ``protocol.RewardEngine``."""
        await self._inbox.stop()
        self._scorer = None

    def _work(self) -> None:
        while (tickets := self._inbox.take()) is not None:
            rendered = self._render(tickets)
            for batch in self._scorer.batches([pair for _, pair in rendered]):
                scores = self._scorer.scores([rendered[i][1] for i in batch])
                self._inbox.answer((rendered[i][0], score) for i, score in zip(batch, scores, strict=True))

    def _render(self, tickets: list[Ticket[ScoreRequest, float]]) -> list[tuple[Ticket[ScoreRequest, float], Rendered]]:
        rendered = []
        for ticket in tickets:
            try:
                rendered.append((ticket, self._renderer.render(ticket.request.content, ticket.request.response)))
            except BadRequest as error:
                self._inbox.answer([(ticket, error)])
        return rendered


class Scorer:
    """Batches of rendered pairs through a sequence classifier."""

    def __init__(self, model: Any, device: Any, budget: int, column: int) -> None:
        self._model = model
        self._device = device
        self._column = column
        self._own_pad: int | None = model.config.get_text_config().pad_token_id
        self._causal = _is_causal(model)
        self._options = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}
        self.budget = budget
        """Padded tokens of a batch; smaller after running out of memory."""

    def batches(self, sequences: list[Rendered]) -> list[list[int]]:
        """Indices of ``sequences`` in batches that keep to the budget."""
        return by_padded_tokens([len(ids) for ids in sequences], self.budget)

    def scores(self, sequences: list[Rendered]) -> list[float | Exception]:
        """One reward per sequence, or ``BadRequest`` for one that doesn't fit in memory even alone."""
        try:
            return self._forward(sequences)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
        release_memory()
        if len(sequences) == 1:
            return [BadRequest(f"a pair of {len(sequences[0])} tokens does not fit in the reward model's memory")]
        self.budget = max(1, min(self.budget, len(sequences) * max(map(len, sequences))) // 2)
        log.warning("out of memory with %d pairs; from now on %d padded tokens at most", len(sequences), self.budget)
        half = len(sequences) // 2
        return self.scores(sequences[:half]) + self.scores(sequences[half:])

    def _forward(self, sequences: list[Rendered]) -> list[float | Exception]:
        import torch

        width = max(map(len, sequences))
        pad = self._pad_token(sequences)

        def padded(rows: list[list[int]], filler: int) -> Any:
            return torch.tensor([row + [filler] * (width - len(row)) for row in rows], device=self._device)

        inputs = {"input_ids": padded([s.ids for s in sequences], pad), **self._options}
        if not self._causal:
            inputs["attention_mask"] = padded([[1] * len(s) for s in sequences], 0)
        if types := [s.types for s in sequences if s.types is not None]:  # all of a model's pairs have them, or none
            inputs["token_type_ids"] = padded(types, 0)
        with torch.inference_mode():
            logits = self._model(**inputs).logits
        scores: list[float | Exception] = logits[:, self._column].float().tolist()
        return scores

    def _pad_token(self, sequences: list[Rendered]) -> int:
        """What to pad with. A classifier pools the last token that isn't its pad token, so none may end in it.

        A model without a pad token of its own is told one that ends none of these texts; the end token would be
        the usual choice, and would hide the end of every text that has one.
        """
        if self._own_pad is not None:
            return self._own_pad
        last = {s.ids[-1] for s in sequences}
        pad = next(token for token in range(len(last) + 1) if token not in last)
        config = self._model.config
        config.pad_token_id = config.get_text_config().pad_token_id = pad
        return pad


def _is_causal(model: Any) -> bool:
    """Whether no token sees a later one, so that padding on the right needs no mask.

    Without a mask attention takes its fastest kernels, which compute nothing above the diagonal.
    """
    from transformers.modeling_layers import GenericForSequenceClassification

    config = model.config.get_text_config()
    both_ways = getattr(config, "use_bidirectional_attention", False) or getattr(config, "is_causal", True) is False
    return isinstance(model, GenericForSequenceClassification) and not both_ways
