"""Training the demo reward model on the language model's own correct and incorrect responses."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
)

from demo.architecture import GENERATOR_LAYERS, REWARD_LAYERS, model_config
from demo.comparisons import Comparison, comparison_batches, drawn_comparisons, scribbled
from demo.conversations import encode_answered
from demo.optimization import Rates, fit
from demo.problems import training_problems
from demo.reading import Reading, read

# The reward model's problems come from another stream than the language model's.
_SEED_OFFSET = 500_000
_ROWS_PER_SCORING = 256
_SMALLEST_CHANCE = 1e-4
_RANKING_WEIGHT = 0.5


@dataclass(frozen=True)
class RewardTraining:
    """How the reward model is trained: what is drawn, then the two lessons."""

    problems: int = 4000
    draws: int = 8
    problems_per_batch: int = 16
    token_steps: int = 600
    token_rates: Rates = Rates(matrices=0.02, others=3e-3, warmup=30)
    response_steps: int = 400
    response_rates: Rates = Rates(matrices=0.02, others=3e-3, warmup=30)


def draw_for_training(
    language_model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    training: RewardTraining,
    seed: int,
) -> list[Comparison]:
    """The comparisons, on training problems, that the reward model learns from."""
    problems = list(islice(training_problems(seed + _SEED_OFFSET), training.problems))
    return drawn_comparisons(language_model, tokenizer, problems, training.draws, seed)


def train_reward_model(
    language_model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    comparisons: Sequence[Comparison],
    training: RewardTraining,
    seed: int,
) -> LlamaForSequenceClassification:
    """A reward model: the language model's layers unchanged, and two new ones that read them.

    The first new layer is taught how likely the language model finds each token, and then the
    second which responses are correct: from verdicts on whole responses alone, the new layers do
    not learn in the time to compare what was written with what was to be expected.

    comparisons: what another, weaker language model drew, if it is that one's responses that the
    reward model shall judge.
    """
    torch.manual_seed(seed)
    first = _new_layers(tokenizer, 1)
    fit(
        "reward model, tokens",
        first,
        training.token_rates,
        _scribbled_batches(comparisons, training, seed),
        training.token_steps,
        lambda rows: token_loss(first, read(language_model, tokenizer, rows)),
    )
    both = _new_layers(tokenizer, REWARD_LAYERS - GENERATOR_LAYERS)
    both.load_state_dict(first.state_dict(), strict=False)
    both.model.layers[0].requires_grad_(False)
    _silence(both.model.layers[-1])
    fit(
        "reward model, responses",
        both,
        training.response_rates,
        comparison_batches(comparisons, training.problems_per_batch, seed),
        training.response_steps,
        lambda batch: response_loss(
            both,
            batch,
            read(language_model, tokenizer, [row for item in batch for row in item.rows]),
        ),
    )
    return _joined(language_model, both, tokenizer)


def token_loss(layers: Any, reading: Reading) -> torch.Tensor:
    """The cross-entropy of each response token's score, as a logit, with its chance; a scalar."""
    due = reading.log_chances[reading.response].exp()
    return binary_cross_entropy_with_logits(_token_scores(layers, reading)[reading.response], due)


def response_loss(layers: Any, batch: Sequence[Comparison], reading: Reading) -> torch.Tensor:
    """The Bradley-Terry loss at the last token, plus a lesson at every token; a scalar.

    The lesson at each token is the chance of the response up to there, which has to be gathered
    from all its tokens, as the verdict on the whole has to be.
    """
    scores = _token_scores(layers, reading)
    so_far = reading.log_chances.cumsum(dim=1).exp()[reading.response]
    due = so_far.clamp(_SMALLEST_CHANCE, 1 - _SMALLEST_CHANCE)
    lesson = binary_cross_entropy_with_logits(scores[reading.response], due)
    last = reading.mask.sum(dim=1) - 1
    return lesson + _RANKING_WEIGHT * _ranking_loss(batch, scores[torch.arange(len(scores)), last])


@torch.inference_mode()
def score_responses(
    model: LlamaForSequenceClassification,
    tokenizer: PreTrainedTokenizerFast,
    answered: Sequence[tuple[str, str]],
) -> list[float]:
    """The reward (an unbounded logit) of each (prompt, response), in the order given."""
    order = sorted(range(len(answered)), key=lambda index: sum(map(len, answered[index])))
    rewards = [0.0] * len(answered)
    for start in range(0, len(order), _ROWS_PER_SCORING):
        chosen = order[start : start + _ROWS_PER_SCORING]
        tokens, mask = encode_answered(tokenizer, [answered[index] for index in chosen])
        logits: torch.Tensor = model(input_ids=tokens, attention_mask=mask).logits
        for index, score in zip(chosen, logits[:, 0].tolist(), strict=True):
            rewards[index] = score
    return rewards


def _token_scores(layers: Any, reading: Reading) -> torch.Tensor:
    """The score at every token, (rows, length), from the language model's states."""
    states = layers.model(inputs_embeds=reading.states, attention_mask=reading.mask)
    scores: torch.Tensor = layers.score(states.last_hidden_state)[:, :, 0].float()
    return scores


def _ranking_loss(batch: Sequence[Comparison], scores: torch.Tensor) -> torch.Tensor:
    """The mean Bradley-Terry loss of each problem's pairs, then of the problems; a scalar."""
    losses = []
    parts = torch.split(scores, [len(item.rows) for item in batch])
    for item, own in zip(batch, parts, strict=True):
        correct, incorrect = own[: len(item.correct)], own[len(item.correct) :]
        losses.append(softplus(incorrect[None, :] - correct[:, None]).mean())
    return torch.stack(losses).mean()


def _new_layers(tokenizer: PreTrainedTokenizerFast, layers: int) -> Any:
    """Random layers and a score, to be put on top of the language model's."""
    build: Any = LlamaForSequenceClassification
    model = build(model_config(tokenizer, layers, num_labels=1))
    model.set_attn_implementation("eager")
    model.model.embed_tokens.requires_grad_(False)
    return model


def _silence(layer: Any) -> None:
    """Lets a layer begin by adding nothing, so that it keeps what the layers below it learned."""
    torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    torch.nn.init.zeros_(layer.mlp.down_proj.weight)


def _joined(
    language_model: LlamaForCausalLM, layers: Any, tokenizer: PreTrainedTokenizerFast
) -> LlamaForSequenceClassification:
    """The language model's embedding and layers below the new layers, their norm and score."""
    build: Any = LlamaForSequenceClassification
    model = build(model_config(tokenizer, REWARD_LAYERS, num_labels=1))
    model.model.load_state_dict(language_model.model.state_dict(), strict=False)
    for place, layer in enumerate(layers.model.layers):
        model.model.layers[GENERATOR_LAYERS + place].load_state_dict(layer.state_dict())
    model.model.norm.load_state_dict(layers.model.norm.state_dict())
    model.score.load_state_dict(layers.score.state_dict())
    joined: LlamaForSequenceClassification = model.eval()
    return joined


def _scribbled_batches(
    comparisons: Sequence[Comparison], training: RewardTraining, seed: int
) -> Iterator[list[tuple[str, str]]]:
    """Batches of drawn responses, at first with most of their digits replaced, at last with none.

    Unlikely tokens are rare in what is drawn; random ones make the comparison easy to find.
    """
    source = random.Random(seed)
    batches = comparison_batches(comparisons, training.problems_per_batch, seed)
    for step, batch in enumerate(islice(batches, training.token_steps)):
        most = 1 - step / training.token_steps
        yield [
            (prompt, scribbled(text, most * source.random(), source)) for item in batch for prompt, text in item.rows
        ]
