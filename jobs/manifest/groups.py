"""Which pods a run needs, by what runs on them: groups of equal pods, for all replicas that the configuration allows.

A role whose replicas take whole GPUs, or custom resources, has pods of its own, one for each replica. Replicas that
share GPUs share pods with one GPU. What takes none shares pods with the runners.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil

from actors.needs import need_of
from actors.room import NEGLIGIBLE, Need, Room, place
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig


@dataclass
class PodConfig:
    """The ``kube`` section: how large pods are, and what Kubernetes must know of them.

    ``image``: has Raylign, its packages and the same Ray as here. ``name``: of the job; by default after the command.
    ``cpus``, ``memory_gib``: of a pod without GPUs. ``gpu_cpus``, ``gpu_memory_gib``: of a pod, for each GPU it has.
    ``gpu``: the resource's name in Kubernetes. ``gpu_nodes``: labels of the nodes that pods with GPUs go to.
    ``environment``: variables of all containers, and ``secrets``: names of secrets whose keys become variables there
    (storage keys, ``HF_TOKEN``). ``service_account``: of the pods, where storage is opened by it. ``retries``: how
    often the job is begun again on a fresh cluster.
    """

    image: str = ""
    name: str = ""
    cpus: int = 4
    memory_gib: float = 16.0
    gpu_cpus: int = 8
    gpu_memory_gib: float = 64.0
    gpu: str = "nvidia.com/gpu"
    gpu_nodes: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    secrets: list[str] = field(default_factory=list)
    service_account: str = ""
    retries: int = 3


@dataclass(frozen=True)
class Group:
    """Equal pods, ``least`` to ``most``: the autoscaler brings those that are asked for. ``resources``: custom ones.

    ``least``: those that are there from the beginning on, for replicas whose number changes.
    """

    name: str
    holds: str
    most: int
    cpus: int
    memory_gib: float
    gpus: int = 0
    resources: Mapping[str, int] = field(default_factory=dict)
    least: int = 0


def groups(run: RunConfig, pods: PodConfig) -> list[Group]:
    """The groups of a run's pods. Raises ``ConfigError`` for a replica that is larger than its pod."""
    found: list[Group] = []
    sharing: list[Need] = []
    plain: list[Need] = []
    for role, section in run.models.items():
        need = need_of(role, section, there=True)
        bounds = section.bounds
        if not bounds.max:
            continue
        if need.gpus >= 1 or need.resources:
            number = f"{bounds.min} to {bounds.max}" if section.elastic else f"{bounds.max}"
            group = _own(pods, need, f"{number} x {role}: {section.model or section.engine}", bounds.max)
            found.append(replace(group, least=bounds.min) if section.elastic else group)
        else:
            (sharing if need.gpus else plain).extend([need] * bounds.max)
    if sharing:
        found.append(_shared(pods, sharing))
    runner = Need("runner", run.cluster.runner_cpus, resources=run.cluster.runner_resources)
    runners = [runner] * run.cluster.shards_in_flight
    if runner.resources:
        found.append(_runners(pods, runner, len(runners)))
    if plain or not runner.resources:
        found.append(_plain(pods, plain if runner.resources else [*plain, *runners]))
    return found


def _own(pods: PodConfig, need: Need, holds: str, replicas: int) -> Group:
    gpus = ceil(need.gpus)
    cpus = pods.gpu_cpus * gpus or pods.cpus
    _check_cpus(need, cpus, "gpu_cpus" if gpus else "cpus")
    memory = pods.gpu_memory_gib * gpus or pods.memory_gib
    return Group(_label(need.kind), holds, replicas, cpus, memory, gpus, _whole(need.resources, 1))


def _label(section: str) -> str:
    """A name as Kubernetes takes it: ``rewards.my_model`` is ``rewards-my-model``."""
    return section.replace(".", "-").replace("_", "-").lower()


def _shared(pods: PodConfig, needs: Sequence[Need]) -> Group:
    for need in needs:
        _check_cpus(need, pods.gpu_cpus, "gpu_cpus")
    most = _packed(needs, pods.gpu_cpus, 1)
    return Group("shared-gpus", _counted(needs), most, pods.gpu_cpus, pods.gpu_memory_gib, 1)


def _runners(pods: PodConfig, runner: Need, number: int) -> Group:
    _check_cpus(runner, pods.cpus, "cpus")
    each = min(number, int((pods.cpus + NEGLIGIBLE) / runner.cpus) if runner.cpus else number)
    offered = _whole(runner.resources, each)
    return Group("runners", f"{number} x runner", ceil(number / each), pods.cpus, pods.memory_gib, 0, offered)


def _whole(resources: Mapping[str, float], times: int) -> dict[str, int]:
    """What a pod offers of custom resources; KubeRay knows whole numbers only."""
    return {name: ceil(amount * times) for name, amount in resources.items()}


def _plain(pods: PodConfig, needs: Sequence[Need]) -> Group:
    for need in needs:
        _check_cpus(need, pods.cpus, "cpus")
    return Group("cpus", _counted(needs), _packed(needs, pods.cpus, 0), pods.cpus, pods.memory_gib)


def _packed(needs: Sequence[Need], cpus: float, gpus: int) -> int:
    """How many pods hold them. Memory is not looked at: what a replica on a CPU takes is little known beforehand."""
    bare = [Need(n.kind, n.cpus, n.gpus) for n in needs]
    count = 1
    while place([Room(cpus, [1.0] * gpus) for _ in range(count)], bare) is not None:
        count += 1
    return count


def _check_cpus(need: Need, cpus: float, key: str) -> None:
    if need.cpus > cpus:
        taken = "cluster.runner_cpus" if need.kind == "runner" else f"{need.kind}.cpus"
        raise ConfigError(f"{taken} = {need.cpus:g}, but its pods have {cpus:g} CPUs: raise kube.{key}")


def _counted(needs: Sequence[Need]) -> str:
    """``2 x generator, 16 x runner``."""
    kinds = dict.fromkeys(need.kind for need in needs)
    return ", ".join(f"{sum(n.kind == kind for n in needs)} x {kind}" for kind in kinds)
