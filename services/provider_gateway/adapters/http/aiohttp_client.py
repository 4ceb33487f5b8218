"""HTTP by aiohttp. docs/decisions/0003-http-transport.md says why this one."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from chassis.faults import SettingsInvalid
from provider_gateway.adapters.http.transport import BodyCut, ConnectFailed, ConnectTimedOut, HttpResponse, NotHttp

if TYPE_CHECKING:
    import aiohttp


@dataclass(frozen=True, slots=True)
class HttpOptions:
    """How to connect. Seconds; `proxy` is an HTTP proxy's URL, `ca_file` root certificates in PEM."""

    connect_seconds: float = 10.0
    connections: int = 1000
    idle_seconds: float = 55.0
    proxy: str = ""
    ca_file: str = ""


class AiohttpClient:
    """An Http over aiohttp, which is imported and opened at the first call: a gateway that only runs scripts pays nothing for it."""

    def __init__(self, options: HttpOptions) -> None:
        self._options = options
        self._tls = _tls(options.ca_file)
        self._session: aiohttp.ClientSession | None = None

    @contextlib.asynccontextmanager
    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AsyncIterator[HttpResponse]:
        """Sends and gives the response."""
        session = self._session or self._open()
        request = session.post(url, headers=headers, data=body, allow_redirects=False, proxy=self._options.proxy or None)
        async with await _begun(request) as response:
            yield _AiohttpResponse(response)

    async def close(self) -> None:
        """Closes all connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _open(self) -> aiohttp.ClientSession:
        import aiohttp

        options = self._options
        connector = aiohttp.TCPConnector(
            limit=options.connections,
            keepalive_timeout=options.idle_seconds,
            ssl=self._tls,
        )
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=options.connect_seconds)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar())
        return self._session


class _AiohttpResponse:
    __slots__ = ("_content", "_last_read", "_loop", "_pause", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.status = response.status
        self.headers = {name.lower(): value for name, value in response.headers.items()}
        self._content = response.content
        self._loop = asyncio.get_running_loop()
        self._last_read = 0.0
        self._pause: asyncio.Future[None] | None = None
        self._content.on_eof(self._end_pause)

    async def read(self, window: float = 0.0) -> bytes:
        """The next piece of the body."""
        import aiohttp

        if window:  # the ticks are the same for all streams, so that one turn of the loop serves many
            await self._gather((self._last_read // window + 1) * window)
        try:
            piece = await self._content.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise BodyCut(_text(error)) from None
        self._last_read = self._loop.time()
        return piece

    async def _gather(self, until: float) -> None:
        if self._loop.time() >= until or self._content.is_eof():
            return
        self._pause = self._loop.create_future()
        timer = self._loop.call_at(until, self._end_pause)
        try:
            await self._pause
        finally:
            timer.cancel()

    def _end_pause(self) -> None:
        if self._pause is not None and not self._pause.done():
            self._pause.set_result(None)


def _tls(ca_file: str) -> ssl.SSLContext | bool:
    """Whom to trust: the system's authorities, or those in a file; raises SettingsInvalid when it holds none."""
    if not ca_file:
        return True
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise SettingsInvalid(f"provider_gateway.http.ca_file: {ca_file} cannot be used: {error}; name a PEM file") from None


async def _begun(request: contextlib.AbstractAsyncContextManager[aiohttp.ClientResponse]) -> aiohttp.ClientResponse:
    import aiohttp

    try:
        return await request.__aenter__()
    except aiohttp.ConnectionTimeoutError as error:
        raise ConnectTimedOut(_text(error)) from None
    except aiohttp.ClientResponseError as error:
        raise NotHttp(error.message or "no HTTP status line") from None
    except (aiohttp.ClientError, OSError) as error:
        raise ConnectFailed(_text(error)) from None


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__
