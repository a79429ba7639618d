"""The operator's page as an ASGI application (`admin_app`), with its figures as JSON and a box to try a prompt."""

from __future__ import annotations

import asyncio
import datetime
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, parse_qs, urlsplit

from router.admin.figures import PERIODS, figures
from router.admin.trial import MOST_CHARACTERS
from router.errors import ConfigError
from router.identity.server_tls import is_loopback
from router.observing.history import History

_FOLDER = Path(__file__).parent

#: Tries a prompt: it takes a request and returns an answer as `router.admin.trial.try_prompt` does.
Trial = Callable[[bytes], bytes]

#: A form with the longest prompt, each of whose characters takes at most 12 bytes when it is percent-encoded.
_MOST_FORM_BYTES = 12 * MOST_CHARACTERS + 4096

_MOST_FIELDS = 10

_DEFAULT_PERIOD = "1h"

_PERIOD_NAMES = {"15m": "15 minutes", "1h": "1 hour", "24h": "24 hours", "all": "since the start"}

#: Nothing but our own files, no inline code, no frames. uPlot sets styles by code, which this allows.
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Source:
    """Holds what the page shows.

    Attributes:
        history: the counts of the service and how they grew.
        trial: tries a prompt; it may take long, and is called in a thread.
        on_oversized: is called for each form that is too long.
        canary: returns how the canary does; see `router.admin.watched.watch_figures`.
    """

    history: History
    trial: Trial
    on_oversized: Callable[[], None] = lambda: None
    canary: Callable[[], Mapping[str, Any] | None] = lambda: None


def admin_app(source: Source, host: str) -> Any:
    """Return the application of the page. Who may call is not its business: a guard stands before it.

    host: the address that it is served on. On loopback only requests that name this machine are answered: otherwise a
        web page elsewhere could read this one through a name of its own that leads here.

    Raises ConfigError if Starlette or Jinja2 is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.routing import Mount, Route
        from starlette.staticfiles import StaticFiles

        page = _Page(source)
    except ImportError as error:
        raise ConfigError(
            "--admin-port needs Starlette and Jinja2, which are not installed; install them with "
            "`pip install 'elle-router[admin]'`."
        ) from error
    starlette = Starlette(
        routes=[
            Route("/", page.show, methods=["GET"]),
            Route("/try", page.try_prompt, methods=["POST"]),
            Route("/status.json", page.status, methods=["GET"]),
            Mount("/static", StaticFiles(directory=_FOLDER / "static")),
        ]
    )

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def send_with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                more = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
                message = {**message, "headers": [*message["headers"], *more]}
            await send(message)

        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope.get("headers", ())}
        if scope["type"] == "http" and (problem := _foreign(headers, host, scope["method"])):
            await _plain(403, problem)(scope, receive, send_with_headers)
            return
        await starlette(scope, receive, send_with_headers)

    return app


class _Page:
    """Answers the requests of the page."""

    def __init__(self, source: Source) -> None:
        import jinja2

        self._source = source
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_FOLDER / "templates"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=jinja2.StrictUndefined,
        )
        environment.policies["json.dumps_kwargs"] = {"sort_keys": False}
        environment.filters |= {"count": _count, "percent": _percent, "usd": _usd, "duration": _duration, "time": _time}
        self._template = environment.get_template("page.html")

    async def show(self, request: Any) -> Any:
        return self._render(request, trial=None, prompt="", policy="")

    async def status(self, request: Any) -> Any:
        return _response(
            json.dumps(figures(self._source.history, _period(request), self._source.canary())), "application/json"
        )

    async def try_prompt(self, request: Any) -> Any:
        body = b""
        async for chunk in request.stream():
            body += chunk
            if len(body) > _MOST_FORM_BYTES:
                self._source.on_oversized()
                return _plain(413, f"The prompt must have at most {MOST_CHARACTERS:,} characters.")
        try:
            form = parse_qs(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
        except ValueError:
            return _plain(400, f"The form must have at most {_MOST_FIELDS} fields.")
        prompt, policy = form.get("prompt", [""])[0], form.get("policy", [""])[0]
        asked = json.dumps({"prompt": prompt, "policy": policy}).encode()
        trial = json.loads(await asyncio.to_thread(self._source.trial, asked))
        return self._render(request, trial=trial, prompt=prompt, policy=policy)

    def _render(self, request: Any, **tried: Any) -> Any:
        period = _period(request)
        shown = figures(self._source.history, period, self._source.canary())
        text = self._template.render(
            **tried,
            **shown,
            period_name=_PERIOD_NAMES[period],
            periods=_PERIOD_NAMES,
            most_characters=MOST_CHARACTERS,
        )
        return _response(text, "text/html; charset=utf-8")


def _period(request: Any) -> str:
    asked = request.query_params.get("period", "")
    return asked if asked in PERIODS else _DEFAULT_PERIOD


def _foreign(headers: Mapping[str, str], host: str, method: str) -> str:
    """Return why a request looks as if a web page elsewhere had made it, or an empty text."""
    if is_loopback(host) and not is_loopback(_parsed(f"//{headers.get('host', '')}").hostname or ""):
        return "This page is for this machine only: ask for it by the name localhost."
    origin = headers.get("origin")
    if method != "GET" and origin is not None and _parsed(origin).netloc != headers.get("host"):
        return "This form was sent by another page."
    if method != "GET" and headers.get("sec-fetch-site", "same-origin") not in {"same-origin", "none"}:
        return "This form was sent by another page."
    return ""


def _parsed(url: str) -> SplitResult:
    """Return the parts of a URL that somebody sent; all are empty if it is none."""
    try:
        return urlsplit(url)
    except ValueError:
        return urlsplit("")


def _response(text: str, media_type: str) -> Any:
    from starlette.responses import Response

    return Response(text, media_type=media_type)


def _plain(status: int, text: str) -> Any:
    from starlette.responses import PlainTextResponse

    return PlainTextResponse(text, status_code=status)


def _count(value: float | None) -> str:
    return "–" if value is None else f"{value:,.0f}" if value >= 10 or value == int(value) else f"{value:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}\u00a0%"


def _usd(value: float | None) -> str:
    if value is None:
        return "–"
    digits = 2 if abs(value) >= 1 or value == 0 else 4 if abs(value) >= 0.01 else 6
    return f"${value:,.{digits}f}"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1e3 * seconds:.3g}\u00a0ms"
    if seconds < 120:
        return f"{seconds:.3g}\u00a0s"
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes < 120 else f"{round(seconds / 3600)} hours"


def _time(text: str) -> str:
    return datetime.datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M UTC")
