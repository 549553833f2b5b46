"""The command: checks a run's configuration as ``raylign submit`` does, and writes the RayJob that runs it."""

from __future__ import annotations

import json
import math
import os
import re
import sys
from collections.abc import Mapping
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from actors.cluster import ENVIRONMENT
from actors.needs import need_of
from jobs.command import guarded, split
from jobs.manifest.groups import PodConfig, groups
from jobs.relabel import with_rescore
from jobs.shipment import placed
from jobs.submit import in_job
from pipeline.config import build, dump, merge, section
from pipeline.errors import ConfigError
from pipeline.sections import RunConfig

USAGE = """
usage: raylign manifest COMMAND [CONF.yaml ...] [key=value ...] kube.image=IMAGE > job.yaml

Writes a run (align or relabel) as a RayJob for a Kubernetes cluster that has KubeRay: a head without GPUs, and groups
of pods for generators, reward models and runners that the autoscaler brings when the run asks for them. The
configuration is checked here and stands in the manifest. The run's directory and input must be URLs of an object
store; a job that is begun again, on a fresh cluster, goes on from there.

  raylign manifest align conf/job/best_of_n.yaml data.input=s3://b/prompts.parquet out=s3://b/run \\
      generator.model=Qwen/Qwen2.5-7B-Instruct reward.model=Skywork/Skywork-Reward-V2-Llama-3.1-8B \\
      kube.image=registry.example.com/raylign:0.1 'kube.secrets=[storage-keys]' > job.yaml
  kubectl apply -f job.yaml

image             has Raylign, the packages of requirements/gpu.lock and this Ray (the only key that must be given)
name              of the job
cpus, memory_gib              of pods without GPUs
gpu_cpus, gpu_memory_gib      of pods with GPUs, for each GPU
gpu, gpu_nodes                resource of Kubernetes; labels of the nodes to use, {label: value}
environment, secrets          variables of all containers; names of secrets whose keys become variables
service_account               of the pods, where that opens the storage
retries           how often the job is begun again (3)

They may stand in a file of their own, as a section `kube`. Exit status: 0 written; 2 bad configuration.
"""
COMMANDS = ("align", "relabel")
NAME = re.compile(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?")
"""Of a RayJob: Kubernetes takes it for names of services, and KubeRay adds to it."""
SETTINGS = "job.yaml"
NOWHERE = Path(os.devnull)
"""Where packages would lie that travel with the job: none do, they are in the image."""
LOCAL = ("file://", "local://", "memory://")
NODE_WAIT_S = 1800.0
"""How long pods may take to come, unless ``cluster.node_wait_s`` says so."""


def main(arguments: list[str] | None = None) -> int:
    """The command; returns its exit status."""
    return guarded("manifest", USAGE, sys.argv[1:] if arguments is None else arguments, _work)


def _work(arguments: list[str]) -> int:
    print(manifest(arguments), end="")
    return 0


def manifest(arguments: list[str]) -> str:
    """The manifest of a command with its arguments. Raises ``ConfigError``."""
    command, *rest = arguments or [""]
    if command not in COMMANDS:
        raise ConfigError(f"name the command that the job is to run, {' or '.join(COMMANDS)}, and not {command!r}")
    settings = merge(*split(rest))
    pods = _pods(settings.pop("kube", None) or {}, command)
    settings = with_rescore(settings) if command == "relabel" else settings
    run = build(settings)
    _check_places(settings, run)
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["quoted"] = json.dumps  # what JSON quotes, YAML reads
    template = environment.from_string(files(__package__).joinpath("rayjob.yaml.j2").read_text())
    return template.render(
        pods=pods,
        command=command,
        out=run.out,
        groups=groups(run, pods),
        settings=dump(_in_pods(settings, run)),
        file=SETTINGS,
        variables={**ENVIRONMENT, **pods.environment},
        ray=version("ray"),
    )


def _pods(settings: Any, command: str) -> PodConfig:
    if not isinstance(settings, Mapping):
        raise ConfigError(f"kube = {settings!r}: expected settings, as in kube.image=...")
    pods = section("kube", PodConfig, settings)
    if not pods.image:
        raise ConfigError(
            "kube.image: name the image that has Raylign and its packages, e.g. kube.image=registry/raylign:1"
        )
    pods.name = pods.name or f"raylign-{command}"
    if not NAME.fullmatch(pods.name):
        raise ConfigError(
            f"kube.name = {pods.name!r}: give at most 47 small letters, digits and dashes, a letter first"
        )
    for key in ("cpus", "memory_gib", "gpu_cpus", "gpu_memory_gib"):
        if not 0 < getattr(pods, key) < math.inf:
            raise ConfigError(f"kube.{key} = {getattr(pods, key)}: it must be more than 0")
    if pods.retries < 0:
        raise ConfigError(f"kube.retries = {pods.retries}: it must not be negative")
    return pods


def _check_places(settings: Mapping[str, Any], run: RunConfig) -> None:
    """Raises ``ConfigError`` for what lies on this machine: no pod sees it, and none sees another's disk."""
    inputs = run.data.input if isinstance(run.data.input, list) else [run.data.input]
    named = [run.out, run.journal or "", *inputs]
    here = [*placed(settings, NOWHERE)[1], *(url for url in named if url.startswith(LOCAL))]
    if here:
        raise ConfigError(
            f"{', '.join(here)}: pods see no disk of this machine, and a job that is begun again has other pods; "
            "give URLs of an object store (s3://..., gs://...) for out, journal and data.input, and models by their "
            "names on the Hub or their paths in the image"
        )


def _in_pods(settings: Mapping[str, Any], run: RunConfig) -> dict[str, Any]:
    """The settings in the manifest. GPUs stand in them, since the cluster may begin without any."""
    found = in_job(settings)
    found["cluster"] = {"node_wait_s": NODE_WAIT_S, **found["cluster"]}
    for role, model in [*run.models.items(), *run.scorers.items()]:
        if model.bounds.max:
            gpus = {"gpus": need_of(role, model, there=True).gpus}
            own, _, name = role.partition(".")
            found[own] = {**found[own], **({name: {**found[own][name], **gpus}} if name else gpus)}
    return found
