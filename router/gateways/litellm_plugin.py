"""A plugin for LiteLLM's Router: it asks ELLE Router which deployment of a model group should answer.

    from router.gateways.litellm_plugin import elle_plugin

    router = litellm.Router(model_list=[...], plugins=[elle_plugin("localhost:50051")])

A deployment belongs to the candidate that its `model_info` names in `elle_candidate`, or else to the candidates whose
`model` is its `litellm_params.model`. After a decision only deployments of the chosen candidate are left, and LiteLLM
picks among them as usual. If all of them are cooling down, those of the next candidate that may answer in its place are
left (`router.answering.fallback`). If there are none either, LiteLLM uses its own `fallbacks`. Requests without
messages, such as embeddings, are not decided.

Two of LiteLLM's hooks work together: `run` marks the calls of routers that were given the plugin, and makes LiteLLM
refuse its synchronous methods, which could not ask; `async_filter_deployments` decides, because only it is shown tools
and output limits and only it can tell apart two deployments of one model.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from router.answering.fallback import names_to_ask
from router.asking.caller_scores import scores_of
from router.asking.session_ids import caller_of, session_id_of
from router.asking.task_keys import task_of
from router.client import AsyncRouterClient
from router.deciding.pipeline import Router
from router.decision import CandidateRisk, RoutingDecision
from router.errors import GatewayNotInstalledError, InvalidRequestError, RouterError
from router.gateways.http.decision_format import decision_headers
from router.policies.candidates.known_parameters import known_parameters
from router.values import Overrides, RouteQuery

log = logging.getLogger(__name__)

#: The field of LiteLLM's metadata that holds the decision, for loggers. Its keys are those of the HTTP headers.
METADATA_KEY = "elle"
#: The field of a deployment's `model_info` that names the candidate that it belongs to.
CANDIDATE_KEY = "elle_candidate"

#: The fields that a decision depends on besides the messages. LiteLLM's own arguments, such as keys, are not sent.
_PARAMETERS = (
    *("functions", "instructions", "max_completion_tokens", "max_output_tokens", "max_tokens", "modalities"),
    *("output_config", "output_format", "response_format", "system", "text", "tools"),
)

_NO_OVERRIDES = Overrides()

Deployment = Mapping[str, Any]


class Decider(Protocol):
    """The interface of what decides for the plugin: a router in this process, or the service over gRPC."""

    async def decide(self, query: RouteQuery, api_key: str) -> RoutingDecision:
        """Return the decision on a request. `api_key` identifies the caller, and may be empty. Raises RouterError."""


def elle_plugin(
    engine: str | Router,
    *,
    overrides: Overrides = _NO_OVERRIDES,
    groups: Collection[str] | None = None,
    on_failure: Literal["closed", "open"] = "closed",
    timeout_s: float = 2.0,
) -> Any:
    """Return the plugin for `litellm.Router(plugins=[...])`, or for `litellm_settings.callbacks` of LiteLLM's Proxy.

    Args:
        engine: address `host:port` of the service, or a `router.deciding.pipeline.Router` of this process.
        overrides: overrides of the policy for every decision.
        groups: names of the model groups to decide; None: every group of the routers that were given the plugin. As a
            callback of the Proxy, which marks nothing, it needs them.
        on_failure: if there is no decision, `closed` raises LiteLLM's ServiceUnavailableError or BadRequestError,
            `open` logs it and leaves all deployments as they are.
        timeout_s: longest wait for the service, in seconds.

    Raises GatewayNotInstalledError if LiteLLM is not installed.
    """
    litellm, custom_logger = litellm_and_callback()
    # LiteLLM shows every call of the process to every callback, so each plugin marks the calls of its own routers.
    mark = f"elle_plugin_{uuid.uuid4().hex}"
    decider: Decider = _RemoteEngine(engine, timeout_s) if isinstance(engine, str) else _LocalEngine(engine)
    deployment_filter = _DeploymentFilter(litellm, decider, overrides, on_failure)

    # The base class is part of LiteLLM, which is loaded only when a plugin is made.
    class EllePlugin(custom_logger):  # type: ignore[misc, valid-type]
        async def run(self, context: Any) -> Any:
            # Done for every call, because applications reset LiteLLM's list of callbacks. LiteLLM's own way of adding
            # one drops plugins that look alike.
            if not any(one is self for one in litellm.callbacks):
                litellm.callbacks.append(self)
            context.signals[mark] = True
            return context

        async def async_filter_deployments(
            self,
            model: str,
            healthy_deployments: list[Deployment],
            messages: Sequence[Any] | None,
            request_kwargs: dict[str, Any] | None = None,
            parent_otel_span: Any = None,
        ) -> list[Deployment]:
            request = request_kwargs or {}
            is_ours = _is_marked(request, mark) if groups is None else model in groups
            if not is_ours or not messages:
                return healthy_deployments
            return await deployment_filter.filter(model, healthy_deployments, messages, request)

    return EllePlugin()


@dataclass(frozen=True, slots=True)
class _DeploymentFilter:
    """Decides requests, and keeps the deployments that may answer them."""

    litellm: Any
    decider: Decider
    overrides: Overrides
    on_failure: Literal["closed", "open"]

    async def filter(
        self, group: str, deployments: list[Deployment], messages: Sequence[Any], request: Mapping[str, Any]
    ) -> list[Deployment]:
        """Return the deployments that may answer, and note the decision in the request's metadata."""
        try:
            decision = await self.decider.decide(_query(messages, request, self.overrides), _api_key(request))
            kept = filter_deployments(decision, deployments, group=group)
        except RouterError as error:
            if self.on_failure == "open":
                log.warning("group %r is left undecided: %s", group, error)
                return deployments
            kind = self.litellm.ServiceUnavailableError if _may_pass(error) else self.litellm.BadRequestError
            raise kind(message=f"ELLE Router: {error}", model=group, llm_provider="elle-router") from error
        for metadata in _metadata(request):
            metadata[METADATA_KEY] = decision_headers(decision)
        return kept


def filter_deployments(decision: RoutingDecision, deployments: Sequence[Deployment], *, group: str) -> list[Deployment]:
    """Return the deployments that may answer after a decision; empty if none of them is healthy.

    Raises InvalidRequestError if no deployment belongs to any candidate.
    """
    of = {row.candidate: [one for one in deployments if _belongs(one, row)] for row in decision.candidates}
    if deployments and not any(of.values()):
        raise InvalidRequestError(
            f"a deployment of group {group!r} must belong to a candidate of policy {decision.policy.name!r} "
            f"({', '.join(of)}), none does; name it in its model_info as {CANDIDATE_KEY}, or give both the same model."
        )
    return next((of[name] for name in names_to_ask(decision) if of[name]), [])


def _belongs(deployment: Deployment, row: CandidateRisk) -> bool:
    named = (deployment.get("model_info") or {}).get(CANDIDATE_KEY)
    if named is not None:
        return bool(named == row.candidate)
    return bool((deployment.get("litellm_params") or {}).get("model") == row.model)


def _query(messages: Sequence[Any], request: Mapping[str, Any], overrides: Overrides) -> RouteQuery:
    # What some candidate may refuse decides too.
    names = {*_PARAMETERS, *known_parameters().names}
    parameters = {name: _plain(request[name]) for name in sorted(names) if request.get(name) is not None}
    headers: Mapping[str, str] = next(
        (one["headers"] for one in _metadata(request) if isinstance(one.get("headers"), dict)), {}
    )
    said = {"litellm_session_id": request.get("litellm_session_id"), "metadata": next(iter(_metadata(request)), None)}
    return RouteQuery(
        messages=tuple(_plain(message) for message in messages),
        overrides=overrides,
        session_id=session_id_of("", headers, said),
        task=task_of("", headers, said),
        scores=scores_of({}, headers, said),
        parameters=parameters,
    )


def _api_key(request: Mapping[str, Any]) -> str:
    """Return the digest of the key that LiteLLM's Proxy accepted, or an empty text in a Router, which has no keys."""
    found = (one.get(name) for one in _metadata(request) for name in ("user_api_key_hash", "user_api_key"))
    return next((key for key in found if isinstance(key, str) and key), "")


def _plain(value: Any) -> Any:
    """Return a value as plain JSON: a pydantic object becomes its fields, a class `{"type": "json_schema"}`."""
    if isinstance(value, type):
        return {"type": "json_schema"}
    dump = getattr(value, "model_dump", None)
    return dump(mode="json", exclude_none=True) if dump is not None else value


def _metadata(request: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = (request.get(name) for name in ("metadata", "litellm_metadata"))
    return [one for one in found if isinstance(one, dict)]


def _is_marked(request: Mapping[str, Any], mark: str) -> bool:
    return any(mark in (one.get("routing_plugin_signals") or {}) for one in _metadata(request))


def _may_pass(error: RouterError) -> bool:
    code, retryable = getattr(error, "code", error.status), getattr(error, "service_retryable", error.retryable)
    return bool(retryable) or code in {"UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL"}


class _LocalEngine:
    """Decides requests with a router in this process."""

    def __init__(self, router: Router) -> None:
        self._router = router

    async def decide(self, query: RouteQuery, api_key: str) -> RoutingDecision:
        return await self._router.adecide(query, caller=caller_of({"x-api-key": api_key}))


class _RemoteEngine:
    """Decides requests by asking the service over gRPC.

    The package grpc binds a connection to an event loop, so each loop gets a client of its own.
    """

    def __init__(self, address: str, timeout_s: float) -> None:
        self._address, self._timeout_s = address, timeout_s
        self._client: tuple[asyncio.AbstractEventLoop, AsyncRouterClient] | None = None

    async def decide(self, query: RouteQuery, api_key: str) -> RoutingDecision:
        loop = asyncio.get_running_loop()
        if self._client is None or self._client[0] is not loop:
            self._client = loop, AsyncRouterClient(self._address, timeout_s=self._timeout_s)
        return await self._client[1].route(query, api_key=api_key)


def litellm_and_callback() -> tuple[Any, Any]:
    """Return LiteLLM and the base class of its callbacks. Raises GatewayNotInstalledError without LiteLLM."""
    try:
        litellm = importlib.import_module("litellm")
        return litellm, importlib.import_module("litellm.integrations.custom_logger").CustomLogger
    except ImportError as error:
        raise GatewayNotInstalledError(
            "plugins and callbacks for LiteLLM need LiteLLM, which is not installed; install it with "
            "`pip install 'elle-router[dispatch]'`."
        ) from error
