"""Commands that are sent as records: what was handed to Kafka must be carried out once, or be put aside with a reason."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from random import Random

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from google.protobuf.message import Message

from behest.chat.v1 import chat_pb2
from behest.run.v1 import run_pb2, run_service_pb2
from chaos import programs
from chaos.history import Letter
from chaos.notebook import Known, Notebook
from chassis.kafka.settings import KafkaSettings

MEAN_PAUSE = 0.7
PREFIX = "dev.behest.command."


class Correspondent:
    """Sends commands as records, now and then the same one twice."""

    def __init__(self, kafka: KafkaSettings, seed: int, notebook: Notebook) -> None:
        self._kafka = kafka
        self._rng = Random(f"{seed}/letters")
        self._notebook = notebook
        self._count = 0

    async def write(self, until: float) -> None:
        """Sends one letter after another until a moment of the loop's clock."""
        loop = asyncio.get_running_loop()
        # Without idempotence: what this producer sends twice by itself is one more repetition to be told from a new command.
        producer = AIOKafkaProducer(bootstrap_servers=self._kafka.bootstrap_servers, acks="all", request_timeout_ms=3000)
        await producer.start()
        try:
            while loop.time() < until:
                await asyncio.sleep(self._rng.expovariate(1 / MEAN_PAUSE))
                await self._send(producer, *self._letter())
        finally:
            await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, letter: Letter, request: Message) -> None:
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", letter.id.encode()),
            ("ce_source", b"/chaos"),
            ("ce_type", f"{PREFIX}{letter.kind}.v1".encode()),
            ("content-type", b"application/protobuf"),
        ]
        for _ in range(self._rng.choice((1, 1, 1, 2))):
            try:
                topic = self._kafka.topics.commands.name
                await producer.send_and_wait(topic, request.SerializeToString(), key=letter.run_id.encode() or None, headers=headers)
            except KafkaError as error:
                self._notebook.codes[f"letter {type(error).__name__}"] += 1
                continue
            self._notebook.letters.append(letter)

    def _letter(self) -> tuple[Letter, Message]:
        self._count += 1
        name = f"letter-{self._count}"
        kind, place = self._rng.choice(("start", "start", "input", "cancel")), self._rng.random()
        text = programs.text(self._rng, name)
        runs = self._notebook.open
        if kind == "start" or not runs:
            return Letter(name, "start", text, "", time.time()), _start(text)
        run_id = _some(runs, place).run_id
        if kind == "input":
            return Letter(name, kind, text, run_id, time.time()), _input(text, run_id)
        return Letter(name, kind, "", run_id, time.time()), run_service_pb2.CancelRunRequest(run_id=run_id, reason="chaos by letter")


def _some(runs: Sequence[Known], place: float) -> Known:
    return runs[int(place * len(runs))]


def _start(text: str) -> run_service_pb2.CreateRunRequest:
    return run_service_pb2.CreateRunRequest(input=[chat_pb2.Part(text=text)], on_busy=run_pb2.BUSY_POLICY_QUEUE)


def _input(text: str, run_id: str) -> run_service_pb2.SendInputRequest:
    return run_service_pb2.SendInputRequest(run_id=run_id, input=[chat_pb2.Part(text=text)])
