"""Notes what becomes of each model call, for those who want to hear of it afterwards; costs nothing when nobody does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

from chassis.faults import CallCancelled, Fault, Internal
from chassis.rpc import current_call
from chassis.world import World
from provider_gateway.domain.answers import ChatEvent, ChatResult, Finished, FinishReason, Started, Usage, UsageReport
from provider_gateway.domain.calls import EndedCall, FailedAttempt
from provider_gateway.domain.chat import ChatRequest
from provider_gateway.domain.embeddings import EmbedRequest, EmbedResult
from provider_gateway.operations.ports import Calls
from provider_gateway.operations.routes import Askable

Asked = ChatRequest | EmbedRequest


class Record(Protocol):
    """What is noted of a call under way."""

    def attempting(self, target: Askable) -> None:
        """From now on it is this target that is asked."""

    def failed(self, fault: Fault) -> None:
        """An attempt came to nothing."""

    def saw(self, events: Sequence[ChatEvent]) -> None:
        """The reader gets these."""

    def answered(self, result: ChatResult) -> None:
        """The answer is complete."""

    def embedded(self, result: EmbedResult) -> None:
        """The vectors are complete."""


class Recorder(Protocol):
    """Begins records."""

    def recording(self, request: Asked, target: Askable, streamed: bool) -> AbstractContextManager[Record]:
        """The record of the call that the body makes, at `target` first; how the body ends is how the call ended."""


class Silence:
    """A recorder and record of nothing."""

    @contextmanager
    def recording(self, request: Asked, target: Askable, streamed: bool) -> Iterator[Record]:
        """Itself."""
        yield self

    def attempting(self, target: Askable) -> None:
        """Does nothing."""

    def failed(self, fault: Fault) -> None:
        """Does nothing."""

    def saw(self, events: Sequence[ChatEvent]) -> None:
        """Does nothing."""

    def answered(self, result: ChatResult) -> None:
        """Does nothing."""

    def embedded(self, result: EmbedResult) -> None:
        """Does nothing."""


SILENCE = Silence()


class CallRecorder:
    """Tells Calls of each call, once, whatever its end."""

    def __init__(self, calls: Calls, world: World) -> None:
        self._calls = calls
        self._world = world

    @contextmanager
    def recording(self, request: Asked, target: Askable, streamed: bool) -> Iterator[Record]:
        """The record of the call that the body makes."""
        record = CallRecord(request, target, streamed, self._world)
        fault: Fault | None = None
        try:
            yield record
        except Fault as raised:
            fault = raised
            raise
        except asyncio.CancelledError:
            fault = CallCancelled("the caller went away or its deadline passed; the upstream request was closed")
            raise
        except BaseException:
            fault = Internal("the gateway failed; its log has more")
            raise
        finally:
            self._calls.ended(record.ended(fault))


class CallRecord:
    """What is known of one call so far."""

    def __init__(self, request: Asked, target: Askable, streamed: bool, world: World) -> None:
        self._request, self._streamed, self._world = request, streamed, world
        self._provider, self._model = target.access.provider.name, target.model
        self._call = current_call()
        self._started_at = world.clock.now()
        self._began = self._attempt_began = world.clock.monotonic()
        self._first_output: float | None = None
        self._failed: list[FailedAttempt] = []
        self._usage: Usage | None = None
        self._response_id = ""
        self._finish: FinishReason | None = None

    def attempting(self, target: Askable) -> None:
        """From now on it is this target that is asked."""
        self._provider, self._model = target.access.provider.name, target.model

    def failed(self, fault: Fault) -> None:
        """An attempt came to nothing; the pause before the next one counts to that."""
        now = self._world.clock.monotonic()
        self._failed.append(FailedAttempt(fault, now - self._attempt_began, self._provider, self._model))
        self._attempt_began = now

    def saw(self, events: Sequence[ChatEvent]) -> None:
        """The reader gets these."""
        if self._first_output is None:
            self._first_output = self._world.clock.monotonic() - self._began
        for event in events:
            match event:
                case UsageReport(usage):
                    self._usage = usage
                case Started():
                    self._response_id = event.response_id
                case Finished(result):
                    self.answered(result)

    def answered(self, result: ChatResult) -> None:
        """The answer is complete."""
        self._finish, self._usage, self._response_id = result.finish_reason, result.usage, result.response_id
        self._model = result.model or self._model

    def embedded(self, result: EmbedResult) -> None:
        """The vectors are complete."""
        self._usage, self._model = result.usage, result.model or self._model

    def ended(self, fault: Fault | None) -> EndedCall:
        """The call as it ended. An attempt that was the last one is the call's own end, not one of those before it."""
        last = self._failed[-1:] if fault is not None and self._failed and self._failed[-1].fault is fault else []
        return EndedCall(
            id=self._world.ids.new(),
            tenant=self._call.tenant,
            traceparent=self._call.traceparent,
            request_id=self._request.request_id,
            metadata=self._request.metadata,
            provider=self._provider,
            model=self._model,
            streamed=self._streamed,
            started_at=self._started_at,
            duration=self._world.clock.monotonic() - self._began,
            first_output=self._first_output,
            response_id=self._response_id,
            finish=self._finish,
            usage=self._usage,
            fault=fault,
            failed=tuple(self._failed[: len(self._failed) - len(last)]),
        )
