"""The provider-gateway behind the port Models."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any

from behest.agent.v1 import agent_pb2
from behest.chat.v1 import chat_pb2
from behest.provider.v1 import provider_pb2, provider_service_pb2
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.rpc import StubChannel
from chassis.world import Ids
from orchestrator.domain.values import CallId, Entry
from orchestrator.operations.ports import (
    Answer,
    Ask,
    CallDeltaOutput,
    CallStartedOutput,
    Output,
    ReasoningOutput,
    Spent,
    SpentOutput,
    TextOutput,
)
from orchestrator.wire import call_from_proto, entry_from_proto, finish, seam_from_proto, usage_from_proto

CONTINUE = "Continue exactly where you stopped. Do not repeat anything and do not comment on the interruption."
"""What the model is told when its answer was cut by length; it is not stored."""

UNNAMED = "unnamed"
"""Stands in for the tool of a call without a name: no tool is called so, and the model is told that."""

MOST_ID = 128
"""Characters of a call's id; a longer one is replaced."""


class RpcModels:
    """Models over the gateway's stub."""

    def __init__(self, channel: StubChannel, ids: Ids) -> None:
        self._gateway = ProviderServiceStub(channel)
        self._ids = ids

    async def stream(self, ask: Ask) -> AsyncGenerator[Sequence[Output], None]:
        """The answer as it is produced, ending with an Answer. Raises the gateway's faults."""
        request = provider_service_pb2.StreamChatRequest(request=chat_request(ask))
        reader = _Reader(self._ids)
        async for response in self._gateway.StreamChat(request):
            yield [output for event in response.events for output in reader.read(event)]


class _Reader:
    """Turns the events of one answer into outputs; knows the ids of its calls by index."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids
        self._calls: dict[int, CallId] = {}
        self._unique = _UniqueIds()
        self._provider = self._model = ""
        self._read: dict[str, Callable[[Any], Sequence[Output]]] = {
            "text_delta": lambda text: [TextOutput(text)],
            "refusal_delta": lambda text: [TextOutput(text)],
            "reasoning_delta": lambda text: [ReasoningOutput(text)],
            "tool_call_started": self._started,
            "tool_call_delta": lambda delta: [CallDeltaOutput(self._calls[delta.index], delta.arguments)],
            "seam": self._went_on,
            "started": self._begun,
            "usage": lambda usage: [SpentOutput(Spent(self._provider, self._model, usage_from_proto(usage)))],
            "finished": lambda result: [answer_from_proto(result, self._ids)],
        }

    def read(self, event: provider_pb2.ChatEvent) -> Sequence[Output]:
        """The outputs of one event; steps that the result says again give none."""
        kind = event.WhichOneof("event")
        read = self._read.get(kind or "")
        return read(getattr(event, kind)) if read and kind else ()

    def _begun(self, started: provider_pb2.ChatStarted) -> Sequence[Output]:
        self._provider, self._model = started.provider, started.model
        return ()

    def _went_on(self, seam: provider_pb2.Seam) -> Sequence[Output]:
        self._provider, self._model = seam.provider, seam.model
        return [seam_from_proto(seam)]

    def _started(self, call: provider_pb2.ToolCallStarted) -> Sequence[Output]:
        call_id = self._calls[call.index] = self._unique.of(call.id)
        return [CallStartedOutput(call_id, call.name or UNNAMED)]


def answer_from_proto(result: provider_pb2.ChatResult, ids: Ids) -> Answer:
    """A complete answer in the domain. Its calls have names, and ids that are unique in it, whatever the model wrote."""
    message = _with_callable_calls(result.message)
    return Answer(
        entry=_entry(message, ids),
        calls=tuple(call_from_proto(call) for call in message.tool_calls),
        finish=finish(result.finish_reason),
        finish_raw=result.finish_reason_raw,
        usage=usage_from_proto(result.usage),
        provider=result.provider,
        model=result.model,
        warnings=tuple((warning.field, warning.message) for warning in result.warnings),
    )


def _with_callable_calls(message: chat_pb2.Message) -> chat_pb2.Message:
    """The message itself, or a copy in which every call can be run and answered: results find their calls by id."""
    unique = _UniqueIds()
    wanted = [(unique.of(call.id), call.name or UNNAMED) for call in message.tool_calls]
    if wanted == [(call.id, call.name) for call in message.tool_calls]:
        return message
    made = chat_pb2.Message()
    made.CopyFrom(message)
    for call, (call_id, name) in zip(made.tool_calls, wanted, strict=True):
        call.id, call.name = call_id, name
    return made


class _UniqueIds:
    """Ids of the calls of one answer, in their order."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def of(self, call_id: str) -> CallId:
        """The id itself, or one made of it when it is empty, too long, or taken."""
        wanted = call_id if 0 < len(call_id) <= MOST_ID else f"call_{len(self._taken)}"
        unique, number = wanted, 1
        while unique in self._taken:
            number += 1
            unique = f"{wanted}_{number}"
        self._taken.add(unique)
        return CallId(unique)


def _entry(message: chat_pb2.Message, ids: Ids) -> Entry | None:
    if not message.parts and not message.tool_calls:
        return None
    return entry_from_proto(ids.new(), message)


def chat_request(ask: Ask) -> provider_service_pb2.ChatRequest:
    """The model request: the system text, the history, and what the run asks for beyond them."""
    created, agent = ask.run.created, ask.run.agent
    assert created is not None
    request = provider_service_pb2.ChatRequest(request_id=ask.key, model=ask.model, metadata=dict(created.metadata))
    if ask.system:
        request.messages.add(role=chat_pb2.ROLE_SYSTEM, parts=[chat_pb2.Part(text=text) for text in ask.system])
    request.messages.extend(entry.body for entry in ask.entries)  # type: ignore[misc]  # bodies are contract messages
    if ask.continuing:
        request.messages.add(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=CONTINUE)])
    request.tools.extend(ask.tools.definitions)  # type: ignore[arg-type]  # definitions are contract messages
    if ask.first_call and isinstance(created.tool_choice, chat_pb2.ToolChoice):
        request.tool_choice.CopyFrom(created.tool_choice)
    if isinstance(created.response_format, chat_pb2.ResponseFormat):
        request.response_format.CopyFrom(created.response_format)
    if isinstance(agent.body, agent_pb2.Agent) and agent.body.HasField("sampling"):
        request.sampling.CopyFrom(agent.body.sampling)
    return request
