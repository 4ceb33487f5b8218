"""What a service is to whoever runs it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from chassis.rpc.methods import Methods


async def _nothing() -> None:
    """Is ready at once and has nothing to hand over."""


@dataclass(frozen=True, slots=True)
class App:
    """A service, built and not yet listening.

    `ready` raises a Fault that names what is missing; it is asked each second. `drain` stops taking work and hands over what is under way;
    it is called once, after the health check said so.
    """

    name: str
    methods: Methods
    ready: Callable[[], Awaitable[None]] = _nothing
    drain: Callable[[], Awaitable[None]] = _nothing
