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

from chassis.kafka.settings import KafkaSettings
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
        ("postgres.existingSecrets=x", "'existingSecrets' not allowed"),
        ("postgres.migration.enable=true", "'enable' not allowed"),
        ("kafka.bootstrap_servers=x", "'bootstrap_servers' not allowed"),
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


@pytest.mark.feature("P15")
def test_replicas_of_the_gateway_have_budgets_only_where_they_can_share_them() -> None:
    budget = '--set-json=services.provider-gateway.config.budgets=[{"name":"day","unit":"usd","limit":5}]'
    done = _helm("template", "behest", str(CHART), budget)
    assert done.returncode != 0 and "set postgres.existingSecret" in done.stderr
    assert "limit: 5" in _render(budget, "--set=postgres.existingSecret=x")
    assert "limit: 5" in _render(budget, "--set=services.provider-gateway.replicas=1")


def test_a_service_on_a_volume_is_stopped_before_it_is_replaced() -> None:
    strategies = {
        each["metadata"]["name"]: each["spec"]["strategy"]["type"]
        for each in _objects(HERE / "values" / "provider-key.yaml")
        if each["kind"] == "Deployment"
    }
    assert strategies["behest-session-store"] == "Recreate"
    assert strategies["behest-orchestrator"] == "RollingUpdate"


def _jobs(values: Path) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in _objects(values) if each["kind"] == "Job"}


@pytest.mark.feature("K5")
def test_schemas_in_postgresql_are_migrated_before_anything_is_installed_or_upgraded() -> None:
    jobs = _jobs(HERE / "values" / "postgres-and-kafka.yaml")
    assert sorted(jobs) == ["behest-provider-gateway-migrate", "behest-session-store-migrate", "behest-tool-executor-migrate"]
    pods = _pods(HERE / "values" / "postgres-and-kafka.yaml")
    for name, job in jobs.items():
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        pod, service = job["spec"]["template"]["spec"], name.removeprefix("behest-").removesuffix("-migrate")
        container = pod["containers"][0]
        assert (container["args"], container["image"]) == (["migrate"], pods[service]["containers"][0]["image"])
        assert "serviceAccountName" not in pod and "configMap" not in str(pod), "the release's own objects are not there yet"
        assert pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"]
        assert job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] not in pods, "no service leads to it"


@pytest.mark.feature("K5")
@pytest.mark.parametrize("values", [path for path in VALUES if path.stem != "postgres-and-kafka"], ids=lambda path: path.stem)
def test_without_postgresql_there_is_nothing_to_migrate(values: Path) -> None:
    assert _jobs(values) == {}


@pytest.mark.feature("K5")
def test_an_operator_may_migrate_by_hand() -> None:
    assert "kind: Job" not in _render("--set=postgres.existingSecret=x", "--set=postgres.migration.enabled=false")


@pytest.mark.feature("K1")
def test_services_on_postgresql_have_replicas_and_rolling_upgrades_instead_of_volumes() -> None:
    rendered = list(_objects(HERE / "values" / "postgres-and-kafka.yaml"))
    assert not [each for each in rendered if each["kind"] == "PersistentVolumeClaim"]
    deployments = {each["metadata"]["name"]: each["spec"] for each in rendered if each["kind"] == "Deployment"}
    assert {spec["strategy"]["type"] for spec in deployments.values()} == {"RollingUpdate"}
    assert (deployments["behest-session-store"]["replicas"], deployments["behest-tool-executor"]["replicas"]) == (3, 2)


@pytest.mark.feature("O1")
def test_secrets_reach_services_as_files_and_no_password_stands_in_a_configuration() -> None:
    values = HERE / "values" / "postgres-and-kafka.yaml"
    for name, pod in _pods(values).items():
        mounts = {mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
        assert "/run/secrets/kafka" in mounts
        assert ("/run/secrets/postgres" in mounts) is (name in ("session-store", "provider-gateway"))
    configured = {each["metadata"]["name"]: each["data"]["behest.yaml"] for each in _objects(values) if each["kind"] == "ConfigMap"}
    assert "database: file:/run/secrets/postgres/url" in configured["behest-session-store"]
    assert "database: env:TOOLS_DATABASE" in configured["behest-tool-executor"]
    for text in configured.values():
        assert KafkaSettings.model_validate(yaml.safe_load(text)["kafka"]).security.password is not None


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
def test_behind_an_address_that_balances_orchestrators_keep_more_streams_than_there_are_replicas() -> None:
    rendered = _render("--set", "services.provider-gateway.service.headless=false", "--set", "services.provider-gateway.replicas=3")
    (config,) = (
        yaml.safe_load(text)
        for made in yaml.safe_load_all(rendered)
        if made and made["kind"] == "ConfigMap"
        for text in made["data"].values()
        if "neighbours" in text
    )
    neighbours = config["orchestrator"]["neighbours"]
    assert neighbours["provider_gateway"]["streams"] == 6 and "streams" not in neighbours["session_store"]


@pytest.mark.feature("K3")
def test_every_service_names_its_protocol_and_lets_clients_balance() -> None:
    services = [each["spec"] for each in _objects(HERE / "values" / "provider-key.yaml") if each["kind"] == "Service"]
    assert len(services) == 4
    for service in services:
        assert [port["appProtocol"] for port in service["ports"]] == ["grpc"]
        assert service["clusterIP"] == "None"
