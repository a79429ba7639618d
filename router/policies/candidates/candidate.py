"""Define a candidate of a policy: a model with its parameters, its prices, its limits and the place of its key."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from router.policies.candidates.known_parameters import known_parameters
from router.policies.candidates.params import NO_PARAMS, Params
from router.policies.credentials import check_base, check_key_variable, check_model
from router.policies.file_model import Name, ParameterName, Region, StrictModel
from router.values import Capability, SpokenApi

# The largest numbers of tokens, of seconds, of failures in a row, and of USD per million tokens. They are far beyond
# sense, and far within the range of a double.
_MOST_TOKENS, _MOST_SECONDS, _MOST_FAILURES, _MOST_USD = 10**9, 10**8, 10**6, 1e9


class Prices(StrictModel):
    """List prices in USD per million tokens. The price of cached input is absent if it is unknown or there is none."""

    input_usd_per_million_tokens: float = Field(ge=0, le=_MOST_USD)
    output_usd_per_million_tokens: float = Field(ge=0, le=_MOST_USD)
    cached_input_usd_per_million_tokens: Annotated[float, Field(ge=0, le=_MOST_USD)] | None = None

    def cost_usd(self, input_tokens: float, output_tokens: float, *, cached_input_tokens: float = 0) -> float:
        """Return the cost of one answer in USD.

        `cached_input_tokens` of the input tokens have the price of cached input, if there is one.
        """
        per_million = (
            input_tokens * self.input_usd_per_million_tokens + output_tokens * self.output_usd_per_million_tokens
        )
        if cached_input_tokens and self.cached_input_usd_per_million_tokens is not None:
            saved = self.input_usd_per_million_tokens - self.cached_input_usd_per_million_tokens
            per_million -= cached_input_tokens * saved
        return per_million / 1e6


class Candidate(StrictModel):
    """A model that may answer, with its prices, its limits and the place of its key.

    Attributes:
        name: the name of the candidate in this policy.
        model: the LiteLLM model string, such as `openai/gpt-4o` or `mistral/mixtral-8x7b-instruct`.
        probe_model: the probe's name of this model, which is the `model` column of its outcomes, such as `gpt-x@low`;
            absent: the same as `name`.
        api_base: the URL of the provider; absent: LiteLLM's default; `canned`: the built-in upstream with canned text.
        api_key_env: the *name* of the environment variable that holds the key; absent: the provider's usual one, which
            is sent only to the provider's own hosts. With another `api_base` the key is then the word `none`.
        params: parameters with which the candidate is asked where the request sets none. The same model at a low and at
            a high `reasoning_effort` is two candidates (docs/candidates.md).
        unsupported: the parameters that the model refuses, by their names in chat completions, such as `temperature`;
            absent: those that LiteLLM's table knows for the model; `[]`: none.
        speaks: which of `responses`, `completions` and `embeddings` a model `openai/...` or `azure/...` serves besides
            chats; absent: `responses` and `embeddings` at OpenAI and Azure, none at another `api_base`.
        prices: list prices, or `litellm` to take them from LiteLLM's bundled table; absent: unknown.
        context_window_tokens: the candidate does not get requests that are estimated longer; absent: no bound.
        capabilities: what the candidate can do; it does not get requests that need more.
        regions: the regions in which the candidate answers, in tags of your own; it does not get requests that require
            another region.
        expected_output_tokens: the length of a usual answer, for expected costs.
        prompt_cache_s: the seconds for which the provider keeps a prompt cached after its last use, for sessions.
        timeout_s: the longest wait for an answer, or for the next piece of a stream, in seconds; the caller's deadline
            may be shorter.
        first_token_timeout_s: the longest silence before the first content of a stream, in seconds. Comments and other
            signs of life begin it anew, for an hour at most.
        retries: how often a failure that may pass (429, 5xx, connection) is tried again before another candidate is
            asked.
        break_after: the number of failures in a row after which the candidate is not asked for a while.
        cooldown_s: the length of that while in seconds; then one request tries whether the candidate answers again.
            After a refused key or an unknown model it begins at once. If the provider sends Retry-After, that counts.
        max_answer_bytes: the longest answer, and the longest event of a stream, that is read; a whole stream may be 16
            times as long.
    """

    name: Name
    model: Annotated[str, AfterValidator(check_model)] = Field(min_length=1)
    probe_model: str | None = None
    api_base: Annotated[str, AfterValidator(check_base)] | None = Field(default=None, repr=False)
    api_key_env: Annotated[str, AfterValidator(check_key_variable)] | None = Field(default=None, repr=False)
    params: Params = NO_PARAMS
    unsupported: tuple[ParameterName, ...] | None = Field(default=None, max_length=100)
    speaks: tuple[SpokenApi, ...] | None = None
    prices: Prices | Literal["litellm"] | None = None
    context_window_tokens: int | None = Field(default=None, gt=0, le=_MOST_TOKENS)
    capabilities: tuple[Capability, ...] = (Capability.TEXT,)
    regions: tuple[Region, ...] = ()
    expected_output_tokens: int = Field(default=300, gt=0, le=_MOST_TOKENS)
    prompt_cache_s: float = Field(default=300.0, ge=0, le=_MOST_SECONDS)
    timeout_s: float = Field(default=600.0, gt=0, le=_MOST_SECONDS)
    first_token_timeout_s: float = Field(default=300.0, gt=0, le=_MOST_SECONDS)
    retries: int = Field(default=1, ge=0, le=5)
    break_after: int = Field(default=5, gt=0, le=_MOST_FAILURES)
    cooldown_s: float = Field(default=30.0, gt=0, le=_MOST_SECONDS)
    max_answer_bytes: int = Field(default=4 * 1024 * 1024, gt=0, le=2**30)

    @model_validator(mode="after")
    def _only_openai_speaks(self) -> Self:
        if self.speaks is not None and not self.model.startswith(("openai/", "azure/")):
            raise ValueError("speaks is only for models openai/... and azure/...; others are asked through LiteLLM")
        return self

    @field_validator("unsupported")
    @classmethod
    def _names_are_spelled_well(cls, names: tuple[str, ...] | None) -> tuple[str, ...] | None:
        known = known_parameters().names
        for name in set(names or ()) - known:
            if meant := difflib.get_close_matches(name, known, n=1, cutoff=0.85):
                raise ValueError(f"{name} is no parameter; did you mean {meant[0]}?")
        return names

    @model_validator(mode="after")
    def _takes_its_own_params(self) -> Self:
        if refused := sorted({*(self.unsupported or ())} & {*self.params.named, *self.params.extra_body}):
            raise ValueError(f"unsupported must not name {', '.join(refused)}, which params sets")
        return self

    def __hash__(self) -> int:
        """Return a hash; parameters may hold lists and mappings, which have none."""
        return hash((self.name, self.model, self.api_base))

    @property
    def described(self) -> str:
        """Return the name and the model of the candidate for messages: `candidate 'small' (openai/gpt-5-nano)`."""
        return f"candidate {self.name!r} ({self.model})"

    @property
    def name_in_probe(self) -> str:
        """Return the probe's name of this model."""
        return self.probe_model or self.name


def by_any_name(candidates: Iterable[Candidate]) -> dict[str, Candidate]:
    """Return candidates by every name that logs may give them.

    Of two candidates with one name that counts whose it is by the first of these: the name in the policy, the name in
    the probe, the model string, and the model string without its provider.
    """
    everybody = tuple(candidates)
    found: dict[str, Candidate] = {}
    ways = [(one.name, one.name_in_probe, one.model, one.model.rpartition("/")[2]) for one in everybody]
    for names in zip(*ways, strict=True):
        for name, one in zip(names, everybody, strict=True):
            found.setdefault(name, one)
    return found
