"""Helm's own engine renders the chart, the manifests are valid Kubernetes, and checkov and the program accept them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.cli.main import cli
from tests.conftest import ROOT

CHART = ROOT / "deploy" / "helm" / "elle-router"
BIN = ROOT / ".venv-chart" / "bin"

#: Every feature at once.
EVERYTHING: dict[str, Any] = {
    "image": {"repository": "registry.example/elle-router", "digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "args": ["--workers=2"],
    "secrets": {"environment": "elle-environment", "tls": "elle-tls", "tokens": "elle-tokens", "state": "elle-state"},
    "policyConfigMap": "elle-policy",
    "autoscaling": {"queueMilliseconds": 50},
    "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
    "networkPolicy": {"from": [{"namespaceSelector": {}}], "to": [{"ports": [{"port": 443, "protocol": "TCP"}]}]},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "routing", "operator": "Exists"}],
}

#: What checkov finds and we leave: a tag instead of a digest is the default only because nobody publishes an image, and
#: secrets as environment variables are how upstreams' libraries take their keys.
LEFT = "CKV_K8S_43,CKV_K8S_35"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def rendered(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Lint and render the chart; return its objects by kind."""
    done = run("python", str(CHART.parent / "render.py"), str(CHART), json.dumps(values))
    found = json.loads(done.stdout)
    assert found["lint"]["errors"] == []
    assert all(one["severity"] <= 1 for one in found["lint"]["messages"]), found["lint"]
    objects = [one for text in found["manifests"].values() for one in yaml.safe_load_all(text) if one]
    return {one["kind"]: one for one in objects}


def run(program: str, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    if not (BIN / program).exists():
        pytest.skip(f"{program} is not in .venv-chart; `make test-chart` installs it")
    done = subprocess.run([str(BIN / program), *arguments], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("values", [{}, EVERYTHING, {"autoscaling": {"enabled": False}}])
def test_manifests_are_valid_and_a_scanner_finds_no_weakness(values: dict[str, Any], tmp_path: Path) -> None:
    objects = rendered(values)
    # Kubernetes itself does not know the monitor, which is Prometheus' own kind.
    known = {kind: one for kind, one in objects.items() if kind != "ServiceMonitor"}
    for kind, one in known.items():
        (tmp_path / f"{kind}.yaml").write_text(yaml.safe_dump(one))
    run("kubernetes-validate", "--strict", *(str(path) for path in sorted(tmp_path.iterdir())))
    # Without --skip-download it asks its maker's service for guidelines.
    run(
        "checkov",
        "--directory",
        str(tmp_path),
        "--framework",
        "kubernetes",
        "--skip-check",
        LEFT,
        "--skip-download",
    )


def test_everything_that_can_be_set_is_in_the_manifests() -> None:
    plain, full = rendered({}), rendered(EVERYTHING)
    assert set(plain) == {
        "Deployment",
        "HorizontalPodAutoscaler",
        "NetworkPolicy",
        "PodDisruptionBudget",
        "Service",
    } | {"ServiceAccount"}
    assert set(full) - set(plain) == {"ServiceMonitor"}
    assert [one["type"] for one in full["HorizontalPodAutoscaler"]["spec"]["metrics"]] == ["Resource", "Pods"]
    pod = full["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"].endswith("@" + EVERYTHING["image"]["digest"])
    assert container["envFrom"] == [{"secretRef": {"name": "elle-environment"}}]
    assert {one["name"] for one in pod["volumes"]} == {"tmp", "policy", "tls", "tokens", "state"}
    assert full["ServiceMonitor"]["metadata"]["labels"]["release"] == "prometheus"
    assert "replicas" not in full["Deployment"]["spec"]
    assert rendered({"autoscaling": {"enabled": False}})["Deployment"]["spec"]["replicas"] == 2


@pytest.mark.parametrize("values", [{}, EVERYTHING])
def test_the_program_takes_the_options_that_the_chart_gives_it(values: dict[str, Any]) -> None:
    (container,) = rendered(values)["Deployment"]["spec"]["template"]["spec"]["containers"]
    verb, *options = container["args"]
    assert verb == "serve"
    cli.commands["serve"].make_context("elle serve", list(options))
    ports = {one["name"]: one["containerPort"] for one in container["ports"]}
    for name, option in {"grpc": "port", "http": "http", "metrics": "metrics-port"}.items():
        assert f"--{option}={ports[name]}" in options


@pytest.mark.parametrize(
    "values", [{"replica": 3}, {"replicas": 0}, {"image": {"repository": "x", "digest": "latest"}}, {"args": ["serve"]}]
)
def test_values_that_mean_nothing_are_refused(values: dict[str, Any]) -> None:
    done = run("python", str(CHART.parent / "render.py"), str(CHART), json.dumps(values), check=False)
    assert done.returncode != 0 or json.loads(done.stdout)["lint"]["errors"]


def test_every_value_is_in_the_schema() -> None:
    schema, values = (
        json.loads((CHART / "values.schema.json").read_text()),
        yaml.safe_load((CHART / "values.yaml").read_text()),
    )
    assert set(values) == set(schema["properties"]) - {"global"}
