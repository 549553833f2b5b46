"""What a replica takes of a node, from its section."""

from __future__ import annotations

from actors.footprint import least_memory
from actors.room import Need
from pipeline.errors import ConfigError
from pipeline.sections import GeneratorConfig, RewardConfig


def need_of(kind: str, config: GeneratorConfig | RewardConfig, there: bool) -> Need:
    """CPUs, GPUs, custom resources and the least memory of one replica. ``there``: whether the cluster has GPUs."""
    gpus = gpus_of(kind, config, there)
    return Need(kind, config.cpus, gpus, 0.0 if gpus else least_memory(config, on_gpu=False), config.resources)


def gpus_of(kind: str, config: GeneratorConfig | RewardConfig, there: bool) -> float:
    """GPUs of one replica: ``gpus``, or one per tensor-parallel rank where there are some. Raises ``ConfigError``."""
    ranks = int(getattr(config, "tensor_parallel_size", 1))
    if config.gpus is None:
        return float(ranks) if config.local_model and there else 0.0
    if config.gpus > 1 and config.gpus != int(config.gpus):
        raise ConfigError(f"{kind}.gpus = {config.gpus:g}: give whole GPUs, or a share of one (less than 1)")
    if 0 < config.gpus < ranks and ranks > 1:
        raise ConfigError(
            f"{kind}.gpus = {config.gpus:g}, but {kind}.tensor_parallel_size = {ranks} takes {ranks}: "
            f"set {kind}.gpus={ranks}, or leave it out"
        )
    utilization = getattr(config, "gpu_memory_utilization", None)
    if 0 < config.gpus < 1 and utilization is not None and utilization > config.gpus:
        raise ConfigError(
            f"{kind}.gpu_memory_utilization = {utilization:g}, but {kind}.gpus = {config.gpus:g} lets others share "
            f"the GPU: set {kind}.gpu_memory_utilization={config.gpus:g} or less"
        )
    return config.gpus
