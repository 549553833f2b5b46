"""Think blocks: what a reasoning model writes for itself before it answers, and what is left without it.

A block is ``<think> ... </think>``. Rewards and votes look at the answer alone; tables keep the whole response.
"""

from __future__ import annotations

import re
from functools import lru_cache

OPEN, CLOSE = "<think>", "</think>"

_OPEN_AT_END = re.compile(r"<think>\s*\Z")


@lru_cache(maxsize=16)
def code_or_tag(*tags: str) -> re.Pattern[str]:
    """Finds code that is closed (between fences, or backticks on one line), or one of the tags.

    Each alternative ends at the first chance, so that a search is linear in the text.
    """
    return re.compile("|".join([r"```.*?```", r"`[^`\n]*`", *map(re.escape, tags)]), re.DOTALL)


def without_thinking(text: str, open: str = OPEN, close: str = CLOSE) -> str:
    """The answer in a response: the text outside think blocks, stripped; a text without a tag stays as it is.

    - A block goes from ``<think>`` to the next ``</think>``, or to the end where it was cut: then what came before
      it is the answer, most often nothing.
    - Before a ``</think>`` that nothing opened, all is thought: chat templates may open the block in the prompt.
      Hence of several such tags the last one counts.
    - A tag in the answer's code (between backticks on one line, or between fences) is text. In a block, code is
      not looked for: thoughts often leave it open.

    ``open`` and ``close``: the tags, where a model writes others.
    """
    answer: list[str] = []
    start = at = 0
    tagged = False
    pattern = code_or_tag(open, close)
    while found := pattern.search(text, at):
        at = found.end()
        if found[0] == open:
            answer.append(text[start : found.start()])
            end = text.find(close, at)
            start = at = len(text) if end < 0 else end + len(close)
        elif found[0] == close:
            answer.clear()
            start = at
        else:
            continue
        tagged = True
    return "".join([*answer, text[start:]]).strip() if tagged else text


def opening(prompt: str) -> str:
    """The tag that a prompt (or its end) opens a think block with, and the space behind it; empty if it opens none."""
    found = _OPEN_AT_END.search(prompt)
    return found[0] if found else ""
