"""One stub interface over three carriers: plain gRPC, many calls on one stream, and a call within the process."""

from chassis.rpc.app import App, running
from chassis.rpc.call import Call, call_scope, current_call
from chassis.rpc.channel import open_channel
from chassis.rpc.local import LocalChannel
from chassis.rpc.methods import Methods, Pipeline
from chassis.rpc.pipeline import default_pipeline
from chassis.rpc.process import main
from chassis.rpc.serve import open_server, serve
from chassis.rpc.stubs import StreamCall, StubChannel

__all__ = [
    "App",
    "Call",
    "LocalChannel",
    "Methods",
    "Pipeline",
    "StreamCall",
    "StubChannel",
    "call_scope",
    "current_call",
    "default_pipeline",
    "main",
    "open_channel",
    "open_server",
    "running",
    "serve",
]
