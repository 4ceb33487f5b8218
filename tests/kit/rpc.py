"""A probe service whose handlers a test writes, and the carriers to reach it by."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc

from behest.session.v1.journal_service_pb2 import DriveRequest, DriveResponse, FollowRequest, FollowResponse, GetRunRequest, GetRunResponse
from behest.session.v1.journal_service_pb2_grpc import JournalServiceServicer, JournalServiceStub, add_JournalServiceServicer_to_server
from chassis.rpc import App, LocalChannel, Methods, StubChannel, default_pipeline, open_channel, open_server
from chassis.rpc.serve import ServerOptions

CARRIERS = ("local", "grpc", "mux")
COLLECT = "/behest.test.v1.ProbeService/Collect"
GET_RUN = "/behest.session.v1.JournalService/GetRun"

QUICK_END = ServerOptions(grace=0.2)


class Probe(JournalServiceServicer):
    """GetRun is unary, Follow answers with a stream, Drive has streams both ways, Collect takes a stream and answers once."""

    def __init__(self, get_run: Any = None, follow: Any = None, drive: Any = None, collect: Any = None) -> None:
        self._get_run, self._follow, self._drive, self.collect = get_run, follow, drive, collect

    async def GetRun(self, request: GetRunRequest, context: object) -> GetRunResponse:
        return await self._get_run(request)

    async def Follow(self, request: FollowRequest, context: object) -> AsyncIterator[FollowResponse]:
        async with contextlib.aclosing(self._follow(request)) as responses:
            async for response in responses:
                yield response

    async def Drive(self, requests: AsyncIterator[DriveRequest], context: object) -> AsyncIterator[DriveResponse]:
        async with contextlib.aclosing(self._drive(requests)) as responses:
            async for response in responses:
                yield response

    async def Collect(self, requests: AsyncIterator[DriveRequest], context: object) -> DriveResponse:
        return await self.collect(requests)


def probe_app(probe: Probe, *, name: str = "probe", **hooks: Any) -> App:
    """The probe as an app."""
    methods = Methods(name, default_pipeline())
    add_JournalServiceServicer_to_server(probe, methods.server())
    collect = grpc.stream_unary_rpc_method_handler(
        probe.Collect, request_deserializer=DriveRequest.FromString, response_serializer=DriveResponse.SerializeToString
    )
    methods.add_registered_method_handlers("behest.test.v1.ProbeService", {"Collect": collect})
    return App(name, methods, **hooks)


class ProbeStub(JournalServiceStub):
    """The journal's generated stub, and Collect."""

    def __init__(self, channel: StubChannel) -> None:
        super().__init__(channel)
        self.OpenRunTypo = channel.unary_unary(
            "/behest.test.v1.ProbeService/Nothing", GetRunRequest.SerializeToString, GetRunResponse.FromString
        )
        self.Collect = channel.stream_unary(COLLECT, DriveRequest.SerializeToString, DriveResponse.FromString)


@contextlib.asynccontextmanager
async def open_probe(carrier: str, probe: Probe, options: ServerOptions = QUICK_END) -> AsyncIterator[ProbeStub]:
    """A stub that reaches the probe by that carrier."""
    app = probe_app(probe)
    if carrier == "local":
        async with LocalChannel(app.methods) as channel:
            yield ProbeStub(channel)
        return
    async with open_server(app, "127.0.0.1:0", options) as server, open_channel(server.address, carrier) as channel:
        yield ProbeStub(channel)
