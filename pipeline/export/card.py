"""The data set card: a README.md with the front matter that the Hugging Face Hub reads, and what the data are."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.export.examples import NO_TEXT, Statistics
from pipeline.sections import ExportConfig

BINS = 10
BAR = 40
"""Characters of a histogram's longest bar."""
FORMATS = {
    "pairs": "preference pairs (DPO, reward models)",
    "unpaired": "responses with a label (KTO)",
    "sft": "the response that was kept (supervised training)",
    "candidates": "every response with its reward",
}
REASONS = {
    "no_candidate": "no response has some text and a finite reward",
    "single": "a single response with some text and a finite reward",
    "duplicate": "all responses are the same text",
    "tie": "all rewards are the same",
    "margin": "no reward lies below the best by more than the margin (export.margin)",
    "disagree": "no response that is left lies below the best by all of the models that are to agree (export.agree)",
    "length": "no response that is left has a length near enough to the best one's (export.max_ratio, max_difference)",
    "no_given": "no response that is left was given with the row (export.rule)",
    NO_TEXT: "the conversation has no plain text",
}
"""For people, why rows give nothing."""


@dataclass(frozen=True)
class Provenance:
    """Where data come from. ``files``: the input's, as its manifest has them. ``rejected``: rows without a result.

    ``reasons``: how many of them by what was wrong. ``blank``: responses without text that the input has, which were
    left out.
    """

    title: str
    method: str
    models: Mapping[str, str]
    seed: int
    run: str
    files: Sequence[Mapping[str, Any]]
    rejected: int
    versions: Mapping[str, str]
    blank: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)


def card(found: Statistics, config: ExportConfig, threshold: float, source: Provenance, data: str) -> str:
    """The whole text. ``data``: the name of what was written, another one for other data."""
    parts = [
        _front_matter(found, config, data),
        f"# {source.title}\n",
        _origin(source, found),
        "## Contents\n",
        _contents(found, config, source),
        _loading(found, config),
    ]
    if "pairs" in config.formats:
        parts += ["## Pairs\n", _pairs(found, config.length)]
    if "unpaired" in config.formats:
        counts = f"{found.labels[True]:,} are true and {found.labels[False]:,} false"
        parts.append(f"Labels are true for rewards above {threshold:g}: {counts}.\n")
    parts += ["## Rewards and lengths\n", _histograms(found, config.length)]
    parts += ["## Settings\n", _block("json", json.dumps({**asdict(config), "threshold": threshold}, indent=1))]
    return "\n".join(parts)


def _front_matter(found: Statistics, config: ExportConfig, data: str) -> str:
    """What the Hub and ``datasets`` read.

    ``datasets`` keeps what it has loaded under a digest of these settings, not of the files or their place. Without a
    name of the data among them, a second export would load as the first one.
    """
    there = [name for name in config.formats if found.examples[name]]
    lines = ["---", *(["configs:"] if there else [])]
    for i, name in enumerate(there):
        lines += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/*.parquet"]
        lines += [f"  description: data {data}"]
        lines += ["  default: true"] if i == 0 else []
    most = max([found.examples[name] for name in there], default=0)
    lines += ["task_categories:", "- text-generation", "size_categories:", f"- {size_category(most)}"]
    lines += ["tags:", "- raylign", *(["- preference", "- dpo"] if "pairs" in config.formats else []), "---", ""]
    return "\n".join(lines)


def size_category(rows: int) -> str:
    """The Hub's name for a number of rows."""
    bounds = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M")]
    return next((name for bound, name in bounds if rows < bound), "10M<n<100M" if rows < 10**8 else "100M<n<1B")


def _origin(source: Provenance, found: Statistics) -> str:
    models = "\n".join(f"- {kind}: {name}" for kind, name in source.models.items())
    versions = ", ".join(f"{name} {version}" for name, version in source.versions.items())
    kinds = ", ".join(f"{n:,} {kind}" for kind, n in sorted(found.kinds.items()))
    files = _table(
        ("file", "rows", "bytes", "blake2b"), [(f["file"], f["rows"], f["bytes"], f["blake2b"]) for f in source.files]
    )
    return (
        f"Made by Raylign: method `{source.method}`, seed {source.seed}, run `{source.run}`.\n\n{models}\n\n"
        f"Responses by kind: {kinds or 'none'} (`given`: they came with the input; others were drawn).\n\n"
        f"Input:\n\n{files}\nVersions: {versions}.\n"
    )


def _contents(found: Statistics, config: ExportConfig, source: Provenance) -> str:
    rows = [(f"`{name}`", FORMATS[name], f"{found.examples[name]:,}") for name in config.formats]
    total = found.rows + source.rejected
    said = [f"Of {total:,} input rows {found.rows:,} have a result and {source.rejected:,} were rejected."]
    if source.blank:
        said.append(f"Responses of the input without any text, which were left out: {source.blank:,}.")
    if found.instead:
        said.append(
            f"Supervised examples with the best of the other responses, since the one that was kept has no text or no "
            f"finite reward: {found.instead:,}."
        )
    text = _table(("format", "what", "examples"), rows) + "\n" + " ".join(said) + "\n"
    if source.reasons:
        text += "\n" + _table(("rejected at", "rows"), [(what, f"{n:,}") for what, n in source.reasons.items()])
    return text


def _loading(found: Statistics, config: ExportConfig) -> str:
    there = [name for name in config.formats if found.examples[name]]
    if not there:
        return "Nothing came out, so that there is no file to load.\n"
    code = f'from datasets import load_dataset\n\ndata = load_dataset("PATH", "{there[0]}", split="train")'
    return _block("python", code)


def _pairs(found: Statistics, unit: str) -> str:
    without: Mapping[str, int] = found.without.get("pairs", {})
    rows = [("made a pair", f"{found.examples['pairs']:,}")]
    rows += [(f"none: {REASONS[reason]}", f"{n:,}") for reason, n in sorted(without.items())]
    text = _table(("rows", "count"), rows)
    if not found.examples["pairs"]:
        return text
    rewards = {name: np.asarray(found.rewards[name]) for name in ("chosen", "rejected")}
    lengths = {name: np.asarray(found.lengths[name]) for name in ("chosen", "rejected")}
    margins, longer = rewards["chosen"] - rewards["rejected"], lengths["chosen"] > lengths["rejected"]
    return text + (
        f"\nRewards of a pair differ by {margins.mean():.4g} on average (median {np.median(margins):.4g}). The better "
        f"response is the longer one in {longer.mean():.1%} of pairs; mean lengths are {lengths['chosen'].mean():.4g} "
        f"and {lengths['rejected'].mean():.4g} {unit}.\n"
    )


def _histograms(found: Statistics, unit: str) -> str:
    parts = []
    for what, columns in (("Rewards", found.rewards), (f"Lengths in {unit}", found.lengths)):
        for name in ("candidates", "chosen", "rejected"):
            if name in columns:
                parts += [f"{what}, {name}:\n", _block("", histogram(columns[name]))]
    return "\n".join(parts)


def histogram(values: Iterable[float]) -> str:
    """Bins of the same width from the least to the greatest finite value, one a line; the rest is counted below."""
    every = np.asarray(list(values), np.float64)
    finite = every[np.isfinite(every)]
    lines = _bins(finite) if finite.size else []
    if odd := every.size - finite.size:
        lines.append(f"not finite: {odd:,}")
    return "\n".join(lines) or "none"


def _bins(values: NDArray[np.float64]) -> list[str]:
    """A line for each bin of finite values; one for all if they are the same."""
    halves = values / 2  # their differences are finite, whatever the values
    low, span = float(halves.min()), float(halves.max() - halves.min())
    if span == 0:
        return [f"{2 * low:.4g} {values.size:>9,} {'#' * BAR}"]
    bins = np.minimum(((halves - low) / span * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    edges = [f"{2 * (low + i * (span / BINS)):.4g}" for i in range(BINS + 1)]
    width, most = max(map(len, edges)), int(counts.max())
    return [
        f"{edges[i]:>{width}} to {edges[i + 1]:>{width}} {count:>9,} {'#' * -(-count * BAR // most)}".rstrip()
        for i, count in enumerate(counts.tolist())
    ]


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text}\n```\n"
