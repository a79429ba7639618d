"""Build a call of LiteLLM from a request, and say what is written into the body that LiteLLM makes of it.

No field that LiteLLM does not translate passes through LiteLLM. Its own keywords (`api_base`, `api_key`,
`mock_response`, ...) would otherwise be a caller's to set, and it loses content parts that it does not know.
"""

from __future__ import annotations

import copy
import functools
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from router.answering.formats.translating.allowed_tools import with_allowed_tools
from router.answering.upstreams.candidate_keys import key_of
from router.answering.upstreams.litellm_call import Additions
from router.answering.upstreams.litellm_import import import_litellm
from router.answering.upstreams.litellm_problems import provider_of
from router.asking.turns import has_unknown_parts, is_unknown_part
from router.policies.candidates.candidate import Candidate
from router.policies.candidates.known_parameters import known_parameters
from router.policies.rules import SECOND_PATHS
from router.values import Message, RouteQuery

#: Fields of the OpenAI body that LiteLLM translates between providers.
TRANSLATED_FIELDS = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "reasoning_effort", "response_format", "seed", "service_tier", "stop"),
        *("stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity"),
        "web_search_options",
    }
)

_OPENAI_SHAPED = frozenset({"openai", "text-completion-openai", "azure"})

#: Fields of OpenAI's own bookkeeping, which its SDKs send and other providers refuse.
_OPENAIS_OWN = frozenset({"metadata", "prompt_cache_key", "prompt_cache_retention", "safety_identifier", "store"})

#: The providers besides those of OpenAI's format to which LiteLLM hands on the data of pictures as they are.
_VERBATIM = frozenset({"openai", "anthropic", "gemini"})

#: The providers of OpenAI's format whose bodies LiteLLM may sign, so that they stay as LiteLLM makes them.
_SIGNED = frozenset({"bedrock_mantle"})

#: The keys of parts of a message under which long data stand, the fewest characters of such data, and the most
#: characters that may stand before them.
_LONG_KEYS = frozenset({"url", "image_url", "video_url", "file_data", "data"})
_LONG_TEXT, _MOST_MEDIA_TYPE = 64 * 1024, 200

#: Stands in for the content of a message of which LiteLLM knows no part.
_STAND_IN = "."


def without_long_texts(candidate: Candidate, query: RouteQuery) -> tuple[RouteQuery, dict[str, str]]:
    """Return a request with stand-ins in place of long texts of pictures and files, and the text of each stand-in.

    Only for providers to which LiteLLM hands on such texts as they are.
    """
    stand_ins: dict[str, str] = {}
    provider = known_provider(candidate.model)
    if provider in _SIGNED or provider not in known_parameters().passes_parts | _VERBATIM:
        return query, stand_ins
    messages = [_without_long_texts(message, stand_ins) for message in query.messages]
    return (replace(query, messages=messages) if stand_ins else query), stand_ins


def _without_long_texts(value: Any, stand_ins: dict[str, str], key: str = "") -> Any:
    """Return a message, or a part of one, with stand-ins; the same object if it has no long text of that kind."""
    if isinstance(value, str):
        if len(value) <= _LONG_TEXT or key not in _LONG_KEYS:
            return value
        # What stands before the data says what they are.
        begin = value.find(",", 0, _MOST_MEDIA_TYPE) + 1 if value.startswith("data:") else 0
        stand_in = f"elle{uuid.uuid4().hex}"
        stand_ins[stand_in] = value[begin:]
        return value[:begin] + stand_in
    before = len(stand_ins)
    if isinstance(value, Mapping):
        made: Any = {name: _without_long_texts(inner, stand_ins, name) for name, inner in value.items()}
    elif isinstance(value, list | tuple):
        made = [_without_long_texts(inner, stand_ins, key) for inner in value]
    else:
        return value
    return made if len(stand_ins) > before else value


def additions_of(candidate: Candidate, query: RouteQuery, stand_ins: Mapping[str, str]) -> Additions:
    """Return what is written into the body that LiteLLM makes of a request.

    Unknown fields go to providers that speak OpenAI's format or nearly so, and to a pinned candidate.
    """
    is_openais, own = is_openai_shaped(candidate.model), candidate.params.extra_body
    takes_all = takes_fields(candidate.model)
    extra = {key: value for key, value in query.parameters.items() if key not in _translated_fields(candidate)}
    if not takes_all:
        # LiteLLM gets what the policy adds as keywords.
        extra = {key: value for key, value in extra.items() if key not in own}
    kept = {
        key: value
        for key, value in extra.items()
        if (takes_all or query.overrides.pin is not None) and (is_openais or key not in _OPENAIS_OWN)
    }
    provider = known_provider(candidate.model)
    others = SECOND_PATHS.keys() | _SIGNED
    in_openais_format = provider in known_parameters().passes_parts and provider not in others
    contents = {
        at: one["content"]
        for at, one in enumerate(query.messages)
        if has_unknown_parts(one) or (in_openais_format and _has_more_than_text(one))
    }
    roles = tuple(str(one.get("role")) for one in query.messages)
    left_out = tuple(sorted(extra.keys() - kept.keys()))
    return Additions(kept, left_out, contents, roles if contents else (), stand_ins)


def arguments_of(candidate: Candidate, base: str | None, query: RouteQuery) -> dict[str, Any]:
    """Return the arguments of LiteLLM's `acompletion` that ask a candidate. `base` is the URL of the provider.

    Raises UpstreamDeniedError if the variable of the candidate's key is not set.
    """
    own, supported = candidate.params.named.keys(), supported_parameters(candidate.model)
    translated = _translated_fields(candidate)
    passed = {key: value for key, value in query.parameters.items() if key in translated}
    if known_provider(candidate.model) not in _OPENAI_SHAPED:
        passed |= with_allowed_tools(passed)
    arguments: dict[str, Any] = {
        # LiteLLM rewrites messages in place; the next candidate must get them as they were.
        **copy.deepcopy(passed),
        "messages": [_known_parts(message) for message in query.messages],
        "model": candidate.model,
        # Always the same for a candidate: LiteLLM keeps a pool of connections for every timeout it sees.
        "timeout": candidate.timeout_s,
        "max_retries": 0,
    }
    unknown = sorted((own & passed.keys()) - supported)
    if unknown and takes_fields(candidate.model):
        # The policy says that the model takes them, whatever LiteLLM's table says.
        arguments["allowed_openai_params"] = unknown
    arguments = _extra_arguments(candidate, query.parameters.get("metadata")) | arguments
    if query.headers:
        arguments["extra_headers"] = query.headers
    if base is not None:
        arguments["api_base"] = base
    if (key := key_of(candidate, base)) is not None:
        arguments["api_key"] = key
    return arguments


def _translated_fields(candidate: Candidate) -> frozenset[str]:
    # Only for some providers `thinking` is more than a field like any other.
    return TRANSLATED_FIELDS | candidate.params.named.keys() | (supported_parameters(candidate.model) & {"thinking"})


def _extra_arguments(candidate: Candidate, metadata: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {}
    if not takes_fields(candidate.model):
        arguments.update(copy.deepcopy(candidate.params.extra_body))
    is_openais = is_openai_shaped(candidate.model)
    if not is_openais and isinstance(metadata, Mapping) and isinstance(metadata.get("user_id"), str):
        # Anthropic's name for what OpenAI calls `user`, which LiteLLM translates.
        arguments["user"] = metadata["user_id"]
    return arguments


def _has_more_than_text(message: Message) -> bool:
    """Return whether a message has pictures, for example, which LiteLLM leaves out for some of these providers."""
    content = message.get("content")
    parts = content if isinstance(content, list | tuple) else ()
    return any(isinstance(part, Mapping) and part.get("type") != "text" for part in parts)


def _known_parts(message: Message) -> dict[str, Any]:
    """Return a copy of a message without the parts that LiteLLM does not know."""
    if not has_unknown_parts(message):
        return copy.deepcopy(dict(message))
    known = [part for part in message["content"] if not is_unknown_part(part)]
    return copy.deepcopy({**message, "content": known or _STAND_IN})


def takes_fields(model: str) -> bool:
    """Return whether a model's provider gets the fields of a request that nobody knows."""
    return is_openai_shaped(model) or known_provider(model) in known_parameters().passes_fields


def is_openai_shaped(model: str) -> bool:
    """Return whether LiteLLM asks a model's provider as it asks OpenAI."""
    provider = known_provider(model)
    return provider in _OPENAI_SHAPED or provider in import_litellm().openai_compatible_providers


@functools.lru_cache(maxsize=1024)
def known_provider(model: str) -> str:
    """Return the provider that LiteLLM takes a model for; empty for an unknown one, of which its call says more."""
    return provider_of(model, None) or ""


@functools.lru_cache(maxsize=1024)
def supported_parameters(model: str) -> frozenset[str]:
    """Return the parameters that LiteLLM translates for a model."""
    found = import_litellm().get_supported_openai_params(model=model) if known_provider(model) else None
    return frozenset(found or ())
