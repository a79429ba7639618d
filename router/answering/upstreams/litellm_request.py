"""Build a call of LiteLLM from a request, and say what is written into the body that LiteLLM makes of it.

No field that LiteLLM does not translate passes through LiteLLM. Its own keywords (`api_base`, `api_key`,
`mock_response`, ...) would otherwise be a caller's to set, and it loses content parts that it does not know.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from typing import Any

from router.answering.upstreams.candidate_keys import key_of
from router.answering.upstreams.litellm_call import Additions
from router.answering.upstreams.litellm_import import import_litellm
from router.answering.upstreams.litellm_problems import provider_of
from router.asking.turns import has_unknown_parts, is_unknown_part
from router.policies.candidates.candidate import Candidate
from router.policies.candidates.known_parameters import known_parameters
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

#: Stands in for the content of a message of which LiteLLM knows no part.
_STAND_IN = "."


def additions_of(candidate: Candidate, query: RouteQuery) -> Additions:
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
    contents = {at: one["content"] for at, one in enumerate(query.messages) if has_unknown_parts(one)}
    roles = tuple(str(one.get("role")) for one in query.messages)
    return Additions(kept, tuple(sorted(extra.keys() - kept.keys())), contents, roles if contents else ())


def arguments_of(candidate: Candidate, base: str | None, query: RouteQuery) -> dict[str, Any]:
    """Return the arguments of LiteLLM's `acompletion` that ask a candidate. `base` is the URL of the provider.

    Raises UpstreamDeniedError if the variable of the candidate's key is not set.
    """
    own, supported = candidate.params.named.keys(), supported_parameters(candidate.model)
    translated = _translated_fields(candidate)
    passed = {key: value for key, value in query.parameters.items() if key in translated}
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
