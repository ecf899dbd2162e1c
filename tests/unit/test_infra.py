"""The files in infra/ against published schemas, and what they promise: secrets by reference alone,
no port open to others, commands that exist.

KubeRay publishes no schema on the package index: what its objects may hold is written down here,
from its published types, as far as we use it; the pods in them meet Kubernetes' own schema.
"""

import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from ray.scripts.scripts import start as ray_start

INFRA = Path(__file__).parents[2] / "infra"
SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|AUTH_STRING|CREDENTIALS|ACCESS_KEY")

Tree = dict[str, Any]


def closed(required: Tree, **more: Tree) -> Tree:
    """An object of these keys alone."""
    both = {**required, **more}
    return {"required": [*required], "properties": both, "additionalProperties": False}


TEXT, WHOLE, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}
LABELS = {"type": "object", "additionalProperties": TEXT}
POD = {"type": "object", "required": ["spec"]}  # by Kubernetes' own schema
HEAD = closed({"rayStartParams": LABELS, "template": POD})
WORKERS = closed(
    {"groupName": TEXT, "minReplicas": WHOLE, "maxReplicas": WHOLE, "template": POD},
    replicas=WHOLE,
    rayStartParams=LABELS,
)
AUTOSCALER = closed(
    {},
    idleTimeoutSeconds=WHOLE,
    upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
    resources={"type": "object"},
)
SPECS = {
    "RayCluster": closed(
        {"headGroupSpec": HEAD, "workerGroupSpecs": {"type": "array", "items": WORKERS}},
        rayVersion=TEXT,
        enableInTreeAutoscaling=FLAG,
        autoscalerOptions=AUTOSCALER,
    ),
    "RayJob": closed(
        {"entrypoint": TEXT},
        clusterSelector=LABELS,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        activeDeadlineSeconds=WHOLE,
        submitterPodTemplate=POD,
    ),
}


def kubernetes_objects() -> list[Tree]:
    files = sorted((INFRA / "kuberay").glob("*.yaml"))
    return [found for file in files for found in yaml.safe_load_all(file.read_text())]


def pods() -> Iterator[Tree]:
    """The spec of every pod in the objects of KubeRay."""
    for found in kubernetes_objects():
        spec = found["spec"]
        for group in [spec.get("headGroupSpec"), *spec.get("workerGroupSpecs", [])]:
            if group:
                yield group["template"]["spec"]
        if "submitterPodTemplate" in spec:
            yield spec["submitterPodTemplate"]["spec"]


def compose() -> Tree:
    return yaml.safe_load((INFRA / "compose.yaml").read_text())


def test_compose_meets_the_compose_specification() -> None:
    schemas = resources.files("check_jsonschema") / "builtin_schemas" / "vendor"
    schema = json.loads((schemas / "compose-spec.json").read_text())
    jsonschema.validate(compose(), schema)


def test_kubernetes_objects_meet_their_schemas() -> None:
    kinds = []
    for found in kubernetes_objects():
        kinds.append(found["kind"])
        if found["kind"] in SPECS:
            assert found["apiVersion"] == "ray.io/v1"
            jsonschema.validate(found["spec"], SPECS[found["kind"]])
        else:
            kubernetes_validate.validate(found, "1.30", strict=True)
    assert kinds == ["RayCluster", "NetworkPolicy", "RayJob"]
    for spec in pods():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec}
        kubernetes_validate.validate(pod, "1.30", strict=True)


def test_pods_are_checked_asked_for_and_free_of_service_variables() -> None:
    found = list(pods())
    assert len(found) == 4
    for spec in found:
        # variables of a service named rum-... would be refused as settings that do not exist
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        for container in spec["containers"]:
            assert {"cpu", "memory"} <= set(container["resources"]["requests"])
            mounted = {mount["name"] for mount in container.get("volumeMounts", [])}
            assert mounted == {volume["name"] for volume in spec.get("volumes", [])}
            assert container["name"] == "ray-job-submitter" or "readinessProbe" in container


def test_versions_are_those_that_the_tests_have_seen() -> None:
    cluster = kubernetes_objects()[0]["spec"]
    assert cluster["rayVersion"] == version("ray")
    image = f"rum-nightly:{version('rum-nightly')}"
    assert compose()["x-rum"]["image"] == image
    assert all(spec["containers"][0]["image"].endswith(f"/{image}") for spec in pods())


def test_secrets_stand_nowhere_but_by_reference() -> None:
    given = {}
    for service in compose()["services"].values():
        given |= service.get("environment", {})
    for spec in pods():
        for variable in spec["containers"][0].get("env", []):
            given[variable["name"]] = variable.get("value")
    held = {name: value for name, value in given.items() if SECRET.search(name) and value}
    assert held
    assert all(str(value).startswith(("/run/secrets/", "/etc/rum/")) for value in held.values())
    secrets = compose()["secrets"]
    assert all(place["file"].startswith("secrets/") for place in secrets.values())
    ignored = (INFRA.parent / ".gitignore").read_text().splitlines()
    assert {"/infra/secrets/", "/infra/rum.env"} <= set(ignored)


def test_compose_opens_loopback_alone_and_checks_every_server() -> None:
    services = compose()["services"]
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert sorted(ports) == ["127.0.0.1:4200:4200", "127.0.0.1:8265:8265"]
    for name, service in services.items():
        assert service["networks"] == ["inside"]
        assert name == "deploy" or "healthcheck" in service
        assert name == "deploy" or "limits" in service["deploy"]["resources"]


def test_ray_commands_have_flags_that_ray_knows() -> None:
    known = {flag for parameter in ray_start.params for flag in parameter.opts}
    commands = [s["command"] for s in compose()["services"].values() if s.get("command")]
    flags = {
        word.split("=")[0]
        for command in commands
        if command[:2] == ["ray", "start"]
        for word in command[2:]
    }
    for group in [kubernetes_objects()[0]["spec"]["headGroupSpec"]]:
        flags |= {f"--{name}" for name in group["rayStartParams"]}
    assert {"--head", "--address"} <= flags <= known


def test_image_copies_what_is_there() -> None:
    copied = [
        word
        for line in (INFRA / "Dockerfile").read_text().splitlines()
        if line.startswith("COPY ")
        for word in shlex.split(line)[1:-1]
    ]
    assert {"rum_core", "jobs", "flows", "infra"} <= set(copied)
    assert all((INFRA.parent / path).exists() for path in copied)


@pytest.mark.parametrize(("name", "seen"), [("RUM_X", "one two"), ("rum_x", "")])
def test_a_secret_file_becomes_a_variable_if_its_name_is_one(
    tmp_path: Path, name: str, seen: str
) -> None:
    (tmp_path / name).write_text("one two")
    done = subprocess.run(
        [INFRA / "with-secrets.sh", "sh", "-c", f'printf %s "${{{name}:-}}"'],
        env={"PATH": os.environ["PATH"], "SECRETS": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == seen


def test_alive_tells_by_its_status() -> None:
    alive = ["python3", str(INFRA / "alive.py"), "http://127.0.0.1:1/health"]
    done = subprocess.run(alive, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("http://127.0.0.1:1/health: ")
