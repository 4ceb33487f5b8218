"""What a script can say. Written as YAML or JSON, or built from these classes; typos are named."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from chassis.faults import SettingsInvalid

FaultKind = Literal[
    "rate_limited",
    "unavailable",
    "timeout",
    "credentials_refused",
    "permission_denied",
    "context_overflow",
    "refused",
    "garbage",
    "cut",
    "stall",
]
Finish = Literal["stop", "tool_calls", "length", "content_filter", "refusal", "error", "unknown"]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScriptedFault(_Line):
    """Something that goes wrong."""

    kind: FaultKind = Field(description="What goes wrong; cut and stall break the stream off or leave it hanging.")
    times: int = Field(0, ge=0, description="How many attempts fail before the turn succeeds. 0: all of them.")
    after_pieces: int = Field(0, ge=0, description="How many pieces of the answer are given before it goes wrong.")
    retry_after_ms: int | None = Field(None, ge=0, description="How long the provider asks to wait.")


class ScriptedCall(_Line):
    """A tool call."""

    name: str = Field(description="The tool's name.")
    arguments: dict[str, Any] | str = Field(default_factory=dict, description="The arguments; a text is sent as it is, valid or not.")
    id: str = Field("", description="The call's id. Default: made from the turn and the place of the call.")


class ScriptedUsage(_Line):
    """What the turn consumed, in tokens."""

    input: int = Field(0, ge=0)
    output: int = Field(0, ge=0)
    cache_read: int = Field(0, ge=0)
    cache_write: int = Field(0, ge=0)
    reasoning: int = Field(0, ge=0)


def _spelled_out(value: Any) -> Any:
    return {"kind": value} if isinstance(value, str) else value


class Turn(_Line):
    """One answer."""

    text: str | list[str] = Field("", description="The text; a list gives the pieces in which it is streamed.")
    reasoning: str | list[str] = Field("", description="The reasoning before it.")
    refusal: str = Field("", description="A refusal instead of an answer.")
    calls: list[ScriptedCall] = Field(default_factory=list, description="Tool calls, in order.")
    finish: Finish | None = Field(None, description="The finish reason. Default: what the answer implies.")
    usage: ScriptedUsage | None = Field(None, description="Tokens consumed. Default: a quarter of the characters.")
    delay_ms: int = Field(0, ge=0, description="Milliseconds before the first piece.")
    fault: Annotated[ScriptedFault | None, BeforeValidator(_spelled_out)] = Field(
        None, description="What goes wrong; a kind alone will do."
    )


class When(_Line):
    """When a rule applies. All that is given must hold, of the last user message or of a tool's result that comes last."""

    role: Literal["user", "tool"] = Field(
        "user", description="Which message is looked at: the last user message, or the last message if a tool's."
    )
    contains: str = Field("", description="A text that it contains.")
    equals: str | None = Field(None, description="Its whole text.")
    matches: str = Field("", description="A regular expression found in it.")


class Rule(_Line):
    """Answers for messages of a kind."""

    when: When = Field(description="When the rule applies.")
    turns: list[Turn] = Field(min_length=1, description="The answers, counted from the message that matched.")


class ScriptedMessage(_Line):
    """A message of a recorded conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    text: str = ""
    reasoning: str = ""
    calls: list[ScriptedCall] = Field(default_factory=list)
    call_id: str = ""
    is_error: bool = False


class Script(_Line):
    """What a scripted provider answers.

    The answer depends on the request alone: rules come first, then the turn whose number is that of the assistant messages in the request.
    So a repeated request gets the same answer, in this process or the next. Only `times` of a fault remembers anything.
    """

    rules: list[Rule] = Field(default_factory=list, description="Answers by what was said last. The first rule that applies counts.")
    turns: list[Turn] = Field(default_factory=list, description="Answers by their number in the conversation.")
    conversations: list[list[ScriptedMessage]] = Field(
        default_factory=list,
        description="Recorded conversations. The request must be the beginning of one of them; its next assistant message is the answer.",
    )
    otherwise: Literal["echo", "repeat", "fail"] = Field(
        "echo",
        description="When there is no turn: echo the last message, repeat the last turn, or refuse. Recorded conversations always refuse.",
    )
    piece: int = Field(16, ge=1, description="Characters in a piece of streamed text.")
    delay_ms: int = Field(0, ge=0, description="Milliseconds between pieces.")


def script_of(given: str | Mapping[str, Any], setting: str) -> Script:
    """The script given as such, or in the YAML or JSON file of that name; raises SettingsInvalid naming what is wrong with it."""
    document, source = (_read(Path(given), setting), f"{setting} ({given})") if isinstance(given, str) else (given, setting)
    try:
        return Script.model_validate(document)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}" for detail in error.errors(include_url=False))
        raise SettingsInvalid(f"{source}: {wrong}") from None


def _read(path: Path, setting: str) -> Any:
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except OSError as error:
        raise SettingsInvalid(f"{setting}: {path} cannot be read: {error.strerror}; name a file that can") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsInvalid(f"{setting}: {path} is not YAML: {error}") from None
