"""Between the contract's messages and the domain's values. Pure; refuses what a field may not hold, naming the field."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from behest.chat.v1 import chat_pb2
from behest.tool.v1 import tool_pb2, tool_service_pb2
from chassis.faults import RequestInvalid, Violation
from tool_executor.domain.execution import ToolCall
from tool_executor.domain.tool import Declared, Scope, Tool, Traits
from tool_executor.operations.feed import Happened, Progress
from tool_executor.operations.flight import Order
from tool_executor.operations.tools import Query, Registration
from tool_executor.wire import result_out

MAX_ID_CHARS = 256
MAX_REQUEST_ID_CHARS = 128
MAX_CALLS = 128
MAX_PAGE = 1000
MAX_LISTED_NAMES = 1000
MAX_RUNS = 1000

_ID_WANTED = f"must have 1 to {MAX_ID_CHARS} characters"
_TRAITS = ("read_only", "idempotent", "destructive", "open_world", "concurrency_safe", "long_running")


def scope_in(scope: tool_pb2.ToolScope) -> Scope:
    """From where a tool is seen."""
    _require(len(scope.agent) <= MAX_ID_CHARS, "scope.agent", f"is longer than {MAX_ID_CHARS} characters")
    _require(len(scope.run_id) <= MAX_ID_CHARS, "scope.run_id", f"is longer than {MAX_ID_CHARS} characters")
    return Scope(scope.agent, scope.run_id)


def query_in(request: tool_service_pb2.ListToolsRequest) -> Query:
    """Which tools to list."""
    _require(0 <= request.page_size <= MAX_PAGE, "page_size", f"must be from 0 to {MAX_PAGE}")
    _require(len(request.names) <= MAX_LISTED_NAMES, "names", f"holds more than {MAX_LISTED_NAMES} names")
    names = frozenset(request.names)
    return Query(scope_in(request.scope), request.name_prefix, names, request.page_size or 100, request.page_token)


def registration_in(tool: tool_pb2.Tool) -> Registration:
    """The tool to add."""
    _require(bool(tool.function), "tool.function", "is empty; name one of the operator's functions, such as builtin:time")
    definition = tool.definition
    return Registration(
        function=tool.function,
        name=definition.name,
        description=definition.description,
        parameters=definition.parameters,
        result_schema=tool.result_schema,
        strict=definition.strict,
        traits=declared_in(tool.traits),
        scope=scope_in(tool.scope),
        timeout=tool.timeout_ms / 1000,
    )


def declared_in(traits: tool_pb2.ToolTraits) -> Declared:
    """Traits as written; None where unset."""
    said = {field.name: value for field, value in traits.ListFields()}
    return Declared(**said)


def traits_out(traits: Traits) -> tool_pb2.ToolTraits:
    """Traits with nothing unset."""
    return tool_pb2.ToolTraits(**{name: getattr(traits, name) for name in _TRAITS})


class ToolsOut:
    """Tools as messages, made once per version while they are asked for: every turn of every run lists them. Not to be changed."""

    SIZE = 1024

    def __init__(self) -> None:
        self._kept: OrderedDict[str, tool_pb2.Tool] = OrderedDict()

    def of(self, tool: Tool) -> tool_pb2.Tool:
        """The message; a version is the digest of everything that it says."""
        made = self._kept.get(tool.version)
        if made is None:
            made = self._kept[tool.version] = tool_out(tool)
            if len(self._kept) > self.SIZE:
                self._kept.popitem(last=False)
        return made


def tool_out(tool: Tool) -> tool_pb2.Tool:
    """A tool."""
    return tool_pb2.Tool(
        definition=chat_pb2.ToolDefinition(name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict),
        result_schema=tool.result_schema,
        traits=traits_out(tool.traits),
        scope=tool_pb2.ToolScope(agent=tool.scope.agent, run_id=tool.scope.run_id),
        timeout_ms=round(tool.timeout * 1000),
        function=tool.function,
        version=tool.version,
    )


def direct_order_in(request: tool_service_pb2.ExecuteToolRequest, tenant: str, new_id: str, deadline: float | None) -> Order:
    """A call outside of a run."""
    _require(len(request.request_id) <= MAX_REQUEST_ID_CHARS, "request_id", f"is longer than {MAX_REQUEST_ID_CHARS} characters")
    _require("/" not in request.request_id, "request_id", "holds a '/', which keys of runs do; leave it out")
    _require(request.timeout_ms >= 0, "timeout_ms", "is negative")
    key = request.request_id or new_id
    call = call_in(request.call, "call", key)
    scope = scope_in(request.scope)
    return Order(tenant, key, call, scope=scope, timeout=request.timeout_ms / 1000 or None, deadline=deadline)


def orders_in(request: tool_service_pb2.ExecuteBatchRequest, tenant: str, deadline: float | None) -> list[Order]:
    """The calls of one turn."""
    _require_run_id(request.run_id)
    _require(len(request.calls) <= MAX_CALLS, "calls", f"holds {len(request.calls)} calls; at most {MAX_CALLS} are allowed")
    calls = [call_in(call, f"calls[{index}]", "") for index, call in enumerate(request.calls)]
    if len(calls) > 1:
        _require_unique(calls)
    scope = Scope(request.agent, request.run_id)
    allowed = frozenset(request.allowed_tools)
    return [
        Order(
            tenant=tenant,
            key=f"{request.run_id}/{call.id}",
            call=call,
            run_id=request.run_id,
            session_id=request.session_id,
            scope=scope,
            allowed=allowed,
            deadline=deadline,
            approved_by=request.approved_by.get(call.id, ""),
        )
        for call in calls
    ]


def call_in(call: chat_pb2.ToolCall, path: str, own_id: str) -> ToolCall:
    """A call; an empty id becomes own_id."""
    call_id = call.id or own_id
    _require(0 < len(call_id) <= MAX_ID_CHARS, f"{path}.id", _ID_WANTED)
    _require(0 < len(call.name) <= MAX_ID_CHARS, f"{path}.name", _ID_WANTED)
    return ToolCall(call_id, call.name, call.arguments)


def cancel_in(request: tool_service_pb2.CancelExecutionsRequest) -> tuple[str, frozenset[str]]:
    """The run and the calls to stop."""
    _require_run_id(request.run_id)
    return request.run_id, frozenset(request.call_ids)


def runs_in(request: tool_service_pb2.DeleteExecutionsRequest) -> tuple[str, ...]:
    """The runs whose executions to forget."""
    _require(1 <= len(request.run_ids) <= MAX_RUNS, "run_ids", f"has {len(request.run_ids)}; name 1 to {MAX_RUNS} runs")
    for run_id in request.run_ids:
        _require_run_id(run_id)
    return tuple(request.run_ids)


def progress_out(progress: Progress) -> tool_pb2.ToolProgress:
    """Progress."""
    return tool_pb2.ToolProgress(call_id=progress.call_id, message=progress.message, fraction=progress.fraction)


def happened_out(happened: Happened) -> tool_service_pb2.ExecuteBatchResponse:
    """What happened in a batch."""
    return tool_service_pb2.ExecuteBatchResponse(
        progress=[progress_out(progress) for progress in happened.progress],
        results=[result_out(ended.execution, ended.replayed) for ended in happened.ended],
    )


def direct_out(happened: Happened) -> list[tool_service_pb2.ExecuteToolResponse]:
    """What happened to a direct call: progress first, the result last."""
    progress = [tool_service_pb2.ExecuteToolResponse(progress=progress_out(p)) for p in happened.progress]
    results = [tool_service_pb2.ExecuteToolResponse(result=result_out(e.execution, e.replayed)) for e in happened.ended]
    return [*progress, *results]


def _require_run_id(run_id: str) -> None:
    fits = 0 < len(run_id) <= MAX_ID_CHARS and "/" not in run_id
    _require(fits, "run_id", f"{_ID_WANTED} and no '/'")


def _require_unique(calls: Sequence[ToolCall]) -> None:
    seen: set[str] = set()
    for index, call in enumerate(calls):
        _require(call.id not in seen, f"calls[{index}].id", f"{call.id!r} comes twice; ids of one batch are unique")
        seen.add(call.id)


def _require(holds: bool, field: str, why: str) -> None:
    if not holds:
        raise RequestInvalid(f"{field} {why}", violations=(Violation(field, why),))
