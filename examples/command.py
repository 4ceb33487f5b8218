"""Starts a run by a command through Kafka, from any program that can write a record.

    python examples/command.py 127.0.0.1:9092 "What is 17 * 23?"

The suite takes commands when `kafka.bootstrap_servers` and `orchestrator.commands.enabled` are set.
Whoever does not know whether a command arrived may send it again with the same id: nothing is started twice.
"""

import asyncio
import sys
import uuid

from aiokafka import AIOKafkaProducer

from behest.chat.v1.chat_pb2 import Part
from behest.run.v1.run_service_pb2 import CreateRunRequest


async def main(servers: str, order: str, topic: str = "behest.commands") -> None:
    """Sends the command and says under which id."""
    command_id = uuid.uuid4().hex
    request = CreateRunRequest(input=[Part(text=order)], metadata={"command": command_id})
    headers = [
        ("content-type", b"application/protobuf"),
        ("ce_specversion", b"1.0"),
        ("ce_id", command_id.encode()),
        ("ce_source", b"/examples"),
        ("ce_type", b"dev.behest.command.start.v1"),
        ("ce_tenant", b"default"),
    ]
    async with AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True) as producer:
        # Commands of one session have its id as their key, so that they are carried out in order. This one starts a new session.
        await producer.send_and_wait(topic, request.SerializeToString(), key=command_id.encode(), headers=headers)
    print(f"Sent {command_id}; the run has it in its metadata.")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
