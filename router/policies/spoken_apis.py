"""Say which APIs of OpenAI, besides chat completions, a candidate answers itself (`speaks_api`)."""

from __future__ import annotations

from urllib.parse import urlsplit

from router.policies.policy_file import Candidate
from router.values import SpokenApi

#: What OpenAI and Azure serve for every model that they answer chats with. The old completions are for a few only.
_USUAL = frozenset({SpokenApi.RESPONSES, SpokenApi.EMBEDDINGS})

#: LiteLLM's prefix of models that are asked over the Responses API.
_RESPONSES_PREFIX = "openai/responses/"

_OPENAI_HOST, _OPENAI, _AZURE = ".api.openai.com", "openai", "azure"


def speaks_api(candidate: Candidate, api: SpokenApi) -> bool:
    """Return whether a candidate answers this API itself, so that its body can be handed on byte for byte.

    Its key `speaks` says so. Without it, OpenAI and Azure speak `responses` and `embeddings`, and a server of another
    `api_base` speaks neither, because many that are compatible with chat completions know nothing else.
    """
    provider = candidate.model.partition("/")[0]
    if candidate.speaks is not None:
        return api in candidate.speaks
    if provider == _OPENAI:
        base = candidate.api_base
        is_usual = base is None or f".{urlsplit(base).hostname or ''}".endswith(_OPENAI_HOST)
        is_usual = is_usual or candidate.model.startswith(_RESPONSES_PREFIX)
    else:
        is_usual = provider == _AZURE
    return is_usual and api in _USUAL
