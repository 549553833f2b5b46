"""Whether a file is still the same, by content and at bounded cost."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

FULL_BYTES = 8 * 2**20
CHUNK = 64 * 2**10
CHUNKS = 32


def sampled_digest(fs: Any, path: str, size: int) -> str:
    """BLAKE2b over a file of at most 8 MiB; over the size, 32 chunks of 64 KiB and the Parquet footer of a larger one.

    The chunks lie evenly from start to end. The footer holds every column chunk's size and, as most writers have it,
    its least and greatest value; a change that touches none of these goes unseen. Time and place count for nothing,
    so that a copy elsewhere is the same file. 32 hex digits.
    """
    digest = blake2b(str(size).encode(), digest_size=16)
    with fs.open(path, "rb") as file:
        if size <= FULL_BYTES:
            digest.update(file.read())
            return digest.hexdigest()
        for i in range(CHUNKS):
            file.seek((size - CHUNK) * i // (CHUNKS - 1))
            digest.update(file.read(CHUNK))
        file.seek(size - 8)
        footer = min(int.from_bytes(file.read(4), "little"), size - 8)
        file.seek(size - 8 - footer)
        digest.update(file.read(footer))
    return digest.hexdigest()
