"""What fits a cluster and what doesn't: in all, on any one node, on any one GPU."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from actors.engines.transformers import Config as Transformers
from actors.engines.vllm import Config as Vllm
from actors.footprint import gpu_memory, least_memory
from actors.room import GIB, Need, Room, place, runners, shortage
from tests.actors.tiny_models import save_generator


def gpu(kind: str, gpus: float, cpus: float = 0.5) -> Need:
    return Need(kind, cpus, gpus)


@pytest.mark.parametrize(
    ("nodes", "needs", "fits"),
    [
        ([2], [gpu("g", 1), gpu("r", 1)], True),
        ([1], [gpu("g", 1), gpu("r", 1)], False),
        ([1], [gpu("g", 0.5), gpu("r", 0.5)], True),
        ([2], [gpu("g", 0.6)] * 3, False),  # 1.8 of 2, but no GPU holds two
        ([2], [gpu("g", 0.6), gpu("g", 0.6), gpu("r", 0.4), gpu("r", 0.4)], True),
        ([2, 2], [gpu("g", 4)], False),  # tensor parallel ranks of one replica share a node
        ([2, 4], [gpu("g", 1), gpu("g", 4), gpu("r", 1)], True),
        ([2, 2], [gpu("g", 0.5), gpu("g", 2), gpu("r", 0.5), gpu("r", 1)], True),
        ([0], [gpu("g", 0.1)], False),
        ([1], [gpu("g", 1, cpus=9)], False),
    ],
)
def test_gpus_are_placed_one_by_one(nodes: list[int], needs: list[Need], fits: bool) -> None:
    for order in itertools.permutations(needs):
        assert (place([Room(8.0, [1.0] * n) for n in nodes], order) is None) == fits


@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 4)), min_size=1, max_size=4),
    st.lists(st.tuples(st.sampled_from([0.25, 0.5, 1.0]), st.sampled_from([0.0, 0.5, 1.0, 2.0])), max_size=8),
)
def test_what_is_placed_was_there(nodes: list[tuple[int, int]], wants: list[tuple[float, float]]) -> None:
    """Nothing goes below zero, and what is taken is what was needed; one need alone fits iff a node has it."""
    rooms = [Room(float(cpus), [1.0] * gpus) for cpus, gpus in nodes]
    needs = [Need("g", cpus, gpus) for cpus, gpus in wants]
    if place(rooms, needs) is None:
        assert all(room.cpus >= 0 and min([0.0, *room.gpus]) >= 0 for room in rooms)
        left = sum(room.cpus for room in rooms), sum(sum(room.gpus) for room in rooms)
        assert left[0] == sum(c for c, _ in nodes) - sum(c for c, _ in wants)
        assert left[1] == sum(g for _, g in nodes) - sum(g for _, g in wants)
    for need in needs:
        alone = place([Room(float(cpus), [1.0] * gpus) for cpus, gpus in nodes], [need]) is None
        assert alone == any(cpus >= need.cpus and gpus >= need.gpus for cpus, gpus in nodes)


def test_runners_take_what_the_replicas_leave() -> None:
    rooms = [Room(2.0), Room(1.0)]
    assert place(rooms, [Need("g", 0.5), Need("r", 0.5)]) is None
    assert runners(rooms, Need("runner", 0.25)) == 8
    assert runners(rooms, Need("runner", 0.75)) == 2
    assert runners(rooms, Need("runner", 0)) > 10**6
    rooms = [Room(2.0, resources={"rows": 3.0, "CPU": 8.0}), Room(1.0, resources={"rows": 9.0}), Room(8.0)]
    assert runners(rooms, Need("runner", 0.25, resources={"rows": 1.0})) == 3 + 4
    assert runners(rooms, Need("runner", 0, resources={"rows": 2.0})) == 1 + 4


def test_memory_is_of_one_node() -> None:
    half = Need("generator", 0.5, memory=6 * GIB)
    assert place([Room(8.0, memory=10 * GIB), Room(8.0, memory=10 * GIB)], [half, half]) is None
    assert place([Room(8.0, memory=10 * GIB)], [half, half]) == half


def test_custom_resources_are_of_one_node_too() -> None:
    drawing, scoring = Need("generator", 0.5, resources={"fast": 1.0}), Need("reward", 0.5, resources={"fast": 0.5})
    rooms = [Room(8.0), Room(8.0, resources={"fast": 2.0})]
    assert place(rooms, [scoring, drawing, scoring]) is None
    assert rooms[1].resources == {"fast": 0.0}
    assert rooms[0].cpus == 8
    assert place(rooms, [scoring]) == scoring
    assert drawing.bundle == {"CPU": 0.5, "fast": 1.0}
    needs = [drawing, drawing, Need("runner", 0.25)]
    assert shortage([Room(8.0, resources={"fast": 1.0}), Room(8.0)], needs, drawing) == (
        "too little of resource 'fast': 2 generator replicas and a runner need 2, the nodes have 1; see "
        "generator.resources"
    )
    wide = Need("runner", 9, resources={"fast": 1.0})
    said = shortage([Room(8.0, resources={"fast": 2.0}), Room(8.0)], [wide], wide)
    assert "a runner takes 0 GPUs and 9 CPUs and 1 fast, and beside the others no node has that" in said


def test_a_shortage_names_the_resource_and_the_keys() -> None:
    needs = [gpu("generator", 1), gpu("generator", 1), gpu("reward", 1), Need("runner", 0.25)]
    assert "too few GPUs: 2 generator and 1 reward replicas and a runner need 3, the cluster has 2" in shortage(
        [Room(8.0, [1.0, 1.0])], needs, needs[0]
    )
    assert "too few CPUs" in shortage([Room(1.0, [1.0] * 4)], needs, needs[0])
    critics = [*needs, gpu("critic", 1), gpu("critic", 1)]
    said = shortage([Room(8.0, [1.0, 1.0])], critics, critics[0])
    assert "2 generator, 2 critic and 1 reward replicas and a runner need 5, the cluster has 2" in said
    assert "lower generator.replicas, critic.replicas or reward.replicas, or what each takes (" in said
    wide = [gpu("generator", 4), Need("runner", 0.25)]
    said = shortage([Room(8.0, [1.0] * 2)] * 2, wide, wide[0])
    assert "a generator takes 4 GPUs" in said
    assert "2 GPUs, inf GiB; 8 CPUs, 2 GPUs" in said
    large = [Need("generator", 0.5, memory=50 * GIB)]
    assert "at least 50.0 GiB for weights and KV caches, the cluster has 20.0 GiB" in shortage(
        [Room(8.0, memory=20 * GIB)], large, large[0]
    )


def test_weights_count_in_the_precision_they_are_loaded_in(tmp_path: Path) -> None:
    import torch
    from transformers import LlamaForCausalLM

    directory = save_generator(tmp_path / "m")
    parameters = sum(p.numel() for p in LlamaForCausalLM.from_pretrained(directory).parameters())
    auto, half = Transformers(model=str(directory)), Transformers(model=str(directory), dtype="bfloat16")
    assert least_memory(auto, on_gpu=False) == 4 * parameters
    assert least_memory(half, on_gpu=False) == 2 * parameters
    assert least_memory(Vllm(model=str(directory)), on_gpu=False) == 4 * parameters + GIB
    assert least_memory(Vllm(model=str(directory), kv_cache_gib=3), on_gpu=True) == 4 * parameters + 3 * GIB
    LlamaForCausalLM.from_pretrained(directory).to(torch.bfloat16).save_pretrained(tmp_path / "half")
    assert least_memory(Transformers(model=str(tmp_path / "half")), on_gpu=False) == 4 * parameters
    assert least_memory(Transformers(model=str(tmp_path / "half")), on_gpu=True) == 2 * parameters
    assert least_memory(Transformers(model="organisation/name"), on_gpu=False) == 0
    (tmp_path / "half" / "model.safetensors").write_bytes(b"\xff" * 16)
    assert least_memory(Transformers(model=str(tmp_path / "half")), on_gpu=False) == 0


def test_a_model_that_no_gpu_holds_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from actors.cluster import Cluster
    from pipeline.errors import ConfigError
    from pipeline.sections import ClusterConfig

    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\nprintf '20480\\n24576\\n'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert gpu_memory() == 24 * GIB
    check = Cluster(ClusterConfig())._check_gpu_memory
    for fitting in (
        {"gpus": 1, "kv_cache_gib": 20},
        {"gpus": 2, "kv_cache_gib": 40},
        {"gpus": 0.5, "kv_cache_gib": 11},
    ):
        utilization = min(0.9, fitting["gpus"])
        check("generator", Vllm(model="m", gpu_memory_utilization=utilization, **fitting))
    for too_large in ({"gpus": 1, "kv_cache_gib": 23}, {"gpus": 0.25, "kv_cache_gib": 11}):
        utilization = min(0.9, too_large["gpus"])
        with pytest.raises(ConfigError, match=r"too little GPU memory: a reward replica of 'm' needs at least"):
            check("reward", Vllm(model="m", gpu_memory_utilization=utilization, **too_large))
    monkeypatch.setenv("PATH", "")
    check("generator", Vllm(model="m", gpus=1, kv_cache_gib=1e6))


def test_what_others_hold_is_waited_for_a_moment_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from actors import cluster
    from pipeline.errors import RunFailed

    free = {"CPU": 4.0, "GPU": 1.0}
    looks = []

    def available() -> dict[str, float]:
        looks.append(1)
        return free | ({"GPU": 2.0} if len(looks) > 2 else {})

    monkeypatch.setattr(ray, "available_resources", available)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 8.0, "GPU": 4.0})
    cluster._await_free([gpu("generator", 2)])
    assert len(looks) == 3
    monkeypatch.setattr(cluster, "FREE_S", -1.0)
    with pytest.raises(RunFailed, match=r"GPUs are in use: this run needs 3 more, 2 of 4 are free; wait for the other"):
        cluster._await_free([gpu("generator", 3)])
    with pytest.raises(RunFailed, match=r"or lower generator\.replicas, critic\.replicas and reward\.replicas"):
        cluster._await_free([gpu("generator", 1), gpu("critic", 2)])
