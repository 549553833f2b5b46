"""What a run tells Prometheus, read where Prometheus would read it, and the dashboard that shows it."""

from __future__ import annotations

import json
import re
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.metrics import COUNTERS, GAUGES
from pipeline.config import CONF
from tests.e2e.commands import wait_for
from tests.e2e.conftest import settings, write_prompts
from tests.e2e.job_cluster import JobCluster, run, submitted

pytestmark = [pytest.mark.ray, pytest.mark.slow]
DASHBOARD = CONF / "grafana" / "raylign.json"
Samples = dict[tuple[str, str], float]
"""By name and role, replicas added up."""


def test_what_prometheus_reads_is_what_the_summary_says(head: JobCluster, tmp_path: Path) -> None:
    prompts, out = write_prompts(tmp_path / "p.jsonl", 12), tmp_path / "out"
    slow = ["generator.latency_s=0.2", "generator.max_in_flight=4", "generator.replicas=2", "data.shard_rows=6"]
    job = submitted(run("submit", head.dashboard, "align", *settings(out, prompts, "method.n=16", *slow)))
    seen: list[Samples] = []
    wait_for(lambda: seen.append(scrape(head, out)) or (out / "manifest.json").exists())  # type: ignore[func-returns-value]
    assert run("logs", head.dashboard, job, "--wait").returncode == 3
    time.sleep(2)  # one report more than Ray's own
    summary = json.loads((out / "summary.json").read_text())
    last = scrape(head, out)
    print(json.dumps({str(k): v for k, v in last.items()}, indent=1))
    for name in ("draws", "generated_tokens", "prompt_tokens"):
        assert last[f"ray_raylign_{name}_total", "generator"] == summary["counts"][name]
    assert last["ray_raylign_rewards_total", "reward"] == summary["counts"]["rewards"]
    for role in ("generator", "reward"):
        served = sum(replica["served"] for replica in summary["engines"][role])
        busy_s = sum(replica["busy_s"] for replica in summary["engines"][role])
        assert last["ray_raylign_requests_served_total", role] == served
        assert last["ray_raylign_replica_busy_seconds_total", role] == pytest.approx(busy_s, abs=1e-3)
    most: Samples = defaultdict(float)
    for sample in seen:
        most.update({key: max(value, most[key]) for key, value in sample.items()})
    assert most["ray_raylign_rows", ""] == 12
    assert 0 < most["ray_raylign_rows_ended", ""] <= 12
    assert 0 < most["ray_raylign_requests_in_flight", "generator"] <= 2 * 2 * 4
    assert most["ray_raylign_requests_waiting", "generator"] > 0
    assert most["ray_raylign_replicas", "generator"] == 2
    assert most["ray_raylign_nodes_running", ""] == 2


def test_every_metric_of_the_dashboard_exists_and_each_is_shown() -> None:
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    named = {name for query in queries for name in re.findall(r"ray_raylign_\w+", query)}
    exported = {f"ray_{name}_total" for name in COUNTERS} | {f"ray_{name}" for name in GAUGES}
    assert named == exported


def scrape(head: JobCluster, out: Path) -> Samples:
    """The head's metrics of one run."""
    with urllib.request.urlopen(f"{head.head.metrics}/metrics", timeout=10) as reply:
        text = reply.read().decode()
    found: Samples = defaultdict(float)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.labels.get("run") == str(out):
                found[sample.name, sample.labels["role"]] += sample.value
    return found
