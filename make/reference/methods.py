"""The page of gRPC methods, from the protos."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import FileDescriptorProto, MethodDescriptorProto

from reference import protos


def lines() -> Iterator[str]:
    """The page, line by line."""
    yield "# Methods"
    yield ""
    yield "Requests and replies are described in `proto/`; each service also speaks `grpc.health.v1.Health` and reflection."
    for _, file in sorted(protos.files().items()):
        for index, service in enumerate(file.service):
            yield from ("", f"## {file.package}.{service.name}", "", protos.comment(file, 6, index), "")
            yield from ("| method | takes | gives | what |", "|---|---|---|---|")
            yield from (_row(file, index, number, method) for number, method in enumerate(service.method))


def _row(file: FileDescriptorProto, service: int, number: int, method: MethodDescriptorProto) -> str:
    takes = _message(method.input_type, streamed=method.client_streaming)
    gives = _message(method.output_type, streamed=method.server_streaming)
    return f"| `{method.name}` | {takes} | {gives} | {protos.comment(file, 6, service, 2, number)} |"


def _message(name: str, *, streamed: bool) -> str:
    short = name.rpartition(".")[2]
    return f"stream of {short}" if streamed else short
