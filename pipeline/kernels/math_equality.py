r"""Which mathematical answers are the same: exact numbers first, then the ``math_verify`` library.

An answer is reduced to a *form*. Numbers become a ``Fraction`` and compare exactly, so 1,000 = 1000.0 and
0.5 = 1/2 = \frac{1}{2}, but 0.333333 is not 1/3: a tolerance would not be transitive, and classes must be. A
percent sign, a currency sign and a trailing period are units or punctuation and are dropped: 50 % is 50, not 0.5.
Words compare without case. Everything else is LaTeX for ``math_verify``.

Answers are written by a model and are not to be trusted. ``math_verify`` parses with a grammar (nothing is
evaluated as Python), but it is exponential in nested braces, and SymPy computes 9^9^9 if asked. What reaches it is
therefore held to an alphabet, a length, a nesting depth and small powers; anything else is equal to itself only.
Those limits do not depend on the machine. A deadline stands behind them where signals work (the main thread).
"""

from __future__ import annotations

import cmath
import logging
import math
import re
import signal
import threading
import warnings
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from functools import lru_cache
from types import FrameType
from typing import Any

Form = Fraction | str

MAX_CHARS = 200
"""Longer answers are compared as strings."""
MAX_NESTING = 5
"""Depth of braces and brackets; the grammar needs a second at 16, for ever at 60."""
MAX_TERMS = 1024
"""Terms of an expression multiplied out; (x + 1)^10 has as many."""
MAX_FORMS = 256
"""Of one question's distinct answers that are neither numbers nor words, the shortest so many are compared."""
DEADLINE_S = 5.0
"""CPU seconds for one parse or comparison, in the main thread. Far above what passes the limits needs."""

_lock = threading.Lock()  # the ANTLR runtime keeps its tables in module state

_DECIMAL = r"(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.[0-9]*)?(?<=[0-9.])(?:[eE][+-]?[0-9]{1,3})?"
_NUMBER = re.compile(rf"([+-]?)\s*({_DECIMAL})(?:\s*/\s*({_DECIMAL}))?")
_ARGUMENT = rf"\s*(?:\{{\s*({_DECIMAL})\s*\}}|([0-9]))"
_FRACTION = re.compile(rf"([+-]?)\s*\\frac{_ARGUMENT}{_ARGUMENT}")
_TEXT = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mbox)\s*\{([^{}]*)\}")
_WORDS = re.compile(r"(?=.*[A-Za-z]{3})[A-Za-z][A-Za-z '-]*")
_SPELLINGS = (
    ("\u2212", "-"), ("\u00d7", r"\times "), ("\u00b7", r"\cdot "), ("\u03c0", r"\pi "), ("\u221e", r"\infty "),
    ("\u00b0", r"^\circ "), ("\u2264", r"\le "), ("\u2265", r"\ge "), ("\u222a", r"\cup "), ("\u00a0", " "),
    (r"\left", ""), (r"\right", ""), (r"\dfrac", r"\frac"), (r"\tfrac", r"\frac"), ("{,}", ","),
    (r"\,", " "), (r"\;", " "), (r"\:", " "), (r"\quad", " "), (r"\%", "%"), (r"\$", "$"),
)  # fmt: skip
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_COMMANDS = frozenset(
    _COMMAND.findall(
        r"\frac\sqrt\pi\infty\pm\mp\cdot\times\div\circ\angle\text\textbf\textit\mathrm\mathbf\mathbb\mbox\begin\end"
        r"\cup\cap\in\le\leq\ge\geq\lt\gt\ne\neq\emptyset\varnothing\sin\cos\tan\cot\sec\csc\arcsin\arccos\arctan\log\ln"
        r"\alpha\beta\gamma\theta\lambda\mu\sigma\phi\omega"
    )
)
_POWER = re.compile(
    r"(?P<base>[^\s])\s*\^\s*(?:\{(?P<group>[^{}^]*)\}|(?P<digits>-?[0-9]+)|\\circ|[A-Za-z])(?!\s*[\^!])"
)


def group(answers: Iterable[str]) -> list[int]:
    """A class number for each answer; equal numbers for equivalent answers.

    Each form is compared with one representative per class, numbers first and then the shortest, so the classes
    depend on which answers there are and not on their order.
    """
    forms = [form(answer) for answer in answers]
    members = sorted(set(forms), key=_rank)
    class_of: dict[Form, int] = {}
    representatives: list[Form] = []
    compared = 0
    for f in members:
        comparable = isinstance(f, str) and parseable(f)  # distinct numbers and strings differ without asking
        compared += comparable
        peers = representatives if comparable and compared <= MAX_FORMS else []
        found = next((i for i, other in enumerate(peers) if _same_forms(other, f)), len(representatives))
        if found == len(representatives):
            representatives.append(f)
        class_of[f] = found
    return [class_of[f] for f in forms]


def same(gold: str, answer: str) -> bool:
    """Whether two answers are equivalent, in both directions of ``math_verify``'s comparison. Symmetric."""
    a, b = sorted((form(gold), form(answer)), key=_rank)
    return _same_forms(a, b)


@lru_cache(maxsize=4096)
def form(answer: str) -> Form:
    """The exact number that the answer is, else its tidied text; words in lower case."""
    text = _tidy(answer)
    value = number(text)
    if value is not None:
        return value
    return text.lower() if _WORDS.fullmatch(text) else text


def number(text: str) -> Fraction | None:
    r"""The value of a decimal with or without thousands commas, of a/b or of \frac{a}{b}; else None."""
    if len(text) > MAX_CHARS:
        return None
    if m := _NUMBER.fullmatch(text):
        sign, top, bottom = m[1], m[2], m[3] or "1"
    elif m := _FRACTION.fullmatch(text):
        sign, top, bottom = m[1], m[2] or m[3], m[4] or m[5]
    else:
        return None
    try:
        value = Fraction(top.replace(",", "")) / Fraction(bottom.replace(",", ""))
    except (ValueError, ZeroDivisionError):
        return None
    return -value if sign == "-" else value


def parseable(f: Form) -> bool:
    """Whether ``math_verify`` may see it: short, ASCII, shallow, known commands, small powers, not plain words."""
    text = _spell(f)
    return (
        0 < len(text) <= MAX_CHARS
        and text.isascii()
        and text.isprintable()
        and "$" not in text
        and not _WORDS.fullmatch(text)
        and _COMMANDS.issuperset(_COMMAND.findall(text))
        and _depth(text) <= MAX_NESTING
        and _powers_small(text)
    )


def _tidy(answer: str) -> str:
    r"""Without what does not change the value: delimiters, \text{} around all of it, units of money, spacing."""
    text = answer.strip()
    if len(text) > 2 * MAX_CHARS:
        return text
    text = re.sub(r"\\!\s*", "", text)
    for written, plain in _SPELLINGS:
        text = text.replace(written, plain)
    text = text.strip().removesuffix(".").strip()
    for start, end in (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**")):
        if text.startswith(start) and text.endswith(end) and len(text) > len(start + end):
            text = text[len(start) : -len(end)].strip()
    if m := _TEXT.fullmatch(text):
        text = m[1].strip()
    text = text.removesuffix(".").removesuffix("%").rstrip()
    text = re.sub(r"^([+-]?)\s*[$\u20ac\u00a3]\s*(?=[-0-9.])", r"\1", text)
    return re.sub(r"\s+", " ", text)


def _rank(f: Form) -> tuple[bool, int, str]:
    text = _spell(f)
    return isinstance(f, str), len(text), text


def _spell(f: Form) -> str:
    """The form as text: numbers as decimals where that is exact, so that the library may compare with roots."""
    if isinstance(f, str):
        return f
    digits = 0
    while digits < MAX_CHARS and (f * 10**digits).denominator != 1:
        digits += 1
    scaled = f * 10**digits
    if scaled.denominator != 1:
        return rf"{'-' if f < 0 else ''}\frac{{{abs(f.numerator)}}}{{{f.denominator}}}"
    whole = str(abs(scaled.numerator)).zfill(digits + 1)
    point = f".{whole[-digits:]}" if digits else ""
    return f"{'-' if f < 0 else ''}{whole[: len(whole) - digits]}{point}"


def _depth(text: str) -> int:
    depth = deepest = 0
    for c in text:
        depth += (c in "{([") - (c in "})]")
        deepest = max(deepest, depth)
    return max(deepest, text.count("|") // 2)


def _powers_small(text: str) -> bool:
    """No tower, no exponent over 999, powers of brackets up to 20 in product, factorials of 2 digits at most."""
    plain = text.replace("**", "^")
    if re.search(r"(?<![0-9])!|[0-9]{3}!|!\s*[!^]", plain):
        return False
    powers = list(_POWER.finditer(plain))
    if len(powers) != plain.count("^"):
        return False
    of_brackets = 1
    for m in powers:
        digits = re.findall("[0-9]+", m["group"] or m["digits"] or "1")
        if sum(map(len, digits)) > 3 or "!" in (m["group"] or ""):
            return False
        if m["base"] in ")}]|!":
            of_brackets *= max([int(d) for d in digits], default=1)
    return of_brackets <= 20


@lru_cache(maxsize=16384)
def _same_forms(a: Form, b: Form) -> bool:
    """Equal, or equal to ``math_verify``; two numbers, or two forms whose values clearly differ, never ask it."""
    if a == b:
        return True
    if (isinstance(a, Fraction) and isinstance(b, Fraction)) or not (parseable(a) and parseable(b)):
        return False
    x, y = _parsed(_spell(a)), _parsed(_spell(b))
    if not x or not y or _differ(_value(_spell(a)), _value(_spell(b))):
        return False
    library = _library()
    return bool(
        _bounded(lambda: all(library.verify([*g], [*t], timeout_seconds=None) for g, t in ((x, y), (y, x))), False)
    )


@lru_cache(maxsize=4096)
def _parsed(text: str) -> tuple[Any, ...]:
    """What ``math_verify`` reads: an expression and its text, the text alone, or nothing (also if it is too big)."""
    library = _library()
    config = [library.LatexExtractionConfig()]
    read = tuple(_bounded(lambda: library.parse(f"${text}$", config, parsing_timeout=None), ()))
    return read if _bounded(lambda: all(isinstance(x, str) or _terms(x) <= MAX_TERMS for x in read), False) else ()


def _terms(expr: Any, degree: int = 99) -> int:
    """At most how many terms the expression has when multiplied out, which is what comparing it may cost.

    A symbol raised to more than ``degree`` counts as too many; within equations, which are solved, that is 6.
    """
    import sympy

    if isinstance(expr, sympy.MatrixBase):
        return sum(_terms(x, degree) for x in expr.flat())
    if not expr.free_symbols or not expr.args:
        return 1
    if isinstance(expr, sympy.Pow) and expr.exp.is_Integer:
        return _terms(expr.base, degree) ** abs(int(expr.exp)) if abs(expr.exp) <= degree else MAX_TERMS + 1
    if isinstance(expr, sympy.core.relational.Relational):
        degree = 6
    parts = [_terms(x, degree) for x in expr.args]
    return math.prod(parts) if isinstance(expr, sympy.Mul) else sum(parts)


@lru_cache(maxsize=4096)
def _value(text: str) -> complex | None:
    """The value of the parsed expression at fixed values of its symbols; None where it has none.

    Equivalent expressions have equal values, so clearly different values spare the symbolic comparison, which
    costs milliseconds per pair. A lone symbol has none: ``math_verify`` equates it with products of its letters.
    """
    import sympy

    expr = _parsed(text)[0]
    if not isinstance(expr, sympy.Expr) or expr.is_Symbol or expr.has(sympy.core.function.AppliedUndef):
        return None
    at = {s: 0.5 + zlib.crc32(s.name.encode()) / 2**32 for s in expr.free_symbols}
    value = _bounded(lambda: complex(expr.doit().evalf(15, subs=at)), None)
    return value if value is not None and cmath.isfinite(value) else None


def _differ(x: complex | None, y: complex | None) -> bool:
    """Whether two values are further apart than the six decimals to which ``math_verify`` rounds."""
    return x is not None and y is not None and abs(x - y) > 2e-6 + 1e-9 * max(abs(x), abs(y))


@lru_cache(maxsize=1)
def _library() -> Any:
    """``math_verify``, imported at the first answer that needs it, with its warnings about our inputs silenced."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import math_verify
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    return math_verify


class _OutOfTime(BaseException):
    """Not an ``Exception``: the library catches those."""


def _bounded(compute: Any, default: Any) -> Any:
    """``compute()`` one at a time and within the deadline; ``default`` if it raises or runs out of time."""
    try:
        with _lock, _deadline(DEADLINE_S), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return compute()
    except (Exception, _OutOfTime):
        return default


@contextmanager
def _deadline(seconds: float) -> Iterator[None]:
    """Raises ``_OutOfTime`` in the main thread after so much CPU time; elsewhere does nothing, for signals cannot.

    CPU time, because the answer should not depend on how busy the machine is, and because the library's own
    wall-clock timeouts cancel an alarm that somebody else has set (pytest-timeout).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(signum: int, frame: FrameType | None) -> None:
        raise _OutOfTime

    handler = signal.signal(signal.SIGVTALRM, expire)
    # The interval repeats the signal in case the first one falls into code that swallows it (a finaliser).
    previous = signal.setitimer(signal.ITIMER_VIRTUAL, seconds, 0.5)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, *previous)
        signal.signal(signal.SIGVTALRM, handler if handler is not None else signal.SIG_DFL)
