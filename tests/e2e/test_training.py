"""What relabel exports is what TRL's trainers read: two steps of each on the demo models, in both forms."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from jobs.relabel import main
from tests.conftest import ROOT

# TRL and torch warn of what each has deprecated
pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

PROBLEMS = 6
STEPS = 2


@pytest.fixture(scope="module", params=["conversational", "text"])
def exported(request: pytest.FixtureRequest, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Solutions of the demo's problems, scored by its reward model: a right one, and one with another end."""
    folder = tmp_path_factory.mktemp(request.param)
    rows = [
        {"prompt": f"Compute {a} + 2.", "responses": [f"{a} + 2 = {a + 2}\nAnswer: {a + n}" for n in (2, 5)]}
        for a in range(10, 10 + PROBLEMS)
    ]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = [f"out={folder}/out", f"data.input={folder}/p.jsonl", "data.responses=responses"]
    model = ["reward.engine=transformers", f"reward.model={ROOT}/demo/reward_model"]
    assert main([*arguments, *model, f"export.form={request.param}"]) == 0
    return folder


def trainer_of(name: str, folder: Path) -> Any:
    import trl
    from datasets import load_dataset
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

    kinds = {
        "DPO": ("generator", AutoModelForCausalLM, "pairs"),
        "Reward": ("reward_model", AutoModelForSequenceClassification, "pairs"),
        "KTO": ("generator", AutoModelForCausalLM, "unpaired"),
        "SFT": ("generator", AutoModelForCausalLM, "sft"),
    }
    place, factory, data = kinds[name]
    config = getattr(trl, f"{name}Config")(
        output_dir=str(folder / name),
        max_steps=STEPS,
        per_device_train_batch_size=2,
        learning_rate=1e-4,
        logging_steps=1,
        max_length=512,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
    )
    return getattr(trl, f"{name}Trainer")(
        factory.from_pretrained(ROOT / "demo" / place),
        args=config,
        train_dataset=load_dataset(
            str(folder / "out" / "export"), data, split="train", cache_dir=str(folder / "cache")
        ),
        processing_class=AutoTokenizer.from_pretrained(ROOT / "demo" / place),
    )


@pytest.mark.parametrize("name", ["DPO", "Reward", "KTO", "SFT"])
def test_a_trainer_takes_two_steps(exported: Path, name: str) -> None:
    trainer = trainer_of(name, exported)
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert trainer.train().global_step == STEPS
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == STEPS
    assert all(map(math.isfinite, losses))
    assert any(not p.equal(before[n]) for n, p in trainer.model.named_parameters() if n in before)
    if name == "DPO":
        assert losses[0] == pytest.approx(math.log(2), abs=1e-3), "the policy begins as its own reference"
