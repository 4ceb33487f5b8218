"""How a server of the Responses protocol is asked: what it keeps, how much it shows of its thoughts, and what it can be asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from provider_gateway.domain.schemas import OPENAI_STRICT, Subset


@dataclass(frozen=True, slots=True)
class Dialect:
    """What is asked of a server beside the request itself.

    With `store` the provider keeps answers and knows its reasoning again by id; without it reasoning comes encrypted and goes back with
    the conversation. `plain` are the models that do not reason, as they said themselves. `summary` is how reasoning is to be summed up,
    empty for the provider's default; `counts` whether the server counts tokens; `strict` what the schemas may say that a model is held to.
    """

    store: bool = False
    summary: str = ""
    counts: bool = False
    strict: Subset = OPENAI_STRICT
    plain: frozenset[str] = field(default_factory=frozenset)
