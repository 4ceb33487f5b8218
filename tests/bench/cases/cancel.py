"""How long a caller's goodbye takes to the provider, through the gateway: from cancelling a stream to the upstream's connection closing."""

from __future__ import annotations

import contextlib
import statistics
import time

from tests.bench.figures import Budget, Figure
from tests.bench.rounds import Bench
from tests.bench.serving import open_server_process

from behest.chat.v1.chat_pb2 import ROLE_USER, Message, Part
from behest.provider.v1.provider_service_pb2 import ChatRequest, StreamChatRequest
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.rpc import open_channel
from kit.provider_upstream import Conversation, open_upstream

CASE = "a cancelled stream: until the provider's connection closes"
MILLISECOND = 0.001
EVENT = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"word "}}]}\n\n'

REQUEST = ChatRequest(model="fake/m", messages=[Message(role=ROLE_USER, parts=[Part(text="Go on.")])])


async def run(bench: Bench) -> list[Figure]:
    """Median and worst of many, by plain gRPC."""
    took = list[float]()
    async with contextlib.AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(open_upstream(_endless))
        serving = open_server_process("tests.bench.contenders.gateway:serve_gateway", upstream=upstream.url)
        server = await stack.enter_async_context(serving)
        stub = ProviderServiceStub(await stack.enter_async_context(open_channel(server.address, "grpc")))
        for number in range(bench.size(200, 50)):
            call = stub.StreamChat(StreamChatRequest(request=REQUEST), timeout=60)
            await anext(aiter(call))
            began = time.perf_counter()
            call.cancel()
            await upstream.received[number].gone.wait()
            took.append(time.perf_counter() - began)
    return [
        Figure(CASE, name, seconds, MILLISECOND, "1 ms", "ms", Budget(floor=100))
        for name, seconds in (("median", statistics.median(took)), ("worst", max(took)))
    ]


async def _endless(conversation: Conversation) -> None:
    """One piece, and then nothing until the caller is gone."""
    await conversation.head(content_type="text/event-stream")
    await conversation.send(EVENT)
    await conversation.received.gone.wait()
