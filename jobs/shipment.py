"""What travels to a cluster with a job: the packages, and the settings with paths that hold there."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import conf
from pipeline.config import dump
from pipeline.errors import ConfigError
from pipeline.plugin_sections import plugin_sections

PACKAGES = ("pipeline", "actors", "jobs", "conf", "demo")
HOME = Path(conf.__file__).parent.parent
"""Where the packages lie: a checkout, or an environment that Raylign is installed in (without ``demo``)."""
SETTINGS = "submitted.yaml"
LIMIT = 100 * 2**20
"""Bytes that a job may take along. Ray refuses half a gigabyte, after having packed and sent it."""
LARGEST = 3
LEFT_OUT = ("__pycache__", "*.pyc", "*.egg-info")
MODELS = ("model", "tokenizer")
"""Keys of a plugin's section that may name a local directory."""


def ship(settings: Mapping[str, Any], folder: Path, home: Path = HOME) -> None:
    """Lays packages and settings into a folder. Raises ``ConfigError`` that names what is too large to travel."""
    check_size(home)
    for package in PACKAGES:
        if (home / package).is_dir():
            shutil.copytree(home / package, folder / package, ignore=shutil.ignore_patterns(*LEFT_OUT))
    (folder / SETTINGS).write_text(dump(settings), encoding="utf-8")


def check_size(home: Path = HOME, limit: int = LIMIT) -> None:
    """Raises ``ConfigError`` if the packages are larger than ``limit`` bytes; names the largest files."""
    sizes = {
        file: file.stat().st_size
        for package in PACKAGES
        for file in (home / package).rglob("*")
        if file.is_file() and not any(part.match(pattern) for pattern in LEFT_OUT for part in (file, *file.parents))
    }
    if (total := sum(sizes.values())) <= limit:
        return
    largest = sorted(sizes, key=lambda file: -sizes[file])[:LARGEST]
    named = ", ".join(f"{file.relative_to(home)} ({sizes[file] / 2**20:.0f} MiB)" for file in largest)
    raise ConfigError(
        f"the packages in {home} are too large to travel with a job: {total / 2**20:.0f} MiB, at most "
        f"{limit / 2**20:.0f}; the largest files are {named}: move data and models out of {', '.join(PACKAGES)}, and "
        "name them by a path or URL that all nodes reach"
    )


def placed(settings: Mapping[str, Any], home: Path = HOME) -> tuple[dict[str, Any], list[str]]:
    """The settings with local paths made absolute, and those paths, since every node must see the same under them.

    A job runs in a copy of the packages, so that relative paths into them (``demo/test.parquet``) stay as they are;
    what it writes never lies there, since the copy goes with the job.
    """
    found, local = copy.deepcopy(dict(settings)), list[str]()

    def place(section: dict[str, Any], key: str, *, written: bool = False, exists: bool = False) -> None:
        value = section.get(key)
        if isinstance(value, list):
            section[key] = [_place(v, home, local, written, exists) for v in value]
        elif value is not None:
            section[key] = _place(value, home, local, written, exists)

    for key in ("out", "journal"):
        place(found, key, written=True)
    place(found, "source", exists=True)  # of backtest: files, or names of families
    if isinstance(data := found.get("data"), dict):
        place(data, "input")
    for _, _, section in plugin_sections(found):
        for key in MODELS if isinstance(section, dict) else ():
            place(section, key, exists=True)
    return found, local


def _place(value: Any, home: Path, local: list[str], written: bool, exists: bool) -> Any:
    """``written``: never in the packages. ``exists``: a name of something else where no such file is."""
    if not isinstance(value, str) or not value or "://" in value:
        return value
    path = Path(value)
    shipped = not path.is_absolute() and path.parts[:1] and path.parts[0] in PACKAGES and (home / path).exists()
    if (shipped and not written) or (exists and not path.exists()):
        return value
    local.append(str(path.absolute()))
    return local[-1]
