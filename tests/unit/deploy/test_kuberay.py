"""The manifests for KubeRay, as far as they can be checked without a cluster.

The schema below is written by hand from the published definitions of RayCluster and RayJob, v1,
and covers the fields that are used; fields that it doesn't know are errors. With
``F2L_KUBERAY_CRDS`` naming the folder of KubeRay's own definitions, these are used as well.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray
import yaml

FOLDER = Path(__file__).parents[3] / "deploy" / "kuberay"
TEXT: dict[str, Any] = {"type": "string", "minLength": 1}
COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}


def record(required: str, **properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def items(value: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": value, "minItems": 1}


SECRET = record("name", name=TEXT, optional={"type": "boolean"})
AMOUNTS = record("cpu memory", cpu=TEXT, memory=TEXT)
CONTAINER = record(
    "name image resources volumeMounts",
    name=TEXT,
    image=TEXT,
    env=items(record("name value", name=TEXT, value=TEXT)),
    envFrom=items(record("secretRef", secretRef=SECRET)),
    ports=items(record("containerPort", containerPort=COUNT, name=TEXT)),
    resources=record("requests limits", requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=items(record("mountPath name", mountPath=TEXT, name=TEXT)),
)
CLAIM = record("claimName", claimName=TEXT)
POD = record(
    "containers",
    containers=items(CONTAINER),
    volumes=items(record("name", name=TEXT, persistentVolumeClaim=CLAIM)),
)
PARAMETERS = {"type": "object", "additionalProperties": {"type": "string"}}
HEAD = record(
    "template",
    serviceType={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    rayStartParams=PARAMETERS,
    template=record("spec", spec=POD),
)
WORKERS = record(
    "groupName maxReplicas minReplicas template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    rayStartParams=PARAMETERS,
    template=record("spec", spec=POD),
)
CLUSTER = record(
    "headGroupSpec authOptions",
    rayVersion=TEXT,
    authOptions=record("mode secretName", mode={"const": "token"}, secretName=TEXT),
    headGroupSpec=HEAD,
    workerGroupSpecs=items(WORKERS),
)
JOB = record(
    "entrypoint rayClusterSpec",
    entrypoint=TEXT,
    shutdownAfterJobFinishes={"type": "boolean"},
    ttlSecondsAfterFinished=COUNT,
    backoffLimit=COUNT,
    activeDeadlineSeconds=COUNT,
    rayClusterSpec=CLUSTER,
)
KINDS = {"cluster.yaml": ("RayCluster", CLUSTER), "retrain.yaml": ("RayJob", JOB)}


def manifest(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_manifest_has_the_form_that_kuberay_takes(name):
    kind, spec = KINDS[name]
    whole = record(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"const": kind},
        metadata=record(
            "name", name={"type": "string", "pattern": r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
        ),
        spec=spec,
    )
    jsonschema.validate(manifest(name), whole)
    if folder := os.environ.get("F2L_KUBERAY_CRDS"):
        file = Path(folder) / f"ray.io_{kind.lower()}s.yaml"
        (version,) = (
            v for v in yaml.safe_load(file.read_text())["spec"]["versions"] if v["name"] == "v1"
        )
        jsonschema.validate(manifest(name), plain(version["schema"]["openAPIV3Schema"]))


def plain(schema: Any) -> Any:
    """Kubernetes' own type for numbers with units in the words of JSON Schema."""
    if isinstance(schema, dict):
        if schema.get("x-kubernetes-int-or-string"):
            return {"type": ["integer", "string"]}
        return {key: plain(value) for key, value in schema.items()}
    return [plain(value) for value in schema] if isinstance(schema, list) else schema


def clusters() -> list[dict[str, Any]]:
    return [manifest("cluster.yaml")["spec"], manifest("retrain.yaml")["spec"]["rayClusterSpec"]]


@pytest.mark.parametrize("spec", clusters())
def test_pods_run_the_same_ray_and_see_the_federations_folder(spec):
    assert spec["rayVersion"] == ray.__version__
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        (container,) = pod["containers"]
        assert container["volumeMounts"] == [{"mountPath": "/federation", "name": "federation"}]
        assert [volume["name"] for volume in pod["volumes"]] == ["federation"]
    for group in spec["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_is_what_the_jobs_module_runs():
    words = manifest("retrain.yaml")["spec"]["entrypoint"].split()
    assert words[:3] == ["python", "-m", "server.cluster.jobs"]
    assert len(words) == 6


def test_the_image_has_the_dashboard_that_kuberay_and_jobs_talk_to():
    built = (FOLDER.parent / "Dockerfile").read_text()
    assert "--require-hashes -r deploy/requirements.lock" in built
    # Ray without its extra "default" has neither job server nor health checks over HTTP.
    locked = (FOLDER.parent / "requirements.lock").read_text()
    assert all(
        re.search(rf"^{name}==", locked, re.MULTILINE) for name in ("aiohttp-cors", "obstore")
    )
    project = tomllib.loads((FOLDER.parents[1] / "pyproject.toml").read_text())["project"]
    assert project["optional-dependencies"]["jobs"] == ["ray[default]"]
