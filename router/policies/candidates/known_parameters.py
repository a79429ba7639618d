"""Look up which parameters a known model refuses, in a table that was made of LiteLLM's own (`refused_by`).

LiteLLM is not imported, which takes seconds, so that every decision is the same whether it is installed or not.
`python -m scripts.known_parameters` makes the table.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

#: The table.
FILE = Path(__file__).with_name("known_parameters.json")

#: What follows the name of a model in the names of its versions, as in `gpt-5-2025-08-07`.
_BEHIND_NAMES = "-.:@"


#: The providers whose models LiteLLM's table names without a provider.
_WITHOUT_PROVIDER = ("openai", "anthropic")


@dataclass(frozen=True, slots=True)
class KnownParameters:
    """Holds what the pinned version of LiteLLM refuses, and what it hands on.

    Attributes:
        passes_fields: the providers that get the fields of a request that nobody knows.
        passes_parts: the providers that get content parts of a type that nobody knows.
        models: by provider and model the parameters that are refused.
        unknown_models: by provider the parameters that are refused for a model that is not in `models`.
        names: the names of all parameters that some model refuses.
    """

    passes_fields: frozenset[str]
    passes_parts: frozenset[str]
    models: Mapping[str, Mapping[str, frozenset[str]]]
    unknown_models: Mapping[str, frozenset[str]]
    names: frozenset[str]


@cache
def known_parameters() -> KnownParameters:
    """Return the table, which is read once."""
    table: dict[str, Any] = json.loads(FILE.read_text("utf-8"))
    sets = [frozenset(refused) for refused in table["refused"]]
    return KnownParameters(
        passes_fields=frozenset(table["passes_fields"]),
        passes_parts=frozenset(table["passes_parts"]),
        models={
            provider: {model: sets[number] for model, number in known.items()}
            for provider, known in table["models"].items()
        },
        unknown_models={provider: sets[number] for provider, number in table["unknown_models"].items()},
        names=frozenset[str]().union(*sets),
    )


@lru_cache(maxsize=10_000)
def refused_by(model: str, *, asked_directly: bool) -> frozenset[str]:
    """Return the parameters that a model refuses as far as the table knows it, or its provider.

    A version of a known model, such as `gpt-5-2025-08-07`, is taken to refuse what `gpt-5` does.

    Args:
        model: the model string of LiteLLM, such as `openai/gpt-5`.
        asked_directly: True if LiteLLM does not ask the model, so that a model that the table does not know refuses
            nothing.
    """
    table = known_parameters()
    provider, slash, name = model.partition("/")
    if not slash:
        # LiteLLM finds the provider of such a name by itself.
        provider, name = next((one for one in _WITHOUT_PROVIDER if model in table.models.get(one, {})), ""), model
    known = table.models.get(provider, {})
    beginning = longest_beginning(name, known)
    if beginning is not None:
        return known[beginning]
    return frozenset() if asked_directly else table.unknown_models.get(provider, frozenset())


def longest_beginning(name: str, known: Collection[str]) -> str | None:
    """Return the longest of the known names that a name is or begins with, such as `gpt-5`; None if there is none."""
    if name in known:
        return name
    for end in range(len(name) - 1, 0, -1):
        if name[end] in _BEHIND_NAMES and name[:end] in known:
            return name[:end]
    return None
