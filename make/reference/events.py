"""The page of events, from the envelope's proto."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto

from reference import protos

PATH = "behest/event/v1/event.proto"


def lines() -> Iterator[str]:
    """The page, line by line."""
    file = protos.files()[PATH]
    kinds = {message.name: (message, comment, path) for message, comment, path in protos.messages(file)}
    envelope, _, path = kinds["Event"]
    yield "# Events"
    yield ""
    yield "A run is a log of events. Each has this envelope, and one kind."
    yield "Readers skip kinds that they do not know."
    yield from _fields(file, envelope, path, in_oneof=False)
    for field in envelope.field:
        if field.HasField("oneof_index"):
            message, comment, at = kinds[field.type_name.rpartition(".")[2]]
            yield from ("", f"## {message.name}", "", comment)
            yield from _fields(file, message, at, in_oneof=True)


def _fields(file: FileDescriptorProto, message: DescriptorProto, path: tuple[int, ...], *, in_oneof: bool) -> Iterator[str]:
    yield from ("", "| field | type | meaning |", "|---|---|---|")
    for index, field in enumerate(message.field):
        if in_oneof or not field.HasField("oneof_index"):
            yield f"| `{field.name}` | {protos.type_name(field)} | {protos.comment(file, *path, 2, index)} |"
