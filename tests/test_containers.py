"""Settings that want a list or a mapping say so, and how it is written."""

from __future__ import annotations

import pytest

from pipeline.config import load
from pipeline.errors import ConfigError


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("export.formats=pair", "export.formats = 'pair': expected a list; write [pairs]"),
        ("export.formats='pairs, stf'", "export.formats = 'pairs, stf': expected a list; write [pairs, sft]"),
        ("export.formats=3", "export.formats = 3: expected a list; write [3]"),
        ("export.formats.a=1", "export.formats = {'a': 1}: expected a list"),
        ("export.formats=null", "export.formats = null: it needs a value"),
        ("export.agree=other", "export.agree = 'other': expected a list; write [other]"),
        ("method.ladder=2", "method.ladder = 2: expected a list; write [2]"),
        ("cluster.runner_resources=big", "cluster.runner_resources = 'big': expected a mapping; write {name: value}"),
        ("generator.resources=[big]", "generator.resources = ['big']: expected a mapping; write {name: value}"),
    ],
)
def test_a_word_in_place_of_a_list_or_a_mapping_is_answered_with_the_right_form(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        load(["toy"], ["out=x", "method=qalign", "method.beta=1", override])
    assert str(error.value) == message


def test_lists_and_mappings_pass() -> None:
    run = load(["toy"], ["out=x", "export.formats=[sft]", "generator.resources.big=1", "export.agree=[]"])
    assert (run.export.formats, run.generator.resources) == (["sft"], {"big": 1.0})
