"""The Ray cluster of a process: connecting to it, and the replicas that runs in this process share."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.autoscaler.sdk import request_resources

from actors.footprint import gpu_memory, least_memory
from actors.generator import Generator
from actors.needs import need_of
from actors.replica import Replica
from actors.replica_set import ReplicaSet, end
from actors.reward_model import RewardModel
from actors.room import GIB, NEGLIGIBLE, Need, Room, place, replica_keys, runners, shortage
from actors.roster import Roster
from pipeline.errors import ConfigError, RunFailed
from pipeline.plugin_sections import kind_of, replicas_name
from pipeline.sections import ClusterConfig, GeneratorConfig, RewardConfig

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",  # one tokenizer per process; its own threads only fight the engines'
}
NODES_S = 1.0
"""How often it is looked whether nodes that were asked for have joined."""
STATS_S = 5.0
FREE_S = 10.0
"""How long resources that others hold may take to become free: those of a killed run do so in a moment."""
ANSWER_S = 10.0
ACTORS: dict[str, type[Replica]] = {"generator": Generator, "critic": Generator, "reward": RewardModel}
"""By kind (see ``kind_of``)."""
Models = Mapping[str, GeneratorConfig | RewardConfig]
"""Sections by name, as ``RunConfig.models`` gives them."""


class Cluster:
    """A connection to Ray, and replicas by configuration: two runs with the same model share its engines."""

    def __init__(self, config: ClusterConfig, actors: Mapping[str, type[Replica]] = ACTORS) -> None:
        self._config, self._actors = config, actors
        self._sets: dict[str, ReplicaSet] = {}
        self._version = 0
        self._ours = False

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def connect(self) -> None:
        """Joins the configured cluster, or starts one on this machine; does nothing if already connected."""
        os.environ.update({k: v for k, v in ENVIRONMENT.items() if k not in os.environ})
        if ray.is_initialized():
            return
        address = self._config.address or os.environ.get("RAY_ADDRESS")
        if error := unreachable(address):  # Ray would end the process
            raise RunFailed(_no_cluster(address, error))
        on_terminate = signal.getsignal(signal.SIGTERM)
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=512 * 2**20, **quiet)
        except (ConnectionError, ValueError, RuntimeError, SystemExit) as gave_up:  # Ray exits where it gives up
            raise RunFailed(_no_cluster(address, gave_up)) from None
        if on_terminate is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, on_terminate)  # Ray's own prints a stack, and lets the process die
        self._ours = True

    def replicas(
        self, kind: str, config: GeneratorConfig | RewardConfig, logs: str
    ) -> tuple[list[ActorHandle[Any]], list[str]]:
        """The actors of a generator or reward model, started if need be, and the paths of their logs."""
        name = replicas_name(kind, config)
        if name not in self._sets:
            need = self._need(kind, config)
            actor = ray.remote(self._actors[kind_of(kind)]).options(
                num_gpus=need.gpus,
                num_cpus=need.cpus,
                resources=dict(need.resources) or None,
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=1000,
            )
            self._sets[name] = ReplicaSet(actor, config, need, f"{logs}/{kind}")
        found = self._sets[name]
        return found.actors, found.logs

    def resize(self, kind: str, config: GeneratorConfig | RewardConfig, number: int) -> None:
        """Begins or retires replicas that are there (see ``replicas``) until so many get requests."""
        self._version += 1
        self._sets[replicas_name(kind, config)].resize(number, self._version)

    def size(self, kind: str, config: GeneratorConfig | RewardConfig) -> int:
        """How many replicas of a model there are that are not retired; 0 before they are first asked for."""
        found = self._sets.get(replicas_name(kind, config))
        return found.size if found else 0

    def admit(self) -> None:
        """Puts on the roster what has got a place on a machine since the last call."""
        self._version += sum(found.admit() for found in self._sets.values())

    def roster(self, models: Models) -> Roster | None:
        """The replicas that get requests, of those models whose number changes; None if there is no such model."""
        elastic = {kind: replicas_name(kind, config) for kind, config in models.items() if config.elastic}
        actors = {kind: self._sets[name].actors for kind, name in elastic.items() if name in self._sets}
        return Roster(self._version, actors) if elastic else None

    def dismiss(self, version: int | None = None) -> None:
        """Ends the retired replicas that a roster, by default the one of now, and later ones don't have."""
        for found in self._sets.values():
            found.dismiss(self._version if version is None else version)

    def check_room(self, models: Models, tell: Callable[[str], None] = lambda said: None) -> None:
        """Raises, where Ray would wait for ever, unless the cluster has room within ``cluster.node_wait_s``.

        ``tell``: takes a sentence on what is waited for, every second of that time.

        ``ConfigError`` if it can't hold the replicas and one runner (node by node, with their GPUs, CPUs, custom
        resources and what is known of their memory), ``RunFailed`` if others use it.
        """
        new, held, runner = self._new(models), self._held(), self._runner()
        if self._config.node_wait_s > 0:
            more = [runner] * (self._config.shards_in_flight - 1)
            _await_nodes([*new, *held, runner], more, self._config.node_wait_s, tell)
        rooms = _rooms()
        if (lacking := place(rooms, [*new, *held])) or (lacking := place(rooms, [runner])):
            raise ConfigError(shortage(_rooms(), [*new, *held, runner], lacking))
        if self._ours:  # then its GPUs are this machine's
            for kind, config in models.items():
                self._check_gpu_memory(kind, config)
        else:
            _await_free([*new, runner])

    def lacking(self, kind: str, config: GeneratorConfig | RewardConfig) -> str:
        """What the nodes that there are now lack for the replicas of a model; empty where all of them have a place."""
        found, held = self._sets.get(replicas_name(kind, config)), self._held()
        own = found.held if found else []
        if lacking := place(_rooms(), own):
            return shortage(_rooms(), own, lacking)
        lacking = place(_rooms(), held)
        return shortage(_rooms(), held, lacking) if lacking is not None and lacking in own else ""

    def runners(self, models: Models) -> int:
        """How many shards may be in flight now, so that none keeps a replica out; at least 1, at most as configured.

        Those that find no room bring nodes where ``cluster.node_wait_s`` says that some may come.
        """
        most = self._config.shards_in_flight
        if self._config.node_wait_s > 0:
            return most
        rooms = _rooms()
        for need in [*self._new(models), *self._held()]:
            place(rooms, [need])  # one whose node was lost may have nowhere to go now
        return max(1, min(most, runners(rooms, self._runner())))

    def room(self, kind: str, models: Models, runners: int) -> int:
        """How many more replicas of a model could begin now, beside all others and so many runners.

        Where nodes may come, as many as there may be: they ask for them.
        """
        config, need = models[kind], self._need(kind, models[kind])
        if self._config.node_wait_s > 0:
            return config.bounds.max
        rooms, free = _rooms(), ray.available_resources()
        for other in [*self._new(models), *self._held(), *[self._runner()] * runners]:
            place(rooms, [other])
        left = [int((free.get(name, 0.0) + NEGLIGIBLE) / amount) for name, amount in need.bundle.items()]
        most, fitting = min(left, default=config.bounds.max), 0
        while fitting < most and place(rooms, [need]) is None:
            fitting += 1
        return fitting

    def _new(self, models: Models) -> list[Need]:
        """What replicas take with which their models are yet to begin."""
        lacking = [(kind, c) for kind, c in models.items() if replicas_name(kind, c) not in self._sets]
        return [need for kind, c in lacking for need in [self._need(kind, c)] * c.bounds.min]

    def _held(self) -> list[Need]:
        return [need for found in self._sets.values() for need in found.held]

    def _runner(self) -> Need:
        return Need("runner", self._config.runner_cpus, resources=self._config.runner_resources)

    def stats(self, models: Models) -> dict[str, list[dict[str, Any]]]:
        """What each replica has served and how it is set, by kind; an empty dict for one that doesn't answer."""
        return {kind: answered(refs, STATS_S) for kind, refs in self.ask_stats(models).items()}

    def ask_stats(self, models: Models) -> dict[str, list[Any]]:
        """Where the answers of ``stats`` will be."""
        there = {kind: self._sets.get(replicas_name(kind, config)) for kind, config in models.items()}
        return {kind: found.ask_stats() if found else [] for kind, found in there.items()}

    def release(self, keep: Models) -> None:
        """Ends all replicas but those of ``keep``, so that other models have room; of those the fewest are left."""
        kept = {replicas_name(kind, config) for kind, config in keep.items()}
        self._end([name for name in self._sets if name not in kept])
        if kept - self._sets.keys():
            self._version += 1
            end([member for found in self._sets.values() for member in found.surplus])

    def stop(self) -> None:
        """Ends the engines, then the actors, and the cluster if it was started here."""
        if not ray.is_initialized():
            return
        self._end(list(self._sets))
        if self._ours:
            ray.shutdown()

    def _end(self, names: Iterable[str]) -> None:
        end([member for name in names for member in self._sets.pop(name).living])

    def _check_gpu_memory(self, kind: str, config: GeneratorConfig | RewardConfig) -> None:
        gpus = self._need(kind, config).gpus
        if not gpus:
            return
        share = 1.0 if gpus < 1 else gpus * getattr(config, "gpu_memory_utilization", 1.0)
        least, have = least_memory(config, on_gpu=True), min(gpus, 1.0) * share * gpu_memory()
        if least > have:
            raise ConfigError(
                f"too little GPU memory: a {kind} replica of {config.model!r} needs at least {least / GIB:.1f} GiB for "
                f"weights and KV cache, and {kind}.gpus = {gpus:g} gives it {have / GIB:.1f} GiB; raise "
                f"{kind}.tensor_parallel_size, set {kind}.dtype=bfloat16, or take a smaller model"
            )

    def _need(self, kind: str, config: GeneratorConfig | RewardConfig) -> Need:
        return need_of(kind, config, config.gpus is None and ray.cluster_resources().get("GPU", 0.0) > 0)


def _rooms() -> list[Room]:
    """What the living nodes have in all. Ray counts memory less what its object store takes."""
    found = []
    for node in ray.nodes():
        if node["Alive"]:
            have = node["Resources"]
            gpus = [1.0] * int(have.get("GPU", 0.0))
            found.append(Room(have.get("CPU", 0.0), gpus, have.get("memory", float("inf")), dict(have)))
    return found


def _await_nodes(needs: Sequence[Need], more: Sequence[Need], seconds: float, tell: Callable[[str], None]) -> None:
    """Asks the cluster's autoscaler for nodes, if it has one, and gives those that are missing time to join.

    ``more``: what is asked for, but not waited for.
    """
    begun = time.monotonic()
    request_resources(bundles=[bundle for need in (*needs, *more) if (bundle := need.bundle)])
    try:
        while (lacking := place(_rooms(), needs)) is not None and (waited := time.monotonic() - begun) < seconds:
            tell(f"waits for machines, {waited:.0f} of {seconds:g} s: {shortage(_rooms(), needs, lacking)}")
            time.sleep(NODES_S)
    finally:
        request_resources(bundles=[])  # from now on those that wait for a node ask for it


def _await_free(needs: Sequence[Need]) -> None:
    """Raises ``RunFailed`` if other jobs of the cluster keep what is needed."""
    end = time.monotonic() + FREE_S
    while True:
        free = ray.available_resources()
        want = {"GPU": sum(n.gpus for n in needs), "CPU": sum(n.cpus for n in needs)}
        short = [name for name, need in want.items() if need > free.get(name, 0.0) + NEGLIGIBLE]
        if not short:
            return
        if time.monotonic() > end:
            name = short[0]
            raise RunFailed(
                f"the cluster's {name}s are in use: this run needs {want[name]:g} more, {free.get(name, 0.0):g} of "
                f"{ray.cluster_resources().get(name, 0.0):g} are free; wait for the other jobs or stop them "
                f"(`ray status` shows them), or lower {replica_keys(needs, 'and')}"
            )
        time.sleep(0.25)


def unreachable(address: str | None) -> OSError | None:
    """Why nothing answers at an address with host and port, known in seconds where Ray would take minutes."""
    host, _, port = (address or "").rpartition("://")[2].partition("/")[0].rpartition(":")
    if not host or not port.isdigit():
        return None
    try:
        socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        return error
    return None


def _no_cluster(address: str | None, error: BaseException) -> str:
    if address is None:
        return f"Ray can't be started on this machine: {error}"
    return (
        f"cluster.address = {address!r}: no Ray cluster answers there ({error}); start one with `ray start --head`, "
        "give the address that it prints, or leave cluster.address (and RAY_ADDRESS) out to have one started here"
    )


def answered(refs: list[Any], seconds: float) -> list[dict[str, Any]]:
    """The answers that are there after so long, empty ones in place of the others."""
    done = set(ray.wait(refs, num_returns=len(refs), timeout=seconds)[0]) if refs else set()
    return [_answer(ref) if ref in done else {} for ref in refs]


def _answer(ref: Any) -> dict[str, Any]:
    try:
        stats: dict[str, Any] = ray.get(ref)
    except ray.exceptions.RayError:  # the replica is being restarted; the summary can do without it
        return {}
    return stats
