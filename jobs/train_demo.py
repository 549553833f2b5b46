"""Trains the demo models, or measures the ones in a folder.

python -m jobs.train_demo --out DIR --seed 0
python -m jobs.train_demo --measure demo
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from demo.language_model import (
    LONGER_TRAINING,
    LanguageModelTraining,
    train_further,
    train_language_model,
)
from demo.measure import draw_split, held_out_figures, print_figures
from demo.problems import SPLIT_SIZES, write_split
from demo.refiner import RefinerTraining, draw_for_refiner, train_refiner
from demo.reward_model import RewardTraining, draw_for_training, train_reward_model
from demo.tokenizer import build_tokenizer
from pipeline.config import load as load_config

_MEASURING_SEED = 7
_LONGER_SEED_OFFSET = 900_000
PRESET = Path("conf/job/demo_tpo.yaml")
"""Whose prompts the refiner learns."""


def main() -> None:
    """Reads the command line and runs what it asks for."""
    arguments = _arguments()
    # Sums are split by thread, so another thread count would round to other weights. Matrices this
    # small gain little from a second thread, and lose much when another program shares the cores.
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    started = time.monotonic()
    if arguments.out is not None:
        for name in arguments.models:
            TRAINED[name](arguments.out, arguments.seed, arguments.steps)
            print(f"{name} trained after {time.monotonic() - started:.0f} s", flush=True)
    folder = arguments.measure or arguments.out
    if not arguments.no_figures:
        print_figures(held_out_figures(draw_split(folder, arguments.split, _MEASURING_SEED)))
    print(f"finished in {time.monotonic() - started:.0f} s")


def train_generator(out: Path, seed: int, steps: int | None) -> None:
    """Writes the splits and the generator under `out`."""
    out.mkdir(parents=True, exist_ok=True)
    for split in SPLIT_SIZES:
        write_split(split, out / f"{split}.parquet")
    tokenizer = build_tokenizer()
    training = _at_most(LanguageModelTraining(), steps)
    _save(train_language_model(tokenizer, training, seed), tokenizer, out / "generator")


def train_reward(out: Path, seed: int, steps: int | None) -> None:
    """Writes the reward model for the generator under `out`.

    Its lower layers are the generator's after a longer training: a copy that knows the arithmetic
    better can tell which of the generator's responses are wrong.
    """
    tokenizer = build_tokenizer()
    training = RewardTraining()
    if steps is not None:
        training = replace(
            training,
            problems=min(4 * steps, training.problems),
            token_steps=min(steps, training.token_steps),
            response_steps=min(steps, training.response_steps),
        )
    load: Any = LlamaForCausalLM.from_pretrained
    model = load(out / "generator").eval()
    comparisons = draw_for_training(model, tokenizer, training, seed)
    print(f"reward model: {len(comparisons)} problems drawn right and wrong", flush=True)
    train_further(model, tokenizer, _at_most(LONGER_TRAINING, steps), seed + _LONGER_SEED_OFFSET)
    reward_model = train_reward_model(model, tokenizer, comparisons, training, seed)
    _save(reward_model, tokenizer, out / "reward_model")


def train_demo_refiner(out: Path, seed: int, steps: int | None) -> None:
    """Writes the refiner, which goes on where the generator under `out` was left, for the reward model there."""
    tokenizer = build_tokenizer()
    training = RefinerTraining()
    if steps is not None:
        training = replace(training, problems=min(4 * steps, training.problems), steps=min(steps, training.steps))
    load: Any = LlamaForCausalLM.from_pretrained
    load_reward: Any = LlamaForSequenceClassification.from_pretrained
    model = load(out / "generator").eval()
    drawn = draw_for_refiner(model, load_reward(out / "reward_model").eval(), tokenizer, training, seed)
    print(f"refiner: {len(drawn)} problems drawn", flush=True)
    method: Any = load_config([str(PRESET)]).method
    train_refiner(model, tokenizer, drawn, method, training, seed)
    _save(model, tokenizer, out / "refiner")


TRAINED = {"generator": train_generator, "reward_model": train_reward, "refiner": train_demo_refiner}
"""In the order in which one needs another."""


def _at_most(training: LanguageModelTraining, steps: int | None) -> LanguageModelTraining:
    return training if steps is None else replace(training, steps=min(steps, training.steps))


def _save(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    save: Any = model.save_pretrained
    save(folder)
    tokenizer.save_pretrained(folder)
    # The weights are written readable by their owner alone.
    (folder / "model.safetensors").chmod(0o644)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train or measure the demo models.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="train, and write models and splits here")
    what.add_argument("--measure", type=Path, help="measure the models and splits found here")
    parser.add_argument("--seed", type=int, default=0, help="seed of the training")
    parser.add_argument("--steps", type=int, help="at most so many steps each, for a trial run")
    parser.add_argument("--split", choices=list(SPLIT_SIZES), default="test")
    parser.add_argument(
        "--models", nargs="+", choices=list(TRAINED), default=list(TRAINED), help="train these, on what else is in DIR"
    )
    parser.add_argument("--no-figures", action="store_true", help="train without measuring")
    return parser.parse_args()


if __name__ == "__main__":
    main()
