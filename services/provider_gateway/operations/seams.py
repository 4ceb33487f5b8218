"""One answer out of several pieces: when a target breaks off in mid-text, another one goes on from what was produced.

Only plain text can be gone on with. Half of a tool call's arguments, reasoning and refusals are no beginning that another model takes up,
and a tool call that the reader has seen begin may be running when its message is given up; an answer that is held to a schema would begin
anew within itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from chassis.faults import Fault
from provider_gateway.domain.answers import (
    ChatEvent,
    ChatResult,
    Finished,
    ReasoningDelta,
    RefusalDelta,
    RequestWarning,
    Seam,
    Started,
    TextDelta,
    ToolCallCompleted,
    ToolCallDelta,
    ToolCallStarted,
    Usage,
    UsageReport,
    summed,
)
from provider_gateway.domain.chat import ChatRequest, FormatKind, Message, Part, ReasoningEffort, Role, TextPart
from provider_gateway.domain.estimate import estimate_input, estimate_text
from provider_gateway.operations.ports import ModelCall
from provider_gateway.operations.pricing import priced_usage
from provider_gateway.operations.routes import Target

_TEXT = (FormatKind.UNSPECIFIED, FormatKind.TEXT)
_NO_REASONING = (ReasoningEffort.UNSPECIFIED, ReasoningEffort.NONE)
LEAST_ECHO = 16  # characters: a model that says fewer of its own again may well mean them
_NO_TEXT = (ReasoningDelta, RefusalDelta, ToolCallStarted, ToolCallDelta, ToolCallCompleted)


class Seams:
    """What was delivered of one answer so far, and how the next piece is joined to it."""

    def __init__(self, request: ChatRequest) -> None:
        self._request = request
        self._possible = _takes_pieces(request)
        self._text: list[str] = []  # all that was delivered
        self._begins = 0  # where in it the present piece begins
        self._seams: list[Seam] = []
        self._fault: Fault | None = None  # why the last piece ended, until the next one begins
        self._before: Usage | None = None  # of the pieces before the present one
        self._reported: Usage | None = None  # of the present one
        self._warnings: list[RequestWarning] = []
        self._echo, self._held = "", ""  # what the present piece may say again first, and what of it may be that
        self._repeated = ""  # and the white space that it may say again then
        self._skipped = 0

    @property
    def pending(self) -> bool:
        """Whether the next piece goes on with what was delivered."""
        return self._fault is not None

    def taken(self, events: Sequence[ChatEvent], target: Target, joins: bool) -> Sequence[ChatEvent]:
        """The steps of a piece as the reader gets them; `joins` for all pieces but the first."""
        for event in events:
            if isinstance(event, UsageReport):
                self._reported = event.usage
        if joins:
            mark = [self._opened(target)] if self.pending else []
            events = [*mark, *(joined for event in events for joined in self._joined(event))]
        for event in events:
            if isinstance(event, TextDelta):
                self._text.append(event.text)
            elif isinstance(event, _NO_TEXT):
                self._possible = False
        return events

    def fits(self, target: Target) -> bool:
        """Whether the target can go on with what was delivered."""
        capabilities = target.traits.capabilities
        return self._possible and capabilities is not None and capabilities.continuing and target.streams

    def broke(self, target: Target, fault: Fault) -> None:
        """The present piece, which had output, ended too early."""
        used = self._reported or self._estimated(target)
        self._before = used if self._before is None else summed(self._before, used)
        self._reported, self._fault = None, fault

    def call(self, target: Target) -> ModelCall:
        """What the next target is asked: the conversation, and as its last word what was delivered, without white space at the end."""
        if not self.pending:
            return target.call
        said = "".join(self._text)
        begun = said.rstrip()
        self._repeated, self._skipped = said[len(begun) :], 0
        self._echo, self._held = begun if len(begun) >= LEAST_ECHO else "", ""
        if not begun:
            return target.call
        request, sampling = self._request, self._request.sampling
        if sampling.max_output_tokens is not None:
            left = max(1, sampling.max_output_tokens - estimate_text(begun))
            request = replace(request, sampling=replace(sampling, max_output_tokens=left))
        return replace(target.call, request=replace(request, messages=(*request.messages, Message(Role.ASSISTANT, (TextPart(begun),)))))

    def _opened(self, target: Target) -> Seam:
        """The next piece begins: the mark that the reader gets."""
        assert self._fault is not None, "no piece broke off"
        said = sum(map(len, self._text))
        seam = Seam(self._fault, target.access.provider.name, target.model, said)
        self._seams.append(seam)
        self._begins, self._fault = said, None
        return seam

    def _joined(self, event: ChatEvent) -> list[ChatEvent]:
        """A step as it continues the answer: no second beginning, nothing said twice, usage of all pieces."""
        match event:
            case Started():
                return []
            case TextDelta(text) if self._echo or self._repeated:
                kept = self._without_repetition(self._without_echo(text))
                return [TextDelta(kept)] if kept else []
            case UsageReport(usage) if self._before is not None:
                return [UsageReport(summed(self._before, usage))]
            case Finished(result):
                return [*self._released(), Finished(self._whole(result))]
            case TextDelta():
                return [event]
        return [*self._released(), event]

    def _released(self) -> list[ChatEvent]:
        """The text that was held back, which was no echo after all."""
        held, self._echo, self._held = self._held, "", ""
        return [TextDelta(held)] if held else []

    def _without_echo(self, text: str) -> str:
        """The text without what some servers say first: all that they were given. It is held back while it may be that."""
        if not self._echo:
            return text
        self._held += text
        if len(self._held) < len(self._echo) and self._echo.startswith(self._held):
            return ""
        echoed = len(self._echo) if self._held.startswith(self._echo) else 0
        fresh, self._echo, self._held = self._held[echoed:], "", ""
        self._skipped += echoed
        return fresh

    def _without_repetition(self, text: str) -> str:
        """The text without its beginning as far as that is the white space which the model was not shown and says again."""
        same = 0
        while same < min(len(text), len(self._repeated)) and text[same] == self._repeated[same]:
            same += 1
        self._skipped += same
        self._repeated = self._repeated[same:] if same == len(text) else ""
        return text[same:]

    def _whole(self, result: ChatResult) -> ChatResult:
        """The answer's result: all text as it was delivered, the usage of all pieces, and where they meet."""
        if self._before is None:
            return result
        return replace(
            result,
            message=replace(result.message, parts=self._parts(result.message.parts)),
            usage=summed(self._before, result.usage),
            warnings=(*self._warnings, *result.warnings),
            seams=tuple(self._seams),
        )

    def _parts(self, parts: Sequence[Part]) -> tuple[Part, ...]:
        before = "".join(self._text)[: self._begins]
        joined, skip = list[Part](), self._skipped
        for part in parts:
            if isinstance(part, TextPart):
                cut = min(skip, len(part.text))
                skip -= cut
                part = _moved(part, before, cut)
                before = ""
            joined.append(part)
        return tuple(joined) if not before else (TextPart(before), *joined)

    def _estimated(self, target: Target) -> Usage:
        """The usage of a piece that told none: its provider did the work, so that nothing is not the truth."""
        piece = "".join(self._text)[self._begins :]
        usage = Usage(estimate_input(self._request) + estimate_text("".join(self._text)[: self._begins]), estimate_text(piece))
        self._warnings.append(RequestWarning("usage", f"{target.name} broke off without telling its usage, which is estimated"))
        return usage if target.traits.price is None else priced_usage(usage, target.traits.price)


def _takes_pieces(request: ChatRequest) -> bool:
    return (
        request.response_format.kind in _TEXT
        and not request.tool_choice.forces
        and request.sampling.reasoning_effort in _NO_REASONING
        and request.messages[-1].role is not Role.ASSISTANT
    )


def _moved(part: TextPart, before: str, cut: int) -> TextPart:
    """The part without its first characters and after what was said before it; its citations move along."""
    shift = len(before) - cut
    citations = tuple(
        replace(
            citation,
            start=None if citation.start is None else max(0, citation.start + shift),
            end=None if citation.end is None else max(0, citation.end + shift),
        )
        for citation in part.citations
    )
    return TextPart(before + part.text[cut:], replace(part.notes, citations=citations) if citations else part.notes)
