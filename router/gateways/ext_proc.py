"""Envoy's external processor (ext_proc v3): decides on a chat body, rewrites its `model`, and sets routing headers.

There is one stream for each HTTP request. If it is a `POST` to a chat path, Envoy sends the headers and the whole body
(request_body_mode BUFFERED), and gets both back with the decision. Then the stream ends, so that the upstream's answer
does not depend on this process. Envoy itself copies the decision's headers from the request to the response
(examples/envoy). All other requests pass unchanged.

A request may be impossible to decide: no JSON, an unknown model, no eligible candidate, overload, or an encoder that is
still loading. If failures are `closed`, we answer it with an OpenAI error object. If they are `open`, it passes
unchanged, with the reason in `x-elle-error` and without `x-elle-candidate`. Envoy's default route must then lead to an
upstream that knows the names that clients send. The same holds for Envoy's own `failure_mode_allow`, which acts when
this service is gone. A request beyond the limits of its token is refused either way.
"""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import replace
from typing import Any, Literal

import grpc
import grpc.aio

from router.answering.candidate_request import dropped_for, request_for
from router.asking.session_ids import caller_of
from router.deciding.pipeline import Router
from router.errors import GatewayNotInstalledError, InvalidRequestError, LimitExceededError, RouterError
from router.gateways.http.decision_format import ALL_HEADERS, ERROR_HEADER, decision_headers, dropped_header
from router.gateways.http.openai_format import OPENAI_FORMAT
from router.gateways.http.request_body import ChatBody, query_from_body, upstream_model
from router.identity.method_scopes import EXT_PROC
from router.identity.principal import current_principal
from router.intake.bounds import SMALL_BYTES
from router.observing.trace_context import note_trace
from router.quoting import quoted
from router.values import ApiFormat, RouteQuery
from router.wire.statuses import still_loading

log = logging.getLogger(__name__)

SERVICE_NAME = EXT_PROC

#: A POST to a path with one of these endings carries a chat.
_MESSAGES_PATH = "/v1/messages"
CHAT_PATHS = ("/chat/completions", _MESSAGES_PATH)

#: The largest number of headers of a request. Envoy itself takes 100 unless it is told otherwise.
MAX_HEADERS = 1000

OnFailure = Literal["closed", "open"]


class ExternalProcessor:
    """Serves Envoy's ext_proc protocol on the router's own gRPC server (`ServerSettings.doors`).

    Args:
        on_failure: what happens to requests that cannot be decided; see the docstring of this file.

    Raises GatewayNotInstalledError if Envoy's protos are not installed.
    """

    service_names = (SERVICE_NAME,)

    def __init__(self, on_failure: OnFailure = "closed") -> None:
        self._answers = _Answers()
        self._on_failure = on_failure
        self._router: Router | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # It is pickled for worker processes before it starts, and the modules that it holds cannot be.
        return ExternalProcessor, (self._on_failure,)

    def register(self, server: grpc.aio.Server) -> None:
        """Add this service to a gRPC server that has not started."""
        _import("envoy.service.ext_proc.v3.external_processor_pb2_grpc").add_ExternalProcessorServicer_to_server(
            self, server
        )

    def start(self, router: Router) -> None:
        """Begin to decide with this router. Before this call no chat can be decided."""
        self._router = router

    async def Process(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:  # noqa: N802
        """Yield one answer for each message of Envoy, up to the decision.

        Then the call ends. While it is open, Envoy would break off the upstream's answer if this process died.
        """
        headers: Mapping[str, str] = {}
        async for request in requests:
            kind = request.WhichOneof("request")
            if kind == "request_headers":
                sent = request.request_headers.headers.headers
                if len(sent) > MAX_HEADERS:
                    message = f"a request must have at most {MAX_HEADERS:,} headers, got {len(sent):,}."
                    yield self._undecided(kind, InvalidRequestError(message), remove=ALL_HEADERS)
                    return
                headers = _plain(sent)
                # A client must not be able to choose the upstream by sending our headers.
                forged = [name for name in ALL_HEADERS if name in headers]
                if not _is_chat(headers):
                    yield self._answers.pass_by(remove=forged)
                    return
                if not self._answers.bodies_come_whole(request):
                    # Otherwise chats would pass undecided, and nobody would notice.
                    message = "the ext_proc filter must be set to request_body_mode BUFFERED."
                    await context.abort(grpc.StatusCode.FAILED_PRECONDITION, message)
                if request.request_headers.end_of_stream:
                    yield self._undecided(kind, InvalidRequestError("the body must be set, got none."), remove=forged)
                    return
                yield self._answers.go_on(kind, remove=forged)
            elif kind == "request_body":
                yield await self._on_request_body(headers, request.request_body.body, context.peer())
                return
            elif kind is not None:
                yield self._answers.go_on(kind)

    async def _on_request_body(self, headers: Mapping[str, str], raw: bytes, connection: str) -> Any:
        try:
            body, told = await self._decide(headers, raw, connection)
        except Exception as error:
            return self._undecided("request_body", error)
        return self._answers.go_on("request_body", headers={**told, "content-length": str(len(body))}, body=body)

    async def _decide(self, headers: Mapping[str, str], raw: bytes, connection: str) -> tuple[bytes, dict[str, str]]:
        """Return the rewritten body and the headers of the decision."""
        if self._router is None:
            raise still_loading()
        if headers.get("content-encoding", "identity") != "identity":
            raise InvalidRequestError(
                f"the body must come without content-encoding, got {quoted(headers['content-encoding'])}."
            )
        router, large = self._router, len(raw) > SMALL_BYTES
        # What Envoy itself sends along is another trace than that of its client, whose request this is.
        note_trace(headers)

        def read() -> RouteQuery:
            body = ChatBody.parse(raw, max_text_bytes=router.max_prompt_bytes)
            query = query_from_body(body.fields, headers, router.policies, _api_of(headers))
            return replace(query, body=body.written)

        with router.intake.hold_bytes() as held:
            held.add(len(raw))
            query = await router.intake.run_in_thread(read) if large else read()
            # Envoy proves who it is, and its clients are told apart by what they send to it.
            caller = "/".join(filter(None, (current_principal.get().id, caller_of(headers))))
            decision = await router.adecide(query, caller=caller, connection=connection, large=large)
        dropped = dropped_for(decision, decision.chosen)
        candidate = router.policy(decision.policy.name).rules.file.candidate(decision.chosen)

        def rewrite() -> bytes:
            body = request_for(candidate, query, dropped).body
            assert body is not None  # noqa: S101  (`read` set it)
            return b"".join(body.with_model(json.dumps(upstream_model(candidate.model)).encode()))

        rewritten = await router.intake.run_in_thread(rewrite) if large else rewrite()
        return rewritten, decision_headers(decision) | dropped_header(dropped)

    def _undecided(self, kind: str, error: Exception, *, remove: Iterable[str] = ()) -> Any:
        if isinstance(error, RouterError):
            log.info("not decided: %s", error.reason)
            status, headers, body = OPENAI_FORMAT.error_reply(error)
        else:
            log.error("not decided", exc_info=error)
            status, headers = 500, {ERROR_HEADER: "INTERNAL"}
            body = OPENAI_FORMAT.plain_error_body("internal error; see the router's log.", 500, "internal")
        # Whoever is over a limit must not get past it by the very refusal.
        if self._on_failure == "closed" or isinstance(error, LimitExceededError):
            return self._answers.refuse(status, headers, body)
        return self._answers.go_on(kind, headers={ERROR_HEADER: headers[ERROR_HEADER]}, remove=remove)


class _Answers:
    """Builds the messages with which we answer Envoy. Envoy's protos are imported when an instance is made."""

    def __init__(self) -> None:
        self._pb = _import("envoy.service.ext_proc.v3.external_processor_pb2")
        self._core = _import("envoy.config.core.v3.base_pb2")
        self._mode = _import("envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2").ProcessingMode

    def bodies_come_whole(self, request: Any) -> bool:
        """Return whether Envoy will send bodies in one piece. Old versions do not say; for them it returns True."""
        if not request.HasField("protocol_config"):
            return True
        return bool(request.protocol_config.request_body_mode == self._mode.BUFFERED)

    def go_on(
        self,
        kind: str,
        *,
        headers: Mapping[str, str] | None = None,
        remove: Iterable[str] = (),
        body: bytes | None = None,
    ) -> Any:
        """Build the answer that lets the request go on, with these headers set or removed and this body if given."""
        if kind.endswith("trailers"):
            return self._pb.ProcessingResponse(**{kind: self._pb.TrailersResponse()})
        common = self._pb.CommonResponse(
            header_mutation=self._mutation(headers or {}, remove),
            body_mutation=self._pb.BodyMutation(body=body) if body is not None else None,
            # Envoy chose a route by the old headers, so it must choose again.
            clear_route_cache=kind.startswith("request") and bool(headers or remove),
        )
        wrap = self._pb.HeadersResponse if kind.endswith("headers") else self._pb.BodyResponse
        return self._pb.ProcessingResponse(**{kind: wrap(response=common)})

    def pass_by(self, *, remove: Iterable[str]) -> Any:
        """Build the answer that lets the request pass unchanged.

        If the filter has allow_mode_override, Envoy does not ask again about it.
        """
        answer = self.go_on("request_headers", remove=remove)
        skip = self._mode(request_body_mode=self._mode.NONE, response_header_mode=self._mode.SKIP)
        answer.mode_override.CopyFrom(skip)
        return answer

    def refuse(self, status: int, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """Build the answer that makes Envoy answer the client itself, with this status, these headers and this body."""
        response = self._pb.ImmediateResponse(
            headers=self._mutation({"content-type": "application/json", **headers}, ()),
            body=json.dumps(body).encode(),
            details="elle_undecided",
        )
        response.status.code = status
        return self._pb.ProcessingResponse(immediate_response=response)

    def _mutation(self, headers: Mapping[str, str], remove: Iterable[str]) -> Any:
        option = self._core.HeaderValueOption
        values = [
            option(
                header=self._core.HeaderValue(key=key, raw_value=value.encode()),
                append_action=option.OVERWRITE_IF_EXISTS_OR_ADD,
            )
            for key, value in headers.items()
        ]
        return self._pb.HeaderMutation(set_headers=values, remove_headers=remove)


def _is_chat(headers: Mapping[str, str]) -> bool:
    path = headers.get(":path", "").partition("?")[0]
    return headers.get(":method") == "POST" and path.endswith(CHAT_PATHS)


def _api_of(headers: Mapping[str, str]) -> ApiFormat:
    """Return the API whose shape the body of a chat has."""
    is_message = headers.get(":path", "").partition("?")[0].endswith(_MESSAGES_PATH)
    return ApiFormat.ANTHROPIC_MESSAGES if is_message else ApiFormat.OPENAI_CHAT


def _plain(headers: Iterable[Any]) -> dict[str, str]:
    # Old versions of Envoy fill `value`, new ones `raw_value`.
    return {one.key: (one.raw_value.decode("latin-1") or one.value) for one in headers}


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise GatewayNotInstalledError(
            "--ext-proc needs Envoy's protos, which are not installed; install them with "
            "`pip install 'elle-router[envoy]'`."
        ) from error
