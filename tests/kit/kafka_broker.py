"""Kafka brokers as processes: their jars, their settings, their life. What tests use is kit.kafka."""

from __future__ import annotations

import functools
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kit.ports import free_ports
from kit.programs import fetched, is_fetched

VERSION = "4.1.0"
NAME = f"kafka-{VERSION}"
START_SECONDS = 60.0
POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>behest.test</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
<dependencies><dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency></dependencies>
</project>
"""
JVM = (
    *("-Xmx256m", "-Xms64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xshare:auto"),
    "-Dorg.apache.logging.log4j.level=WARN",
)
SETTINGS = """process.roles=broker,controller
node.id={node}
controller.listener.names=CONTROLLER
inter.broker.listener.name=REPLICATION
listeners=CLIENT://127.0.0.1:{client},REPLICATION://127.0.0.1:{replication},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=CLIENT://{advertised},REPLICATION://127.0.0.1:{replication}
listener.security.protocol.map=CLIENT:PLAINTEXT,REPLICATION:PLAINTEXT,CONTROLLER:PLAINTEXT
controller.quorum.voters={voters}
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={copies}
min.insync.replicas={in_sync}
offsets.topic.num.partitions=1
offsets.topic.replication.factor={copies}
transaction.state.log.num.partitions=1
transaction.state.log.replication.factor={copies}
transaction.state.log.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=500
broker.heartbeat.interval.ms=250
broker.session.timeout.ms=2000
controller.quorum.election.timeout.ms=500
controller.quorum.fetch.timeout.ms=1000
controller.quorum.request.timeout.ms=1000
controller.socket.timeout.ms=1500
request.timeout.ms=3000
replica.lag.time.max.ms=2000
log.cleaner.dedupe.buffer.size=4194304
num.network.threads=2
num.io.threads=2
"""


@functools.cache
def missing() -> str:
    """Why no broker can be started here; empty when one can."""
    if shutil.which("java") is None:
        return "Java is not installed: apt-get install default-jre-headless"
    if shutil.which("mvn") is None and not is_fetched(NAME):
        return "Maven is not installed: apt-get install maven"
    return ""


@functools.cache
def libraries() -> Path:
    """The folder of Kafka's jars."""
    command = ["mvn", "-B", "-q", "dependency:copy-dependencies", "-DoutputDirectory=libs"]
    return fetched(NAME, "pom.xml", POM, command) / "libs"


def _java(*arguments: str) -> list[str]:
    return ["java", *JVM, "-cp", f"{libraries()}/*", *arguments]


class Leash:
    """A process group that dies with this process, however that ends: its leader kills the group when its input closes."""

    def __init__(self) -> None:
        self._leader = subprocess.Popen(["sh", "-c", "read _; kill -9 0"], stdin=subprocess.PIPE, process_group=0)
        self.group = self._leader.pid

    def kill(self) -> None:
        """Ends the whole group."""
        assert self._leader.stdin is not None
        self._leader.stdin.close()
        self._leader.wait()


@dataclass
class Broker:
    """One broker, which is a controller too. Its log is `broker.log` in its folder."""

    folder: Path
    address: str
    leash: Leash
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts it; KafkaCluster.serving tells when it serves."""
        with (self.folder / "broker.log").open("ab") as log:
            self.process = subprocess.Popen(
                _java("kafka.Kafka", str(self.folder / "server.properties")),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                process_group=self.leash.group,
            )

    def format(self, cluster_id: str) -> subprocess.Popen[bytes]:
        """Prepares its storage, in the process returned."""
        command = _java("kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "-c", str(self.folder / "server.properties"))
        with (self.folder / "broker.log").open("ab") as log:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=self.leash.group)

    def kill(self) -> None:
        """Kill -9; returns when it is dead."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """The orderly end: leaderships move away first."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(START_SECONDS)
        self.process = None

    def pause(self) -> None:
        """Freezes it: connections stay, nothing is answered."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Goes on."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    @property
    def log(self) -> str:
        """The end of what it has said."""
        path = self.folder / "broker.log"
        return path.read_text(errors="replace")[-4000:] if path.exists() else ""


def lay_out(folder: Path, count: int, advertised: Sequence[str], leash: Leash) -> list[Broker]:
    """Brokers that know each other, with their settings written, not yet formatted."""
    ports = free_ports(3 * count)
    clients, replications, controllers = ports[:count], ports[count : 2 * count], ports[2 * count :]
    voters = ",".join(f"{index + 1}@127.0.0.1:{port}" for index, port in enumerate(controllers))
    brokers = []
    for index in range(count):
        own = folder / f"broker-{index + 1}"
        own.mkdir(parents=True)
        address = f"127.0.0.1:{clients[index]}"
        text = SETTINGS.format(
            node=index + 1,
            client=clients[index],
            replication=replications[index],
            controller=controllers[index],
            advertised=advertised[index] if advertised else address,
            voters=voters,
            data=own / "data",
            copies=count,
            in_sync=min(2, count),
        )
        (own / "server.properties").write_text(text)
        brokers.append(Broker(own, address, leash))
    return brokers
