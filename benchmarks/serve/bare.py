"""`python -m benchmarks.serve.bare`: what gRPC and the forward pass cost without us. Prints `bare on ADDRESS`.

A handler that does nothing but run our encoder in a thread and say how long that took: `all_but_encoding` of this is
the floor on the machine at hand, for grpcio's asyncio server, whatever a service does besides.
"""

from __future__ import annotations

import asyncio
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc.aio

from probes.encoder import MINILM_L6, Encoder, HelpedEncoder, load_encoder
from router import event_loop
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc


class Bare(pb_grpc.RouterServiceServicer):
    """Answers with a decision that holds its timings and nothing else."""

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._threads = ThreadPoolExecutor(2)

    async def Route(self, request: pb.RouteRequest, context: Any) -> pb.RouteResponse:  # noqa: N802
        """Encode, decide nothing."""
        spent = await asyncio.get_running_loop().run_in_executor(self._threads, self._encode, request.prompt)
        answer = pb.RouteResponse()
        answer.decision.timings.encode.nanos = answer.decision.timings.total.nanos = round(spent * 1e9)
        return answer

    def _encode(self, text: str) -> float:
        begun = time.perf_counter()
        self._encoder.encode(text)
        return time.perf_counter() - begun


async def serve() -> None:
    """Serve until SIGTERM."""
    encoder = load_encoder(MINILM_L6)
    if isinstance(encoder, HelpedEncoder):
        encoder.use_idle_core()
    encoder.encode("warm up")
    server = grpc.aio.server()
    pb_grpc.add_RouterServiceServicer_to_server(Bare(encoder), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"bare on 127.0.0.1:{port}", file=sys.stderr, flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    event_loop.run(serve())
