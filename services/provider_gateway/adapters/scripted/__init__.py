"""A provider that plays a script: for tests, demonstrations and replays, without key and network. A public test double."""

from provider_gateway.adapters.scripted.provider import ScriptedProvider
from provider_gateway.adapters.scripted.script import Script, ScriptedCall, ScriptedFault, Turn, script_of

__all__ = ["Script", "ScriptedCall", "ScriptedFault", "ScriptedProvider", "Turn", "script_of"]
