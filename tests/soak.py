"""`make soak`: a gateway under load for so long that anything it keeps would show; then what it should have given back is counted.

    python -m tests.soak --calls 100000 --cancelled 10000

The gateway runs in this process and is called without a network, so that memory, tasks and sockets are its own. Linux.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / name) for name in (".", "services", "gen", "tests")]

from tests.bench.contenders.sse import model_name  # noqa: E402 — the checkout is made importable first
from tests.bench.serving import open_server_process  # noqa: E402

from behest.provider.v1 import provider_service_pb2 as pb  # noqa: E402
from behest.provider.v1.provider_service_pb2_grpc import ProviderServiceStub  # noqa: E402
from chassis.faults import Fault  # noqa: E402
from chassis.rpc import LocalChannel  # noqa: E402
from chassis.rpc.serve import collect_rarely  # noqa: E402
from chassis.telemetry import LogSettings, set_up_logging  # noqa: E402
from chassis.world import World  # noqa: E402
from kit.provider_gateway import settings_of  # noqa: E402
from provider_gateway.app import open_app  # noqa: E402

AT_ONCE = 64
READINGS = 40
MOST_SLOPE = 30.0  # bytes for each call, which is below what the allocator's own moods make of so many calls
ENOUGH = 50_000  # calls; fewer say nothing of memory
SETTLE_TRIES = 100
CHUNKS, GAP = 200, 5


def main() -> int:
    """Prints what was seen; 1 when something was kept."""
    parser = argparse.ArgumentParser(prog="make soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=100_000, help="half of them as streams")
    parser.add_argument("--cancelled", type=int, default=10_000, help="streams that their caller leaves in the middle")
    arguments = parser.parse_args()
    set_up_logging(LogSettings(level="error"))
    collect_rarely()
    return uvloop.run(_soak(arguments.calls, arguments.cancelled))


async def _soak(calls: int, cancelled: int) -> int:
    async with open_server_process("tests.bench.contenders.sse:serve_upstream") as upstream, _gateway(upstream.address) as stub:
        await _many(AT_ONCE * 4, lambda number: _call(stub, number))
        slope, grown = await _growth(calls, lambda number: _call(stub, number))
        await asyncio.sleep(0.5)
        before = await _kept(stub)
        began = time.perf_counter()
        await _many(cancelled, lambda number: _leave(stub, number))
        took = time.perf_counter() - began
        after = await _settled(stub, before)
    print(f"{calls} calls: resident memory {slope:+.1f} bytes for each call over the second half, {grown / 1e6:+.1f} MB in all")
    print(f"{cancelled} cancelled streams in {took:.0f} s: before {before}, after {after}")
    wrong = [name for name, count in after.items() if count > before[name]]
    return 1 if wrong or (calls >= ENOUGH and slope > MOST_SLOPE) else 0


@contextlib.asynccontextmanager
async def _gateway(upstream: str) -> AsyncIterator[ProviderServiceStub]:
    provider = {"adapter": "openai", "base_url": upstream}
    budgets = [{"name": unit, "unit": unit, "limit": 9e9, "window": "1d"} for unit in ("requests", "tokens")]
    settings = settings_of({"fake": provider}, budgets=budgets)
    async with open_app(settings, World()) as app, LocalChannel(app.methods) as channel:
        yield ProviderServiceStub(channel)


def _request(number: int, chunks: int, gap: int) -> pb.ChatRequest:
    message = {"role": "ROLE_USER", "parts": [{"text": f"Say something long, number {number}."}]}
    name = f"fake/{model_name(chunks, gap)}"
    return pb.ChatRequest(model=name, messages=[message], request_id=f"soak-{number}", sampling={"max_output_tokens": 500})


async def _call(stub: ProviderServiceStub, number: int) -> None:
    if number % 2:
        await stub.Chat(_request(number, 1, 0), timeout=30)
        return
    async for _ in stub.StreamChat(pb.StreamChatRequest(request=_request(number, 20, 0)), timeout=30):
        pass


async def _leave(stub: ProviderServiceStub, number: int) -> None:
    """Reads a little of a slow stream, or nothing, and goes."""
    call = stub.StreamChat(pb.StreamChatRequest(request=_request(number, CHUNKS, GAP)), timeout=30)
    with contextlib.suppress(Fault, asyncio.CancelledError):
        if number % 3:
            await anext(aiter(call))
        else:
            await asyncio.sleep(0)
    call.cancel()


async def _many(count: int, work: Callable[[int], Awaitable[None]], first: int = 0) -> None:
    numbers = iter(range(first, first + count))

    async def lane() -> None:
        for number in numbers:
            await work(number)

    async with asyncio.TaskGroup() as lanes:
        for _ in range(AT_ONCE):
            lanes.create_task(lane())


async def _growth(calls: int, work: Callable[[int], Awaitable[None]]) -> tuple[float, float]:
    """Bytes of resident memory for each call over the second half, by least squares, and in all."""
    each = max(1, calls // READINGS)
    readings = list[tuple[int, int]]()
    for turn in range(READINGS):
        await _many(each, work, first=turn * each)
        gc.collect()
        readings.append(((turn + 1) * each, _resident()))
    late = readings[READINGS // 2 :]
    slope = statistics.linear_regression([count for count, _ in late], [size for _, size in late]).slope
    return slope, readings[-1][1] - readings[0][1]


async def _kept(stub: ProviderServiceStub) -> dict[str, int]:
    """What the gateway holds: tasks, sockets, calls under way by its own account, and what they have reserved."""
    gc.collect()
    providers = (await stub.ListProviders(pb.ListProvidersRequest())).providers
    budgets = (await stub.ListBudgets(pb.ListBudgetsRequest())).budgets
    return {
        "tasks": len(asyncio.all_tasks()),
        "sockets": _sockets(),
        "in flight": sum(target.in_flight for provider in providers for target in provider.targets),
        "reserved": sum(budget.reserved for budget in budgets),
    }


async def _settled(stub: ProviderServiceStub, before: dict[str, int]) -> dict[str, int]:
    """The same once what was under way is over, or after some time."""
    for _ in range(SETTLE_TRIES):
        kept = await _kept(stub)
        if all(count <= before[name] for name, count in kept.items()):
            break
        await asyncio.sleep(0.2)
    return kept


def _resident() -> int:
    """Bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _sockets() -> int:
    """Sockets that this process has open; those that wait for their next use are none that leaked, and go in time."""
    count = 0
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(each.readlink()).startswith("socket:")
    return count


if __name__ == "__main__":
    sys.exit(main())
