"""Where a shard's programs get their replies from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from actors.pool import Pool
from actors.protocol import Tokenizer
from actors.scoring import Scorer
from pipeline.sections import GeneratorConfig
from pipeline.storage.journal import Replies
from pipeline.types import Role


@dataclass(frozen=True)
class Writer:
    """A model that writes: its role, its section and fingerprint, its tokenizer, and the pool of its replicas."""

    role: Role
    config: GeneratorConfig
    fingerprint: str
    tokenizer: Tokenizer
    pool: Pool


@dataclass(frozen=True)
class Sources:
    """Where replies come from: the journal's replies for this shard, the models that write, and those that score.

    ``scorers``: by the names of their sections (``RunConfig.scorers``).
    """

    replies: Replies
    writers: Mapping[Role, Writer]
    scorers: Mapping[str, Scorer]
    grants: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """What each row was granted in each round so far."""
    carried: int = 0
    """Replies that the programs had in the shard's earlier nodes: they are told again, but counted once."""
