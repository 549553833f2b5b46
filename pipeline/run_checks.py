"""What is wrong with a whole run's settings, as far as no plugin can tell for itself: ranges, and what must be set."""

from __future__ import annotations

import math

from pipeline import plugin
from pipeline.errors import ConfigError
from pipeline.sections import GeneratorConfig, RunConfig

TEMPLATES = ("auto", "chat", "raw")
THINK = ("strip", "keep")


def check_run(run: RunConfig) -> None:
    """Raises ``ConfigError`` that names the key and what is valid."""
    if not run.out:
        raise ConfigError("out: name the run's directory, e.g. out=runs/first (any fsspec URL)")
    if not run.data.input:
        raise ConfigError("data.input: name a Parquet or JSON lines file, a glob or a list of them")
    paths = [run.data.input] if isinstance(run.data.input, str) else run.data.input
    if not isinstance(paths, list) or not all(isinstance(path, str) for path in paths):
        raise ConfigError(f"data.input = {run.data.input!r}: expected a path, a glob or a list of them")
    if run.data.template not in TEMPLATES:
        raise ConfigError(f"data.template = {run.data.template!r}: choose one of {', '.join(TEMPLATES)}")
    if run.reward.think not in THINK:
        raise ConfigError(f"reward.think = {run.reward.think!r}: choose one of {', '.join(THINK)}")
    _check_amounts(run)
    if run.policy.batch is not None and run.policy.batch < 1:
        raise ConfigError(f"policy.batch = {run.policy.batch}: it must be at least 1 row, or null for all")
    if run.cluster.segment is not None and run.cluster.segment < 1:
        raise ConfigError(f"cluster.segment = {run.cluster.segment}: it must be at least 1 step, or null for all")
    if run.data.limit is not None and run.data.limit < 1:
        raise ConfigError(f"data.limit = {run.data.limit}: it must be at least 1, or null for all rows")
    for name, generator in run.generators.items():
        _check_sampling(name, generator)
    _check_critic(run)
    if run.generator.temperature == 0 and getattr(run.method, "n", 1) > 1:
        raise ConfigError("generator.temperature = 0 makes all draws the same: set method.n=1, or a temperature")
    if check := getattr(plugin.load("method", run.method.name), "validate_generator", None):
        try:
            check(run.method, run.generator)
        except ValueError as error:
            raise ConfigError(str(error)) from None
    if run.seed < 0:
        raise ConfigError(f"seed = {run.seed}: it must not be negative")


def _check_sampling(name: str, generator: GeneratorConfig) -> None:
    if not generator.temperature >= 0:
        raise ConfigError(f"{name}.temperature = {generator.temperature}: it must not be negative")
    if not 0 < generator.top_p <= 1:
        raise ConfigError(f"{name}.top_p = {generator.top_p}: it must lie in (0, 1]")


def _check_critic(run: RunConfig) -> None:
    """A critic that nobody asks would take its GPUs for nothing."""
    if run.critic is None:
        return
    asking = [name for name in plugin.names("method") if "critic" in getattr(plugin.load("method", name), "ROLES", ())]
    if run.method.name not in asking:
        raise ConfigError(
            f"critic: method.name = {run.method.name} asks for no critiques; leave the section out (critic=null), or "
            f"take a method that does: {', '.join(asking)}"
        )


def _check_amounts(run: RunConfig) -> None:
    """Counts of at least 1, shares of at least 0, and times above 0."""
    positive = {
        "data.shard_rows": run.data.shard_rows,
        **{f"{name}.replicas": model.replicas for name, model in run.models.items()},
        **{f"{name}.max_in_flight": model.max_in_flight for name, model in run.models.items()},
        **{f"{name}.max_tokens": generator.max_tokens for name, generator in run.generators.items()},
        "cluster.shards_in_flight": run.cluster.shards_in_flight,
        "cluster.attempts": run.cluster.attempts,
        "policy.lag": run.policy.lag,
    }
    for key, value in positive.items():
        if value < 1:
            raise ConfigError(f"{key} = {value}: it must be at least 1")
    for key, amount in (
        *((f"{name}.cpus", model.cpus) for name, model in run.models.items()),
        *((f"{name}.gpus", model.gpus) for name, model in run.models.items()),
        ("cluster.runner_cpus", run.cluster.runner_cpus),
        ("cluster.flush_s", run.cluster.flush_s),
    ):
        if amount is not None and not 0 <= amount < math.inf:
            raise ConfigError(f"{key} = {amount}: it must be a number of at least 0")
    for section, model in run.models.items():
        for key in ("load_s", "hang_s"):
            seconds = getattr(model, key)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{section}.{key} = {seconds}: give seconds, or null for no limit")
