"""Define the parameters with which a candidate is asked where its caller set none (`Params`)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    field_validator,
    model_serializer,
)

from router.policies.file_model import StrictModel

#: Fields of a body that the router or the caller sets, or that ask for another answer than the caller expects.
_NOT_EXTRA = frozenset({"model", "messages", "input", "prompt", "system", "instructions", "stream", "n", "tools"})

#: A value that a provider knows by a word, such as an effort or a tier.
_Word = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]

_Penalty = Annotated[float, Field(ge=-2, le=2)]

#: Most bytes of `extra_body` and of `thinking` as JSON.
_MOST_BYTES = 16 * 1024


class Params(StrictModel):
    """Parameters of a candidate. One is set only where the request does not set it, in the words of the request's API.

    For example: `reasoning_effort` becomes `reasoning.effort` in the Responses API, and `output_config.effort` in
    Anthropic's. A parameter for which an API has no word is not set there.

    Attributes:
        reasoning_effort: how much a model thinks before it answers, in its provider's word, such as `low`; not set if
            the request sets `reasoning_effort`, `reasoning` or `thinking`.
        thinking: Anthropic's object for thinking, such as `{type: enabled, budget_tokens: 2048}`; not set if the
            request sets one of the same three.
        verbosity: how long the answers of a model are.
        max_tokens: the most output tokens; not set if the request bounds them by any name.
        temperature: the temperature of sampling.
        top_p: the share of the probability that is sampled from.
        frequency_penalty: the penalty of tokens by how often they occurred.
        presence_penalty: the penalty of tokens that occurred.
        seed: the seed of sampling.
        stop: texts at which the answer ends.
        parallel_tool_calls: whether the model may call several tools at once.
        service_tier: the provider's tier, such as `flex` or `priority`; `prices: litellm` takes the prices of that
            tier if LiteLLM's table has them.
        extra_body: further fields of the body, by name; each is set only if the request does not have it.
    """

    reasoning_effort: _Word | None = None
    thinking: dict[str, JsonValue] | None = None
    verbosity: Literal["low", "medium", "high"] | None = None
    max_tokens: int | None = Field(default=None, gt=0, le=10**9)
    temperature: float | None = Field(default=None, ge=0, le=2)
    top_p: float | None = Field(default=None, ge=0, le=1)
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    seed: int | None = Field(default=None, ge=-(2**53), le=2**53)
    stop: tuple[Annotated[str, Field(min_length=1, max_length=1000)], ...] | None = Field(default=None, max_length=16)
    parallel_tool_calls: bool | None = None
    service_tier: _Word | None = None
    extra_body: dict[str, JsonValue] = Field(default_factory=dict)

    @field_validator("thinking", "extra_body")
    @classmethod
    def _is_small(cls, value: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if (size := len(json.dumps(value))) > _MOST_BYTES:
            raise ValueError(f"must have at most {_MOST_BYTES:,} bytes as JSON, got {size:,}")
        return value

    @field_validator("extra_body")
    @classmethod
    def _is_extra(cls, value: dict[str, JsonValue]) -> dict[str, JsonValue]:
        if own := sorted((cls.model_fields.keys() - {"extra_body"}) & value.keys()):
            raise ValueError(f"must not hold {', '.join(own)}; write it under params itself")
        if taken := sorted(_NOT_EXTRA & value.keys()):
            raise ValueError(f"must not hold {', '.join(taken)}, which the request sets")
        return value

    @model_serializer(mode="wrap")
    def _only_what_is_set(self, whole: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return {name: value for name, value in whole(self).items() if value is not None and value != {}}

    @cached_property
    def named(self) -> Mapping[str, Any]:
        """Return the parameters that are set, by name, as plain JSON values, without `extra_body`."""
        return self.model_dump(mode="json", exclude={"extra_body"}, exclude_none=True)


#: The parameters of a candidate whose policy sets none.
NO_PARAMS = Params()
