"""Writes contract messages that no model and no user wrote."""

from __future__ import annotations

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2
from chassis.world import Ids
from orchestrator.domain.values import Body, CallStatus, Entry, ToolCall
from orchestrator.wire import entry_from_proto, sha256


class ProtoScribe:
    """The Scribe of operations/ports.py."""

    def __init__(self, ids: Ids) -> None:
        self._ids = ids

    def user(self, text: str) -> Entry:
        """A user message."""
        return self._entry(chat_pb2.Message(role=chat_pb2.ROLE_USER, parts=[chat_pb2.Part(text=text)]))

    def assistant(self, text: str) -> Entry:
        """An assistant message."""
        return self._entry(chat_pb2.Message(role=chat_pb2.ROLE_ASSISTANT, parts=[chat_pb2.Part(text=text)]))

    def result(self, call: ToolCall, content: str, is_error: bool) -> Entry:
        """A tool message."""
        parts = [chat_pb2.Part(text=content)]
        return self._entry(
            chat_pb2.Message(role=chat_pb2.ROLE_TOOL, parts=parts, tool_call_id=call.id, tool_name=call.name, is_error=is_error)
        )

    def digest(self, content: str) -> str:
        """SHA-256 of a text, hexadecimal."""
        return sha256(content.encode())

    def exact_digest(self, call: ToolCall) -> str:
        """SHA-256 of a call's arguments byte by byte, hexadecimal."""
        assert isinstance(call.body, chat_pb2.ToolCall)
        return sha256(call.body.arguments)

    def stopped(self, call: ToolCall, status: CallStatus) -> Body:
        """The record of a call that its run's end stopped."""
        return tool_pb2.ToolResult(
            call_id=call.id,
            tool=call.name,
            status=int(status),  # type: ignore[arg-type]  # the enums share their numbers
            is_error=True,
        )

    def _entry(self, message: chat_pb2.Message) -> Entry:
        return entry_from_proto(self._ids.new(), message)
