"""Bad input and bad configuration: exit status 2, before any engine, and a message that says what, where, what now.

One case each, through the command line. ``pytest -s`` prints every message as its reader sees it.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from actors.cluster import Cluster
from jobs.__main__ import main
from tests.actors import tiny_models as tiny

PROMPTS = [{"prompt": f"w{i}", "level": i} for i in range(4)]


def lines(*rows: Any) -> bytes:
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows).encode()


def parquet(rows: list[dict[str, Any]], schema: pa.Schema = None) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), sink)
    return bytes(sink.getvalue())


BAD_FILES: dict[str, tuple[dict[str, bytes], list[str], list[str]]] = {
    "no file": (
        {"prompts.jsonl": lines(*PROMPTS)},
        ["data.input=promts.jsonl"],
        ["'promts.jsonl'", "'prompts.jsonl'?"],
    ),
    "no match of a glob": ({}, ["data.input=in/*.parquet"], ["data.input", "'in/*.parquet'", "check the path"]),
    "a directory without data": (
        {"in/a.txt": b"x"},
        ["data.input=in"],
        ["directory in holds no Parquet", "name another"],
    ),
    "an unknown file system": ({}, ["data.input=s4://bucket/a.jsonl"], ["data.input", "s4", "give a local path, or"]),
    "a file of another kind": ({"a.csv": b"prompt\nx\n"}, ["data.input=a.csv"], ["a.csv is neither", "convert it"]),
    "an empty file": ({"a.jsonl": b""}, ["data.input=a.jsonl"], ["data.input", "no rows in a.jsonl", "give a file"]),
    "a Parquet file without rows": (
        {"empty.parquet": parquet(PROMPTS[:0], pa.schema([("prompt", pa.string())]))},
        ["data.input=empty.parquet"],
        ["no rows in empty.parquet"],
    ),
    "no prompt column": (
        {"a.jsonl": lines({"prompts": "x", "level": 1})},
        ["data.input=a.jsonl"],
        ["data.prompt", "a.jsonl has no column 'prompt'", "'prompts'?", "one of its columns: prompts, level"],
    ),
    "no prompt column in one file of two": (
        {"a.jsonl": lines(*PROMPTS), "b.jsonl": lines({"text": "x"})},
        ["data.input=[a.jsonl, b.jsonl]"],
        ["b.jsonl has no column 'prompt'", "one of its columns: text"],
    ),
    "no id column": (
        {"a.jsonl": lines(*PROMPTS)},
        ["data.input=a.jsonl", "data.id=name"],
        ["data.id", "a.jsonl has no column 'name'", "one of its columns: prompt, level"],
    ),
    "an id that stands twice": (
        {"a.jsonl": lines(*({"id": i, "prompt": "x"} for i in "abc")), "b.jsonl": lines({"id": "b", "prompt": "y"})},
        ["data.input=[a.jsonl, b.jsonl]"],
        ["data.id", "'b' stands twice", "row 1 of a.jsonl and row 0 of b.jsonl", "name another column with data.id"],
    ),
    "an id that is null": (
        {"a.jsonl": lines({"id": "a", "prompt": "x"}, {"id": None, "prompt": "y"})},
        ["data.input=a.jsonl"],
        ["data.id: row 1 of a.jsonl", "no id in column 'id'", "fill it in, or name another column"],
    ),
    "ids that are no names": (
        {"a.jsonl": lines({"id": [1], "prompt": "x"})},
        ["data.input=a.jsonl"],
        ["column 'id' of a.jsonl is list<item: int64>", "name another column"],
    ),
    "a column of prompts that are none": (
        {"a.jsonl": lines({"prompt": 1}, {"prompt": 2})},
        ["data.input=a.jsonl"],
        ["data.prompt", "column 'prompt' of a.jsonl is int64", "must hold strings or lists", "name another column"],
    ),
    "malformed JSON in line 1,000": (
        {"a.jsonl": lines(*[{"prompt": "x"}] * 999, '{"prompt": "x', {"prompt": "y"})},
        ["data.input=a.jsonl"],
        ["a.jsonl: line 1000 is not JSON (", "at column 14", "mend or remove the line"],
    ),
    "a line that is no object": (
        {"a.jsonl": b'"x"\n'},
        ["data.input=a.jsonl"],
        ['a.jsonl: line 1 holds "x"', "must be"],
    ),
    "not UTF-8": (
        {"a.jsonl": lines({"prompt": "x"}) + b'{"prompt": "\xff"}\n'},
        ["data.input=a.jsonl"],
        ["a.jsonl: line 2 is not UTF-8", "mend the line, or convert the file"],
    ),
    "a torn gzip file": (
        {"a.jsonl.gz": gzip.compress(lines(*PROMPTS))[:-12]},
        ["data.input=a.jsonl.gz"],
        ["a.jsonl.gz: can't be read after line", "write or copy it again"],
    ),
    "a torn Parquet file": (
        {"a.parquet": parquet(PROMPTS)[:-40]},
        ["data.input=a.parquet"],
        ["a.parquet: not a readable Parquet file", "write or copy it again"],
    ),
    "a column that changes in a file": (
        {"a.jsonl": lines({"prompt": "x", "v": 1}, {"prompt": "y", "v": "one"})},
        ["data.input=a.jsonl"],
        ["a.jsonl: column 'v' changes its type: int64 in line 1, str in line 2", "make every line agree"],
    ),
    "a column that changes between files": (
        {"a.parquet": parquet([{"prompt": "x", "v": 1}]), "b.jsonl": lines({"prompt": "y", "v": "one"})},
        ["data.input=[a.parquet, b.jsonl]"],
        ["column 'v' is int64 in a.parquet but string in b.jsonl", "make the files agree"],
    ),
}

BAD_SETTINGS: dict[str, tuple[list[str], list[str]]] = {
    "an unknown section": (
        ["methd.n=3"],
        ["unknown key 'methd'", "did you mean 'method'?", "valid here: cluster, critic, data"],
    ),
    "an unknown key": (
        ["data.promt=x"],
        ["unknown key 'data.promt'", "did you mean 'prompt'?", "valid here: id, input"],
    ),
    "an unknown nested key": (["method.answer.hwo=x"], ["'method.answer.hwo'", "did you mean 'how'?", "how, pattern"]),
    "an unknown plugin": (["method=best_of_m"], ["no method is called 'best_of_m'", "did you mean 'best_of_n'?"]),
    "a wrong type": (["method.n=three"], ["method.n = 'three': expected a whole number"]),
    "a value out of range": (["generator.top_p=2"], ["generator.top_p = 2", "must lie in (0, 1]"]),
    "no value": (["out=''"], ["out: name the run's directory", "out=runs/first"]),
    "no key": (["out"], ["no configuration file 'out'", "gallery: ", "best_of_n, demo"]),
    "no such configuration file": (["conf/job/toi.yaml"], ["'conf/job/toi.yaml'", "did you mean 'toy'?"]),
    "an unset model": (["generator=transformers"], ["generator.model is not set", "give a model directory"]),
    "no such model": (
        ["generator=transformers", "generator.model=/nowhere"],
        ["generator.model='/nowhere'", "give the"],
    ),
    "no such reward model": (["reward=transformers", "reward.model=/nowhere"], ["reward.model='/nowhere'", "give the"]),
    "no model in the directory": (
        ["reward=transformers", "reward.model=."],
        ["reward.model=", "no config.json", "give a"],
    ),
    "an output directory below a file": (["out=p.jsonl/run"], ["out: ", "a file, not a directory", "name another"]),
    "an output directory on no file system": (
        ["out=s4://bucket/run"],
        ["out = 's4://bucket/run'", "give a local path"],
    ),
    "a read-only output directory": (["out=/proc/run"], ["out: /proc/run/_lease", "can't be written", "name another"]),
    "a journal that can't be written": (
        ["journal=p.jsonl/journal"],
        ["journal: ", "a file, not a directory", "another"],
    ),
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory to run in, where starting a cluster would fail the test."""

    def connect(_: Cluster) -> None:
        raise AssertionError("a cluster was started")

    monkeypatch.setattr(Cluster, "connect", connect)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs ``raylign align`` on what must be refused; checks status, message, and that nothing is left behind."""

    def run(arguments: list[str], said: list[str], command: str = "align") -> None:
        before = sorted(place.rglob("*"))
        capsys.readouterr()
        status = main([command, *arguments])
        error = capsys.readouterr().err.replace(f"{place}/", "")
        print(f"$ raylign {command} {' '.join(arguments)}\n{error}", end="")
        assert status == 2
        assert error.startswith("raylign")
        assert [words for words in said if words not in error] == []
        assert "Traceback" not in error
        left = [p for p in place.rglob("*") if p not in before and "out" not in p.relative_to(place).parts]
        assert left == []

    return run


def write(place: Path, files: dict[str, bytes]) -> None:
    for name, content in files.items():
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).write_bytes(content)


TOY = ["out=out", "data.input=p.jsonl", "generator=toy", "reward=toy", "method.n=2"]


@pytest.mark.parametrize("case", BAD_FILES)
def test_input_that_cannot_be_read(case: str, place: Path, refused: Callable[..., None]) -> None:
    files, arguments, said = BAD_FILES[case]
    write(place, files)
    refused([*TOY, *arguments], said)


@pytest.mark.parametrize("case", BAD_SETTINGS)
def test_settings_that_cannot_be_run(case: str, place: Path, refused: Callable[..., None]) -> None:
    write(place, {"p.jsonl": lines(*PROMPTS)})
    arguments, said = BAD_SETTINGS[case]
    refused([*TOY, *arguments], said)
    assert not (place / "out").exists()


def test_a_mended_input_takes_the_same_directory(place: Path, refused: Callable[..., None]) -> None:
    write(place, {"p.jsonl": lines({"id": "a", "prompt": "x"}, {"id": "a", "prompt": "y"})})
    refused(TOY, ["'a' stands twice"])
    write(place, {"p.jsonl": lines({"id": "a", "prompt": "x"}, {"id": "b", "prompt": "y"})})
    with pytest.raises(AssertionError, match="a cluster was started"):
        main(["align", *TOY])


def reward_model(place: Path, **changes: Any) -> list[str]:
    tiny.save_reward(place / "reward", **changes)
    return ["reward=transformers", f"reward.model={place}/reward"]


def test_a_reward_model_with_several_logits_and_no_column(place: Path, refused: Callable[..., None]) -> None:
    write(place, {"p.jsonl": lines(*PROMPTS)})
    arguments = reward_model(place, num_labels=3)
    refused([*TOY, *arguments], ["reward.model=", "3 logits (0: LABEL_0", "reward.column"])
    refused([*TOY, *arguments, "reward.column=3"], ["reward.column=3", "3 logit"])


def test_a_reward_model_without_a_chat_template(place: Path, refused: Callable[..., None]) -> None:
    write(place, {"p.jsonl": lines(*PROMPTS)})
    refused([*TOY, *reward_model(place, template=None)], ["reward.model=", "chat template", "reward.chat_template"])


def test_a_language_model_as_a_reward_model(place: Path, refused: Callable[..., None]) -> None:
    write(place, {"p.jsonl": lines(*PROMPTS)})
    tiny.save_generator(place / "m")
    refused([*TOY, "reward=transformers", f"reward.model={place}/m"], ["without a reward head", "classification model"])


COMMANDS = {
    "no command": ([], ["usage: raylign COMMAND", "align", "runs a method over a data set"]),
    "an unknown command": (["algin"], ["no command is called 'algin'", "did you mean 'align'?", "there are: align, "]),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_commands_that_there_are_none_of(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, said = COMMANDS[case]
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert [words for words in said if words not in shown.out + shown.err] == []


def test_align_without_arguments(refused: Callable[..., None]) -> None:
    refused([], ["raylign align: out: name the run's directory"])
