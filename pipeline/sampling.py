"""Sampling options that no generator takes, and why.

A response is cut and continued (QAlign, suffix resampling), and a draw has one name whatever asks for it. Both need
that the law of a suffix, given its prefix, is the model's own: the same whether the prefix was just drawn or is sent
as part of a prompt. The options here break that, most of them because they count from where a request begins.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.sections import GeneratorConfig

_PENALTY = (
    "a penalty treats tokens of the prompt and of the response differently, so that a response that is cut and "
    "continued would follow another law than the one it was drawn from; leave it out, or train it into the model"
)
_STOP = (
    "a stop string that lies across a cut is missed, and the cut response would follow another law; let the model end "
    "its responses with end tokens of its own (generation_config.json, eos_token_id)"
)
_GUIDED = (
    "a grammar is followed from where a request begins, which after a cut is the middle of a response, and masked "
    "tokens change the law that the acceptance ratio takes for the model's; check the format in a reward instead"
)
_MINIMUM = (
    "a least number of tokens is counted from where a request begins, so that a response that is cut and continued "
    "would follow another law; ask for longer responses in the prompt or in the reward"
)
_PROCESSOR = (
    "a logits processor may look at where a request begins, and then a response that is cut and continued follows "
    "another law than the one it was drawn from"
)
_IGNORED = "responses end where the model ends them: the end token is part of the response and of its length"

REFUSED = {
    **dict.fromkeys(
        ("repetition_penalty", "presence_penalty", "frequency_penalty", "length_penalty", "no_repeat_ngram_size"),
        _PENALTY,
    ),
    **dict.fromkeys(("stop", "stop_strings", "stop_sequences", "include_stop_str_in_output"), _STOP),
    **dict.fromkeys(
        (
            "guided_decoding",
            "guided_json",
            "guided_regex",
            "guided_choice",
            "guided_grammar",
            "structured_outputs",
            "response_format",
            "grammar",
        ),
        _GUIDED,
    ),
    **dict.fromkeys(("min_tokens", "min_new_tokens", "min_length"), _MINIMUM),
    **dict.fromkeys(("logits_processors", "logits_processor", "bad_words", "logit_bias"), _PROCESSOR),
    "ignore_eos": _IGNORED,
}
"""Names of options, as engines call them, with the reason."""


def refused(options: Mapping[str, Any], place: str) -> Iterator[str]:
    """What is wrong with nested options, one sentence each: ``PLACE.NAME is refused: REASON``."""
    for name, value in options.items():
        if name in REFUSED:
            yield f"{place}.{name} is refused: {REFUSED[name]}"
        elif isinstance(value, Mapping):
            yield from refused(value, f"{place}.{name}")


def check_suffixes(generator: GeneratorConfig) -> None:
    """Raises ``ValueError`` if an engine can't continue a prefix, or does it by another law than the model's own."""
    if getattr(generator, "mode", None) == "chat":
        raise ValueError(
            "generator.mode = chat: this method cuts responses and has the model go on from there, which takes token "
            "ids; set generator.mode=completions, with a server that takes and returns them (vLLM's does)"
        )
    for name in ("engine_args", "extra_body"):
        for problem in refused(getattr(generator, name, {}), f"generator.{name}"):
            raise ValueError(problem)
