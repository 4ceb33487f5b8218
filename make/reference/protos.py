"""The protos with their comments, as protoc reads them."""

from __future__ import annotations

import functools
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto, FileDescriptorSet

PROTO = Path(__file__).resolve().parent.parent.parent / "proto"


@functools.cache
def files() -> dict[str, FileDescriptorProto]:
    """Every proto file by its path."""
    with tempfile.NamedTemporaryFile() as target:
        options = [f"-I{PROTO}", "--include_source_info", f"--descriptor_set_out={target.name}"]
        subprocess.run([sys.executable, "-m", "grpc_tools.protoc", *options, *sorted(map(str, PROTO.rglob("*.proto")))], check=True)
        parsed = FileDescriptorSet.FromString(Path(target.name).read_bytes())
    return {file.name: file for file in parsed.file}


@functools.cache
def _comments(path: str) -> dict[tuple[int, ...], str]:
    locations = files()[path].source_code_info.location
    return {tuple(each.path): " ".join(each.leading_comments.split()) for each in locations}


def comment(file: FileDescriptorProto, *path: int) -> str:
    """The comment before an element, in one line; the path is as in SourceCodeInfo."""
    return _comments(file.name).get(path, "")


def messages(file: FileDescriptorProto) -> Iterator[tuple[DescriptorProto, str, tuple[int, ...]]]:
    """The messages of a file, each with its comment and its path."""
    for index, message in enumerate(file.message_type):
        yield message, comment(file, 4, index), (4, index)


def type_name(field: FieldDescriptorProto) -> str:
    """What a field holds, as a reader says it."""
    scalar = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
    name = field.type_name.rpartition(".")[2] if field.type_name else scalar
    if name.endswith("Entry"):
        return "map"
    return f"repeated {name}" if field.label == FieldDescriptorProto.LABEL_REPEATED else name
