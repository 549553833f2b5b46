"""``python -m tests.report OUT PROMPTS N``: a finished run of best-of-N to measure reports on, without any model.

Responses have 100 to 300 tokens of text, and the journal has what a real run's would have.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from actors.generator import Generated
from actors.protocol import GenerateRequest, Generation
from tests.report.conftest import write_rows
from tests.report.made import make

WORDS = [f"w{i:03d}" for i in range(500)]


def generate(request: GenerateRequest) -> Generated:
    """Random words, letters that the toy reward model rewards, and an answer."""
    rng = np.random.default_rng(request.seed)
    tokens = rng.integers(1, len(WORDS), size=int(rng.integers(100, 300))).tolist()
    words = " ".join(WORDS[t] for t in tokens)
    end = f"a{'b' * int(rng.integers(5))} The answer is {int(rng.integers(9))}."
    return Generated(Generation(tuple(tokens), "stop"), f"{words} {end}")


def main(out: Path, prompts: int, n: int) -> None:
    """Makes the run; about half a millisecond a draw."""
    out.parent.mkdir(parents=True, exist_ok=True)
    data = write_rows(out.with_suffix(".jsonl"), prompts, answer="3")
    make(out, data, f"method.n={n}", "generator.max_tokens=400", "generator.context=100000", generate=generate)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
