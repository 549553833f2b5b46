"""RayJobs rendered from configurations: groups of pods, what is refused, and what Ray's autoscaler reads in them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from actors.room import Need, Room, place
from jobs.manifest.command import main, manifest
from pipeline.config import build
from pipeline.errors import ConfigError
from pipeline.sections import Replicas

KUBERNETES = ("1.25", "1.37")
"""The oldest version and the newest one whose published schemas are at hand."""
IMAGE = "kube.image=registry.example.com/raylign:1"
STORED = ["data.input=s3://b/p.parquet", "out=s3://b/run", IMAGE]
LARGE = ["conf/job/best_of_n.yaml", *STORED, "generator.model=org/large", "reward.model=org/reward"]


def rendered(*arguments: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, dict[str, Any]]]:
    """The job's spec, the settings that travel with it, and the groups by name."""
    settings, job = yaml.safe_load_all(manifest(list(arguments)))
    assert (job["apiVersion"], job["kind"], settings["kind"]) == ("ray.io/v1", "RayJob", "ConfigMap")
    groups = {group["groupName"]: group for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]}
    return job["spec"], yaml.safe_load(settings["data"]["job.yaml"]), groups


def limits(group: dict[str, Any]) -> dict[str, str]:
    [container] = group["template"]["spec"]["containers"]
    assert container["resources"]["limits"] == container["resources"]["requests"]
    return dict(container["resources"]["limits"])


def test_each_model_has_a_group_with_the_gpus_of_its_replicas() -> None:
    tp = ["generator.tensor_parallel_size=4", "generator.replicas=6", "cluster.shards_in_flight=40"]
    spec, settings, groups = rendered("align", *LARGE, *tp)
    assert {name: (g["maxReplicas"], limits(g).get("nvidia.com/gpu")) for name, g in groups.items()} == {
        "generator": (6, "4"),
        "reward": (1, "1"),
        "cpus": (3, None),  # 40 runners of a quarter of a CPU on pods with four
    }
    assert all((g["replicas"], g["minReplicas"]) == (0, 0) for g in groups.values())
    assert limits(groups["generator"]) == {"cpu": "32", "memory": "256Gi", "nvidia.com/gpu": "4"}
    assert spec["entrypoint"] == "exec raylign align /etc/raylign/job.yaml --accept-rejects"
    assert (spec["backoffLimit"], spec["shutdownAfterJobFinishes"]) == (3, True)
    head = spec["rayClusterSpec"]["headGroupSpec"]
    assert head["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in limits(head)
    run = build(settings)
    assert (run.generator.gpus, run.reward.gpus) == (4, 1), "a cluster that has no GPUs yet would be asked for none"
    assert (run.cluster.address, run.cluster.node_wait_s, run.out) == ("auto", 1800, "s3://b/run")
    [settings_volume] = head["template"]["spec"]["volumes"]
    mounts = {m["name"]: m["mountPath"] for m in head["template"]["spec"]["containers"][0]["volumeMounts"]}
    assert mounts[settings_volume["name"]] == "/etc/raylign"
    assert settings_volume["configMap"]["name"] == "raylign-align-settings"


def test_what_draws_nothing_has_no_generator() -> None:
    given = ["relabel", "conf/job/relabel.yaml", *STORED, "data.responses=responses", "reward.model=org/reward"]
    _, settings, groups = rendered(*given)
    assert set(groups) == {"reward", "cpus"}
    assert "gpus" not in settings.get("generator", {})
    _, _, groups = rendered(*given, "method=best_of_n", "method.n=2", "generator.model=org/large")
    assert set(groups) == {"generator", "reward", "cpus"}


def test_models_without_gpus_share_pods_with_the_runners() -> None:
    _, settings, groups = rendered("align", *STORED, "generator=toy", "reward=toy", "generator.replicas=7")
    assert {name: g["maxReplicas"] for name, g in groups.items()} == {"cpus": 2}  # 8 x 0.5 and 4 x 0.25
    assert settings["generator"]["gpus"] == 0
    _, _, groups = rendered("align", *LARGE, "critic.model=org/critic", "method=tpo", "generator.gpus=0")
    assert set(groups) == {"critic", "reward", "cpus"}


def test_replicas_that_share_gpus_share_pods() -> None:
    shared = ["generator.gpus=0.6", "generator.gpu_memory_utilization=0.5", "generator.replicas=3"]
    shared += ["reward.gpus=0.4", "reward.gpu_memory_utilization=0.3", "reward.replicas=4"]
    _, _, groups = rendered("align", *LARGE, *shared)
    assert set(groups) == {"shared-gpus", "cpus"}
    assert groups["shared-gpus"]["maxReplicas"] == 4
    assert limits(groups["shared-gpus"])["nvidia.com/gpu"] == "1"


def test_replicas_that_come_and_go_have_pods_that_do() -> None:
    bounds = ["generator.replicas.min=2", "generator.replicas.max=6", "generator.tensor_parallel_size=2"]
    _, settings, groups = rendered("align", *LARGE, *bounds)
    pods = {name: (g["replicas"], g["minReplicas"], g["maxReplicas"]) for name, g in groups.items()}
    assert pods == {"generator": (2, 2, 6), "reward": (0, 0, 1), "cpus": (0, 0, 1)}
    run = build(settings)
    assert (run.generator.bounds, run.generator.gpus) == (Replicas(2, 6), 2)
    assert "# 2 to 6 x generator: org/large\n" in manifest(["align", *LARGE, *bounds])
    _, _, groups = rendered("align", *STORED, "generator=toy", "reward=toy", *bounds[:1], "generator.replicas.max=14")
    assert groups["cpus"]["maxReplicas"] == 3, "pods that are shared with runners have room for all"


def test_further_reward_models_have_pods_and_equal_ones_share_them() -> None:
    more = ["rewards.My_big=vllm", "rewards.My_big.model=org/big", "rewards.My_big.replicas=2"]
    same = ["rewards.same=vllm", "rewards.same.model=org/reward"]
    _, settings, groups = rendered("align", *LARGE, *more, *same)
    assert {name: g["maxReplicas"] for name, g in groups.items()} == {
        "generator": 1,
        "reward": 1,
        "rewards-my-big": 2,
        "cpus": 1,
    }
    run = build(settings)
    assert [section.gpus for section in run.scorers.values()] == [1, 1, 1]
    assert list(run.models) == ["generator", "reward", "rewards.My_big"]


def test_secrets_accounts_and_nodes_stand_where_they_belong(tmp_path: Path) -> None:
    kube = tmp_path / "kube.yaml"
    kube.write_text(
        "kube:\n  secrets: [storage, hub]\n  service_account: runs\n  gpu_nodes: {pool: 'true'}\n"
        "  environment: {AWS_REGION: 'eu-1'}\n  retries: 0\n  name: nightly\n"
    )
    spec, settings, groups = rendered("align", *LARGE, str(kube))
    assert "kube" not in settings
    assert spec["backoffLimit"] == 0
    for group in (spec["rayClusterSpec"]["headGroupSpec"], *groups.values()):
        pod = group["template"]["spec"]
        [container] = pod["containers"]
        assert pod["serviceAccountName"] == "runs"
        assert container["image"] == "registry.example.com/raylign:1"
        assert [source["secretRef"]["name"] for source in container["envFrom"]] == ["storage", "hub"]
        assert {"name": "AWS_REGION", "value": "eu-1"} in container["env"]
    assert groups["generator"]["template"]["spec"]["nodeSelector"] == {"pool": "true"}
    assert "nodeSelector" not in groups["cpus"]["template"]["spec"]


def test_rays_autoscaler_reads_groups_that_hold_the_run() -> None:
    """As KubeRay's does, with Ray's own code: the nodes that it may bring have room for all that is asked."""
    resources = ["generator.resources.fast=1", "cluster.runner_resources.rows=0.5", "generator.tensor_parallel_size=2"]
    spec, settings, _ = rendered("align", *LARGE, *resources, "generator.replicas=3", "cluster.shards_in_flight=20")
    cluster = {"metadata": {"name": "run", "namespace": "default"}, "spec": spec["rayClusterSpec"]}
    read = _derive_autoscaling_config_from_ray_cr(cluster)
    types = read["available_node_types"]
    assert {name: node["max_workers"] for name, node in types.items()} == {
        "headgroup": 0,
        "generator": 3,
        "reward": 1,
        "runners": 2,
    }
    assert types["generator"]["resources"] | {"memory": 0} == {"CPU": 16, "GPU": 2, "fast": 1, "memory": 0}
    run = build(settings)
    needs = [Need("generator", 0.5, 2, resources=run.generator.resources)] * 3 + [Need("reward", 0.5, 1)]
    runners = [Need("runner", 0.25, resources=run.cluster.runner_resources)] * 20
    rooms = [
        Room(float(have["CPU"]), [1.0] * have.get("GPU", 0), resources=dict(have))
        for have, count in ((node["resources"], node["max_workers"]) for node in types.values())
        for _ in range(count)
    ]
    assert place(rooms, [*needs, *runners]) is None


def check_schemas(text: str) -> None:
    """What Kubernetes has schemas for: the settings, and the pods of every group. Raises for unknown fields."""
    settings, job = yaml.safe_load_all(text)
    assert isinstance(job["metadata"]["name"], str)
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": group["template"]}
        for kind, version in itertools.product((settings, pod), KUBERNETES):
            kubernetes_validate.validate(kind, version, strict=True)


@pytest.mark.parametrize(
    "arguments",
    [
        ["align", *LARGE],
        ["align", *STORED, "generator=toy", "reward=toy"],
        ["align", *LARGE, "generator.replicas.min=2", "generator.replicas.max=6", "cluster.runner_resources.rows=0.5"],
        ["align", *LARGE, "generator.gpus=0.6", "generator.gpu_memory_utilization=0.5", "kube.gpu_memory_gib=0.5"],
        ["relabel", "conf/job/relabel.yaml", *STORED, "data.responses=responses", "reward.model=org/reward"],
        ["align", *LARGE, "kube.secrets=[storage,hub]", "kube.service_account=runs", "kube.gpu_nodes.pool=gpus"],
        [  # names that are no texts to YAML, unless they are quoted
            *["align", *LARGE, "kube.name='on'", "kube.secrets=['12']", "kube.service_account='34'"],
            *["kube.gpu_nodes={'56': 'true'}", "kube.environment={'NO': '7'}"],
        ],
    ],
)
def test_pods_are_what_the_published_schemas_of_kubernetes_allow(arguments: list[str], in_root: Path) -> None:
    check_schemas(manifest(arguments))


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("volumeMounts", "volumeMount"), ("containerPort: 8080", "containerPort: http"), ("emptyDir", "emptydir")],
)
def test_what_the_schemas_do_not_allow_is_found(right: str, wrong: str, in_root: Path) -> None:
    with pytest.raises(kubernetes_validate.ValidationError):
        check_schemas(manifest(["align", *LARGE]).replace(right, wrong))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["align", *LARGE, "out=runs/x"], r"runs/x: pods see no disk of this machine"),
        (["align", *LARGE, "journal=file:///mnt/j"], r"file:///mnt/j: pods see no disk"),
        (["align", *LARGE, "data.input=demo/test.parquet"], r"demo/test.parquet: pods see no disk"),
        (["align", *LARGE, "generator.model=demo/generator"], r"demo/generator: pods see no disk"),
        ([a for a in ("align", *LARGE) if a != IMAGE], "kube.image: name the image"),
        (["align", *LARGE, "kube.name=Bad_Name"], "kube.name = 'Bad_Name'"),
        (["align", *LARGE, "kube.gpuz=3"], "unknown key 'kube.gpuz'"),
        (["align", *LARGE, "kube=large"], "kube = 'large': expected settings"),
        (["align", *LARGE, "kube.cpus=0"], "kube.cpus = 0: it must be more than 0"),
        (["align", *LARGE, "generator.cpus=9"], "generator.cpus = 9, but its pods have 8 CPUs: raise kube.gpu_cpus"),
        (["align", *LARGE, "cluster.runner_cpus=9"], "cluster.runner_cpus = 9, but its pods have 4 CPUs"),
        (["align", *LARGE, "method.m=3"], "unknown key 'method.m'"),
        (["bench"], "name the command that the job is to run, align or relabel, and not 'bench'"),
        ([], "name the command"),
    ],
)
def test_what_no_pod_could_run_is_refused(arguments: list[str], said: str, in_root: Path) -> None:
    with pytest.raises(ConfigError, match=said):
        manifest(arguments)


def test_the_command_writes_it_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", *LARGE]) == 0
    assert len(list(yaml.safe_load_all(capsys.readouterr().out))) == 2
    assert main(["align", *LARGE, "out=runs/x"]) == 2
    said = capsys.readouterr()
    assert (said.out, "raylign manifest: " in said.err) == ("", True)


def test_values_that_yaml_would_misread_stay_what_they_are() -> None:
    hard = json.dumps({"A": "no", "B": "1e3", "C": 'say "hi": {x}'})
    spec, _, groups = rendered("align", *LARGE, f"kube.environment={hard}", "kube.gpu_nodes={'on': 'no'}")
    assert groups["generator"]["template"]["spec"]["nodeSelector"] == {"on": "no"}
    [container] = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"]
    told = {variable["name"]: variable["value"] for variable in container["env"]}
    assert (told["A"], told["B"], told["C"]) == ("no", "1e3", 'say "hi": {x}')
