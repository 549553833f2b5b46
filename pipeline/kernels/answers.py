r"""Answers in responses: where they stand, and which of them are the same.

A response is untrusted text of any length. Every pattern here is bounded or linear, and no text makes ``extract``
raise. Only the user's own regular expression (``how="regex"``) is as slow as the user wrote it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from pipeline.kernels import math_equality
from pipeline.kernels.thinking import without_thinking

# A number in prose: 7, 1,234.5, .5, 3/4, \frac{3}{4}, 1\frac{3}{4}, 1e3, -2; $-2 and -$2 too. Not one: digits in a
# word or an index (x1, x_1), an exponent (cm^2). A minus after a word, digit or bracket subtracts or joins (10-5).
# In a date (1/2/2024) 1/2 is no fraction.
_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3}(?![0-9A-Za-z]))?|\.[0-9]+"
_SIGN = r"(?:(?<![A-Za-z0-9_^)\]}%])(?<!\^\{)(?P<sign>[-\u2212])\$?|(?<![A-Za-z0-9_])\$(?P<sign2>[-\u2212]))?"
_VALUE = (
    rf"[0-9]{{0,9}}\\[dt]?frac\{{(?:{_DECIMAL})\}}\{{(?:{_DECIMAL})\}}"
    rf"|(?<!/)(?:{_DECIMAL})/[1-9][0-9]*(?![0-9/]|\.[0-9])|{_DECIMAL}"
)
_NUMBER = re.compile(rf"{_SIGN}(?<![A-Za-z0-9_^])(?<!\^\{{)(?<!\^-)(?<!\^\{{-)(?P<value>{_VALUE})")
_BRACE = re.compile(r"\\(?P<box>fbox|boxed)\s{0,4}\{|\\\\(?!fbox|boxed)|\\[{}]|(?P<open>\{)|(?P<close>\})")
_SHORT_BOX = re.compile(r"\\boxed[ \t]{0,4}(-?[0-9][0-9.,/]*|[A-Za-z](?![A-Za-z]))")

_MARKER = re.compile(
    r"answer(?:\*\*)?(?:[ \t]{0,3}[:=]|[^\n.:=]{0,60}?\bis\b)"
    r"|^####(?=[ \t]*[-\u2212+$]{0,2}\.?[0-9])(?![ \t]*[0-9]{1,2}[.)][ \t])",
    re.IGNORECASE | re.MULTILINE,
)
_STATED_CHARS = 400
_DISPLAY = tuple(
    re.compile(rf"{start}(.{{1,{_STATED_CHARS}}}?){end}", re.DOTALL)
    for start, end in ((r"\$\$", r"\$\$"), (r"\\\[", r"\\\]"), (r"\\\(", r"\\\)"))
)
# As in Pandoc: no space inside the dollars and no digit after them, so that "$5 and $6" is money.
_INLINE = re.compile(r"\$(?=[^\s$])([^$\n]*)(?<=\S)\$(?![0-9])|\\\(([^\n]*?)\\\)")
_SENTENCE_END = re.compile(r"[.;!?](?=\s|\*|$)")
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")

# A and I are words too: after "answer" they count only where the clause ends behind them.
_CLAUSE_END = r"(?=[ \t]*(?:$|[.,;:!)\]*]|because\b|since\b|as\b))"
_LETTER = rf"(?:\(([A-Ja-j])\)|([B-HJ])(?![A-Za-z0-9_'\u2019])|([AI]){_CLAUSE_END})"
_CHOICE_STATED = re.compile(
    r"\b(?i:answer|(?:correct|right|best)[ \t](?:choice|option))\b(?:\*\*)?"
    r"(?:[ \t]{0,3}[:=]|[^\n.:=(]{0,60}?\b(?i:is)\b)[\s:*$]{0,6}"
    rf"(?:\\boxed\{{|\\text\{{|(?i:option|choice)[ \t]){{0,2}}{_LETTER}",
    re.MULTILINE,
)
_CHOICE_BOXED = re.compile(r"(?:\\(?:text|textbf|mathrm|mathbf)\{)?\s*\(?([A-Ja-j])[).]?\}?")
_CHOICE_ALONE = re.compile(r"^[ \t*]{0,6}\(?([A-J])[).]?[ \t*]{0,6}$", re.MULTILINE)
_CHOICE_IN_BRACKETS = re.compile(r"(?<![A-Za-z0-9_\\])\(([A-Ja-j])\)")
_CHOICE_LINE = re.compile(r"\s{0,9}\(?([A-J])[).:][ \t][^\n]{0,500}\s{0,9}")


@lru_cache(maxsize=1024)  # votes over more and more of a prompt's draws ask for the same texts again
def extract(text: str, how: str, pattern: str | None = None) -> str | None:
    r"""The answer that a response states, as it is written there; None where there is none.

    Think blocks are left out first: an answer is never taken from a thought (see ``thinking``).

    ``how``:

    - ``last_number``: the last number; a fraction (a/b, \frac{a}{b}) is one number, its sign kept, $ and % dropped;
    - ``boxed``: the content of the last ``\boxed`` or ``\fbox`` that is closed;
    - ``math``: that, else what follows the last "answer is", "Answer:" or "#### ", else the last number;
    - ``choice``: a letter A to J, upper case: after "answer", else boxed, else alone on a line, else in brackets;
      the last one of the first of these kinds that occurs. An "A" or "I" in prose is none of them;
    - ``regex``: the last match of ``pattern`` that is not blank: its group 1 if there is one, else all of it.

    Raises ``ValueError`` for an unknown ``how`` and for a ``pattern`` that is missing or no regular expression.
    """
    answer = without_thinking(text)
    if how == "regex":
        return _by_pattern(answer, _compiled(pattern))
    return _by_name(how)(answer)


def classes(answers: Sequence[str | None], how: str) -> list[int | None]:
    """Equivalence classes of extracted answers, numbered 0, 1, ... by first appearance; None stays None.

    Mathematical for ``last_number``, ``boxed`` and ``math`` (see ``math_equality``), the letter for ``choice``, the
    stripped text for ``regex``. The partition depends on the set of answers, never on their order.
    """
    given = [answer for answer in answers if answer is not None]
    keys = iter(_keys(given, how))
    number: dict[object, int] = {}
    return [None if a is None else number.setdefault(next(keys), len(number)) for a in answers]


def stated(reference: str, how: str, pattern: str | None = None) -> str:
    """The answer of a reference, which may be the answer alone or a worked solution that states it."""
    return extract(reference, how, pattern) or reference


def correct(answer: str | None, gold: str | None, how: str) -> bool:
    """Whether an extracted answer is equivalent to the (extracted) gold one. Symmetric; None is never correct."""
    return answer is not None and gold is not None and len(set(_keys([answer, gold], how))) == 1


def _keys(answers: Sequence[str], how: str) -> Sequence[object]:
    """One hashable key per answer, equal where the answers are equivalent."""
    if how == "regex":
        return [a.strip() for a in answers]
    if how == "choice":
        return [a.strip().strip("().").upper() for a in answers]
    _by_name(how)
    return math_equality.group(answers)


def _by_name(how: str) -> Callable[[str], str | None]:
    if how not in _EXTRACTORS:
        raise ValueError(f"no way to extract answers is called {how!r}; there are: {', '.join(_EXTRACTORS)}, regex")
    return _EXTRACTORS[how]


def _last_number(text: str) -> str | None:
    m = _last(_NUMBER, text)
    return None if m is None else _written(m)


def _written(m: re.Match[str]) -> str:
    """A ``_NUMBER`` without its currency sign."""
    return ("-" if m["sign"] or m["sign2"] else "") + m["value"]


def _boxed(text: str) -> str | None:
    """The content of the closed box that starts last: of two nested ones the inner. One pass over the braces."""
    opened: list[int | None] = []  # for each open brace, where the content starts if it is a box's
    found: tuple[int, str] = (-1, "")
    for m in _BRACE.finditer(text):
        if m["box"] or m["open"]:
            opened.append(m.end() if m["box"] else None)
        elif m["close"] and opened:
            start = opened.pop()
            if start is not None and start > found[0]:
                found = (start, text[start : m.start()])
    m_short = _last(_SHORT_BOX, text)
    if m_short is not None and m_short.start(1) > found[0]:
        return m_short[1].rstrip(".,")
    return found[1].strip() or None


def _math(text: str) -> str | None:
    return _boxed(text) or _stated(text) or _last_number(text)


def _stated(text: str) -> str | None:
    """What the text says its answer is: formula, number or a few words."""
    m = _last(_MARKER, text)
    if m is None:
        return None
    said = text[m.end() : m.end() + _STATED_CHARS].lstrip(" \t\r\n:*")
    for display in _DISPLAY:
        if formula := display.match(said):
            return formula[1].strip() or None
    line = said.partition("\n")[0]
    if formula := _INLINE.search(line):
        return (formula[1] or formula[2] or "").strip() or None
    return _plain(_SENTENCE_END.split(line, maxsplit=1)[0])


def _plain(clause: str) -> str | None:
    """A clause without words is the answer; in one with words it is the first number behind the last '='."""
    clause = clause.strip(" \t\r*_`\"'$%,")
    if not _WORD.search(clause):
        return clause or None
    number = _NUMBER.search(clause.rpartition("=")[2])
    if number is not None:
        return _written(number)
    return clause if len(clause.split()) <= 5 else None


def _choice(text: str) -> str | None:
    stated = _last(_CHOICE_STATED, text)
    if stated is not None:
        return str(stated[stated.lastindex or 0]).upper()
    boxed = _CHOICE_BOXED.fullmatch(_boxed(text) or "")
    found = boxed or _last(_CHOICE_ALONE, text) or _last(_CHOICE_IN_BRACKETS, text) or _CHOICE_LINE.fullmatch(text)
    return found[1].upper() if found else None


def _by_pattern(text: str, pattern: re.Pattern[str]) -> str | None:
    which = min(pattern.groups, 1)
    answer = None
    for m in pattern.finditer(text):
        answer = (m[which] or "").strip() or answer
    return answer


def _last(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    found = None
    for found in pattern.finditer(text):  # noqa: B007 - the last one is what is wanted
        pass
    return found


@lru_cache(maxsize=64)
def _compiled(pattern: str | None) -> re.Pattern[str]:
    if pattern is None:
        raise ValueError("answers are extracted by a regular expression, but no pattern is given")
    try:
        return re.compile(pattern)
    except re.error as e:
        raise ValueError(f"{pattern!r} is not a regular expression: {e}") from e


_EXTRACTORS: dict[str, Callable[[str], str | None]] = {
    "last_number": _last_number,
    "boxed": _boxed,
    "math": _math,
    "choice": _choice,
}
