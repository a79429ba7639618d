"""Know the parameters of a request by one name in every API, such as `stop` for Anthropic's `stop_sequences`.

The names are those of chat completions. Policies say with them what a candidate refuses, and what it is asked with.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from router.errors import InvalidRequestError
from router.quoting import quoted
from router.values import ApiFormat

#: For the APIs that have names of their own: where a parameter stands in the body. One that is missing has no place.
_SAME = ("temperature", "top_p", "service_tier")
_PLACES: Mapping[ApiFormat, Mapping[str, tuple[str, ...]]] = {
    ApiFormat.OPENAI_RESPONSES: {
        **{name: (name,) for name in (*_SAME, "top_logprobs", "parallel_tool_calls", "tool_choice")},
        "max_tokens": ("max_output_tokens",),
        "reasoning_effort": ("reasoning", "effort"),
        "verbosity": ("text", "verbosity"),
        "response_format": ("text", "format"),
    },
    ApiFormat.ANTHROPIC_MESSAGES: {
        **{name: (name,) for name in (*_SAME, "thinking", "max_tokens")},
        "reasoning_effort": ("output_config", "effort"),
        "stop": ("stop_sequences",),
    },
    # The old completions know neither thinking nor tools.
    ApiFormat.OPENAI_COMPLETIONS: {
        name: (name,)
        for name in (*_SAME, "max_tokens", "frequency_penalty", "presence_penalty", "seed", "stop", "n", "logit_bias")
    },
}

#: Parameters that say the same, so that a request that sets one of them has set all.
_ALIKE = (
    frozenset({"reasoning_effort", "reasoning", "thinking"}),
    frozenset({"max_tokens", "max_completion_tokens", "max_output_tokens"}),
)

#: Another name of a parameter, under which a candidate may take what it refuses under the first one.
OTHER_NAMES: Mapping[str, str] = {"max_tokens": "max_completion_tokens", "max_completion_tokens": "max_tokens"}

#: The names of the bound on output tokens.
OUTPUT_BOUNDS = ("max_completion_tokens", "max_tokens", "max_output_tokens")

#: The APIs of OpenAI in which a bound of 0 or -1 says nothing.
CHATS_OF_OPENAI = frozenset({ApiFormat.OPENAI_CHAT, ApiFormat.OPENAI_RESPONSES})

#: What some clients write as a bound on output tokens if they want none.
_NO_BOUND = frozenset({-1, 0})

#: The largest bound on output tokens. All JSON readers, and the doubles of protobuf, hold whole numbers up to 2^53.
_MOST_TOKENS = 2**53

#: Values that ask for what a model does anyway, so that leaving them out changes nothing.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "function_call": ("auto",),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"],),
    "n": (1,),
    "parallel_tool_calls": (True,),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "stop": ([], ""),
    "store": (False,),
    "temperature": (1,),
    "thinking": ({"type": "disabled"},),
    "tool_choice": ("auto",),
    "top_logprobs": (0,),
    "top_p": (1,),
    "verbosity": ("medium",),
}


def place_of(name: str, api_format: ApiFormat) -> tuple[str, ...] | None:
    """Return where a parameter stands in a body of an API, as a path of keys, or None if the API does not have it."""
    places = _PLACES.get(api_format)
    return (name,) if places is None else places.get(name)


def given_parameters(fields: Mapping[str, Any], api_format: ApiFormat) -> Mapping[str, Any]:
    """Return the parameters of a body by their names in chat completions. A value of null is as good as none."""
    places = _PLACES.get(api_format)
    if places is None:
        return fields
    found = dict(fields)
    for name, place in places.items():
        value: Any = fields
        for key in place:
            value = value.get(key) if isinstance(value, Mapping) else None
        if value is not None:
            found[name] = value
    return MappingProxyType(found)


def is_given(name: str, given: Mapping[str, Any]) -> bool:
    """Return whether a request sets a parameter, or another one that says the same."""
    alike = next((names for names in _ALIKE if name in names), (name,))
    return any(given.get(one) is not None for one in alike)


def is_neutral(name: str, value: Any) -> bool:
    """Return whether a value of a parameter asks for nothing, such as a temperature of 1 or a penalty of 0."""
    return any(
        value == neutral and isinstance(value, bool) == isinstance(neutral, bool) for neutral in _NEUTRAL.get(name, ())
    )


def output_bound(name: str, value: Any, api_format: ApiFormat) -> int | None:
    """Return the bound on output tokens that a value of `max_tokens` sets, or None if it sets none.

    `"100"` is 100, because some clients write numbers as text. -1 and 0 set no bound, except that the APIs of Anthropic
    and of the old completions have a meaning for 0.

    Raises InvalidRequestError for anything else than a whole number from 1 to 2^53.
    """
    number = int(value) if isinstance(value, str) and len(value) < 20 and _is_whole(value) else value
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    if is_number and number in _NO_BOUND:
        return None if number or api_format in CHATS_OF_OPENAI else 0
    if not is_number or not 1 <= number <= _MOST_TOKENS or number % 1:
        raise InvalidRequestError(
            f"{name} must be a whole number from 1 to {_MOST_TOKENS:,}, got {quoted(value)}.", field=name
        )
    return int(number)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit()
