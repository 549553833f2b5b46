"""Think blocks: what a reasoning model writes for itself before it answers, and what is left without it.

A block is ``<think> ... </think>``. Rewards and votes look at the answer alone; tables keep the whole response.
"""

from __future__ import annotations

import re

OPEN, CLOSE = "<think>", "</think>"

# Code that is closed, or a tag. Each alternative ends at the first chance, so that a search is linear in the text.
_CODE_OR_TAG = re.compile(r"```.*?```|`[^`\n]*`|</?think>", re.DOTALL)
_OPEN_AT_END = re.compile(r"<think>\s*\Z")


def without_thinking(text: str) -> str:
    """The answer in a response: the text outside think blocks, stripped; a text without a tag stays as it is.

    - A block goes from ``<think>`` to the next ``</think>``, or to the end where it was cut: then what came before
      it is the answer, most often nothing.
    - Before a ``</think>`` that nothing opened, all is thought: chat templates may open the block in the prompt.
      Hence of several such tags the last one counts.
    - A tag in the answer's code (between backticks on one line, or between fences) is text. In a block, code is
      not looked for: thoughts often leave it open.
    """
    answer: list[str] = []
    start = at = 0
    tagged = False
    while found := _CODE_OR_TAG.search(text, at):
        at = found.end()
        if found[0] == OPEN:
            answer.append(text[start : found.start()])
            end = text.find(CLOSE, at)
            start = at = len(text) if end < 0 else end + len(CLOSE)
        elif found[0] == CLOSE:
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
