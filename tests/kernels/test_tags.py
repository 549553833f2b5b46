"""Text between tags: one case each of what models do with them, and what holds for any text."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.kernels.tags import Body, between

S, E = "<improved>", "</improved>"
CASES = {
    "plain": (f"{S}four{E}", Body("four")),
    "white space": (f"Sure!\n{S}\n  four\n{E}\nDone.", Body("four")),
    "no tags": ("The answer is four.", Body("", "no_start")),
    "nothing": ("", Body("", "no_start")),
    "no start tag": (f"four{E}", Body("", "no_start")),
    "no end tag": (f"{S}The answer is", Body("", "no_end")),
    "the other way round": (f"{E}four{S}", Body("", "no_end")),
    "empty": (f"{S}{E}", Body("", "empty")),
    "white space alone": (f"{S} \n\t{E}", Body("", "empty")),
    "tags twice in a row": (f"{S}{S}four{E}{E}", Body("four")),
    "mentioned before": (f"I will write it between {S} and {E}.\n{S}4{E}", Body("4")),
    "mentioned after": (f"{S}four{E}\nI wrote it between {S} and {E}.", Body("four")),
    "mentioned with dots": (f"Format: {S}...{E}\n{S}4{E}", Body("4")),
    "a body that looks like a mention": (f"{S}and{E}", Body("and")),
    "mentioned, then cut": (f"I will write it between {S} and {E}.\n{S}The answer", Body("", "no_end")),
    "mentioned, then empty": (f"Between {S}...{E}: {S}{E}", Body("", "empty")),
    "two versions": (f"{S}a longer first version{E} or rather {S}four{E}", Body("four")),
    "a whole one, then a cut one": (f"{S}five{E} no: {S}four", Body("", "no_end")),
    "all in a fence": (f"```\n{S}\nfour\n{E}\n```", Body("four")),
    "all in a fence, cut": (f"```\n{S}\nfour\n```", Body("", "no_end")),
    "a fence in the body": (f"{S}```py\nx = 4\n```{E}", Body("```py\nx = 4\n```")),
    "the end tag in the body's fence": (f"{S}Write\n```\n{E}\n```\nok{E}", Body(f"Write\n```\n{E}\n```\nok")),
    "the end tag in a fence alone": (f"{S}Write\n```\n{E}\n```\nand", Body("", "no_end")),
    "mentioned as code": (f"Between `{S}` and `{E}`:\n{S}four{E}", Body("four")),
    "mentioned as code, then cut": (f"Between `{S}` and `{E}`:\n{S}four", Body("", "no_end")),
    "an end tag too many": (f"{S}four{E} {E}", Body("four")),
    "other tags inside": (f"{S}<b>four</b>{E}", Body("<b>four</b>")),
    "another case": (f"{S.upper()}four{E.upper()}", Body("", "no_start")),
}


@pytest.mark.parametrize("name", CASES)
def test_what_the_body_is(name: str) -> None:
    text, expected = CASES[name]
    assert between(text, S, E) == expected


def test_tags_are_taken_as_they_are() -> None:
    assert between("[a.b]four[/a.b] [axb]five[/axb]", "[a.b]", "[/a.b]") == Body("four")


PIECES = st.lists(st.sampled_from([S, E, "x", " ", "`", "```", "\n", "and", "<think>"]), max_size=12).map("".join)


@given(PIECES)
def test_a_body_is_whole_and_stood_between_tags(text: str) -> None:
    body = between(text, S, E)
    assert bool(body.text) == (body.fault is None)
    if body.fault is None:
        assert re.search(re.escape(S) + r"\s*" + re.escape(body.text) + r"\s*" + re.escape(E), text)
        assert not re.search(
            "|".join(map(re.escape, (S, E))), re.sub(r"```.*?```|`[^`\n]*`", "", body.text, flags=re.S)
        )


@given(PIECES, st.text(st.characters(blacklist_characters="<`"), min_size=1).filter(str.strip))
def test_what_is_written_last_and_in_full_is_found(before: str, body: str) -> None:
    assert between(f"{before.replace('`', '')}\n{S}{body}{E}", S, E).text == body.strip()


@given(PIECES)
def test_a_text_that_is_cut_within_the_tags_is_never_taken(before: str) -> None:
    assert between(f"{before.replace('`', '')}\n{S}The answer", S, E).fault == "no_end"
