"""Agents from the configuration, in the contract's words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from orchestrator.domain.values import Agent
from orchestrator.wire import agent_from_proto, sha256

VERSION_DIGITS = 16


Settings = Mapping[str, Any]
"""The values of an AgentSettings that are set."""


def configured_agents(settings: Mapping[str, Settings]) -> dict[str, Agent]:
    """Each agent with a version that changes whenever its definition does."""
    return {name: agent_from_proto(_versioned(name, agent)) for name, agent in settings.items()}


def _versioned(name: str, settings: Settings) -> agent_pb2.Agent:
    agent = _agent(name, settings)
    agent.version = sha256(agent.SerializeToString(deterministic=True))[:VERSION_DIGITS]
    return agent


def _agent(name: str, settings: Settings) -> agent_pb2.Agent:
    values = dict(settings)
    schema = values.pop("output_schema", None)
    return agent_pb2.Agent(
        name=name,
        mode=agent_pb2.AgentMode.Value(f"AGENT_MODE_{values.pop('mode', 'primary').upper()}"),
        sampling=_sampling(values.pop("sampling", {})),
        limits=agent_pb2.Limits(**values.pop("limits", {})),
        history=agent_pb2.HistoryLimits(**values.pop("history", {})),
        permissions=[_permission(rule) for rule in values.pop("permissions", ())],
        output_schema=json.dumps(schema, sort_keys=True).encode() if schema is not None else b"",
        **values,
    )


def _permission(settings: Settings) -> agent_pb2.Permission:
    values = dict(settings)
    action = agent_pb2.PermissionAction.Value(f"PERMISSION_ACTION_{values.pop('action').upper()}")
    return agent_pb2.Permission(action=action, **values)


def _sampling(settings: Settings) -> chat_pb2.Sampling:
    values = dict(settings)
    effort = values.pop("reasoning_effort", None)
    sampling = chat_pb2.Sampling(**values)
    if effort:
        sampling.reasoning_effort = chat_pb2.ReasoningEffort.Value(f"REASONING_EFFORT_{effort.upper()}")
    return sampling
