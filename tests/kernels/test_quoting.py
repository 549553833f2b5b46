"""Templates with fields, and quotations that are shortened."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.quoting import check, shortened


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("compare {chosen}", "must contain {rejected}"),
        ("{chosen} {rejected} {reward}", "no value for {reward}; fields here are {chosen}, {question}, {rejected}"),
        ("{chosen} {rejected!r}", "alone"),
        ("{chosen} {rejected:>3}", "alone"),
        ("{chosen} {rejected} {}", "no value for {}"),
        ("{chosen} {rejected} {", "double the braces"),
        ("{chosen} {rejected} }", "double the braces"),
        ("{{chosen}} {{rejected}}", "must contain {chosen}, {rejected}"),
    ],
)
def test_a_wrong_template_is_refused(template: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        check(template, ("chosen", "rejected"), ("question",))


def test_a_right_template_is_taken() -> None:
    check("{chosen} {rejected} {question} {{x}}", ("chosen", "rejected"), ("question",))
    check("no field", ())


@given(st.text(), st.integers(0, 30))
def test_a_shortened_text_keeps_both_ends_and_says_what_is_missing(text: str, limit: int) -> None:
    short, left_out = shortened(text, limit)
    assert left_out == max(0, len(text) - limit)
    if not left_out:
        assert short == text
        return
    head, tail = re.split(r"\n\[\.\.\. \d+ characters left out \.\.\.\]\n", short, maxsplit=1)
    assert f"[... {left_out} characters left out ...]" in short
    assert len(head) + len(tail) == limit
    assert text.startswith(head)
    assert text.endswith(tail)
