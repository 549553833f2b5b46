"""IFEval's checks as a reward: each kind of instruction, both ways to look at a response, and rows that are refused."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.protocol import BadRequest, ScoreRequest
from actors.rewards import ifeval
from actors.scoring import reference_of
from pipeline.config import build, load
from pipeline.errors import ConfigError
from pipeline.sections import DataConfig, RunConfig
from pipeline.storage import references
from pipeline.storage.source import inspect, read
from pipeline.types import RowError
from tests.actors.instructions import KINDS, LESS
from tests.actors.sentence_data import sentence_data

COLUMNS = ["instruction_id_list", "kwargs"]
NEEDS_DATA = ("length_constraints:number_sentences", "change_case:capital_word_frequency")


@pytest.fixture(autouse=True, scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    ifeval.library()
    with sentence_data(tmp_path_factory.mktemp("nltk")):
        yield
    ifeval.instructions.cache_clear()


@pytest.fixture
def no_data(data: None, tmp_path: Path) -> Iterator[None]:
    ifeval.instructions.cache_clear()
    with sentence_data(tmp_path, there=False):
        yield


def run_of(**options: Any) -> RunConfig:
    data = {"input": "p", "reference": COLUMNS}
    return build({"out": "x", "data": data, "generator": "toy", "reward": {"engine": "ifeval", **options}})


def reference(*asked: tuple[str, dict[str, Any] | None]) -> str:
    return json.dumps([[name for name, _ in asked], [kwargs for _, kwargs in asked]])


@cache
def checks(**options: Any) -> ifeval.InstructionChecks:
    config = run_of(**options).reward
    assert isinstance(config, ifeval.Config)
    return ifeval.create(config)


def score(response: str, text: str | None, **options: Any) -> float:
    return asyncio.run(checks(**options).score(ScoreRequest("q", response, text)))


def test_every_kind_of_the_library_is_among_the_cases() -> None:
    assert {name for name, *_ in KINDS} == set(ifeval.library().registry.INSTRUCTION_DICT)


@pytest.mark.parametrize(("name", "kwargs", "good", "bad"), KINDS, ids=[f"{i}-{k[0]}" for i, k in enumerate(KINDS)])
def test_a_kind_of_instruction(name: str, kwargs: dict[str, Any], good: str, bad: str) -> None:
    text = reference((name, kwargs))
    for accuracy in ifeval.ACCURACIES:
        for level in ifeval.LEVELS:
            assert score(good, text, accuracy=accuracy, level=level) == 1.0
            assert score(bad, text, accuracy=accuracy, level=level) == 0.0
    assert score(" \n", text) == 0.0, "nothing follows no instruction"


TWO = reference(("punctuation:no_comma", {}), ("detectable_format:json_format", {}))


@pytest.mark.parametrize(
    ("response", "accuracy", "level", "reward"),
    [
        ("[1]", "strict", "instruction", 1.0),
        ("[1]", "strict", "prompt", 1.0),
        ("Here it is:\n[1]", "strict", "instruction", 0.5),
        ("Here it is:\n[1]", "strict", "prompt", 0.0),
        ("Here it is:\n[1]", "loose", "instruction", 1.0),
        ("**[1]**", "loose", "prompt", 1.0),
        ("Here, it is:\n[1\n2]", "loose", "instruction", 0.5),
    ],
)
def test_what_is_looked_at_and_what_is_counted(response: str, accuracy: str, level: str, reward: float) -> None:
    assert score(response, TWO, accuracy=accuracy, level=level) == reward


def test_json_that_is_too_deep_for_a_parser_is_none() -> None:
    assert score("[" * 100_000, TWO) == 0.5


def test_a_response_has_one_reward_however_often_it_is_asked_for() -> None:
    """Languages are detected by chance unless the detector has a seed, and it names several for this text."""
    mixed = reference(("language:response_language", {"language": "en"}))
    texts = ["Das ist ok, no problem at all.", "Ok super, danke, see you then", "No, si, si, ok, va bene, thanks"]
    expected = [score(text, mixed) for text in texts]
    for seed in range(20):
        random.seed(seed)
        assert [score(text, mixed) for text in texts] == expected


def test_a_letter_that_lm_eval_would_replace_by_chance_is_counted() -> None:
    for seed in range(10):
        random.seed(seed)
        ifeval.instructions.cache_clear()
        text = reference(("keywords:letter_frequency", {"letter": "#", "let_frequency": 1, "let_relation": LESS}))
        assert score("abcdefghijklmnopqrstuvwxyz", text) == 1.0


def test_whole_numbers_of_a_table_of_fractions_are_whole() -> None:
    kwargs = {"num_paragraphs": 2.0, "nth_paragraph": 2.0, "first_word": "Then"}
    text = reference(("length_constraints:nth_paragraph_first_word", kwargs))
    assert score("First this.\n\nThen, that.", text) == 1.0


WORDS, LETTERS = "length_constraints:number_words", "keywords:letter_frequency"
NO_COMMA = ("punctuation:no_comma", {})
WRONG: list[tuple[Any, str]] = [
    ("no JSON", "must hold a list of instruction ids and a list of as many mappings .* this row has no JSON"),
    ([["punctuation:no_comma"], []], "must hold a list of instruction ids"),
    ([[], []], "must hold a list of instruction ids"),
    ([[7], [{}]], "must hold a list of instruction ids"),
    ([["punctuation:no_comma"], ["{}"]], "must hold a list of instruction ids"),
    ([["punctuation:no_commas"], [{}]], r"no such instruction \(did you mean 'punctuation:no_comma'\?\)"),
    (
        [["punctuation:no_comma", WORDS], [{}, {"num_words": 3}]],
        r"^instruction 1 \(counted from 0\), 'length_constraints:number_words': its argument relation is missing",
    ),
    ([[WORDS], [None]], "its argument num_words is missing"),
    ([["punctuation:no_comma"], [{"comas": 1}]], "it takes no argument comas, but none"),
    (
        [[WORDS], [{"num_words": 3, "relation": "at least", "relatoin": "x"}]],
        r"no argument relatoin \(did you mean 'relation'\?\)",
    ),
    ([[WORDS], [{"num_words": 3, "relation": "at most"}]], r"can't work with .*'at most'.*\(ValueError: "),
    ([[WORDS], [{"num_words": "3", "relation": "at least"}]], r"can't work with .* \(TypeError: "),
    ([[WORDS], [{"num_words": -3, "relation": "at least"}]], "num_words = -3 is nothing that lm_eval takes"),
    ([[WORDS], [{"num_words": 0, "relation": "at least"}]], "num_words = 0 is nothing that lm_eval takes"),
    ([[LETTERS], [{"letter": "ab", "let_frequency": 2, "let_relation": "at least"}]], "letter = 'ab' is nothing"),
    ([[LETTERS], [{"letter": " ", "let_frequency": 2, "let_relation": "at least"}]], "letter = ' ' is nothing"),
    ([[LETTERS], [{"letter": 5, "let_frequency": 2, "let_relation": "at least"}]], "can't work with"),
    ([["keywords:existence"], [{"keywords": "abc"}]], "keywords = 'abc' is nothing that lm_eval takes"),
    ([["keywords:existence"], [{"keywords": ["a("]}]], r"can't work with .* \((re\.)?\w*[eE]rror: "),
    ([["language:response_language"], [{"language": "xx"}]], r"can't work with .* \(KeyError: 'xx'\)"),
]


@pytest.mark.parametrize(("given", "says"), WRONG, ids=range(len(WRONG)))
def test_what_lm_eval_would_make_up_or_choke_on_is_named(given: Any, says: str) -> None:
    text = given if isinstance(given, str) else json.dumps(given)
    with pytest.raises(ValueError, match=says):
        ifeval.check_reference(text)
    with pytest.raises(BadRequest, match=says):
        score("text", text)


def test_a_row_that_cannot_be_checked_is_refused_before_anything_is_drawn() -> None:
    config, bad = run_of(), reference(("punctuation:no_commas", {}))
    found = reference_of(bad, config)
    assert isinstance(found, RowError)
    assert (found.stage, found.error_type) == ("prompt", "BadReference")
    assert "did you mean 'punctuation:no_comma'" in found.error
    nothing = reference_of(None, config)
    assert isinstance(nothing, RowError)
    assert nothing.error == "there is nothing to compare with in column 'instruction_id_list' or 'kwargs'"
    assert reference_of(TWO, config) == TWO
    beside = load(
        [], ["out=x", "data.input=p", f"data.reference={COLUMNS}", "generator=toy", "reward=toy", "rewards.f=ifeval"]
    )
    assert reference_of(bad, beside) == bad, "a further model costs no row"
    with pytest.raises(BadRequest, match="the row has no instructions"):
        score("text", None)


@pytest.mark.parametrize("name", NEEDS_DATA)
def test_rows_that_need_data_which_are_not_there_are_refused_with_the_remedy(no_data: None, name: str) -> None:
    kwargs = next(kwargs for kind, kwargs, *_ in KINDS if kind == name)
    with pytest.raises(ValueError, match=r"NLTK's data punkt_tab.*`python -m nltk.downloader punkt_tab`"):
        ifeval.check_reference(reference(NO_COMMA, (name, kwargs)))


def test_no_other_kind_needs_data(no_data: None) -> None:
    for name, kwargs, *_ in KINDS:
        if name not in NEEDS_DATA:
            ifeval.check_reference(reference((name, kwargs)))


def test_nothing_is_downloaded(tmp_path: Path) -> None:
    """In a process of its own, where importing the checks finds no data."""
    code = (
        "import sys; asked = []\n"
        "def hear(event, args):\n"
        "    if event.startswith(('socket.connect', 'socket.getaddrinfo', 'urllib.')): asked.append((event, args))\n"
        "sys.addaudithook(hear)\n"
        "import nltk; nltk.data.path[:] = []\n"
        "from actors.rewards import ifeval\n"
        "ifeval.library()\n"
        'try: ifeval.check_reference(\'[["length_constraints:number_sentences"], '
        '[{"num_sentences": 2, "relation": "at least"}]]\')\n'
        "except ValueError as error: assert 'punkt_tab' in str(error)\n"
        "else: raise SystemExit('data were found')\n"
        "import os; raise SystemExit(str(asked) if asked or 'LOCAL_RANK' in os.environ else 0)\n"
    )
    root = Path(__file__).parent.parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_checks_that_are_not_installed_are_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifeval, "find_spec", lambda name: None if name in ("lm_eval", "nltk") else name)
    says = r"reward.engine = ifeval: this machine lacks lm_eval, nltk; run pip install 'raylign\[ifeval\]'"
    with pytest.raises(ConfigError, match=says):
        ifeval.fingerprint(ifeval.Config())
    monkeypatch.setitem(sys.modules, "lm_eval.tasks.ifeval", None)
    ifeval.library.cache_clear()
    try:
        with pytest.raises(ConfigError, match=r"this machine lacks lm_eval.tasks.ifeval; run pip install"):
            ifeval.create(ifeval.Config())
    finally:
        ifeval.library.cache_clear()


def test_what_names_a_reward() -> None:
    name = ifeval.fingerprint(ifeval.Config())
    assert ifeval.fingerprint(ifeval.Config(replicas=2)) == name
    others = [ifeval.Config(accuracy="loose"), ifeval.Config(level="prompt")]
    assert len({name, *map(ifeval.fingerprint, others)}) == 3


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        (["reward.accuracy=exact"], "reward.accuracy = 'exact': choose one of strict, loose"),
        (["reward.level=row"], "reward.level = 'row': choose one of instruction, prompt"),
        (["data.reference=null"], r"data.reference = null: reward engine ifeval goes by 2 columns; name them in order"),
        (["data.reference=kwargs"], r"as in data.reference=\[instruction_id_list,kwargs\]"),
        (["data.reference=[]"], r"data.reference = \[\]: expected a column or a list of columns"),
        (["rewards.right=verifier"], r"rewards.right engine verifier goes by one column; name one"),
    ],
)
def test_settings_that_cannot_work_are_named(overrides: list[str], says: str) -> None:
    base = ["out=x", "data.input=p", "data.reference=[instruction_id_list, kwargs]", "generator=toy", "reward=ifeval"]
    load([], base)
    with pytest.raises(ConfigError, match=says):
        load([], [*base, *overrides])


def rows_of(path: Path, **more: Any) -> list[str | None]:
    config = DataConfig(input=str(path), reference=COLUMNS, **more)
    source = inspect(config)
    return [
        text for file in source.files for table in read(source, file, 100) for text in references.texts(table, config)
    ]


def test_every_instruction_of_ifeval_is_checked_from_either_kind_of_file(shared_data: Path, tmp_path: Path) -> None:
    """In Parquet every row has every argument, most of them null; a row has the same reference there."""
    lines = shared_data / "ifeval_input.jsonl"
    given = [json.loads(line) for line in lines.read_text().splitlines()]
    config = load(["best_of_n", "conf/data/ifeval.yaml"], ["data.limit=null"])
    assert config.data.reference == COLUMNS
    found = rows_of(lines, id=config.data.id)
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "rows.parquet")
    assert rows_of(tmp_path / "rows.parquet") == found
    asked = [ifeval.instructions(text or "") for text in found]
    assert [len(row) for row in asked] == [len(row["kwargs"]) for row in given]
    assert sum(map(len, asked)) == 832
    rewards = [score(row["prompt"], text) for row, text in zip(given, found, strict=True)]
    assert {0.0, 1.0} < set(rewards), "prompts follow some of their own instructions"


def test_a_row_without_arguments_has_no_reference(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": k} for k in ([{}], None)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert rows_of(path) == ['[["punctuation:no_comma"], [{}]]', None]
