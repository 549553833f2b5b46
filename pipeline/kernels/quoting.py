"""Texts quoted in prompts: templates with fields, and quotations shortened to fit."""

from __future__ import annotations

import string
from collections.abc import Collection

MARK = "\n[... {left_out} characters left out ...]\n"


def check(template: str, required: Collection[str], allowed: Collection[str] = ()) -> None:
    """Raises ``ValueError`` for a template that lacks a field, has an unknown one, or is no template at all.

    A field is ``{name}``; braces that are meant as such are doubled, as in ``str.format``.
    """
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"it is no template ({error}): double the braces that are meant as such") from None
    found = {name for _, name, _, _ in parts if name is not None}
    if any(name is not None and (spec or conversion) for _, name, spec, conversion in parts):
        raise ValueError("write a field as {name} alone, without format or conversion")
    if missing := sorted(set(required) - found):
        raise ValueError(f"it must contain {_listed(missing)}")
    if unknown := sorted(found - set(required) - set(allowed)):
        may = _listed(sorted({*required, *allowed})) or "none; double the braces that are meant as such"
        raise ValueError(f"it has no value for {_listed(unknown)}; fields here are {may}")


def shortened(text: str, limit: int) -> tuple[str, int]:
    """The text with at most ``limit`` (>= 0) of its own characters, and how many were left out (0: as it was).

    Its beginning and its end stay, the beginning by one character longer if the limit is odd; a mark that says how
    many characters are missing stands between them.
    """
    left_out = len(text) - limit
    if left_out <= 0:
        return text, 0
    head = (limit + 1) // 2
    return text[:head] + MARK.format(left_out=left_out) + text[len(text) - (limit - head) :], left_out


def _listed(names: Collection[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
