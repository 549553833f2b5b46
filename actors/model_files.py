"""Where a model's files are, and what they are: a fingerprint by content, not by name or place."""

from __future__ import annotations

import json
import re
from functools import lru_cache
from hashlib import blake2b
from pathlib import Path

from actors.hub import config_file
from pipeline import checkout
from pipeline.errors import ConfigError
from pipeline.plugin import nearest

FULL_BYTES = 64 * 2**20
"""Weights up to this size (together) are hashed in full."""

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken", ".py")
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CHUNK = 64 * 2**10
_CHUNKS = 32


def locate(model: str, key: str) -> str:
    """A local model's absolute path, or the hub name as it is.

    ``key`` is the configuration's (``generator.model``). Raises ``ConfigError`` where there is no such model.
    """
    if not model:
        raise ConfigError(f"{key} is not set; give a model directory or a Hugging Face name")
    path = Path(model).expanduser()
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ConfigError(f"{key}={model!r} holds no config.json; give a directory saved by save_pretrained")
        return str(path.resolve())
    if path.exists() or not _HUB_NAME.fullmatch(model):
        raise ConfigError(
            f"{key}={model!r} is no directory on this machine; give the path of a model directory "
            "that every node can read, or a Hugging Face name (organisation/model)"
        )
    return model


def check_there(model: str, key: str) -> None:
    """Raises ``ConfigError`` that names ``key`` where there is no such model, on this machine or on the hub."""
    if not Path(place := locate(model, key)).is_dir():
        _hub_config(place, key)


@lru_cache(maxsize=64)
def fingerprint(model: str, key: str) -> str:
    """What a model is, by content, as a short string; the same for a copy elsewhere.

    A local directory: BLAKE2b over its configuration, tokenizer, template and code files in full, and over its
    weights. Weights of up to 64 MiB together are read in full; of larger ones the size, the head (a safetensors
    header, up to 1 MiB) and 32 chunks of 64 KiB spread evenly from start to end are read, so a change to a part
    of the weights that none of the chunks touches goes unseen. A hub name: the commit of its snapshot, whose
    configuration file is fetched if it isn't in the cache. The answer is kept for the life of the process.

    Raises ``ConfigError`` that names ``key`` if there is no such model.
    """
    place = locate(model, key)
    if Path(place).is_dir():
        return _directory_digest(Path(place))
    return f"{place}@{_commit(place, key)}"


def model_type(model: str) -> str | None:
    """The ``model_type`` that a model's config.json names; None where there is no such file to be had.

    The file of a hub model is fetched if it isn't in the cache, as it is for ``fingerprint``.
    """
    try:
        place = Path(locate(model, "model"))
        path = place if place.is_dir() else Path(_hub_config(model, "model")).parent
        found = json.loads((path / "config.json").read_text()).get("model_type")
    except (ConfigError, OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def _directory_digest(directory: Path) -> str:
    files = sorted(p for p in directory.iterdir() if p.is_file())
    weights = [p for p in files if p.suffix == ".safetensors"] or [p for p in files if p.suffix in _WEIGHTS]
    total = sum(p.stat().st_size for p in weights)
    digest = blake2b(digest_size=16)
    for path in [p for p in files if p.suffix in _SMALL] + weights:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        if path.suffix in _WEIGHTS and total > FULL_BYTES:
            _add_sample(digest, path)
        else:
            _add_all(digest, path)
    return digest.hexdigest()


def _add_all(digest: blake2b, path: Path) -> None:
    with path.open("rb") as file:
        while block := file.read(2**20):
            digest.update(block)


def _add_sample(digest: blake2b, path: Path) -> None:
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        digest.update(start)
        if path.suffix == ".safetensors":  # eight bytes of length, then a JSON header of names and shapes
            digest.update(file.read(min(int.from_bytes(start, "little"), 2**20)))
        for i in range(_CHUNKS):
            file.seek(max(size - _CHUNK, 0) * i // (_CHUNKS - 1))
            digest.update(file.read(_CHUNK))


def _commit(name: str, key: str) -> str:
    """The commit of a hub model's snapshot. A snapshot's folder is named after it."""
    return Path(_hub_config(name, key)).parent.name


def _hub_config(name: str, key: str) -> str:
    """The path of a hub model's config.json, from the cache or else the hub."""
    own = checkout.hint(name)
    try:
        return config_file(name, quick=bool(own) or _may_be_here(name))
    except Exception as error:  # offline, gated, misspelt: all of them mean that there is no such model here
        raise ConfigError(
            f"{key}={name!r}{_near(name)} is neither a directory on this machine nor in the Hugging Face cache, and "
            f"the hub did not give it ({type(error).__name__}: {str(error).splitlines()[0]})"
            + (own or "; give a model directory, or download the model first")
        ) from error


def _may_be_here(name: str) -> bool:
    """Whether a name begins as a directory does that is here."""
    return "/" in name and Path(name).parent.is_dir()


def _near(name: str) -> str:
    """Where the name begins as a directory here does, the one in it that may be meant."""
    return nearest(name, [str(p) for p in Path(name).parent.iterdir() if p.is_dir()]) if _may_be_here(name) else ""
