"""NLTK's sentence data as its own trainer writes them: the real ones are a download, and tests make none."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEXT = "Mr. Smith went home at 3 p.m. on Monday. He slept. Did Dr. Jones sleep, too? No! She read a book. " * 20


@contextmanager
def sentence_data(folder: Path, *, there: bool = True) -> Iterator[None]:
    """NLTK finds its data in ``folder`` alone, where ``punkt_tab`` is or isn't."""
    import nltk
    from lm_eval.tasks.ifeval import instructions_util
    from nltk.tokenize import _get_punkt_tokenizer
    from nltk.tokenize.punkt import PunktTrainer, save_punkt_params

    known = (instructions_util._get_sentence_tokenizer, _get_punkt_tokenizer)
    before = list(nltk.data.path)
    nltk.data.path[:] = [str(folder)]
    for cached in known:
        cached.cache_clear()
    try:
        if there:
            place = folder / "tokenizers" / "punkt_tab" / "english"
            os.makedirs(place, mode=0o700)
            trainer = PunktTrainer()
            trainer.train(TEXT)
            save_punkt_params(trainer.get_params(), str(place))
        yield
    finally:
        nltk.data.path[:] = before
        for cached in known:
            cached.cache_clear()
