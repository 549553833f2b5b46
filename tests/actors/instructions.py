"""One case of each kind of IFEval's instructions, some with two: what follows it, and what doesn't."""

from __future__ import annotations

from typing import Any

ENGLISH = "the weather in the mountains was very good yesterday and we walked all day long"
GERMAN = "Gestern war das Wetter in den Bergen sehr schön, und wir sind den ganzen Tag gewandert."
AT_LEAST, LESS = "at least", "less than"
KINDS: list[tuple[str, dict[str, Any], str, str]] = [
    ("keywords:existence", {"keywords": ["sea", "Boat"]}, "A boat on the sea.", "A boat on the lake."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": AT_LEAST}, "Sea, oh sea!", "The sea."),
    ("keywords:frequency", {"keyword": "sea", "frequency": 2, "relation": LESS}, "The sea.", "Sea, oh sea!"),
    ("keywords:forbidden_words", {"forbidden_words": ["sea", "boat"]}, "The seam holds.", "The sea is calm."),
    ("keywords:letter_frequency", {"letter": "Z", "let_frequency": 2, "let_relation": AT_LEAST}, "Zigzag", "Zebra"),
    ("keywords:letter_frequency", {"letter": "z", "let_frequency": 2, "let_relation": LESS}, "Zebra", "Zigzag"),
    ("keywords:letter_frequency", {"letter": "!", "let_frequency": 2, "let_relation": AT_LEAST}, "Ah! Oh!", "Ah!"),
    ("keywords:letter_frequency", {"letter": "#", "let_frequency": 2, "let_relation": LESS}, "# a", "# a # b"),
    ("language:response_language", {"language": "de"}, GERMAN, ENGLISH),
    ("length_constraints:number_sentences", {"num_sentences": 2, "relation": AT_LEAST}, "Go home. Sleep.", "Go home."),
    ("length_constraints:number_paragraphs", {"num_paragraphs": 2}, "one\n***\ntwo", "one\n\ntwo"),
    ("length_constraints:number_words", {"num_words": 3, "relation": LESS}, "two words", "as many as five words"),
    (
        "length_constraints:nth_paragraph_first_word",
        {"num_paragraphs": 2, "nth_paragraph": 2, "first_word": "Then"},
        "First this.\n\nThen, that.",
        "First this.\n\nAnd that.",
    ),
    ("detectable_content:number_placeholders", {"num_placeholders": 2}, "Dear [name] of [town],", "Dear [name],"),
    ("detectable_content:postscript", {"postscript_marker": "P.P.S"}, "Bye.\nP.P.S. More.", "Bye.\nP.S. More."),
    ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* one\n- two", "* one\ntwo"),
    ("detectable_format:constrained_response", {}, "My answer is maybe.", "Perhaps."),
    ("detectable_format:number_highlighted_sections", {"num_highlights": 2}, "*one* and *two*", "*one* and two"),
    (
        "detectable_format:multiple_sections",
        {"section_spliter": "Part", "num_sections": 2},
        "Part 1\na\nPart 2\nb",
        "Part 1\na",
    ),
    ("detectable_format:json_format", {}, '```json\n{"a": [1, 2]}\n```', "{'a': 1}"),
    ("detectable_format:title", {}, "<<A title>>\ntext", "<A title>\ntext"),
    ("combination:two_responses", {}, "one\n******\nother", "one\n******\none"),
    ("combination:repeat_prompt", {"prompt_to_repeat": "Write a poem."}, "Write a poem. Roses ...", "Roses ..."),
    ("startend:end_checker", {"end_phrase": "That is all."}, "It rains. That is all.", "That is all. It rains."),
    (
        "change_case:capital_word_frequency",
        {"capital_frequency": 2, "capital_relation": AT_LEAST},
        "It is VERY, VERY late.",
        "It is VERY late.",
    ),
    ("change_case:english_capital", {}, ENGLISH.upper(), ENGLISH.capitalize()),
    ("change_case:english_lowercase", {}, ENGLISH, ENGLISH.capitalize()),
    ("punctuation:no_comma", {}, "one and two", "one, two"),
    ("startend:quotation", {}, '"All of it."', '"Some" of it.'),
]
