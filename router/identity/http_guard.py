"""Put a guard before an ASGI application: only callers with a scope reach it (`requiring_scope`)."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from router.errors import ForbiddenError, LimitExceededError, NotReadyError, RouterError, UnauthenticatedError
from router.identity.counts import DoorName
from router.identity.gate import Gate
from router.identity.principal import Scope

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

#: The HTTP status of each refusal.
_STATUS: Mapping[type[RouterError], int] = {
    UnauthenticatedError: 401,
    ForbiddenError: 403,
    LimitExceededError: 429,
    NotReadyError: 503,
}


def requiring_scope(app: App, gate: Gate, scope: Scope, door: DoorName = DoorName.ADMIN) -> App:
    """Return an ASGI application that hands on only the requests of callers with this scope.

    Besides the headers of APIs it takes the token as the password of HTTP's Basic authentication, so that a browser can
    ask for it. The user's name does not matter. Others get 401, 403, 429 or 503 with a JSON object.
    """

    async def guarded(asgi: _Scope, receive: _Receive, send: _Send) -> None:
        if asgi["type"] != "http":
            await app(asgi, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in asgi["headers"]}
        try:
            gate.admit(door, _with_basic(headers), frozenset({scope}))
        except tuple(_STATUS) as error:
            await _refuse(send, error)
            return
        await app(asgi, receive, send)

    return guarded


def _with_basic(headers: Mapping[str, str]) -> Mapping[str, str]:
    scheme, _, rest = headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return headers
    try:
        _, _, password = base64.b64decode(rest.strip(), validate=True).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        password = ""
    return {**headers, "authorization": f"Bearer {password}"}


async def _refuse(send: _Send, error: RouterError) -> None:
    body = json.dumps({"error": {"code": error.reason.lower(), "message": str(error)}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if isinstance(error, UnauthenticatedError):
        headers.append((b"www-authenticate", b'Basic realm="ELLE Router", charset="UTF-8"'))
    if error.retry_after_s is not None:
        headers.append((b"retry-after", str(max(1, round(error.retry_after_s))).encode()))
    await send({"type": "http.response.start", "status": _STATUS[type(error)], "headers": headers})
    await send({"type": "http.response.body", "body": body})
