"""The chart: what it renders, what it refuses, and that Kubernetes would take it.

`BEHEST_GOLDEN=write make helm-lint` writes the golden renders anew.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from chassis.settings import load

HERE = Path(__file__).parent
CHART = HERE.parent.parent / "helm" / "behest"
HELM = Path(sys.executable).parent / "helm"
VALUES = sorted((HERE / "values").glob("*.yaml"))
KUBERNETES_VERSION = "1.36"

pytestmark = pytest.mark.skipif(not HELM.is_file(), reason="helm is not installed in this environment: `make setup` tries to")


def _helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([HELM, *arguments], capture_output=True, text=True, check=False, timeout=60)


def _render(*arguments: str) -> str:
    done = _helm("template", "behest", str(CHART), "--namespace=agents", *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _objects(values: Path) -> Iterator[dict[str, Any]]:
    return (each for each in yaml.safe_load_all(_render(f"--values={values}")) if each)


def _pods(values: Path) -> dict[str, dict[str, Any]]:
    deployments = (each for each in _objects(values) if each["kind"] == "Deployment")
    return {each["spec"]["template"]["spec"]["containers"][0]["name"]: each["spec"]["template"]["spec"] for each in deployments}


def test_the_chart_passes_helms_own_lint() -> None:
    done = _helm("lint", "--strict", str(CHART))
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.feature("K2")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_a_render_is_what_it_was(values: Path) -> None:
    golden = HERE / "golden" / values.name
    rendered = _render(f"--values={values}")
    if os.environ.get("BEHEST_GOLDEN") == "write":
        golden.write_text(rendered)
    assert rendered == golden.read_text(), "if you meant it: BEHEST_GOLDEN=write make helm-lint"


@pytest.mark.feature("K2")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_kubernetes_takes_every_rendered_object(values: Path) -> None:
    for rendered in _objects(values):
        kubernetes_validate.validate(rendered, KUBERNETES_VERSION, strict=True)


@pytest.mark.feature("K1")
def test_four_services_are_installed_by_a_provider_key_alone() -> None:
    kinds = [each["metadata"]["name"] for each in _objects(HERE / "values" / "provider-key.yaml") if each["kind"] == "Deployment"]
    assert sorted(kinds) == ["behest-orchestrator", "behest-provider-gateway", "behest-session-store", "behest-tool-executor"]


@pytest.mark.feature("K1")
def test_each_service_can_be_left_out() -> None:
    assert list(_pods(HERE / "values" / "gateway-alone.yaml")) == ["provider-gateway"]


@pytest.mark.feature("K1")
def test_each_service_has_its_own_version() -> None:
    images = {name: pod["containers"][0]["image"] for name, pod in _pods(HERE / "values" / "production.yaml").items()}
    assert images["orchestrator"].endswith("/behest-orchestrator:1.2.3")
    assert images["provider-gateway"].endswith("/behest-provider-gateway:1.2.4")


@pytest.mark.feature("K2")
@pytest.mark.parametrize(
    ("setting", "complaint"),
    [
        ("services.sesion-store.replicas=1", "'sesion-store' not allowed"),
        ("services.orchestrator.replica=1", "'replica' not allowed"),
        ("defaults.probes.rediness.periodSeconds=1", "'rediness' not allowed"),
        ("config.loging.level=info", "'loging' not allowed"),
        ("services.orchestrator.replicas=many", "got string, want integer"),
        ("image.pullPolicy=Sometimes", "must be one of"),
    ],
)
def test_a_typo_in_the_values_is_refused_by_name(setting: str, complaint: str) -> None:
    done = _helm("template", "behest", str(CHART), f"--set={setting}")
    assert done.returncode != 0
    assert complaint in done.stderr


@pytest.mark.parametrize("setting", ["replicas=2", "autoscaling.enabled=true"])
@pytest.mark.parametrize("service", ["session-store", "tool-executor"])
def test_a_service_with_a_database_of_its_own_is_refused_a_second_replica(service: str, setting: str) -> None:
    done = _helm("template", "behest", str(CHART), f"--set=services.{service}.{setting}")
    assert done.returncode != 0
    assert f"services.{service} keeps its database to itself" in done.stderr


def test_a_service_on_a_volume_is_stopped_before_it_is_replaced() -> None:
    strategies = {
        each["metadata"]["name"]: each["spec"]["strategy"]["type"]
        for each in _objects(HERE / "values" / "provider-key.yaml")
        if each["kind"] == "Deployment"
    }
    assert strategies["behest-session-store"] == "Recreate"
    assert strategies["behest-orchestrator"] == "RollingUpdate"


@pytest.mark.feature("O1")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_each_service_accepts_the_configuration_that_the_chart_gives_it(values: Path, tmp_path: Path) -> None:
    for rendered in _objects(values):
        if rendered["kind"] == "ConfigMap":
            section = rendered["metadata"]["labels"]["app.kubernetes.io/component"].replace("-", "_")
            model = getattr(importlib.import_module(f"{section}.settings"), f"{section.title().replace('_', '')}Settings")
            file = tmp_path / f"{section}.yaml"
            file.write_text(rendered["data"]["behest.yaml"])
            assert load(section, model, file, env={}).listen.startswith("0.0.0.0:")


@pytest.mark.feature("P21")
def test_provider_keys_reach_the_provider_gateway_alone() -> None:
    for name, pod in _pods(HERE / "values" / "provider-key.yaml").items():
        assert ("provider-keys" in str(pod)) is (name == "provider-gateway")


@pytest.mark.feature("K2")
@pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem)
def test_every_pod_is_hardened_and_probed_over_grpc(values: Path) -> None:
    for pod in _pods(values).values():
        container = pod["containers"][0]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert all("grpc" in container[probe] for probe in ("startupProbe", "livenessProbe", "readinessProbe"))
        assert container["resources"]["requests"]


@pytest.mark.feature("K3")
def test_every_service_names_its_protocol_and_lets_clients_balance() -> None:
    services = [each["spec"] for each in _objects(HERE / "values" / "provider-key.yaml") if each["kind"] == "Service"]
    assert len(services) == 4
    for service in services:
        assert [port["appProtocol"] for port in service["ports"]] == ["grpc"]
        assert service["clusterIP"] == "None"
