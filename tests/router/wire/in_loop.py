"""Serve a router over gRPC in the event loop of a test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import grpc.aio

from router.answering.dispatch import Dispatcher
from router.deciding.pipeline import Router
from router.wire.guarded_server import add_to_server
from router.wire.servicer import RouterService


@contextlib.asynccontextmanager
async def serving_in_loop(router: Router) -> AsyncIterator[str]:
    """Serve gRPC with this router as long as the context lasts, and yield the address of the port."""
    dispatcher = Dispatcher(router.policies)
    service, server = RouterService(), grpc.aio.server()
    service.start(router, dispatcher)
    add_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)
        await router.close()
        await dispatcher.aclose()
