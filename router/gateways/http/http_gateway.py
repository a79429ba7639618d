"""The HTTP gateway: the APIs of OpenAI and Anthropic, and a health check, with the options of `elle serve --http`.

It serves the paths of `POST_PATHS`, `GET /v1/models` (policies, profiles and candidates) and `GET /healthz`, and asks
the same router and dispatcher as every other door. docs/apis.md describes them. What answers is imported when it is
needed, because the parent of several workers holds a gateway too.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from router.errors import ConfigError, GatewayNotInstalledError
from router.identity.gate import OPEN_GATE, Gate
from router.quoting import quoted

if TYPE_CHECKING:
    from router.answering.dispatch import Dispatcher
    from router.deciding.pipeline import Router
    from router.feedback.desk import FeedbackDesk
    from router.gateways.http.exchange import Engine
    from router.intake.in_flight import InFlight

#: Largest body. It leaves room for a few dozen images.
MAX_BODY_BYTES = 32 * 1024 * 1024

#: An origin as browsers write it into their requests: in lower case, and without a path.
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(\[[0-9a-f:.]+\]|[^\s/:?#@A-Z]+)(:[0-9]{1,5})?")

#: Seconds of silence after which a client that waits for a stream gets a comment. Proxies give up after 30 or 60.
COMMENT_AFTER_S = 20.0


class HttpGateway:
    """The gateway that `elle serve --http` serves; it is passed as `ServerSettings.http`.

    Args:
        max_body_bytes: longer bodies are refused.
        cors_origins: the origins, such as `https://app.example.com`, whose web pages may call; `*` stands for all.
        comment_after_s: seconds of silence after which a client that waits for a stream gets a comment; 0 sends none.

    Raises GatewayNotInstalledError if Starlette, uvicorn or httptools are not installed, and ConfigError for an origin
    that no browser would send.
    """

    def __init__(
        self,
        *,
        max_body_bytes: int = MAX_BODY_BYTES,
        cors_origins: Sequence[str] = (),
        comment_after_s: float = COMMENT_AFTER_S,
    ) -> None:
        for name in ("starlette", "uvicorn", "httptools"):
            _require(name)
        self._max_body_bytes = max_body_bytes
        self._cors_origins = tuple(_checked_origin(origin) for origin in cors_origins)
        self._comment_after_s = comment_after_s
        self._engine: Engine | None = None

    def start(
        self,
        router: Router,
        dispatcher: Dispatcher,
        in_flight: InFlight | None = None,
        desk: FeedbackDesk | None = None,
    ) -> None:
        """Begin to answer, and track requests in `in_flight`. Before this call every request is answered with 503.

        desk: takes feedback; None if there is no ledger.
        """
        from router.gateways.http.exchange import Engine
        from router.intake.in_flight import InFlight

        self._engine = Engine(router, dispatcher, in_flight or InFlight(), self._comment_after_s, desk)

    def app(self, gate: Gate = OPEN_GATE) -> Any:
        """Return the ASGI application. `gate` checks who calls."""
        from router.gateways.http.http_application import HttpApplication

        return HttpApplication(lambda: self._engine, gate, self._max_body_bytes, self._cors_origins).asgi()

    @staticmethod
    def refusal(path: str, status: int, message: str) -> bytes:
        """Return the JSON that refuses what is no valid HTTP request, in the format of the API at its path.

        path: as far as it is known; it may be empty.
        """
        from router.gateways.http.http_application import api_at
        from router.gateways.http.http_reply import to_json

        return to_json(api_at(path, {}).plain_error_body(message, status, "refused"))


def _checked_origin(origin: str) -> str:
    """Return an origin unchanged. Raises ConfigError if browsers do not write it so."""
    if origin != "*" and not _ORIGIN.fullmatch(origin):
        raise ConfigError(
            f"--cors-origin must be * or an origin such as https://app.example.com or http://localhost:3000, without a "
            f"path, got {quoted(origin)}."
        )
    return origin


def _require(name: str) -> None:
    if importlib.util.find_spec(name) is None:
        raise GatewayNotInstalledError(
            "--http needs Starlette, uvicorn and httptools, which are not installed; install them with "
            "`pip install 'elle-router[dispatch]'`."
        )
