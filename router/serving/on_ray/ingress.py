"""Let Ray's gRPC ingress take our methods (`add_to_ingress`), and hand their requests on as the bytes that came."""

from __future__ import annotations

from typing import Any

import grpc

from router.serving.grpc_options import MAX_REQUEST_BYTES
from router.wire.servicer import METHODS, SERVICE_NAME

#: The import path by which Ray's ingress finds `add_to_ingress`.
IMPORT_PATH = f"{__name__}.add_to_ingress"


def add_to_ingress(servicer: Any, server: Any) -> None:
    """Add our methods to the ingress of Ray Serve, which replaces their handlers by ones that ask a replica.

    Generated code would decode every message in the ingress, without the bounds that our own doors have.
    """
    make = {False: grpc.unary_unary_rpc_method_handler, True: grpc.unary_stream_rpc_method_handler}
    handlers: dict[str, Any] = {
        name: make[streams](getattr(servicer, name), request_deserializer=_bounded) for name, streams in METHODS.items()
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE_NAME, handlers),))


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_REQUEST_BYTES:
        raise ValueError(f"a request must have at most {MAX_REQUEST_BYTES:,} bytes")
    return data
