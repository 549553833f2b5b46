"""Files are whole or absent, created once, and what can't be written is said with a remedy."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import fsspec
import pytest

from pipeline.errors import ConfigError, StorageError
from pipeline.storage.folder import Folder


def everything(path: Path) -> list[str]:
    return sorted(str(p.relative_to(path)) for p in path.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOSPC, "no space is left: free some"),
        (errno.EDQUOT, "quota is used up"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "permission denied: allow this user"),
    ],
)
@pytest.mark.parametrize("way", ["write", "create"])
def test_what_another_try_would_meet_again(
    way: str, number: int, remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The old file stays, and nothing is left of the new one."""
    folder = Folder(str(tmp_path))
    folder.write("a/old", b"old")

    def fail(_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    name = "a/old" if way == "write" else "a/new"
    with pytest.raises(StorageError, match=rf"{name} can't be written: .*{remedy}"):
        getattr(folder, way)(name, b"new")
    assert everything(tmp_path) == ["a/old"]
    assert folder.read("a/old") == b"old"


def test_what_may_pass_is_left_to_the_next_try(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "a cable")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="a cable"):
        Folder(str(tmp_path)).write("a", b"x")


@pytest.mark.parametrize("error", [PermissionError("Access Denied"), FileNotFoundError("NoSuchBucket")])
def test_errors_of_object_stores_have_no_number(error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(fsspec.get_filesystem_class("memory"), "pipe_file", fail)
    with pytest.raises(StorageError, match="can't be written"):
        Folder("memory://x").write("a", b"x")


@pytest.mark.parametrize("url", ["disk", "memory"])
def test_a_file_is_created_once(url: str, tmp_path: Path) -> None:
    folder = Folder(str(tmp_path) if url == "disk" else f"memory:/{tmp_path}")
    assert [folder.create("a/b", b"1"), folder.create("a/b", b"2")] == [True, False]
    assert folder.read("a/b") == b"1"
    assert folder.names("a") == ["b"]


def test_a_disk_without_hard_links_creates_once_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "no links here")

    monkeypatch.setattr(os, "link", fail)
    folder = Folder(str(tmp_path))
    assert [folder.create("a", b"1"), folder.create("a", b"2")] == [True, False]
    assert everything(tmp_path) == ["a"]


def test_a_file_where_a_directory_should_be(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"")
    for folder in (Folder(str(tmp_path / "a")), Folder(str(tmp_path / "a" / "b"))):
        with pytest.raises(StorageError, match="is a file, not a directory"):
            folder.check_writable()
        with pytest.raises(StorageError, match="is a file, not a directory"):
            folder.create("x", b"")
        assert folder.names("x") == []


def test_a_probe_leaves_nothing(tmp_path: Path) -> None:
    Folder(str(tmp_path)).check_writable()
    assert everything(tmp_path) == []


def test_an_unknown_file_system_names_the_key() -> None:
    with pytest.raises(ConfigError, match=r"journal = 's4://x': Protocol not known: s4; give a local path"):
        Folder("s4://x", "journal")
