"""Text between tags, as a language model writes them: what a rewrite is, or why there is none.

Models mention the tags before they use them, use them twice, wrap them in code fences, and run out of tokens. What is
taken is always the inside of a whole pair; where it is in doubt whether the text was finished, nothing is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from pipeline.kernels.thinking import code_or_tag

Fault = Literal["no_start", "no_end", "empty"]
"""``no_start``: there is no start tag; ``no_end``: the last one is not closed (the text was cut); ``empty``: nothing,
or white space alone, stands between them."""


_MENTIONS = frozenset({"", "and", "or", "to", "...", "…", ",", "/"})
"""What stands between two tags that are only spoken of."""


@dataclass(frozen=True, slots=True)
class Body:
    """What stood between the tags, without white space around it; ``fault`` says why there is nothing."""

    text: str
    fault: Fault | None = None


def between(text: str, start: str, end: str) -> Body:
    """The body of a text with tags.

    - Tags in closed code (fences, backticks) are text, unless all of them are in code: then the fence is around them.
    - A pair is a start tag and an end tag without another tag between them; so of tags written twice in a row
      the inner ones count, and an end tag without a start means nothing.
    - Of several pairs the last is the body; beside others, mentions of the tags ("between START and END") don't count.
    - A last start tag that is not closed makes the text a cut one, whatever stood before it.
    """
    tags = [t for t in code_or_tag(start, end).finditer(text) if t[0] in (start, end)]
    if not tags:  # none outside code: look inside it
        tags = list(re.finditer("|".join(map(re.escape, (start, end))), text))
    if not any(t[0] == start for t in tags):
        return Body("", "no_start")
    if tags[-1][0] == start:
        return Body("", "no_end")
    bodies = [text[a.end() : b.start()].strip() for a, b in pairwise(tags) if a[0] == start and b[0] == end]
    body = next((b for b in reversed(bodies) if b.lower() not in _MENTIONS), bodies[-1])
    return Body(body, None if body else "empty")
