"""The Ray cluster of a process: connecting to it, and the replicas that runs in this process share."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import ray
from ray.actor import ActorHandle

from actors.generator import Generator
from actors.replica import Replica
from actors.reward_model import RewardModel
from pipeline.errors import RunFailed
from pipeline.sections import ClusterConfig, GeneratorConfig, RewardConfig

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TOKENIZERS_PARALLELISM": "false",  # one tokenizer per process; its own threads only fight the engines'
}
STOP_S = 30.0
STATS_S = 5.0
ACTORS: dict[str, type[Replica]] = {"generator": Generator, "reward": RewardModel}


class Cluster:
    """A connection to Ray, and replicas by configuration: two runs with the same model share its engines."""

    def __init__(self, config: ClusterConfig, actors: Mapping[str, type[Replica]] = ACTORS) -> None:
        self._config, self._actors = config, actors
        self._replicas: dict[str, list[ActorHandle[Any]]] = {}
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
        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(address="local", include_dashboard=False, object_store_memory=512 * 2**20, **quiet)
        except (ConnectionError, ValueError) as error:
            raise RunFailed(f"cluster.address = {address!r}: no Ray cluster answers there ({error})") from None
        self._ours = True

    def replicas(
        self, kind: str, config: GeneratorConfig | RewardConfig, logs: str
    ) -> tuple[list[ActorHandle[Any]], list[str]]:
        """The actors of a generator or reward model, started if need be, and the paths of their logs."""
        name = f"{kind} {config!r}"
        paths = [f"{logs}/{kind}-{i}.log" for i in range(config.replicas)]
        if name not in self._replicas:
            gpus = self._gpus(config)
            actor = ray.remote(self._actors[kind]).options(
                num_gpus=gpus,
                num_cpus=config.cpus,
                max_restarts=-1,
                max_task_retries=0,
                max_concurrency=1000,
            )
            self._replicas[name] = [actor.remote(config, path) for path in paths]
        return self._replicas[name], paths

    def check_room(self, generator: GeneratorConfig, reward: RewardConfig) -> None:
        """Raises ``RunFailed`` at once, where Ray would wait for ever, if the cluster can't hold the replicas."""
        have = ray.cluster_resources()
        for resource, key, need in (
            ("GPU", "gpus", sum(c.replicas * self._gpus(c) for c in (generator, reward))),
            ("CPU", "cpus", sum(c.replicas * c.cpus for c in (generator, reward)) + self._config.runner_cpus),
        ):
            if need > have.get(resource, 0.0) + 1e-9:
                raise RunFailed(
                    f"{generator.replicas} generator and {reward.replicas} reward replicas need {need:g} {resource}s, "
                    f"the cluster has {have.get(resource, 0.0):g}: lower replicas, or generator.{key} and reward.{key}"
                )

    def stats(self, generator: GeneratorConfig, reward: RewardConfig) -> dict[str, list[dict[str, Any]]]:
        """What each replica has served and how it is set, by kind; an empty dict for one that doesn't answer."""
        found: dict[str, list[dict[str, Any]]] = {}
        for kind, config in (("generator", generator), ("reward", reward)):
            refs = [actor.stats.remote() for actor in self._replicas.get(f"{kind} {config!r}", [])]
            done, _ = ray.wait(refs, num_returns=len(refs), timeout=STATS_S) if refs else ([], [])
            found[kind] = [_answer(ref) if ref in done else {} for ref in refs]
        return found

    def stop(self) -> None:
        """Ends the engines, then the actors, and the cluster if it was started here."""
        if not ray.is_initialized():
            return
        actors = [actor for replicas in self._replicas.values() for actor in replicas]
        if actors:
            ray.wait([actor.stop.remote() for actor in actors], num_returns=len(actors), timeout=STOP_S)
        for actor in actors:
            ray.kill(actor)
        self._replicas.clear()
        if self._ours:
            ray.shutdown()

    def _gpus(self, config: GeneratorConfig | RewardConfig) -> float:
        if config.gpus is not None:
            return config.gpus
        has_gpu = ray.cluster_resources().get("GPU", 0.0) > 0
        return float(getattr(config, "tensor_parallel_size", 1)) if has_gpu else 0.0


def _answer(ref: Any) -> dict[str, Any]:
    try:
        stats: dict[str, Any] = ray.get(ref)
    except ray.exceptions.RayError:  # the replica is being restarted; the summary can do without it
        return {}
    return stats
