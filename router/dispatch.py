"""The chosen candidate, asked through LiteLLM. The only file that imports LiteLLM, and only when first needed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from router import errors
from router.config import CANNED_UPSTREAM, Candidate, Prices
from router.errors import DispatchError, DispatchNotInstalledError, InvalidRequestError, UpstreamUnavailableError
from router.loading import ServedPolicy
from router.types import RouteQuery, RoutingDecision

#: Fields of the OpenAI body that LiteLLM translates between providers. Everything else a caller sends travels as
#: `extra_body`: LiteLLM's own keywords (`api_base`, `api_key`, `mock_response`, ...) must not be a caller's to set.
TRANSLATED_FIELDS = frozenset(
    {
        *("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs"),
        *("max_completion_tokens", "max_tokens", "modalities", "n", "parallel_tool_calls", "prediction"),
        *("presence_penalty", "reasoning_effort", "response_format", "seed", "service_tier", "stop"),
        *("stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity"),
        "web_search_options",
    }
)

#: Fields that the router sets itself.
OWN_FIELDS = frozenset({"model", "messages", "stream"})

#: LiteLLM's exceptions by name; an exception counts as the nearest of its classes that is named here.
ERRORS_BY_NAME: Mapping[str, type[DispatchError]] = {
    "AuthenticationError": errors.UpstreamDeniedError,
    "PermissionDeniedError": errors.UpstreamDeniedError,
    "PaymentRequiredError": errors.UpstreamDeniedError,
    "BudgetExceededError": errors.UpstreamDeniedError,
    "NotFoundError": errors.UpstreamNotFoundError,
    "LiteLLMUnknownProvider": errors.UpstreamNotFoundError,
    "ModelNotMappedError": errors.UpstreamNotFoundError,
    "RateLimitError": errors.UpstreamRateLimitedError,
    "Timeout": errors.UpstreamTimeoutError,
    "ContextWindowExceededError": errors.UpstreamRejectedError,
    "ContentPolicyViolationError": errors.UpstreamRejectedError,
    "RejectedRequestError": errors.UpstreamRejectedError,
    "UnsupportedParamsError": errors.UpstreamRejectedError,
    "UnprocessableEntityError": errors.UpstreamRejectedError,
    "ImageFetchError": errors.UpstreamRejectedError,
    "VectorStoreSearchError": errors.UpstreamRejectedError,
    "GuardrailRaisedException": errors.UpstreamRejectedError,
    "BlockedPiiEntityError": errors.UpstreamRejectedError,
    "SensitiveDataRouteException": errors.UpstreamRejectedError,
    "ModifyResponseException": errors.UpstreamRejectedError,
    "InvalidRequestError": errors.UpstreamRejectedError,
    "BadRequestError": errors.UpstreamRejectedError,
    "ServiceUnavailableError": errors.UpstreamUnavailableError,
    "MidStreamFallbackError": errors.UpstreamUnavailableError,
    "BadGatewayError": errors.UpstreamUnavailableError,
    "InternalServerError": errors.UpstreamUnavailableError,
    "JSONSchemaValidationError": errors.UpstreamUnavailableError,
    "APIResponseValidationError": errors.UpstreamUnavailableError,
    "APIConnectionError": errors.UpstreamUnavailableError,
    "MockException": errors.UpstreamUnavailableError,
    "APIError": errors.UpstreamUnavailableError,
    "OpenAIError": errors.UpstreamUnavailableError,
}

#: Where LiteLLM only says "API error", the HTTP status says more.
ERRORS_BY_STATUS: Mapping[int, type[DispatchError]] = {
    400: errors.UpstreamRejectedError,
    401: errors.UpstreamDeniedError,
    402: errors.UpstreamDeniedError,
    403: errors.UpstreamDeniedError,
    404: errors.UpstreamNotFoundError,
    408: errors.UpstreamTimeoutError,
    413: errors.UpstreamRejectedError,
    422: errors.UpstreamRejectedError,
    429: errors.UpstreamRateLimitedError,
}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens as the provider counted them, and their cost at the policy's prices (None where unknown)."""

    input_tokens: int
    output_tokens: int
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class Completion:
    """An answer, or one step of a streamed one.

    Attributes:
        text: of the first choice; may be empty.
        body: the provider's response or chunk in the OpenAI shape.
        usage: None where the provider did not report it, and in all steps of a stream but the last.
    """

    text: str
    body: Mapping[str, Any]
    usage: Usage | None


class Dispatcher:
    """Sends decided requests on. Makes no choices of its own: no retry, no fallback, no sampling default.

    Args:
        policies: the served policies by name.
        canned_url: base URL of the built-in upstream; None if no candidate uses it.
    """

    def __init__(self, policies: Mapping[str, ServedPolicy], *, canned_url: str | None = None) -> None:
        self._targets = {
            (name, candidate.name): (candidate, prices)
            for name, policy in policies.items()
            for candidate, prices in zip(policy.rules.file.candidates, policy.rules.prices, strict=True)
        }
        self._canned_url = canned_url

    async def complete(
        self, query: RouteQuery, decision: RoutingDecision, *, timeout_s: float | None = None
    ) -> Completion:
        """The chosen candidate's answer.

        Args:
            query: what is asked.
            decision: who answers.
            timeout_s: what is left of the caller's deadline; None for none.

        Raises DispatchError of the kind that says whether to retry; InvalidRequestError for parameters that are the
        router's own.
        """
        candidate, prices = self._targets[decision.policy.name, decision.chosen]
        arguments = self._arguments(query, candidate, timeout_s)
        litellm = await _litellm()
        with _translated(candidate):
            async with asyncio.timeout(arguments["timeout"]):
                response = await litellm.acompletion(**arguments)
        body = response.model_dump(mode="json", exclude_none=True)
        choices = body.get("choices") or [{}]
        return Completion(choices[0].get("message", {}).get("content") or "", body, _usage(body, prices))

    async def stream(
        self, query: RouteQuery, decision: RoutingDecision, *, timeout_s: float | None = None
    ) -> AsyncIterator[Completion]:
        """The chosen candidate's answer, piece by piece. Arguments and errors as `complete`."""
        candidate, prices = self._targets[decision.policy.name, decision.chosen]
        arguments = self._arguments(query, candidate, timeout_s) | {"stream": True}
        arguments.setdefault("stream_options", {"include_usage": True})
        litellm = await _litellm()
        with _translated(candidate):
            async with asyncio.timeout(arguments["timeout"]):
                chunks = await litellm.acompletion(**arguments)
                try:
                    async for chunk in chunks:
                        body = chunk.model_dump(mode="json", exclude_none=True)
                        choices = body.get("choices") or [{}]
                        text = choices[0].get("delta", {}).get("content") or ""
                        yield Completion(text, body, _usage(body, prices))
                finally:
                    # A caller that leaves must stop the upstream too.
                    await chunks.aclose()

    def _arguments(self, query: RouteQuery, candidate: Candidate, timeout_s: float | None) -> dict[str, Any]:
        if own := sorted(OWN_FIELDS & query.parameters.keys()):
            raise InvalidRequestError(
                f"parameters must not hold {', '.join(own)}: the router sets them; choose StreamComplete to stream.",
                field="parameters",
            )
        passed = {key: value for key, value in query.parameters.items() if key in TRANSLATED_FIELDS}
        extra = {key: value for key, value in query.parameters.items() if key not in TRANSLATED_FIELDS}
        arguments: dict[str, Any] = {
            **passed,
            "model": candidate.model,
            "messages": [dict(message) for message in query.messages],
            "timeout": candidate.timeout_s if timeout_s is None else min(candidate.timeout_s, timeout_s),
            # Retries would hide failures from the record; they belong to the caller for now.
            "max_retries": 0,
            **({"extra_body": extra} if extra else {}),
        }
        if candidate.api_base == CANNED_UPSTREAM:
            if self._canned_url is None:
                raise UpstreamUnavailableError("the built-in canned upstream is not running.")
            arguments |= {"api_base": self._canned_url, "api_key": "canned"}
        elif candidate.api_base is not None:
            arguments["api_base"] = candidate.api_base
        if candidate.api_key_env is not None:
            arguments["api_key"] = _secret(candidate)
        return arguments


def _secret(candidate: Candidate) -> str:
    value = os.environ.get(candidate.api_key_env or "")
    if not value:
        raise errors.UpstreamDeniedError(
            f"candidate {candidate.name!r} takes its key from the environment variable {candidate.api_key_env}, which "
            f"is not set on the service; set it and restart."
        )
    return value


def _usage(body: Mapping[str, Any], prices: Prices | None) -> Usage | None:
    usage = body.get("usage")
    if not usage:
        return None
    tokens = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    return Usage(*tokens, cost_usd=prices.cost_usd(*tokens) if prices else None)


async def _litellm() -> Any:
    # Importing takes seconds, so not in the event loop; afterwards this is a dictionary look-up.
    return await asyncio.to_thread(_import_litellm)


def _import_litellm() -> Any:
    # Without this the import itself fetches a price table from the network.
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        litellm: Any = importlib.import_module("litellm")
    except ImportError as error:
        raise DispatchNotInstalledError(
            "answering needs LiteLLM, which is not installed; install it with `pip install 'elle-router[dispatch]'`, "
            "or use Route, which only decides."
        ) from error
    litellm.suppress_debug_info = True
    return litellm


@contextlib.contextmanager
def _translated(candidate: Candidate) -> Iterator[None]:
    """LiteLLM's exceptions -> ours. What is not LiteLLM's passes: our own bugs are not relabelled."""
    try:
        yield
    except TimeoutError as error:
        raise errors.UpstreamTimeoutError(f"candidate {candidate.name!r} did not answer in time.") from error
    except Exception as error:
        kind = _kind_of(error)
        if kind is None:
            raise
        # The provider's words may quote the prompt or a key fragment: they stay in the exception chain.
        status = getattr(error, "status_code", None)
        raise kind(
            f"candidate {candidate.name!r} ({candidate.model}) failed with {type(error).__name__}"
            + (f", HTTP status {status}." if status else ".")
        ) from error


def _kind_of(error: Exception) -> type[DispatchError] | None:
    name = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in ERRORS_BY_NAME), None)
    if name is None:
        return None
    if name in {"APIError", "OpenAIError"}:
        return ERRORS_BY_STATUS.get(getattr(error, "status_code", 0), ERRORS_BY_NAME[name])
    return ERRORS_BY_NAME[name]
