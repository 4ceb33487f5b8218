"""Turns the model name of a request into a provider and its model."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from chassis.faults import ModelNotFound
from provider_gateway.domain.routing import Alias


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model in its provider's words."""

    provider: str
    model: str


@dataclass(frozen=True, slots=True)
class Names:
    """Resolves model names: aliases first, then provider/model, then a bare name that exactly one provider lists."""

    providers: Collection[str]
    listed: Mapping[str, Collection[str]]
    aliases: Mapping[str, Alias]
    default: str = ""

    def alias(self, name: str) -> Alias | None:
        """What name stands for when it is an alias, or empty and the default one is."""
        return self.aliases.get(name or self.default)

    def resolve(self, name: str) -> ModelName:
        """The provider and model meant by name, of an alias the first; raises ModelNotFound with the nearest names."""
        asked = name or self.default
        if not asked:
            raise ModelNotFound("the request names no model and provider_gateway.default_model is not set; set one of them")
        alias = self.aliases.get(asked)
        return self.model(asked if alias is None else alias.choices[0].model)

    def model(self, target: str) -> ModelName:
        """The provider and model meant by a name that is no alias."""
        provider, slash, model = target.partition("/")
        if slash and model and provider in self.providers:
            return ModelName(provider, model)
        owners = sorted(p for p, models in self.listed.items() if target in models)
        if len(owners) == 1:
            return ModelName(owners[0], target)
        raise self._unknown(target, owners)

    def _unknown(self, name: str, owners: list[str]) -> ModelNotFound:
        if name in self.aliases:  # only a target can come here by an alias's name
            hint = "it is an alias, which cannot stand here; write the models that it stands for"
        elif owners:
            hint = f"several providers have it: write {' or '.join(f'{owner}/{name}' for owner in owners)}"
        else:
            hint = f"write provider/model, an alias, or nothing for the default{_nearest(name, self._known())}"
        return ModelNotFound(f"no model {name!r}; {hint}", metadata={"model": name})

    def _known(self) -> Iterable[str]:
        yield from self.aliases
        for provider, models in self.listed.items():
            yield from (f"{provider}/{model}" for model in models)
        yield from (f"{provider}/" for provider in self.providers)


def _nearest(name: str, known: Iterable[str]) -> str:
    by_full = {full: full for full in known}
    by_tail = {full.partition("/")[2]: full for full in by_full if "/" in full and not full.endswith("/")}
    candidates = by_full | by_tail
    close = difflib.get_close_matches(name, list(candidates), n=3, cutoff=0.5)
    close += [full for full in by_full if full.endswith("/") and difflib.SequenceMatcher(None, name.split("/")[0], full[:-1]).ratio() > 0.6]
    names = list(dict.fromkeys(candidates[match] for match in close))
    return f"; nearest: {', '.join(name + '…' if name.endswith('/') else name for name in names[:3])}" if names else ""
