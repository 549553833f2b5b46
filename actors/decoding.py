"""Sampling from a ``transformers`` causal language model: rows of any length, which join and leave at any step.

Rows share one key-value cache, padded on the left. Each row brings its own uniform numbers, one per token, and a
token is the inverse of the distribution function at its number; so a row's tokens depend on its batch-mates only
through the float noise of the model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.types import FinishReason


@dataclass(eq=False, slots=True)
class Row:
    """One continuation. ``uniforms``: numbers in [0, 1), as many as new tokens are allowed."""

    prompt: tuple[int, ...]
    uniforms: NDArray[np.float64]
    owner: Any = None
    new: list[int] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    broken: bool = False
    """The model gave no finite probabilities."""
    answered: bool = False
    labels: tuple[int, ...] = ()
    """Tokens whose log-probabilities as the first new one are wanted."""
    label_logprobs: tuple[float, ...] = ()

    def anew(self) -> Row:
        """The same continuation from its beginning."""
        return Row(self.prompt, self.uniforms, self.owner, labels=self.labels)

    @property
    def final_length(self) -> int:
        """Tokens of the row when it has all it may have."""
        return len(self.prompt) + len(self.uniforms)

    @property
    def done(self) -> bool:
        """Nothing is to be added."""
        return self.broken or self.finish_reason is not None


def padded_tokens(rows: list[Row]) -> int:
    """The size of a batch of these rows in the end: their number times the longest. None have 0."""
    return len(rows) * max((row.final_length for row in rows), default=0)


def uniforms(seed: int | None, count: int) -> NDArray[np.float64]:
    """``count`` numbers in [0, 1) of a stream of their own, which a longer request begins with as well."""
    bits = np.random.Philox(key=seed) if seed is not None else np.random.Philox()
    return np.random.Generator(bits).random(count)


class Sampler:
    """Temperature and nucleus sampling by inversion. ``temperature`` 0 is greedy; 0 < ``top_p`` <= 1."""

    def __init__(self, temperature: float, top_p: float) -> None:
        self._temperature = temperature
        self._top_p = top_p

    def __call__(self, logits: Any, numbers: list[float]) -> list[int]:
        """One token per row of ``logits`` (rows x vocabulary); -1 where they are not finite."""
        import torch

        if self._temperature == 0:
            tokens, total = logits.argmax(-1), logits.amax(-1)
        else:
            probabilities = torch.softmax(logits.double() / self._temperature, -1)
            if self._top_p < 1:
                probabilities = probabilities * self._nucleus(probabilities)
            cumulated = probabilities.cumsum(-1)
            total = cumulated[:, -1]
            # below the total, so that the first entry above it has a probability of more than 0
            target = torch.minimum(
                torch.tensor(numbers, dtype=total.dtype, device=total.device) * total, total.nextafter(total * 0)
            )
            tokens = torch.searchsorted(cumulated, target[:, None], right=True)[:, 0]
        chosen: list[int] = torch.where(total.isfinite(), tokens, -1).tolist()
        return chosen

    def _nucleus(self, probabilities: Any) -> Any:
        """The fewest most likely tokens that have ``top_p`` together; those that tie with the last of them, too."""
        ordered = probabilities.sort(-1, descending=True).values
        kept = (ordered.cumsum(-1) - ordered < self._top_p).sum(-1, keepdim=True)
        return probabilities >= ordered.gather(-1, (kept - 1).clamp(min=0))  # no token is kept where all are NaN


class Decoder:
    """The rows under way, their cache and their attention mask (rows x cached tokens, left-padded)."""

    def __init__(self, model: Any, device: Any, sampler: Sampler, stop_ids: tuple[int, ...]) -> None:
        import inspect

        self._model = model
        self._device = device
        self._sampler = sampler
        self._stop_ids = frozenset(stop_ids)
        parameters = inspect.signature(model.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._extra: dict[str, Any] = {"logits_to_keep": 1} if "logits_to_keep" in parameters else {}
        self.clear()

    def clear(self) -> None:
        """Forgets all rows."""
        self.rows: list[Row] = []
        self._cache: Any = None
        self._mask: Any = None

    def join(self, rows: list[Row]) -> list[Row]:
        """Prefills rows, draws their first token, and adds them to the batch; returns those that are done."""
        import torch
        from transformers import DynamicCache

        width = max(len(row.prompt) for row in rows)
        padding = [width - len(row.prompt) for row in rows]
        padded = [[0] * pad + list(row.prompt) for pad, row in zip(padding, rows, strict=True)]
        ids = torch.tensor(padded, device=self._device)
        mask = torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding], device=self._device)
        cache = DynamicCache()
        positions = (mask.cumsum(-1) - 1).clamp(min=0)
        self._draw(rows, self._forward(ids, mask, positions, cache))
        self._merge(rows, cache, mask)
        return self._leave()

    def step(self) -> list[Row]:
        """Draws one token for every row of the batch; returns those that are done."""
        import torch

        ids = torch.tensor([[row.new[-1]] for row in self.rows], device=self._device)
        self._mask = torch.nn.functional.pad(self._mask, (0, 1), value=1)
        positions = self._mask.sum(-1, keepdim=True) - 1
        self._draw(self.rows, self._forward(ids, self._mask, positions, self._cache))
        return self._leave()

    def _forward(self, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        """Logits of the next token (rows x vocabulary)."""
        import torch

        extra = self._extra | ({"position_ids": positions} if self._takes_positions else {})
        with torch.inference_mode():
            output = self._model(input_ids=ids, attention_mask=mask, past_key_values=cache, use_cache=True, **extra)
            return output.logits[:, -1]

    def _draw(self, rows: list[Row], logits: Any) -> None:
        for row, own in zip(rows, logits, strict=True):
            if row.labels and not row.new:
                row.label_logprobs = tuple(own.double().log_softmax(-1)[list(row.labels)].tolist())
        numbers = [float(row.uniforms[len(row.new)]) for row in rows]
        for row, token in zip(rows, self._sampler(logits, numbers), strict=True):
            if token < 0:
                row.broken = True
                continue
            row.new.append(token)
            if token in self._stop_ids:
                row.finish_reason = "stop"
            elif len(row.new) == len(row.uniforms):
                row.finish_reason = "length"

    def _merge(self, rows: list[Row], cache: Any, mask: Any) -> None:
        if not self.rows:
            self._cache, self._mask = cache, mask
        else:
            self._mask = _stack(self._mask, mask, dim=1)
            for mine, theirs in zip(self._cache.layers, cache.layers, strict=True):
                mine.keys = _stack(mine.keys, theirs.keys, dim=2)
                mine.values = _stack(mine.values, theirs.values, dim=2)
        self.rows = self.rows + rows

    def _leave(self) -> list[Row]:
        """Takes finished rows out of the batch, and the columns that were theirs alone out of the cache."""
        import torch

        done = [row for row in self.rows if row.done]
        if not done:
            return []
        kept = [i for i, row in enumerate(self.rows) if not row.done]
        self.rows = [self.rows[i] for i in kept]
        if not kept:
            self.clear()
            return done
        index = torch.tensor(kept, device=self._device)
        mask = self._mask[index]
        first = int(mask.any(0).int().argmax())
        self._mask = mask[:, first:]
        for layer in self._cache.layers:
            layer.keys = layer.keys[index, :, first:]
            layer.values = layer.values[index, :, first:]
        return done


def _stack(upper: Any, lower: Any, *, dim: int) -> Any:
    """Rows of both, the narrower ones padded with zeros at the start of ``dim``."""
    import torch

    width = max(upper.shape[dim], lower.shape[dim])

    def padded(tensor: Any) -> Any:
        missing = width - tensor.shape[dim]
        behind = [0, 0] * (tensor.dim() - 1 - dim)
        return torch.nn.functional.pad(tensor, [*behind, missing, 0]) if missing else tensor

    return torch.cat([padded(upper), padded(lower)])
