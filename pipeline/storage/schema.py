"""The tables' columns, the same in every part (DESIGN.md, *Public contract*, *Tables*)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from pipeline.sections import PromptFrom, reward_column
from pipeline.storage.prompt_text import column_type

CANDIDATES = pa.schema(
    [
        ("id", pa.string()),
        ("step", pa.int32()),
        ("index", pa.int32()),
        ("chain", pa.int32()),
        ("kind", pa.string()),
        ("response", pa.string()),
        ("token_ids", pa.list_(pa.int32())),
        ("finish_reason", pa.string()),
        ("reward", pa.float64()),
        ("cut", pa.int32()),  # response tokens that were kept; null where nothing was drawn
        ("accepted", pa.bool_()),  # null where the method accepts or rejects nothing
        ("key", pa.string()),  # digest of all that shaped the row: the draw and the reward models
        ("draw", pa.string()),  # digest of all that shaped the response alone
        ("generator", pa.string()),  # fingerprint of model, template and sampling
        ("scorer", pa.string()),  # fingerprint of the reward model and its template
        ("generated_tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("chosen", pa.string()),  # `draw` of the candidates that a critique, advice or rewrite is about
        ("rejected", pa.string()),
        ("shortened", pa.int32()),  # characters left out of what its prompt quotes; null where nothing is quoted
        ("source", pa.string()),  # `draw` of the reply that a scored revision was taken from
        ("seed", pa.int64()),  # with id and name: what its random numbers follow from
        ("name", pa.string()),  # what the draw is: `draw/17`, `qalign/0.5/1/chain/0/step/40/0`
    ]
)
"""The journal: one row per reply. A rewrite has two: the reply as it came, and what was taken from it, with its
reward."""

SCORER = "scorer_"
"""What the name of a further reward model's fingerprints begins with; its rewards have ``reward_column``."""


def with_rewards(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The journal's schema in a run with the further reward models ``names``.

    ``reward_NAME``: null where that model gave none after all tries, and of texts. ``scorer_NAME``: its fingerprint,
    digested with the row's right answer where it looks at that; null of texts.
    """
    columns = [
        field
        for n in names
        for field in (pa.field(reward_column(n), pa.float64()), pa.field(f"{SCORER}{n}", pa.string()))
    ]
    return pa.schema([*schema, *columns]) if columns else schema


RESULTS = pa.schema(
    [
        ("id", pa.string()),
        ("response", pa.string()),
        ("reward", pa.float64()),
        ("method", pa.string()),
        ("steps", pa.int32()),
        ("candidates", pa.int32()),
        ("generated_tokens", pa.int64()),
    ]
)
"""A row's outcome; ``prompt`` and the input's other columns stand beside it (see ``results_schema``)."""

REJECTS = pa.schema(
    [
        ("id", pa.string()),
        ("stage", pa.string()),
        ("error_type", pa.string()),
        ("error", pa.string()),
    ]
)
"""Why a row has no result; the row itself stands beside it."""

SCORED = pa.field("scored", pa.list_(pa.string()))
"""Of an outcome: the ``key`` of every candidate of the row that has a reward, in no order."""

Columns = Mapping[str, type]
"""What a method tells of each row beside the fixed columns: names, and ``float``, ``int`` or ``str``."""

_TYPES = {float: pa.float64(), int: pa.int64(), str: pa.string()}


def outcomes_schema(columns: Columns | None = None) -> pa.Schema:
    """What an advance node leaves for its shard's collect node: a result or what went wrong, the other half null."""
    return pa.schema([*_results(columns), *REJECTS.remove(0), SCORED])


def _results(columns: Columns | None) -> pa.Schema:
    return pa.schema([*RESULTS, *((name, _TYPES[kind]) for name, kind in (columns or {}).items())])


ROW = "__row__"
ID = "__id__"
WRONG = "__wrong__"
SHARD_COLUMNS = pa.schema([(ROW, pa.int64()), (ID, pa.string()), (WRONG, pa.string())])
"""What ingest puts before the input's own columns: the position in the whole input, the id, and why the prompt isn't
one (null where it is, or where its own value says so)."""

RESERVED = {"prompt", *RESULTS.names, *REJECTS.names}


def carried(
    input_schema: pa.Schema, prompt: PromptFrom, id_column: str | None, columns: Columns | None = None
) -> list[tuple[str, str]]:
    """The input's other columns as (name there, name in the output), in order.

    A name that the output needs for itself gets ``input_`` before it.
    """
    reserved = RESERVED | set(columns or ())
    taken = reserved | set(input_schema.names)
    pairs = []
    for name in input_schema.names:
        if name in (prompt, id_column):
            continue
        out = name
        while out in reserved or (out != name and out in taken):
            out = f"input_{out}"
        pairs.append((name, out))
    return pairs


def results_schema(
    input_schema: pa.Schema, prompt: PromptFrom, id_column: str | None, columns: Columns | None = None
) -> pa.Schema:
    """``id``, ``prompt`` as given, the outcome with the method's own columns, then the input's other columns."""
    return _with_row(_results(columns), input_schema, prompt, id_column, columns)


def rejects_schema(
    input_schema: pa.Schema, prompt: PromptFrom, id_column: str | None, columns: Columns | None = None
) -> pa.Schema:
    """``id``, ``prompt`` as given, what went wrong, then the input's other columns, under the names of the results."""
    return _with_row(REJECTS, input_schema, prompt, id_column, columns)


def _with_row(
    fixed: pa.Schema, input_schema: pa.Schema, prompt: PromptFrom, id_column: str | None, columns: Columns | None
) -> pa.Schema:
    pairs = carried(input_schema, prompt, id_column, columns)
    others = [pa.field(out, input_schema.field(name).type) for name, out in pairs]
    head = [fixed.field(0), pa.field("prompt", column_type(input_schema, prompt))]
    return pa.schema([*head, *list(fixed)[1:], *others])
