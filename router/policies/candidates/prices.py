"""Find the prices of a candidate in the policy file, or in LiteLLM's table without importing LiteLLM."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate, Prices
from router.quoting import did_you_mean


def resolve_prices(candidate: Candidate) -> Prices | None:
    """Return the prices of a candidate, or None if its policy states none.

    Prices `litellm` are looked up in LiteLLM's table: those of the service tier that the candidate's parameters ask
    for, if the table has them. Raises ConfigError if the table has no prices.
    """
    if candidate.prices != "litellm":
        return candidate.prices
    entry = _in_tier(litellm_model_info(candidate.model), candidate.params.service_tier)
    if not entry or not _has_prices(entry):
        raise ConfigError(
            f"candidate {candidate.name!r}: LiteLLM's table has no prices for {candidate.model!r}; state "
            "input_usd_per_million_tokens and output_usd_per_million_tokens under `prices`."
            f"{_near_model(candidate.model)}"
        )
    cached = entry.get("cache_read_input_token_cost")
    return Prices(
        input_usd_per_million_tokens=float(entry["input_cost_per_token"]) * 1e6,
        output_usd_per_million_tokens=float(entry["output_cost_per_token"]) * 1e6,
        cached_input_usd_per_million_tokens=float(cached) * 1e6 if cached is not None else None,
    )


def _has_prices(entry: Mapping[str, Any]) -> bool:
    return "input_cost_per_token" in entry and "output_cost_per_token" in entry


def _near_model(model: str) -> str:
    """Return a question with the nearest model of the same provider that has prices, for the end of a message."""
    # The table has the models of some providers with the provider's prefix, and those of others without it.
    priced = {name: entry.get("litellm_provider") for name, entry in _litellm_table().items() if _has_prices(entry)}
    full = {name if "/" in name else f"{provider}/{name}" for name, provider in priced.items()}
    prefix = f"{model.partition('/')[0]}/"
    if "/" not in model:
        full = {name for name in priced if "/" not in name}
    elif same := {name for name in full if name.startswith(prefix)}:
        full = same
    return did_you_mean(model, sorted(full), cutoff=0.75)


def _in_tier(entry: Mapping[str, Any] | None, tier: str | None) -> Mapping[str, Any] | None:
    """Return an entry of the table with the prices of a service tier, such as `flex`, in place of the usual ones."""
    if not entry or tier is None:
        return entry
    ending = f"_{tier}"
    return {**entry, **{key.removesuffix(ending): value for key, value in entry.items() if key.endswith(ending)}}


def litellm_model_info(model: str) -> Mapping[str, Any] | None:
    """Return what LiteLLM's table says about a model, or None if the table does not have the model.

    Raises ConfigError if the table itself is missing.
    """
    table = _litellm_table()
    # The keys of LiteLLM's table are model strings with and without the provider's prefix.
    return table.get(model) or table.get(model.partition("/")[2])


@cache
def _litellm_table() -> Mapping[str, Mapping[str, Any]]:
    # The table is read from the file of the installed package. Importing LiteLLM takes seconds and tries the network.
    spec = importlib.util.find_spec("litellm")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder) / "model_prices_and_context_window_backup.json"
        if path.is_file():
            table: Mapping[str, Mapping[str, Any]] = json.loads(path.read_text("utf-8"))
            return table
    raise ConfigError(
        "`prices: litellm` needs LiteLLM's bundled price table; install it with `pip install 'elle-router[dispatch]'`, "
        "or state the prices."
    )
