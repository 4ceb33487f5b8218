"""Where a prompt is marked for its provider's cache: by the caller, by the gateway, and never at more places than the provider takes.

A prompt is read in one order: tools as they are sent, system messages, then the conversation. A mark keeps all before it, so that the
gateway's own marks stand where the next request will still be the same: after the last tool, after the last long system part, after the
model's last answer (what follows is the newest turn of the user) and, so that a long turn does not part them, after the answer before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from provider_gateway.domain.answers import RequestWarning
from provider_gateway.domain.chat import (
    NO_NOTES,
    CacheLifetime,
    CachingMode,
    ChatRequest,
    Message,
    PromptCaching,
    Role,
)
from provider_gateway.domain.estimate import estimate_part

LONG_SYSTEM_TOKENS = 1024
"""Estimated tokens from which on a system part is worth a mark of its own: what most models cache at least."""

END = 1 << 30
"""Stands for the place after everything in a message, its tool calls included."""


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """A place in a prompt, in the order of reading: after a tool by its rank among those sent, or after a part of a message."""

    section: int
    first: int
    second: int = 0


@dataclass(frozen=True, slots=True)
class _Wish:
    spot: Spot
    lifetime: CacheLifetime
    path: str = ""  # of a caller's mark


@dataclass(frozen=True, slots=True)
class CachePlan:
    """The marks of one request: by the tool's place in the request, and by message and part; END is the end of a message."""

    tools: Mapping[int, CacheLifetime] = field(default_factory=dict)
    parts: Mapping[int, Mapping[int, CacheLifetime]] = field(default_factory=dict)
    warnings: tuple[RequestWarning, ...] = ()


def settled(wish: PromptCaching, default: PromptCaching, able: bool) -> PromptCaching:
    """How a request is cached: as it wishes, else as the gateway is configured; not at all where the model is not able to."""
    mode = wish.mode if wish.mode is not CachingMode.UNSPECIFIED else default.mode
    lifetime = wish.lifetime if wish.lifetime is not CacheLifetime.UNSPECIFIED else default.lifetime
    return PromptCaching(mode if able else CachingMode.OFF, lifetime)


def marked_paths(request: ChatRequest) -> list[str]:
    """Where the caller set marks, as paths of the request."""
    return [wish.path for wish in _explicit(request, {})]


def cache_plan(request: ChatRequest, caching: PromptCaching, most: int) -> CachePlan:
    """The marks to set, at most `most`. What the caller marked and is not, or is kept for a shorter time, is warned of."""
    ranks = {place: rank for rank, (place, _) in enumerate(sorted(enumerate(request.tools), key=lambda placed: placed[1].name))}
    explicit = list(_explicit(request, ranks))
    if caching.mode is CachingMode.OFF or most <= 0:
        why = "left out: prompt caching is off, or the model is not known to have it"
        return CachePlan(warnings=tuple(RequestWarning(wish.path, why) for wish in explicit))
    kept, warnings = _at_most(explicit, most)
    if caching.mode is CachingMode.AUTO:
        taken = {wish.spot for wish in kept}
        own = [spot for spot in _automatic(request) if spot not in taken and not _same_place(request, spot, taken)]
        kept += [_Wish(spot, _own_lifetime(spot, caching.lifetime, kept)) for spot in own[: most - len(kept)]]
    ordered, shortened = _longest_first(sorted(kept, key=lambda wish: wish.spot))
    return _plan(ordered, {rank: place for place, rank in ranks.items()}, (*warnings, *shortened))


def _explicit(request: ChatRequest, ranks: Mapping[int, int]) -> Iterator[_Wish]:
    for place, tool in enumerate(request.tools):
        if tool.cache is not None:
            yield _Wish(Spot(0, ranks.get(place, place)), _known(tool.cache.lifetime), f"tools[{place}].cache")
    for place, message in enumerate(request.messages):
        for number, part in enumerate(message.parts):
            if part.notes is not NO_NOTES and part.notes.cache is not None:
                path = f"messages[{place}].parts[{number}].cache"
                yield _Wish(Spot(1, place, number), _known(part.notes.cache.lifetime), path)


def _known(lifetime: CacheLifetime) -> CacheLifetime:
    return CacheLifetime.ONE_HOUR if lifetime is CacheLifetime.ONE_HOUR else CacheLifetime.FIVE_MINUTES


def _at_most(wishes: list[_Wish], most: int) -> tuple[list[_Wish], list[RequestWarning]]:
    """The wishes that find a place: those for an hour first, then the ones that keep more."""
    ranked = sorted(wishes, key=lambda wish: (wish.lifetime is CacheLifetime.ONE_HOUR, wish.spot), reverse=True)
    why = f"left out: the model takes {most} marks, and others keep more or longer"
    return ranked[:most], [RequestWarning(wish.path, why) for wish in ranked[most:]]


def _automatic(request: ChatRequest) -> Iterator[Spot]:
    """The gateway's own marks, the ones worth most first."""
    answers = _answers(request.messages)
    if answers:
        yield Spot(1, answers[0], END)
    system = _long_system(request.messages)
    if system is not None:
        yield system
    if request.tools:
        yield Spot(0, len(request.tools) - 1)
    if len(answers) > 1:
        yield Spot(1, answers[1], END)


def _answers(messages: tuple[Message, ...]) -> list[int]:
    """The model's last two answers before the newest turn of the user, the last one first."""
    place = len(messages) - 1
    while place >= 0 and messages[place].role is Role.ASSISTANT:  # an answer that is to be continued belongs to the newest turn
        place -= 1
    found: list[int] = []
    while place >= 0 and len(found) < 2:
        if messages[place].role is Role.ASSISTANT:
            found.append(place)
        place -= 1
    return found


def _long_system(messages: tuple[Message, ...]) -> Spot | None:
    """The last system part of some length before the conversation."""
    found = None
    for place, message in enumerate(messages):
        if message.role is not Role.SYSTEM:
            break
        for number, part in enumerate(message.parts):
            if estimate_part(part) >= LONG_SYSTEM_TOKENS:
                found = Spot(1, place, number)
    return found


def _same_place(request: ChatRequest, spot: Spot, taken: set[Spot]) -> bool:
    """Whether the end of a message is marked already because its last part is."""
    if spot.second != END:
        return False
    message = request.messages[spot.first]
    return not message.tool_calls and Spot(1, spot.first, len(message.parts) - 1) in taken


def _own_lifetime(spot: Spot, wished: CacheLifetime, kept: list[_Wish]) -> CacheLifetime:
    """An hour when asked for, or when a caller's mark further on is for an hour, which must not follow a shorter one."""
    hour = _known(wished) is CacheLifetime.ONE_HOUR
    hour = hour or any(wish.path and wish.spot > spot and wish.lifetime is CacheLifetime.ONE_HOUR for wish in kept)
    return CacheLifetime.ONE_HOUR if hour else CacheLifetime.FIVE_MINUTES


def _longest_first(ordered: list[_Wish]) -> tuple[list[_Wish], list[RequestWarning]]:
    """The same with no hour after five minutes, which the API refuses."""
    found, warnings, short = list[_Wish](), list[RequestWarning](), False
    for wish in ordered:
        if short and wish.lifetime is CacheLifetime.ONE_HOUR:
            if wish.path:
                warnings.append(RequestWarning(wish.path, "kept for five minutes: a mark before it is for five, and none may be longer"))
            wish = _Wish(wish.spot, CacheLifetime.FIVE_MINUTES, wish.path)
        short = short or wish.lifetime is CacheLifetime.FIVE_MINUTES
        found.append(wish)
    return found, warnings


def _plan(wishes: list[_Wish], places: Mapping[int, int], warnings: tuple[RequestWarning, ...]) -> CachePlan:
    tools: dict[int, CacheLifetime] = {}
    parts: dict[int, dict[int, CacheLifetime]] = {}
    for wish in wishes:
        if wish.spot.section == 0:
            tools[places[wish.spot.first]] = wish.lifetime
        else:
            parts.setdefault(wish.spot.first, {})[wish.spot.second] = wish.lifetime
    return CachePlan(tools, parts, warnings)
