"""The ASGI application of the HTTP gateway: its paths, and what is done on each of them (`HttpApplication`)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from router.errors import RouterError, ShuttingDownError
from router.gateways.http.anthropic_format import ANTHROPIC_FORMAT
from router.gateways.http.chat_endpoint import answer_chat
from router.gateways.http.decision_models.endpoint import answer_decisions, answer_systemone
from router.gateways.http.exchange import Answer, Endpoint, Engine
from router.gateways.http.http_api import HttpApi
from router.gateways.http.http_reply import JSON_HEADERS, Send, to_json
from router.gateways.http.http_request import Receive, Scope
from router.gateways.http.kept_responses.kept_endpoint import answer_kept
from router.gateways.http.openai_format import (
    COMPLETIONS_FORMAT,
    EMBEDDINGS_FORMAT,
    OPENAI_FORMAT,
)
from router.gateways.http.request_body import model_list, model_object
from router.gateways.http.responses_format import RESPONSES_FORMAT
from router.gateways.http.undecided.feedback_endpoint import answer_feedback
from router.gateways.http.undecided.undecided_endpoints import answer_embeddings, answer_token_count
from router.identity.counts import DoorName, Refusal
from router.identity.gate import Gate
from router.identity.method_scopes import ANSWERING, DECIDING, GRADING, READING, Needed
from router.quoting import did_you_mean, quoted
from router.wire.statuses import still_loading

#: The paths that bodies are posted to, each with the API whose format they have and with what is done.
POST_PATHS: Mapping[str, tuple[HttpApi, Answer]] = {
    "/v1/chat/completions": (OPENAI_FORMAT, answer_chat),
    "/v1/responses": (RESPONSES_FORMAT, answer_chat),
    "/v1/completions": (COMPLETIONS_FORMAT, answer_chat),
    "/v1/embeddings": (EMBEDDINGS_FORMAT, answer_embeddings),
    "/v1/messages": (ANTHROPIC_FORMAT, answer_chat),
    "/v1/systemone": (OPENAI_FORMAT, answer_systemone),
    "/v1/decisions": (OPENAI_FORMAT, answer_decisions),
    "/v1/messages/count_tokens": (ANTHROPIC_FORMAT, answer_token_count),
    "/v1/feedback": (OPENAI_FORMAT, answer_feedback),
}


#: Azure's paths of the same APIs. The deployment that a path names is the model.
_AZURE_APIS = ("chat/completions", "responses", "completions", "embeddings")
AZURE_PATHS: Mapping[str, tuple[HttpApi, Answer]] = {
    "/openai/responses": POST_PATHS["/v1/responses"],
    **{f"/openai/deployments/{{model:path}}/{api}": POST_PATHS[f"/v1/{api}"] for api in _AZURE_APIS},
}


#: Behind the path of responses: where a response is that its provider keeps, each place with the methods it takes.
_BELOW_RESPONSES: Mapping[str, tuple[str, ...]] = {
    "/{response_id}": ("GET", "DELETE"),
    "/{response_id}/cancel": ("POST",),
    "/{response_id}/input_items": ("GET",),
}

#: The same as whole paths, those of Azure too.
KEPT_PATHS: Mapping[str, tuple[str, ...]] = {
    f"{path}{below}": methods
    for path in ("/v1/responses", "/openai/responses")
    for below, methods in _BELOW_RESPONSES.items()
}

#: Where Azure serves the paths of OpenAI without the name of a deployment.
_AZURE_V1 = "/openai/v1/"

_SLASHES = re.compile("/{2,}")

#: Where Anthropic's API is, also what of it is not served here; and the header that only its clients send.
_ANTHROPIC_PATH, _ANTHROPIC_HEADER = "/v1/messages", "anthropic-version"

#: Most characters of a path for which a similar one is looked for.
_LONGEST_PATH = 100

#: The scopes that open the endpoints which ask no candidate; all others need `complete`.
_NEEDED: Mapping[Answer, Needed] = {answer_systemone: DECIDING, answer_decisions: DECIDING, answer_feedback: GRADING}


class HttpApplication:
    """Answers what arrives on the HTTP port.

    Args:
        engine: returns what decides and answers; None while the service still loads.
        gate: checks who calls.
        max_body_bytes: longer bodies are refused.
        cors_origins: the origins whose web pages may call; `*` stands for all.
    """

    def __init__(
        self, engine: Callable[[], Engine | None], gate: Gate, max_body_bytes: int, cors_origins: Sequence[str]
    ) -> None:
        self._engine, self._gate = engine, gate
        self._max_body_bytes, self._cors_origins = max_body_bytes, cors_origins

    def asgi(self) -> Any:
        """Return it in the form that servers call."""
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        posts = {path: self._endpoint(*served) for path, served in {**POST_PATHS, **AZURE_PATHS}.items()}
        kept = self._endpoint(RESPONSES_FORMAT, answer_kept, reads_body=False)
        starlette = Starlette(
            routes=[
                *(Route(path, endpoint, methods=["POST"]) for path, endpoint in posts.items()),
                *(Route(path, kept, methods=methods) for path, methods in KEPT_PATHS.items()),
                Route("/v1/models", self._list_models, methods=["GET"]),
                Route("/v1/models/{name:path}", self._show_model, methods=["GET"]),
                Route("/healthz", self._check_health, methods=["GET"]),
            ],
            exception_handlers={HTTPException: _no_such_route, RouterError: _refuse},
        )

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] == "http" and scope["path"] not in posts:
                scope = {**scope, "path": _plain_path(scope["path"])}
            # A posted body needs none of Starlette's layers, and each of them would wrap every message that is sent.
            is_post = scope["type"] == "http" and scope["method"] == "POST" and scope["path"] in posts
            await (posts[scope["path"]] if is_post else starlette)(scope, receive, send)

        return _with_cors(app, self._cors_origins) if self._cors_origins else app

    def _endpoint(self, api: HttpApi, answer: Answer, *, reads_body: bool = True) -> Endpoint:
        return Endpoint(
            self._started_engine,
            api,
            answer,
            max_body_bytes=self._max_body_bytes if reads_body else None,
            admit=functools.partial(self._admit, _NEEDED.get(answer, ANSWERING)),
            on_oversized=functools.partial(self._gate.counts.add, DoorName.HTTP, Refusal.OVERSIZED),
        )

    def _admit(self, needed: Needed, headers: Mapping[str, str]) -> None:
        if self._gate.looks_at_headers:
            self._gate.admit(DoorName.HTTP, headers, needed)

    def _started_engine(self) -> Engine:
        if (engine := self._engine()) is None:
            raise still_loading()
        return engine

    async def _list_models(self, request: Any) -> Any:
        self._admit(READING, request.headers)
        router = self._started_engine().router
        models = model_list(router.policies)
        # The fields behind `data` are those of Anthropic's API: the whole list is one page.
        ends = {"first_id": models[0]["id"], "last_id": models[-1]["id"], "has_more": False}
        return _json_response(200, {}, {"object": "list", "data": models, **ends})

    async def _show_model(self, request: Any) -> Any:
        self._admit(READING, request.headers)
        router = self._started_engine().router
        return _json_response(200, {}, model_object(request.path_params["name"], router.policies))

    async def _check_health(self, request: Any) -> Any:
        engine = self._started_engine()
        if engine.in_flight.is_draining:
            raise ShuttingDownError("the service is shutting down; send new requests elsewhere.")
        return _json_response(200, {}, {"status": "ok", "policies": list(engine.router.policies)})


def api_at(path: str, headers: Mapping[str, str]) -> HttpApi:
    """Return the API in whose format an error on a path is told. Where both APIs have the path, the headers say it."""
    path = _plain_path(path)
    if path in POST_PATHS:
        return POST_PATHS[path][0]
    is_anthropic = path.startswith(f"{_ANTHROPIC_PATH}/") or _ANTHROPIC_HEADER in headers
    return ANTHROPIC_FORMAT if is_anthropic else OPENAI_FORMAT


def _plain_path(path: str) -> str:
    """Return a path without the slashes that base URLs add, and without the beginning of Azure's newer paths."""
    plain = _SLASHES.sub("/", path)
    if plain.startswith(_AZURE_V1):
        plain = plain.removeprefix("/openai")
    return plain.rstrip("/") or "/"


def _with_cors(app: Any, origins: Sequence[str]) -> Any:
    """Return the application with the headers by which browsers let web pages of other origins call it.

    It stands around everything else, so preflights need nothing and errors have the headers too. Cookies are not
    allowed: there are none.
    """
    from starlette.middleware.cors import CORSMiddleware

    return CORSMiddleware(
        app, allow_origins=origins, allow_methods=("GET", "POST", "DELETE"), allow_headers=("*",), expose_headers=("*",)
    )


async def _refuse(request: Any, error: Any) -> Any:
    status, headers, body = api_at(request.url.path, request.headers).error_reply(error)
    return _json_response(status, headers, body)


async def _no_such_route(request: Any, error: Any) -> Any:
    near = did_you_mean(request.url.path[:_LONGEST_PATH], POST_PATHS, lambda path: f"POST {path}", cutoff=0.75)
    message = f"{request.method} {quoted(request.url.path)} is not served; see docs/apis.md for what is.{near}"
    code = "method_not_allowed" if error.status_code == 405 else "not_found"
    body = api_at(request.url.path, request.headers).plain_error_body(message, error.status_code, code)
    return _json_response(error.status_code, dict(error.headers or {}), body)


def _json_response(status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
    from starlette.responses import Response

    return Response(to_json(body), status, {**headers, **JSON_HEADERS})
