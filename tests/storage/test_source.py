"""Reading input: every format, many files, and one clear error for each way a file can be wrong."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.sections import DataConfig
from pipeline.storage import sampled_digest
from pipeline.storage.schema import WRONG
from pipeline.storage.source import Source, inspect, read

ROWS = [{"prompt": f"question {i}", "level": i} for i in range(10)]


def write_jsonl(path: Path, rows: list[Any]) -> str:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows))
    return str(path)


def write_parquet(path: Path, rows: list[dict[str, Any]], **options: Any) -> str:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return str(path)


def all_rows(source: Source, size: int = 3) -> list[dict[str, Any]]:
    return [row for f in source.files for table in read(source, f, size) for row in table.to_pylist()]


def look(given: Any, **options: Any) -> Source:
    return inspect(DataConfig(input=given, **options))


def test_formats_agree(tmp_path: Path) -> None:
    jsonl = write_jsonl(tmp_path / "a.jsonl", ROWS)
    parquet = write_parquet(tmp_path / "a.parquet", ROWS, row_group_size=4)
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(jsonl).read_bytes()))
    for url in (jsonl, parquet, str(packed)):
        assert all_rows(look(url)) == ROWS


def test_globs_lists_and_directories(tmp_path: Path) -> None:
    a, b = write_jsonl(tmp_path / "a.jsonl", ROWS[:4]), write_parquet(tmp_path / "b.parquet", ROWS[4:])
    for data in ([a, b], str(tmp_path / "*"), str(tmp_path)):
        source = look(data)
        assert all_rows(source) == ROWS
        assert [(f.label, f.first, f.rows) for f in source.files] == [("a", 0, 4), ("b", 4, 6)]


def test_any_fsspec_url() -> None:
    with fsspec.open("memory://inputs/a.jsonl", "wb") as file:
        file.write("".join(json.dumps(r) + "\n" for r in ROWS).encode())
    assert all_rows(look("memory://inputs/*.jsonl")) == ROWS


@pytest.mark.parametrize("limit", [1, 4, 5, 10, 99])
def test_limit_counts_over_files(tmp_path: Path, limit: int) -> None:
    files = [write_jsonl(tmp_path / "a.jsonl", ROWS[:4]), write_jsonl(tmp_path / "b.jsonl", ROWS[4:])]
    source = look(files, limit=limit)
    assert all_rows(source) == ROWS[:limit]
    assert source.rows == min(limit, 10)


def test_columns_that_some_rows_lack_are_null_and_dates_stay_text(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "when": "2024-01-01"}, {"prompt": "b", "more": [1, 2]}, {"prompt": "c", "when": None}]
    assert all_rows(look(write_jsonl(tmp_path / "a.jsonl", rows))) == [
        {"prompt": "a", "when": "2024-01-01", "more": None},
        {"prompt": "b", "when": None, "more": [1, 2]},
        {"prompt": "c", "when": None, "more": None},
    ]


def test_same_names_in_two_folders_get_different_labels(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    files = [write_jsonl(tmp_path / "a.jsonl", ROWS[:1]), write_jsonl(tmp_path / "x" / "a.jsonl", ROWS[1:2])]
    assert [f.label for f in look(files).files] == ["a", "a.2"]


def test_numbers_may_widen_between_files(tmp_path: Path) -> None:
    a = write_jsonl(tmp_path / "a.jsonl", [{"prompt": "x", "v": 1}])
    b = write_jsonl(tmp_path / "b.jsonl", [{"prompt": "y", "v": 1.5}])
    assert [r["v"] for r in all_rows(look([a, b]))] == [1.0, 1.5]


def test_malformed_line_1000_is_named(tmp_path: Path) -> None:
    rows: list[Any] = [{"prompt": f"p{i}"} for i in range(999)]
    url = write_jsonl(tmp_path / "a.jsonl", [*rows, '{"prompt": "broken', {"prompt": "last"}])
    with pytest.raises(InputError, match=r"a\.jsonl: line 1000 is not JSON"):
        look(url)


@pytest.mark.parametrize("far", [3, 5000])
def test_a_column_that_changes_its_type_is_named(tmp_path: Path, far: int) -> None:
    rows = [{"prompt": "p", "v": 1}] * far + [{"prompt": "p", "v": "one"}]
    with pytest.raises(InputError, match=r"a\.jsonl.*type"):
        look(write_jsonl(tmp_path / "a.jsonl", rows))


def test_files_that_disagree_are_both_named(tmp_path: Path) -> None:
    a = write_parquet(tmp_path / "a.parquet", [{"prompt": "x", "v": 1}])
    b = write_parquet(tmp_path / "b.parquet", [{"prompt": "y", "v": "1"}])
    with pytest.raises(InputError, match=r"column 'v' is int64 in .*a\.parquet but string in .*b\.parquet"):
        look([a, b])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "no rows"),
        ("\n\n", "no rows"),
        ("[1]\n", r"line 1 holds \[1\], not an object"),
        ('{"question": "x"}\n', "no column 'prompt'.*one of its columns: question"),
        ('{"prompts": "x"}\n', "did you mean 'prompts'"),
        ('{"prompt": 3}\n', "column 'prompt'.*is int64"),
        ('{"prompt": [1, 2]}\n', "lists of {role, content}"),
    ],
)
def test_bad_content_is_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        look(str(tmp_path / "a.jsonl"))


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no file matches"):
        look(str(tmp_path / "nothing-*.jsonl"))
    (tmp_path / "a.csv").write_text("prompt\nx\n")
    with pytest.raises(InputError, match="neither Parquet"):
        look(str(tmp_path / "a.csv"))
    (tmp_path / "a.parquet").write_bytes(b"not parquet at all")
    with pytest.raises(InputError, match="not a readable Parquet file"):
        look(str(tmp_path / "a.parquet"))
    write_parquet(tmp_path / "a.parquet", [{"prompt": "x" * 1000}] * 1000)
    whole = (tmp_path / "a.parquet").read_bytes()
    (tmp_path / "a.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="not a readable Parquet file"):
        look(str(tmp_path / "a.parquet"))
    packed = gzip.compress(b'{"prompt": "x"}\n' * 10_000)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-20])
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: can't be read after line \d+"):
        look(str(tmp_path / "a.jsonl.gz"))
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "x"}\n{"prompt": "\xff"}\n')
    with pytest.raises(InputError, match="not UTF-8"):
        look(str(tmp_path / "a.jsonl"))


def test_a_data_set_that_was_saved_to_disk_is_named_with_the_remedy(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list(ROWS)
    rows.save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": rows}).save_to_disk(str(tmp_path / "splits"))
    for name in ("one", "splits"):
        with pytest.raises(InputError, match=rf"{name} is a data set as save_to_disk writes it.*to_parquet"):
            look(str(tmp_path / name))


def test_the_hubs_name_of_a_data_set_is_answered_with_its_url() -> None:
    with pytest.raises(
        InputError, match=r"no file matches 'org/set-1'.* the Hugging Face Hub is hf://datasets/org/set"
    ):
        look("org/set-1")
    with pytest.raises(InputError) as caught:
        look("data/prompts.parquet")
    assert "Hub" not in str(caught.value)


@pytest.mark.parametrize("package", ["httpx", "httpx2", "huggingface_hub.errors", "aiohttp.client"])
def test_a_hub_that_does_not_answer_is_said_in_a_line(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise type("ConnectError", (Exception,), {"__module__": package})("no route")

    monkeypatch.setattr(fsspec.implementations.memory.MemoryFileSystem, "exists", fail)
    with pytest.raises(InputError, match=r"data.input: memory://a.parquet can't be read: the store gave no answer"):
        look("memory://a.parquet")


@pytest.mark.parametrize("far", [1, 5000])
def test_a_prompt_of_the_wrong_type_costs_its_row_only(tmp_path: Path, far: int) -> None:
    """Also where they come first, or fill whole slices. The first prompt that is one says what the rest are."""
    for good, odd in (("p", [42, {"a": 1}, [1], 0]), ([{"role": "user", "content": "p"}], [[None], 1.5, [1]])):
        other = ["p"] if isinstance(good, list) else [[{"role": "user", "content": "p"}]]
        for rows in ([good] * far + odd + other + [good], odd * far + [good] + other):
            source = look(write_jsonl(tmp_path / "a.jsonl", [{"prompt": p} for p in rows]))
            read_back = all_rows(source, 1000)
            assert [r["prompt"] for r in read_back] == [p if p == good else None for p in rows]
            wrong = [r.get(WRONG) for r in read_back]
            assert [w is not None for w in wrong] == [p != good for p in rows]
            assert all(json.dumps(p) in w for p, w in zip(rows, wrong, strict=True) if w is not None)


def test_a_file_without_the_prompt_column_is_named_though_others_have_it(tmp_path: Path) -> None:
    a, b = write_jsonl(tmp_path / "a.jsonl", ROWS), write_jsonl(tmp_path / "b.jsonl", [{"question": "x"}])
    with pytest.raises(InputError, match=r"b\.jsonl has no column 'prompt'.*columns: question"):
        look([a, b])


def digests(*files: str) -> list[str]:
    return [f["blake2b"] for f in look(list(files)).describe()]


def test_content_of_the_same_size_is_told_apart_and_place_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    for write, name in ((write_jsonl, "a.jsonl"), (write_parquet, "a.parquet")):
        changed = [{**row, "prompt": "question X"} if row["level"] == 5 else row for row in ROWS]
        first, other = write(tmp_path / name, ROWS), write(tmp_path / f"b{name[1:]}", changed)
        copy = write(tmp_path / "x" / name, ROWS)
        assert Path(first).stat().st_size == Path(other).stat().st_size
        a, b, c = digests(first, other, copy)
        assert a == c != b


@given(st.integers(0, 2**20 - 1))
def test_a_large_file_is_sampled_from_end_to_end(place: int) -> None:
    """Every byte counts in the chunks and in the footer; the size counts everywhere."""
    fs, data = fsspec.filesystem("memory"), bytearray(2**20)
    data[-8:-4] = (1000).to_bytes(4, "little")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sampled_digest, "FULL_BYTES", 0)
        patch.setattr(sampled_digest, "CHUNK", 512)
        fs.pipe_file("/large", bytes(data))
        before = sampled_digest.sampled_digest(fs, "/large", 2**20)
        data[place] ^= 1
        fs.pipe_file("/large", bytes(data))
        starts = [(2**20 - 512) * i // 31 for i in range(32)]
        heard = place >= 2**20 - 1008 or any(s <= place < s + 512 for s in starts)
        assert (sampled_digest.sampled_digest(fs, "/large", 2**20) != before) == heard
        fs.pipe_file("/large", bytes(data) + b"x")
        assert sampled_digest.sampled_digest(fs, "/large", 2**20 + 1) != before


def test_a_page_that_is_damaged_is_found_when_it_is_read(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i * 7919 % 10007}" * 50} for i in range(2000)]
    url = write_parquet(tmp_path / "a.parquet", rows, row_group_size=500, use_dictionary=False, compression="zstd")
    data = bytearray(Path(url).read_bytes())
    for i in range(len(data) // 2, len(data) // 2 + 200):
        data[i] ^= 0xFF
    Path(url).write_bytes(bytes(data))
    with pytest.raises(InputError, match=r"a\.parquet: damaged after row \d+"):
        all_rows(look(url), 100)


def test_message_lists_are_prompts(tmp_path: Path) -> None:
    rows = [{"prompt": [{"role": "user", "content": "hi"}]}]
    assert all_rows(look(write_jsonl(tmp_path / "a.jsonl", rows))) == rows


def test_half_a_character_is_named_by_its_line(tmp_path: Path) -> None:
    """As ``json.dumps`` writes a text that was cut in the middle of an emoji, counted in UTF-16."""
    lines = ['{"prompt": "fine \\ud83d\\ude00"}', '{"prompt": "what \\ud83d"}']
    assert all_rows(look(write_jsonl(tmp_path / "a.jsonl", lines[:1]))) == [{"prompt": "fine \U0001f600"}]
    with pytest.raises(InputError, match=r"b\.jsonl: line 2 holds \\ud83d, which is half of a character"):
        look(write_jsonl(tmp_path / "b.jsonl", lines))


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x00", b""])
def test_a_packed_file_that_is_damaged(tmp_path: Path, damage: bytes) -> None:
    packed = gzip.compress(b'{"prompt": "a"}\n' * 3)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:12] + damage + (packed[16:] if damage else b""))
    with pytest.raises(InputError, match=r"a\.jsonl\.gz: can't be read after line 0 .*copy it again"):
        look(str(tmp_path / "a.jsonl.gz"))


def test_a_path_of_the_gallery_says_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"'demo/test.parquet'.*in Raylign's own directory, .*: run the command there"):
        inspect(DataConfig(input="demo/test.parquet"))
    with pytest.raises(InputError, match=r"globs work\)$"):
        inspect(DataConfig(input="demo/tset.parquet"))
