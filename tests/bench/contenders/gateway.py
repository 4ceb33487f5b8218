"""Ours: the provider gateway as a process, asked for streams by plain gRPC."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator

from tests.bench.contenders.load import Load, called, streamed
from tests.bench.contenders.sse import model_name
from tests.bench.serving import open_server_process
from tests.bench.worker import Sample

from behest.chat.v1.chat_pb2 import ROLE_USER, Message, Part
from behest.provider.v1.provider_service_pb2 import ChatRequest, StreamChatRequest
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.rpc import open_channel, open_server
from chassis.settings import load
from chassis.telemetry import LogSettings, set_up_logging
from chassis.world import World
from provider_gateway.app import open_app
from provider_gateway.settings import ProviderGatewaySettings


@contextlib.asynccontextmanager
async def serve_gateway(upstream: str) -> AsyncIterator[str]:
    """The address of a gateway in front of the upstream."""
    set_up_logging(LogSettings(level="warning"))
    variable = "BEHEST__PROVIDER_GATEWAY__PROVIDERS__FAKE"
    provider = f'{{"adapter": "openai", "base_url": "{upstream}"}}'
    settings = load("provider_gateway", ProviderGatewaySettings, None, {variable: provider})
    async with open_app(settings, World()) as app, open_server(app, "127.0.0.1:0") as server:
        yield server.address


class GatewayContender:
    """Streams through the gateway."""

    def __init__(self, gateway: ProviderServiceStub, pid: int) -> None:
        self._gateway = gateway
        self._pid = pid

    async def measure(self, **load: int) -> Sample:
        """See tests/bench/contenders/load.py."""
        return await (called if "clients" in load else streamed)(Load(self._pid, self._stream, self._call), **load)

    async def _stream(self, chunks: int, gap: int) -> float:
        began, first, size = time.perf_counter(), 0.0, 0
        async for response in self._gateway.StreamChat(StreamChatRequest(request=_request(chunks, gap)), timeout=60.0):
            first = first or time.perf_counter() - began
            size += sum(len(event.text_delta) for event in response.events)
        assert size == 6 * chunks, (size, chunks)
        return first

    async def _call(self) -> None:
        response = await self._gateway.Chat(_request(1, 0), timeout=60.0)
        assert response.result.message.parts[0].text == " token"


def _request(chunks: int, gap: int) -> ChatRequest:
    message = Message(role=ROLE_USER, parts=[Part(text="Say something long.")])
    return ChatRequest(model=f"fake/{model_name(chunks, gap)}", messages=[message])


@contextlib.asynccontextmanager
async def open_gateway(upstream: str) -> AsyncIterator[GatewayContender]:
    """The gateway, called from this process."""
    async with contextlib.AsyncExitStack() as stack:
        serving = open_server_process("tests.bench.contenders.gateway:serve_gateway", upstream=upstream)
        server = await stack.enter_async_context(serving)
        channel = await stack.enter_async_context(open_channel(server.address, "grpc"))
        yield GatewayContender(ProviderServiceStub(channel), server.pid)
