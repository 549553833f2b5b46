"""How both demo models' weights are updated: optimizers, the rate's course, and the loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

_REPORT_EVERY = 100
Batch = TypeVar("Batch")


@dataclass(frozen=True)
class Rates:
    """Peak learning rates: Muon's for the layers' matrices, AdamW's for the rest.

    warmup is in steps.
    """

    matrices: float
    others: float
    warmup: int
    weight_decay: float = 0.1


def fit(
    name: str,
    model: Any,
    rates: Rates,
    batches: Iterable[Batch],
    steps: int,
    loss_of: Callable[[Batch], torch.Tensor],
) -> None:
    """Takes `steps` steps down `loss_of`, one a batch; `model` is left in evaluation mode.

    model: a Llama model with its layers under `model.model.layers`.
    """
    optimizers = _optimizers(model, rates)
    model.train()
    for step, batch in zip(range(steps), batches, strict=False):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = loss_of(batch)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        _advance(optimizers, rate_at(step, steps, rates.warmup))
        if step % _REPORT_EVERY == 0 or step + 1 == steps:
            print(f"{name}: step {step + 1} of {steps}, loss {loss.item():.4f}", flush=True)
    model.eval()


def rate_at(step: int, steps: int, warmup: int) -> float:
    """The share of the peak learning rate at `step`: a linear rise, then half a cosine."""
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def _optimizers(model: Any, rates: Rates) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the other weights; frozen ones in neither."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    in_layers = {id(weight) for weight in model.model.layers.parameters() if weight.ndim == 2}
    # Muon learns the arithmetic in about half the steps that AdamW alone takes.
    build: Any = torch.optim.Muon
    optimizers: list[torch.optim.Optimizer] = [
        build(
            [weight for weight in weights if id(weight) in in_layers],
            lr=rates.matrices,
            weight_decay=rates.weight_decay,
            momentum=0.95,
        ),
        torch.optim.AdamW(
            [weight for weight in weights if id(weight) not in in_layers],
            lr=rates.others,
            betas=(0.9, 0.98),
            weight_decay=0.0,
        ),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak"] = group["lr"]
    return optimizers


def _advance(optimizers: Sequence[torch.optim.Optimizer], share: float) -> None:
    """One step of each optimizer at `share` of its peak rate; clears the gradients."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * share
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
