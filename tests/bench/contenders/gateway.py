"""Ours: the provider gateway as a process, asked for streams by plain gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import time
from collections.abc import AsyncIterator

from tests.bench.contenders.sse import model_name
from tests.bench.meters import Meter
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

    async def measure(self, streams: int, chunks: int, gap: int) -> Sample:
        """CPU of the gateway for each chunk, and how long the first one took, with so many streams at once."""
        meter, client = Meter([self._pid]), Meter([os.getpid()])
        firsts = await asyncio.gather(*(self._read(chunks, gap) for _ in range(streams)))
        count = streams * chunks
        cpu = meter.spent().cpu
        return {"cpu": cpu / count, "client": client.spent().cpu / count, "stream": cpu / streams, "first": statistics.median(firsts)}

    async def _read(self, chunks: int, gap: int) -> float:
        message = Message(role=ROLE_USER, parts=[Part(text="Say something long.")])
        request = StreamChatRequest(request=ChatRequest(model=f"fake/{model_name(chunks, gap)}", messages=[message]))
        began, first, size = time.perf_counter(), 0.0, 0
        async for response in self._gateway.StreamChat(request, timeout=60.0):
            first = first or time.perf_counter() - began
            size += sum(len(event.text_delta) for event in response.events)
        assert size == chunks * len(" token"), (size, chunks)
        return first


@contextlib.asynccontextmanager
async def open_gateway(upstream: str) -> AsyncIterator[GatewayContender]:
    """The gateway, called from this process."""
    async with contextlib.AsyncExitStack() as stack:
        serving = open_server_process("tests.bench.contenders.gateway:serve_gateway", upstream=upstream)
        server = await stack.enter_async_context(serving)
        channel = await stack.enter_async_context(open_channel(server.address, "grpc"))
        yield GatewayContender(ProviderServiceStub(channel), server.pid)
