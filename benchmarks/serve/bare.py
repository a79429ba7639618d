"""Serve over gRPC without our service, to measure what gRPC itself costs. Prints `bare on ADDRESS`.

A handler that does nothing but run our encoder in a thread and say how long that took: `all_but_encoding` of this is
the floor on the machine at hand, for grpcio's asyncio server, whatever a service does besides. With `--empty` it does
not even that: what a call costs that does nothing, with warm caches.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio

from probes.encoders.load import load_encoder
from probes.encoders.spec import MINILM_L6_WITHOUT_ASIDES, Encoder, HelpedEncoder
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.serving.event_loop import run_in_event_loop


class Bare(pb_grpc.RouterServiceServicer):
    """Answers with a decision that holds timings and nothing else; they are zero without an encoder."""

    def __init__(self, encoder: Encoder | None) -> None:
        self._encoder = encoder
        self._threads = ThreadPoolExecutor(2)

    async def Route(self, request: pb.RouteRequest, context: Any) -> pb.RouteResponse:  # noqa: N802
        """Encode the prompt, and decide nothing."""
        answer, spent = pb.RouteResponse(), 0.0
        if self._encoder is not None:
            loop = asyncio.get_running_loop()
            spent = await loop.run_in_executor(self._threads, _encode, self._encoder, request.prompt)
        answer.decision.timings.encode.nanos = answer.decision.timings.total.nanos = round(spent * 1e9)
        return answer


def _encode(encoder: Encoder, text: str) -> float:
    begun = time.perf_counter()
    encoder.encode(text)
    return time.perf_counter() - begun


def _load() -> Encoder:
    encoder = load_encoder(MINILM_L6_WITHOUT_ASIDES)
    if isinstance(encoder, HelpedEncoder):
        encoder.use_idle_core()
    encoder.encode("warm up")
    return encoder


async def serve() -> None:
    """Serve on a free port until SIGTERM."""
    encoder = None if "--empty" in sys.argv else _load()
    server = grpc.aio.server()
    pb_grpc.add_RouterServiceServicer_to_server(Bare(encoder), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"bare on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    run_in_event_loop(serve())
