"""What a suite is told beyond its settings file: ports, paths and a model, wherever file and environment are silent. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from suite.addresses import DEFAULT_PORT_BASE, Service, listen_address
from suite.local_model import MODEL, PROVIDER, LocalModel

CONFIG_NAME = "behest.yaml"
ECHO_PROVIDER, ECHO_MODEL = "scripted", "echo"
# The model that a key makes the default: small, quick, able to call tools.
MODEL_OF_KEY = {
    "OPENAI_API_KEY": "openai/gpt-4.1-mini",
    "ANTHROPIC_API_KEY": "anthropic/claude-haiku-4-5",
    "GEMINI_API_KEY": "gemini/gemini-3.5-flash-lite",
}


@dataclass(frozen=True, slots=True)
class SuiteOptions:
    """How to run a suite. `port_base` and `log_level`, when set, win over file and environment; `local_model` None means if need be."""

    data: Path
    config: Path | None = None
    port_base: int | None = None
    local_model: bool | None = None
    log_level: str | None = None

    def settings_file(self) -> Path | None:
        """The settings file: the one named, else behest.yaml of the working folder when it is there."""
        found = Path(CONFIG_NAME)
        return self.config or (found if found.is_file() else None)


@dataclass(frozen=True, slots=True)
class Written:
    """What the user wrote, in the file and in the environment."""

    file: Mapping[str, Any]
    env: Mapping[str, str]

    def says(self, *path: str) -> bool:
        """Whether the user set the value at path."""
        return self.value(*path) is not None

    def value(self, *path: str) -> Any:
        """The value at path as the user wrote it, None when silent."""
        node: Any = self.file
        for key in path:
            node = node.get(key) if isinstance(node, dict) else None
        return self.env.get(variable(*path), node)

    def takes_keys(self, section: str) -> bool:
        """Whether keys can be set below a section: not when the user wrote a plain value there, which loading the settings explains."""
        return self.value(section) is None or isinstance(self.value(section), dict)

    def agents_name_models(self) -> bool:
        """Whether there are agents of the user's own and each names its model, so that none needs the default."""
        agents = self.value("orchestrator", "agents")
        return isinstance(agents, dict) and bool(agents) and all(isinstance(a, dict) and a.get("model") for a in agents.values())

    def key_model(self) -> str | None:
        """The default model of the first provider whose key is present."""
        return next((model for key, model in MODEL_OF_KEY.items() if self.env.get(key)), None)


def variable(*path: str) -> str:
    """The environment variable that sets the value at path."""
    return "__".join(["BEHEST", *(key.upper() for key in path)])


def read_written(file: Path | None, env: Mapping[str, str]) -> Written:
    """What the user wrote; a file that cannot be read counts as empty here, for loading the settings explains it."""
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8")) if file else None
    except (OSError, ValueError, yaml.YAMLError):
        data = None
    return Written(data if isinstance(data, dict) else {}, env)


def wants_local_model(options: SuiteOptions, written: Written, installed: bool) -> bool:
    """Whether to start the local model: when told to, or when nothing else could answer and it is installed."""
    if options.local_model is not None:
        return options.local_model
    answered = written.says("provider_gateway", "default_model") or written.agents_name_models() or written.key_model() is not None
    return installed and not answered


@dataclass
class Overlay:
    """The environment to load settings from: the user's, and below it what the suite fills in."""

    env: dict[str, str]
    notices: list[str] = field(default_factory=list)


def overlay(options: SuiteOptions, written: Written, local: LocalModel | None) -> Overlay:
    """The environment of a suite, and what its user should be told about it."""
    filled: dict[str, str] = {}

    def fill(value: Any, *path: str) -> None:
        if not written.says(*path) and written.takes_keys(path[0]):
            filled[variable(*path)] = value if isinstance(value, str) else json.dumps(value)

    for service in Service:
        fill(listen_address(service, options.port_base or DEFAULT_PORT_BASE), service.section, "listen")
    for neighbour in (Service.SESSION_STORE, Service.PROVIDER_GATEWAY, Service.TOOL_EXECUTOR):
        fill(_address(options, written, neighbour), "orchestrator", "neighbours", neighbour.section, "target")
    fill(f"sqlite:{options.data / 'behest.db'}", "session_store", "database")
    fill(f"sqlite:{options.data / 'behest.db'}", "tool_executor", "database")
    fill("false", "log", "calls")  # neighbours in one place: a line per hop would only repeat itself
    if local is not None:
        fill(
            {"adapter": "openai", "base_url": local.base_url, "models": {MODEL: {"price": {"input": 0, "output": 0}}}},
            "provider_gateway",
            "providers",
            PROVIDER,
        )
    model, notice = default_model(written, local)
    fill(model, "provider_gateway", "default_model")
    return Overlay({**filled, **written.env, **_forced(options)}, [notice] if notice else [])


def _address(options: SuiteOptions, written: Written, service: Service) -> str:
    """Where a service will listen."""
    if options.port_base is None and (listen := written.value(service.section, "listen")):
        return str(listen)
    return listen_address(service, options.port_base or DEFAULT_PORT_BASE)


def _forced(options: SuiteOptions) -> dict[str, str]:
    """What an option says wins over file and environment."""
    forced = {variable("log", "level"): options.log_level} if options.log_level else {}
    if options.port_base is not None:
        forced |= {variable(service.section, "listen"): listen_address(service, options.port_base) for service in Service}
    return forced


def default_model(written: Written, local: LocalModel | None) -> tuple[str, str]:
    """The model of agents that name none, and what to say about the choice; an empty notice when the user made it."""
    if written.says("provider_gateway", "default_model"):
        return "", ""
    if local is not None:
        return (
            f"{PROVIDER}/{MODEL}",
            f"the model is {local.name}, which runs on this machine: quick and private, but too small to choose tools",
        )
    if model := written.key_model():
        notice = f"the model is {model}; set provider_gateway.default_model in {CONFIG_NAME} to have another"
        return model, "" if written.agents_name_models() else notice
    notice = (
        "no model is set up, so answers only echo the question; set OPENAI_API_KEY, ANTHROPIC_API_KEY or GEMINI_API_KEY, "
        "configure a provider in behest.yaml, or install the local model (`behest doctor` says how)"
    )
    return f"{ECHO_PROVIDER}/{ECHO_MODEL}", "" if written.agents_name_models() else notice
