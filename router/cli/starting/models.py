"""Make the two candidates of `elle start` from the names that the user gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from probes.errors import DataError
from router.collecting.calls.panel import Panel
from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.candidates.prices import resolve_prices
from router.policies.credentials import CANNED_UPSTREAM
from router.policies.policy_file import read_policy_file

#: The length of a canned answer in tokens.
_CANNED_TOKENS = 18

#: Made-up prices of simulated models, in USD per million tokens, in and out.
_OFFLINE_PRICES = {"weak": (0.15, 0.6), "strong": (2.5, 10.0)}


def two_candidates(
    weak: str, strong: str, policy: Path | None, note: Callable[[str], None], *, offline: bool
) -> tuple[Candidate, Candidate]:
    """Return the candidates for the weak and the strong model.

    Each name is that of a candidate in the policy file, or a LiteLLM model string. Offline the built-in upstream
    answers under these names. `note` is told of a model whose prices are not known. Raises ConfigError for a name that
    is neither, and DataError for the same model twice.
    """
    panel = None if policy is None else Panel(read_policy_file(policy).candidates)
    if panel is None:
        named = {"weak": _of_model(weak, other=strong), "strong": _of_model(strong, other=weak)}
    else:
        named = {"weak": panel.member(weak), "strong": panel.member(strong)}
    if weak == strong or named["weak"] == named["strong"]:
        raise DataError(f"--weak and --strong must be two different models, got {strong!r} twice.")
    if offline:
        named = {role: _simulated(role, candidate, note) for role, candidate in named.items()}
    elif panel is None:
        named = {role: _priced(candidate, note) for role, candidate in named.items()}
    return named["weak"], named["strong"]


def _of_model(model: str, *, other: str) -> Candidate:
    short, long = _name(model.rpartition("/")[2]), _name(model)
    name = long if _name(other.rpartition("/")[2]) == short else short
    return Candidate.model_validate({"name": name, "model": model, "prices": "litellm"})


def _simulated(role: str, candidate: Candidate, note: Callable[[str], None]) -> Candidate:
    """Return the candidate that answers in place of another one, at the same prices if they are known."""
    prices, why = _prices(candidate)
    if prices is None:
        cheap, dear = _OFFLINE_PRICES[role]
        prices = Prices(input_usd_per_million_tokens=cheap, output_usd_per_million_tokens=dear)
        note(
            f"{why} {_PRICES_WANTED} Until then a made-up price counts: {cheap:g} USD per million tokens in, and "
            f"{dear:g} out."
        )
    fields: dict[str, Any] = {"name": candidate.name, "probe_model": candidate.probe_model, "prices": prices}
    canned = {"api_base": CANNED_UPSTREAM, "expected_output_tokens": _CANNED_TOKENS}
    return Candidate.model_validate({**fields, **canned, "model": f"openai/simulated-{role}"})


def _priced(candidate: Candidate, note: Callable[[str], None]) -> Candidate:
    """Return the candidate with the prices that LiteLLM's table has, or with none."""
    prices, why = _prices(candidate)
    if prices is None:
        note(f"{why} {_PRICES_WANTED}")
    return candidate.model_copy(update={"prices": prices})


_PRICES_WANTED = "To give them, describe both models in a policy file, and name it by --policy."


def _prices(candidate: Candidate) -> tuple[Prices | None, str]:
    """Return the prices of a candidate, or why they are not known."""
    try:
        return resolve_prices(candidate), f"{candidate.described} states no prices."
    except ConfigError as error:
        return None, str(error)


def _name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("._-")[:128]
    if not name:
        raise DataError(f"a model must have letters or digits in its name, got {model!r}.")
    return name
