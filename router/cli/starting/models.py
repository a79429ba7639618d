"""Make the two candidates of `elle start` from the names that the user gives."""

from __future__ import annotations

import re
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

#: Prices of simulated models whose names LiteLLM's table does not have, in USD per million tokens, in and out.
_OFFLINE_PRICES = {"weak": (0.15, 0.6), "strong": (2.5, 10.0)}


def two_candidates(weak: str, strong: str, policy: Path | None, *, offline: bool) -> tuple[Candidate, Candidate]:
    """Return the candidates for the weak and the strong model.

    Each name is that of a candidate in the policy file, or a LiteLLM model string. Offline the built-in upstream
    answers under these names. Raises ConfigError for a name that is neither, and DataError for the same name twice.
    """
    if weak == strong:
        raise DataError(f"--weak and --strong must be two different models, got {weak!r} twice.")
    if policy is not None and not offline:
        panel = Panel(read_policy_file(policy).candidates)
        return panel.member(weak), panel.member(strong)
    found = []
    for role, model in (("weak", weak), ("strong", strong)):
        short, long = _name(model.rpartition("/")[2]), _name(model)
        name = long if _name(weak.rpartition("/")[2]) == _name(strong.rpartition("/")[2]) else short
        fields: dict[str, Any] = {"name": name, "model": model, "prices": "litellm"}
        prices = _prices(Candidate.model_validate(fields))
        if offline:
            canned = {"api_base": CANNED_UPSTREAM, "expected_output_tokens": _CANNED_TOKENS}
            fields |= {"model": f"openai/simulated-{role}", **canned}
            prices = prices or Prices(
                input_usd_per_million_tokens=_OFFLINE_PRICES[role][0],
                output_usd_per_million_tokens=_OFFLINE_PRICES[role][1],
            )
        found.append(Candidate.model_validate({**fields, "prices": prices}))
    return found[0], found[1]


def _prices(candidate: Candidate) -> Prices | None:
    try:
        return resolve_prices(candidate)
    except ConfigError:
        return None


def _name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("._-")[:128]
    if not name:
        raise DataError(f"a model must have letters or digits in its name, got {model!r}.")
    return name
