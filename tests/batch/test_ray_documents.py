"""The configuration files in docs/batch-cluster.md are what Ray and KubeRay take."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer.core
import typer.main
import yaml

from vinograph.cli.application import application

PAGE = (Path(__file__).parents[2] / "docs" / "batch-cluster.md").read_text(encoding="utf-8")
LAUNCHER, JOB = (yaml.safe_load(each) for each in re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))

# What KubeRay's own definition of a RayJob has, as far as the page uses it.
JOB_FIELDS = {
    *("entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"),
    *("submissionMode", "runtimeEnvYAML", "suspend", "activeDeadlineSeconds"),
}
CLUSTER_FIELDS = {
    *("rayVersion", "authOptions", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec"),
    "workerGroupSpecs",
}
GROUP_FIELDS = {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}


def rays_folder() -> Path:
    spec = importlib.util.find_spec("ray")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent


def test_the_launchers_file_is_valid_by_rays_schema() -> None:
    schema = json.loads((rays_folder() / "autoscaler" / "ray-schema.json").read_text(encoding="utf-8"))
    jsonschema.validate(LAUNCHER, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**LAUNCHER, "max_wrkers": 1}, schema)
    assert LAUNCHER["head_node_type"] in LAUNCHER["available_node_types"]
    assert any("--autoscaling-config" in each for each in LAUNCHER["head_start_ray_commands"])
    assert "--dashboard-host 127.0.0.1" in LAUNCHER["head_start_ray_commands"][-1]


def groups() -> list[dict[str, Any]]:
    cluster = JOB["spec"]["rayClusterSpec"]
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def test_the_job_has_kuberays_fields() -> None:
    assert (JOB["apiVersion"], JOB["kind"]) == ("ray.io/v1", "RayJob")
    assert set(JOB["spec"]) <= JOB_FIELDS
    assert set(JOB["spec"]["rayClusterSpec"]) <= CLUSTER_FIELDS
    assert not [set(each) - GROUP_FIELDS for each in groups() if set(each) - GROUP_FIELDS]
    assert all(isinstance(value, str) for each in groups() for value in each["rayStartParams"].values())


def test_all_pods_have_the_same_image_and_volumes() -> None:
    pods = [each["template"]["spec"] for each in groups()]
    containers = [each["containers"][0] for each in pods]
    assert len({each["image"] for each in containers}) == 1
    assert JOB["spec"]["rayClusterSpec"]["rayVersion"] in containers[0]["image"]
    for pod, container in zip(pods, containers, strict=True):
        assert {each["name"] for each in container["volumeMounts"]} == {each["name"] for each in pod["volumes"]}
        assert {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"} in container["env"]
        assert container["resources"]["limits"] == container["resources"]["requests"]


def test_the_commands_on_the_page_have_options_that_exist() -> None:
    known = typer.main.get_command(application())
    assert isinstance(known, typer.core.TyperGroup)
    options = {each for parameter in known.commands["batch"].params for each in parameter.opts}
    lines = [*re.findall(r"vinograph batch [^'`\n]*", PAGE), JOB["spec"]["entrypoint"]]
    commands = [words for line in lines if "--ray" in (words := shlex.split(line))]
    assert len(commands) >= 4
    assert not [each for words in commands for each in words if each.startswith("--") and each not in options]
