"""Configurations with anything in them: a run that can be written down and read again, or one ``ConfigError``."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import plugin
from pipeline.config import BASES, build, load, load_section, to_dict, to_yaml
from pipeline.errors import ConfigError
from pipeline.sections import ClusterConfig, DataConfig, ExportConfig, RunConfig

BASE: dict[str, Any] = {"out": "x", "data": {"input": "p.jsonl"}, "generator": "toy", "reward": "toy"}


def known_keys() -> list[str]:
    """Every dotted key of every section and plugin."""
    found = [f.name for f in dataclasses.fields(RunConfig)]
    sections = {"data": [DataConfig], "cluster": [ClusterConfig], "export": [ExportConfig]}
    for kind in BASES:
        folder = "generator" if kind == "critic" else kind
        names = [name for name in plugin.names(folder) if name != "vllm"]
        sections[kind] = [plugin.load(kind, name).Config for name in names]
    for section, schemas in sections.items():
        found += sorted({f"{section}.{f.name}" for schema in schemas for f in dataclasses.fields(schema)})
    return found


KEYS = known_keys()
names = [name for kind in ("method", "policy", "generator", "reward") for name in plugin.names(kind) if name != "vllm"]
words = st.one_of(
    st.sampled_from((*names, "auto", "null", "", "???", "${seed}", "${out}", "${oc.env:HOME}", "${", "${nope}", "a.b")),
    st.text(max_size=6),
)
scalars = st.one_of(
    words, st.none(), st.booleans(), st.integers(-3, 100), st.integers(2**40, 2**70), st.floats(), st.binary(max_size=3)
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.one_of(words, st.integers(0, 3)), inner, max_size=3)
    ),
    max_leaves=5,
)
keys = st.one_of(st.sampled_from(KEYS), words)


def survives(files: list[str], overrides: list[str]) -> None:
    with contextlib.suppress(ConfigError):
        run = load(files, overrides)
        assert to_dict(build(yaml.safe_load(to_yaml(run)))).keys() == to_dict(run).keys()


@given(st.dictionaries(keys, values, max_size=4))
@settings(max_examples=400)
def test_settings_of_any_values(given_settings: dict[str, Any]) -> None:
    nested: dict[str, Any] = {k: dict(v) if isinstance(v, dict) else v for k, v in BASE.items()}
    for key, value in given_settings.items():
        section, _, name = key.partition(".")
        if name and isinstance(nested.get(section, {}), dict):
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    with contextlib.suppress(ConfigError):
        build(nested)


@given(
    st.lists(st.tuples(keys, st.one_of(words, st.text(alphabet="{}[]:,'\"&*!%@`|>-0x.$ \n", max_size=8))), max_size=4)
)
@settings(max_examples=400)
def test_overrides_of_any_text(pairs: list[tuple[str, str]]) -> None:
    base = ["out=x", "data.input=p.jsonl", "generator=toy", "reward=toy"]
    survives([], [*base, *(f"{key}={value}" for key, value in pairs)])


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "a.yaml"


PIECES = (
    *(
        "a",
        "data",
        "method",
        "generator",
        "name",
        "engine",
        "toy",
        ":",
        ": ",
        "\n",
        "\n  ",
        "- ",
        "{",
        "}",
        "[",
        "]",
        "1",
    ),
    *(
        "&a ",
        "*a",
        "!!python/object:os.system ",
        "<<: ",
        "${",
        "---\n",
        "'",
        '"',
        "\t",
        "# ",
        "? ",
        "null",
        "\x00",
        "é",
    ),
)


@given(st.one_of(st.binary(max_size=30), st.lists(st.sampled_from(PIECES), max_size=14).map("".join)))
@settings(max_examples=400)
def test_files_of_any_text(file: Path, text: str | bytes) -> None:
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    survives([str(file)], [])
    with contextlib.suppress(ConfigError):
        load_section(DataConfig, [str(file)], "data")


@given(values)
def test_files_of_any_values(file: Path, value: Any) -> None:
    file.write_text(yaml.safe_dump({"out": "x", "generator": "toy", "reward": "toy", "data": value}))
    survives([str(file)], ["data.limit=3"])


def test_a_file_that_grows_when_it_is_read_takes_no_time(file: Path) -> None:
    """References to references: a few lines that stand for a billion."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 10)]
    file.write_text("\n".join(lines))
    with pytest.raises(ConfigError):
        load([str(file)])
