"""`behest doctor`: whether a suite can run here, and what to do where it cannot."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from behest.chat.v1 import chat_pb2 as chat_pb
from behest.provider.v1 import provider_service_pb2 as providers
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.faults import Fault, SettingsInvalid
from suite.addresses import Service, listen_address, listens
from suite.cli.doctor_kafka import commands_finding, kafka_findings
from suite.cli.loop import open_loop
from suite.cli.migrate import databases, suite_settings
from suite.cli.outcome import Exit
from suite.cli.output import Output
from suite.composition import MODEL_OF_KEY, SuiteOptions, read_written, variable, wants_local_model
from suite.embedded import Suite, load_suite_settings, make_data_folder, open_suite
from suite.local_model import find_weights

MODEL_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `ok` None means worth knowing and no fault."""

    check: str
    ok: bool | None
    text: str


def run_doctor(port_base: int, data: Path, config: Path | None, json: bool | None) -> Exit:
    """Runs every check; FAILED when one says that a suite would not work."""

    async def work() -> Exit:
        output, code = Output(json), Exit.OK
        async for finding in findings(SuiteOptions(data, config), port_base):
            _show(output, finding)
            code = Exit.FAILED if finding.ok is False else code
        return code

    with open_loop() as loop:
        return loop.run(work())


def _show(output: Output, finding: Finding) -> None:
    if output.json:
        output.object({"check": finding.check, "ok": finding.ok, "text": finding.text})
    else:
        mark = {True: "ok", False: "FAIL", None: "note"}[finding.ok]
        output.note(f"{mark:<5} {finding.check:<12} {finding.text}", indent=19)


async def findings(options: SuiteOptions, port_base: int) -> AsyncIterator[Finding]:
    """The findings, quickest first; the model is only asked when the rest allows it."""
    yield Finding("python", True, f"{sys.version.split()[0]} at {sys.executable}")
    settings, storage = _settings(options), _storage(options.data)
    yield settings
    yield storage
    async for finding in _ports(port_base):
        yield finding
    for finding in _keys(options):
        yield finding
    yield _local_model()
    if settings.ok:
        own = load_suite_settings(options.settings_file(), os.environ)
        async for found in kafka_findings(own.kafka, port_base):
            yield Finding(*found)
        if own.kafka.on and own.orchestrator.commands.enabled:
            yield Finding(*await commands_finding(own.kafka, own.orchestrator.commands.group))
    if settings.ok and storage.ok:
        async for finding in _databases(options):
            yield finding
        yield await _answer(options)


def _settings(options: SuiteOptions) -> Finding:
    file = options.settings_file()
    try:
        load_suite_settings(file, os.environ)
    except SettingsInvalid as fault:
        return Finding("settings", False, fault.message)
    return Finding("settings", True, f"{file} and the environment are valid" if file else "no behest.yaml here; the defaults hold")


def _storage(data: Path) -> Finding:
    try:
        make_data_folder(data)
        with tempfile.NamedTemporaryFile(dir=data):
            pass
    except Fault as fault:
        return Finding("storage", False, fault.message)
    except OSError as error:
        return Finding("storage", False, f"{data} cannot be written: {error.strerror}; name another folder with --data")
    return Finding("storage", True, f"{data} can be written")


async def _ports(port_base: int) -> AsyncIterator[Finding]:
    for service in Service:
        address = listen_address(service, port_base)
        if await listens(address):
            text = (
                f"{address} is in use: by a suite that runs already, which is fine, or by something else, then choose another --port-base"
            )
            yield Finding("port", None, text)
        else:
            yield Finding("port", True, f"{address} is free for the {service.value}")


def _keys(options: SuiteOptions) -> list[Finding]:
    present = [name for name in MODEL_OF_KEY if os.environ.get(name)]
    found = [Finding("key", True, f"{name} is set") for name in present]
    if not present and wants_local_model(options, read_written(options.settings_file(), os.environ), installed=True):
        found.append(Finding("key", None, f"none of {', '.join(MODEL_OF_KEY)} is set; set one to call that provider's models"))
    return found


async def _databases(options: SuiteOptions) -> AsyncIterator[Finding]:
    """How the databases in PostgreSQL stand; where there are none, nothing."""
    for service, database in databases(suite_settings(options)).items():
        try:
            if database.is_postgres:
                from chassis.migrations import Lineage, examine  # asyncpg is loaded where it is used

                for ok, text in await examine(database.url(), Lineage.of(service)):
                    yield Finding("database", ok, f"{service}: {text}")
        except Fault as fault:
            yield Finding("database", False, f"{service}: {fault.message}")


def _local_model() -> Finding:
    try:
        return Finding("local model", True, f"installed: {find_weights().name}")
    except SettingsInvalid as fault:
        return Finding("local model", None, fault.message)


# The doctor's own suite takes no runs and commands of others, and publishes nothing.
_NOTHING_SHARED = {
    variable("session_store", "database"): "memory:",
    variable("tool_executor", "database"): "memory:",
    variable("provider_gateway", "database"): "memory:",
    variable("kafka", "bootstrap_servers"): "",
    variable("orchestrator", "commands", "enabled"): "false",
}


async def _answer(options: SuiteOptions) -> Finding:
    """Whether the default model answers: asked through a suite of its own, which stores nothing."""
    with tempfile.TemporaryDirectory(prefix="behest-doctor-") as scratch:
        asked = SuiteOptions(Path(scratch), options.config, local_model=options.local_model, log_level="error")
        try:
            async with open_suite(asked, env={**os.environ, **_NOTHING_SHARED}) as suite:
                return await _ask(suite)
        except Fault as fault:
            return Finding("model", False, fault.message)


async def _ask(suite: Suite) -> Finding:
    model = suite.settings.provider_gateway.default_model
    message = chat_pb.Message(role=chat_pb.ROLE_USER, parts=[chat_pb.Part(text="Say hello.")])
    request = providers.ChatRequest(messages=[message], sampling=chat_pb.Sampling(max_output_tokens=16))
    async with contextlib.AsyncExitStack() as stack:
        channel = await stack.enter_async_context(suite.dial(Service.PROVIDER_GATEWAY))
        await ProviderServiceStub(channel).Chat(request, timeout=MODEL_SECONDS)
    kind = None if model.startswith("scripted/") else True
    return Finding("model", kind, f"{model} answers" + ("" if kind else ", but only echoes; set a key or install the local model"))
