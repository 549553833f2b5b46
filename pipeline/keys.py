"""Counter-based randomness: what a draw *is* decides its random numbers, never where or when it runs.

A ``Key`` is (seed, row id, path). Keys are derived by hashing, not by spawning: ``np.random.SeedSequence``
collides for spawn keys of 2**32 and more, and a hash of length-prefixed parts cannot.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np

PathPart = str | int


def digest(parts: Iterable[str | int | bytes], size: int = 16) -> bytes:
    """``size`` bytes of BLAKE2b over the parts, each preceded by its type and length, so that no two lists collide."""
    whole = bytearray()
    for part in parts:
        if isinstance(part, bytes):
            tag, raw = b"b", part
        elif isinstance(part, str):
            tag, raw = b"s", part.encode("utf-8", "surrogatepass")
        else:
            tag, raw = b"i", b"%d" % part
        whole += tag
        whole += len(raw).to_bytes(8, "little")
        whole += raw
    return blake2b(whole, digest_size=size).digest()


@dataclass(frozen=True, slots=True)
class Key:
    """The name of a draw: the run's seed, the row it is for, and what it is (``("draw", 17)``)."""

    seed: int
    row: str
    path: tuple[PathPart, ...] = ()

    def child(self, *parts: PathPart) -> Key:
        """The key of a part of this draw. Children of different parts are independent."""
        return Key(self.seed, self.row, self.path + parts)

    @property
    def name(self) -> str:
        """What the draw is, for people and tables: ``draw/17``."""
        return "/".join(map(str, self.path))

    def parts(self) -> tuple[str | int, ...]:
        """Everything the key consists of, for a digest."""
        return (self.seed, self.row, *self.path)

    def engine_seed(self) -> int:
        """A seed for an engine's own generator, in [0, 2**63): the range of a signed 64-bit integer."""
        return int.from_bytes(digest(("engine", *self.parts()), size=8), "little") >> 1

    def rng(self) -> np.random.Generator:
        """A NumPy generator (Philox) of this key's own."""
        return np.random.Generator(np.random.Philox(key=int.from_bytes(digest(("rng", *self.parts())), "little")))
