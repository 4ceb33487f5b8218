"""What a tenant may be called: whatever a database takes for all tenants, or for none, is nobody's name."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from behest.run.v1.run_pb2 import Run
from behest.session.v1.journal_service_pb2 import GetRunRequest, GetRunResponse
from chassis.faults import RequestInvalid, SettingsInvalid
from chassis.rpc import LocalChannel, current_call
from chassis.settings import load
from chassis.tenants import ALLOWED, EVERYBODY, is_tenant
from kit.rpc import Probe, ProbeStub, probe_app
from orchestrator.settings import OrchestratorSettings
from session_store.settings import SessionStoreSettings

SERVICES = Path(__file__).resolve().parents[2] / "services"
MAGIC = {EVERYBODY, ""}
NAMES = st.from_regex(r"[A-Za-z0-9_.:-]{1,128}", fullmatch=True)
pytestmark = pytest.mark.feature("G4")


async def whose(_: GetRunRequest) -> GetRunResponse:
    return GetRunResponse(run=Run(id=current_call().tenant))


async def admitted(tenant: str) -> str:
    stub = ProbeStub(LocalChannel(probe_app(Probe(whose)).methods))
    return (await stub.GetRun(GetRunRequest(), metadata=(("behest-tenant", tenant),))).run.id


@given(NAMES)
@example("-")
@example("default")
async def test_a_good_name_is_admitted_as_it_is(name: str) -> None:
    assert is_tenant(name) and await admitted(name) == name


@given(st.text())
@example("*")
@example("")
@example("a\n")
@example("*,a")
@example("a'")
@example("a%")
@example("é")
@example("x" * 129)
async def test_any_other_text_is_refused_with_what_is_allowed(text: str) -> None:
    if re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", text, re.ASCII):
        return
    assert not is_tenant(text)
    with pytest.raises(RequestInvalid, match="behest-tenant") as refused:
        await admitted(text)
    assert [violation.description for violation in refused.value.violations] == [ALLOWED]


def test_what_the_databases_take_for_all_tenants_is_nobodys_name() -> None:
    told = [path.read_text() for path in SERVICES.glob("*/adapters/*/**/*.py")]
    policies = {found for text in told for found in re.findall(r"IN \(tenant, '+([^']+)'+\)", text)}
    totals = {found for text in told for found in re.findall(r"total\.tenant = '([^']+)'", text)}
    assert policies == totals == {EVERYBODY}
    assert not any(map(is_tenant, MAGIC))


@pytest.mark.feature("O1")
@pytest.mark.parametrize("name", sorted(MAGIC | {"a b", "ACME corp"}))
@pytest.mark.parametrize(
    ("section", "model", "text"),
    [
        ("session_store", SessionStoreSettings, "limits: {{tenants: {{{name!r}: {{running_runs: 1}}}}}}"),
        ("session_store", SessionStoreSettings, "retention: {{tenants: {{{name!r}: 3}}}}"),
        ("orchestrator", OrchestratorSettings, "commands: {{tenants: [{name!r}]}}"),
    ],
)
def test_a_setting_for_a_tenant_that_nobody_can_be_is_refused(
    section: str, model: type[SessionStoreSettings], text: str, name: str, tmp_path: Path
) -> None:
    file = tmp_path / "behest.yaml"
    file.write_text(f"{section}: {{{text.format(name=name)}}}\n")
    with pytest.raises(SettingsInvalid, match=r"tenants.*is no tenant"):
        load(section, model, file, {})
