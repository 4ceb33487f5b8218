"""The gateway as a service for tests, reached as its users reach it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from behest.provider.v1 import provider_pb2
from behest.provider.v1 import provider_service_pb2 as pb
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub
from chassis.kafka.settings import NO_KAFKA, KafkaSettings
from chassis.rpc import LocalChannel, open_channel, open_server
from chassis.rpc.serve import ServerOptions
from chassis.world import World
from provider_gateway.app import open_app
from provider_gateway.settings import ProviderGatewaySettings

QUICK = {"first_pause_ms": 1, "longest_pause_ms": 2}


def settings_of(providers: dict[str, Any], **fields: Any) -> ProviderGatewaySettings:
    """Settings with these providers and quick retries."""
    return ProviderGatewaySettings.model_validate({"retries": QUICK, "providers": providers, **fields})


@contextlib.asynccontextmanager
async def open_gateway(
    settings: ProviderGatewaySettings, carrier: str = "local", kafka: KafkaSettings = NO_KAFKA
) -> AsyncIterator[ProviderServiceStub]:
    """A stub that reaches a gateway by that carrier."""
    async with open_app(settings, World(), kafka) as app:
        if carrier == "local":
            async with LocalChannel(app.methods) as channel:
                yield ProviderServiceStub(channel)
            return
        async with open_server(app, "127.0.0.1:0", ServerOptions(grace=0.2)) as server, open_channel(server.address, carrier) as remote:
            yield ProviderServiceStub(remote)


async def steps_of(stub: ProviderServiceStub, request: pb.StreamChatRequest) -> list[provider_pb2.ChatEvent]:
    """The steps of one stream."""
    return [step async for response in stub.StreamChat(request) for step in response.events]
