"""HTTP as the providers need it: post bytes, read the answer piece by piece, close at once when nobody wants it any more."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Protocol


class TransportError(Exception):
    """The exchange failed below HTTP; the text says how, without the request."""


class ConnectFailed(TransportError):
    """The server could not be reached, or went away before it answered."""


class ConnectTimedOut(TransportError):
    """The server did not accept a connection in time."""


class BodyCut(TransportError):
    """The connection broke within the body."""


class NotHttp(TransportError):
    """The server answered with something that is not HTTP."""


class HttpResponse(Protocol):
    """A response whose body has not been read. Header names are in lower case."""

    @property
    def status(self) -> int:
        """The status code."""

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers."""

    async def read(self, window: float = 0.0) -> bytes:
        """The next piece of the body as soon as there is one, at most some 128 KiB; empty at the end. Raises BodyCut.

        With a window (seconds) at most one piece comes between two ticks of a clock with that period, and holds what arrived meanwhile;
        the end of the body does not wait.
        """


class Http(Protocol):
    """A client with a pool of connections. Follows no redirects, so that a key goes where it was configured to go."""

    def post(self, url: str, headers: Mapping[str, str], body: bytes) -> AbstractAsyncContextManager[HttpResponse]:
        """Sends; the response is closed on exit, its connection too when the body was not read to the end."""
