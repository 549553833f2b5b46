"""What is wrong with a whole run's settings, as far as no plugin can tell for itself: ranges, and what must be set."""

from __future__ import annotations

import math

from pipeline import plugin
from pipeline.errors import ConfigError
from pipeline.kernels.pairing import RULES
from pipeline.sections import DataConfig, GeneratorConfig, Replicas, RewardConfig, RunConfig, reward_column

FORMATS = ("pairs", "unpaired", "sft", "candidates")
FORMS = ("conversational", "text")
LENGTHS = ("characters", "tokens")
TEMPLATES = ("auto", "chat", "raw")
THINK = ("strip", "keep")
TAKEN = ("calls",)
"""Names that no further reward model may have: ``reward_calls`` is what a report counts."""
RAYS_OWN = ("CPU", "GPU", "memory")
"""Resources that every machine of a cluster has, by Ray's names."""


def check_run(run: RunConfig) -> None:
    """Raises ``ConfigError`` that names the key and what is valid."""
    if not run.out:
        raise ConfigError("out: name the run's directory, e.g. out=runs/first (any fsspec URL)")
    _check_data(run)
    _check_rewards(run)
    _check_amounts(run)
    _check_export(run)
    if run.policy.batch is not None and run.policy.batch < 1:
        raise ConfigError(f"policy.batch = {run.policy.batch}: it must be at least 1 row, or null for all")
    if run.cluster.segment is not None and run.cluster.segment < 1:
        raise ConfigError(f"cluster.segment = {run.cluster.segment}: it must be at least 1 step, or null for all")
    for name, generator in run.generators.items():
        _check_sampling(name, generator)
    _check_draws(run)
    _check_critic(run)
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


def _check_data(run: RunConfig) -> None:
    data = run.data
    if not data.input:
        raise ConfigError("data.input: name a Parquet or JSON lines file, a glob or a list of them")
    if not _is_texts(data.input):
        raise ConfigError(f"data.input = {data.input!r}: expected a path, a glob or a list of them")
    for key in ("responses", "transcript", "reference"):
        value = getattr(data, key)
        if value is not None and (not value or not _is_texts(value)):
            raise ConfigError(f"data.{key} = {value!r}: expected a column or a list of columns")
    if data.responses is not None and data.transcript is not None:
        raise ConfigError("data.responses and data.transcript: name one of them, transcripts hold responses already")
    if data.transcript is not None and data.prompt != DataConfig.prompt:
        raise ConfigError(
            f"data.prompt = {data.prompt!r} and data.transcript: transcripts begin with their prompts, and no other "
            "column is read for them; leave data.prompt out, or data.transcript, and name columns of responses "
            "(data.responses)"
        )
    needs = getattr(plugin.load("method", run.method.name), "NEEDS_RESPONSES", False)
    if needs and data.responses is None and data.transcript is None:
        raise ConfigError(
            f"data.responses: method {run.method.name} scores responses that the input has; name the column or columns "
            "that hold them, or data.transcript where they are the ends of whole conversations"
        )
    _check_reference(run)
    if data.template not in TEMPLATES:
        raise ConfigError(f"data.template = {data.template!r}: choose one of {', '.join(TEMPLATES)}")
    if data.limit is not None and data.limit < 1:
        raise ConfigError(f"data.limit = {data.limit}: it must be at least 1, or null for all rows")


def _check_reference(run: RunConfig) -> None:
    """Rewards that depend on columns of the row have them all."""
    named = run.data.reference
    for name, section in run.scorers.items():
        usual = section.reference_columns
        if not section.needs_reference or (named is not None and len(run.data.reference_columns) == len(usual)):
            continue
        if len(usual) > 1:
            raise ConfigError(
                f"data.reference = {'null' if named is None else named}: {name} engine {section.engine} goes by "
                f"{len(usual)} columns; name them in order, as in data.reference=[{','.join(usual)}]"
            )
        if named is not None:
            raise ConfigError(f"data.reference = {named}: {name} engine {section.engine} goes by one column; name one")
        raise ConfigError(
            f"data.reference: {name} engine {section.engine} compares responses with right answers or with other "
            "responses; name the column that holds them"
        )


def _check_rewards(run: RunConfig) -> None:
    """Every reward section, and the names of the further ones, which become columns."""
    for name, section in run.scorers.items():
        if section.think not in THINK:
            raise ConfigError(f"{name}.think = {section.think!r}: choose one of {', '.join(THINK)}")
    own = {column.lower(): column for column in plugin.columns(run.method.name)}
    seen: dict[str, str] = {}
    for name in run.rewards:
        if not (name.isidentifier() and name.isascii()):
            raise ConfigError(
                f"rewards: {name!r} is no name for a column; use letters, digits and underscores, a letter first"
            )
        if name in TAKEN or name.endswith(("_low", "_high")):
            raise ConfigError(
                f"rewards.{name}: {reward_column(name)} is something else in reports; choose another name"
            )
        if (other := seen.setdefault(name.lower(), name)) != name:
            raise ConfigError(
                f"rewards.{name} and rewards.{other}: readers of tables may take them for one; rename one"
            )
        if (column := reward_column(name)).lower() in own:
            raise ConfigError(
                f"rewards.{name}: the results of method {run.method.name} have a column {column} already; call it "
                "something else"
            )


def _is_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(item, str) for item in value))


def _check_draws(run: RunConfig) -> None:
    if run.generator.none and plugin.draws(run.method):
        raise ConfigError(f"generator.engine = none: method {run.method.name} draws, so name a generator")
    if run.generator.temperature == 0 and getattr(run.method, "n", 1) > 1:
        raise ConfigError("generator.temperature = 0 makes all draws the same: set method.n=1, or a temperature")


def _check_export(run: RunConfig) -> None:
    export = run.export
    for name in export.formats:
        if name not in FORMATS:
            raise ConfigError(f"export.formats holds {name!r}: choose any of {', '.join(FORMATS)}")
    for name in export.agree:
        if name not in run.rewards:
            there = f"there are: {', '.join(run.rewards)}" if run.rewards else "this run has none"
            raise ConfigError(f"export.agree holds {name!r}: name further reward models (rewards.NAME); {there}")
    for key, known in (("form", FORMS), ("rule", RULES), ("length", LENGTHS)):
        if (value := getattr(export, key)) not in known:
            raise ConfigError(f"export.{key} = {value!r}: choose one of {', '.join(known)}")
    for key, least in (("margin", 0), ("max_ratio", 1), ("max_difference", 0), ("seed", 0)):
        if (amount := getattr(export, key)) is not None and not least <= amount < math.inf:
            raise ConfigError(f"export.{key} = {amount}: it must be a number of at least {least}")
    if export.threshold is not None and not math.isfinite(export.threshold):
        raise ConfigError(f"export.threshold = {export.threshold}: give a reward, or null for the median of all")


def _least_key(name: str, model: GeneratorConfig | RewardConfig) -> str:
    """The key that says how many replicas there are at least."""
    return f"{name}.replicas.min" if isinstance(model.replicas, Replicas) else f"{name}.replicas"


def _check_amounts(run: RunConfig) -> None:
    """Counts of at least 1, shares of at least 0, and times above 0."""
    positive = {
        "data.shard_rows": run.data.shard_rows,
        **{_least_key(name, model): model.bounds.min for name, model in run.models.items() if model.engine != "none"},
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
        ("cluster.node_wait_s", run.cluster.node_wait_s),
        ("cluster.idle_s", run.cluster.idle_s),
    ):
        if amount is not None and not 0 <= amount < math.inf:
            raise ConfigError(f"{key} = {amount}: it must be a number of at least 0")
    for name, model in run.models.items():
        if model.bounds.min > model.bounds.max:
            raise ConfigError(
                f"{name}.replicas.min = {model.bounds.min}: it must not be more than {name}.replicas.max = "
                f"{model.bounds.max}"
            )
    resources = {f"{name}.resources": model.resources for name, model in run.models.items()}
    for key, taken in (resources | {"cluster.runner_resources": run.cluster.runner_resources}).items():
        for name, amount in taken.items():
            if name in RAYS_OWN or not 0 < amount < math.inf:
                raise ConfigError(
                    f"{key}.{name} = {amount}: give a positive amount of a resource that machines were started with"
                    f" ({', '.join(RAYS_OWN)} have keys of their own)"
                )
    for section, model in run.models.items():
        for key in ("load_s", "hang_s"):
            seconds = getattr(model, key)
            if seconds is not None and not seconds > 0:
                raise ConfigError(f"{section}.{key} = {seconds}: give seconds, or null for no limit")
