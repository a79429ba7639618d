"""Run an OpenAI-compatible application, by default the canned upstream, on a free loopback port."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from router.answering.canned import create_app
from router.errors import DispatchNotInstalledError
from router.serving import http_server

if TYPE_CHECKING:
    from starlette.applications import Starlette

HOST = "127.0.0.1"


@contextlib.asynccontextmanager
async def running(app: Starlette | None = None) -> AsyncIterator[str]:
    """Run an OpenAI-compatible application, by default the canned one, on a free loopback port.

    Yields its base URL, ending in `/v1`; stops it when the context ends. Raises DispatchNotInstalledError.
    """
    try:
        import httptools  # noqa: F401  (said here, before a port is taken)
        import uvicorn  # noqa: F401

        app = app or create_app()
    except ImportError as error:
        raise DispatchNotInstalledError(
            "the built-in upstream with canned answers needs uvicorn and starlette, which are not installed; a policy "
            "of your own (--policy) without `api_base: canned` does not."
        ) from error
    async with http_server.serving_on(http_server.bound(HOST, 0), app) as port:
        yield f"http://{HOST}:{port}/v1"
