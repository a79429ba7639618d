"""Find the candidates of a policy in a policy file or by model names and prices, and what their answers cost."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from probes.bounded.files import shown
from probes.errors import DataError
from router.asking.ask import Ask
from router.errors import ConfigError
from router.policies.candidates.candidate import Candidate, Prices
from router.policies.candidates.params import NO_PARAMS, Params
from router.policies.candidates.prices import resolve_prices
from router.policies.eligibility import expected_cost_usd
from router.policies.policy_file import read_policy_file
from router.tuning.outcomes.datasets import Outcomes
from router.yaml_file import read_yaml

FloatArray = npt.NDArray[np.float64]


class PricedModel(BaseModel):
    """An entry of a price file, which states the list prices of a model.

    expected_output_tokens: length of a usual answer. model: the name of the model in LiteLLM, as `openai/gpt-4o`.
    params: the parameters with which it was asked, such as `{reasoning_effort: low}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    input_usd_per_million_tokens: float = Field(ge=0, le=1e9)
    output_usd_per_million_tokens: float = Field(ge=0, le=1e9)
    expected_output_tokens: int | None = Field(default=None, gt=0, le=10**9)
    model: str | None = Field(default=None, min_length=1)
    params: Params = NO_PARAMS

    @property
    def prices(self) -> Prices:
        """The list prices of the model, without its name and the length of its answers."""
        return Prices(
            input_usd_per_million_tokens=self.input_usd_per_million_tokens,
            output_usd_per_million_tokens=self.output_usd_per_million_tokens,
        )


PriceTable = Mapping[str, PricedModel]


def read_prices(path: Path) -> PriceTable:
    """Read a YAML file that maps the names of models in the data to `PricedModel`. Raises ConfigError."""
    try:
        return TypeAdapter(dict[str, PricedModel]).validate_python(read_yaml(path, "price file"))
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(shown(str(part)) for part in first["loc"])
        problem = f"{place}: {first['msg']}" if place else "it must map the names of models to prices"
        raise ConfigError(
            f"price file {path}: {problem}; each model needs input_usd_per_million_tokens and "
            "output_usd_per_million_tokens."
        ) from error


def candidates_of_policy(path: Path) -> tuple[Candidate, ...]:
    """Return the candidates of a policy file. Raises ConfigError."""
    return read_policy_file(path).candidates


def candidates_from_names(
    models: Sequence[str], table: PriceTable | None, *, litellm: bool, lengths: Mapping[str, int]
) -> tuple[Candidate, ...]:
    """Return a candidate for each of these models of the data, in this order.

    table: prices by model; None takes LiteLLM's prices if `litellm` is true, else none. lengths: expected output tokens
    by model, for models that have none in the table. Raises ConfigError if the table lacks a model, or if LiteLLM has
    no price for it.
    """
    if table is not None and (missing := [model for model in models if model not in table]):
        raise ConfigError(f"the price file must have every model; {', '.join(missing)} missing.")
    found = []
    for model in models:
        entry = table[model] if table is not None else None
        fields: dict[str, Any] = {"name": _name(model), "model": (entry and entry.model) or model}
        if fields["name"] != model:
            fields["probe_model"] = model
        if entry is not None:
            fields |= {"prices": entry.prices, "params": entry.params}
        elif litellm:
            fields["prices"] = "litellm"
        length = (entry and entry.expected_output_tokens) or lengths.get(model)
        if length is not None:
            fields["expected_output_tokens"] = length
        found.append(Candidate(**fields))
        resolve_prices(found[-1])
    return tuple(found)


def by_cost(candidates: Sequence[Candidate], ask: Ask) -> tuple[Candidate, ...]:
    """Return the candidates, cheapest first for this request, or in the given order if a price is unknown."""
    costs = [expected_cost_usd(candidate, resolve_prices(candidate), ask) for candidate in candidates]
    if any(cost is None for cost in costs):
        return tuple(candidates)
    order = sorted(range(len(candidates)), key=lambda index: (costs[index], index))
    return tuple(candidates[index] for index in order)


def mean_lengths(outcomes: Outcomes) -> dict[str, int]:
    """Return the mean number of output tokens, at least 1, of each model that has any in the data."""
    found = {}
    for column, model in enumerate(outcomes.models):
        known = outcomes.output_tokens[np.isfinite(outcomes.output_tokens[:, column]), column]
        if known.size:
            found[model] = max(1, round(float(known.mean())))
    return found


def priced(outcomes: Outcomes, prices: str) -> tuple[Outcomes, int]:
    """Return the outcomes with a cost for every answer, and how many of these costs are estimates.

    A cost that the data lack is computed from list prices, see `paid_usd`. prices: path of a price file, or `litellm`.
    Raises ConfigError if a model has no price.
    """
    table = None if prices == "litellm" else read_prices(Path(prices))
    candidates = candidates_from_names(outcomes.models, table, litellm=table is None, lengths=mean_lengths(outcomes))
    paid, estimated = paid_usd(candidates, [resolve_prices(candidate) for candidate in candidates], outcomes)
    return replace(outcomes, cost_usd=paid), estimated


def paid_usd(
    candidates: Sequence[Candidate], prices: Sequence[Prices | None], outcomes: Outcomes
) -> tuple[FloatArray, int]:
    """Return what each candidate cost on each prompt in USD, (n, m), and how many of these costs are estimates.

    A cost that the data hold is taken as it is. Else it is the list price times the token counts of the data. If the
    data lack these too, the cost is an estimate from the prompt's length and the candidate's expected output tokens.
    NaN stands for a cost whose price is not known.
    """
    paid = outcomes.cost_usd.copy()
    estimated = 0
    for column, (candidate, price) in enumerate(zip(candidates, prices, strict=True)):
        unknown = ~np.isfinite(paid[:, column])
        if price is None or not unknown.any():
            continue
        tokens_in, tokens_out = outcomes.input_tokens[:, column], outcomes.output_tokens[:, column]
        guessed = unknown & ~(np.isfinite(tokens_in) & np.isfinite(tokens_out))
        lengths = np.array([ask.input_tokens_estimate for ask in outcomes.asks], dtype=np.float64)
        tokens_in = np.where(np.isfinite(tokens_in), tokens_in, lengths)
        tokens_out = np.where(np.isfinite(tokens_out), tokens_out, candidate.expected_output_tokens)
        listed = tokens_in * price.input_usd_per_million_tokens + tokens_out * price.output_usd_per_million_tokens
        paid[unknown, column] = listed[unknown] / 1e6
        estimated += int(guessed.sum())
    return paid, estimated


def _name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", model).lstrip("._-")[:128]
    if not name:
        raise DataError(f"a model's name must hold letters or digits to become a candidate's, got {model!r}.")
    return name
