"""Be the other caller: ask `Route` a hundred times a second, and report when each call was made and how long it took.

    python -m benchmarks.attack.victim ADDRESS

A line on stdout for each call: when it began, by the monotonic clock of the machine, its seconds, its status. Ends when
its stdin does.
"""

from __future__ import annotations

import sys
import threading
import time

import grpc

from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc

#: Seconds from the beginning of a call to that of the next one.
EVERY_S = 0.01


def main() -> None:
    """Ask the service until stdin ends."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = pb_grpc.RouterServiceStub(channel)
        # One prompt: the same work each time, so that what is seen is the waiting.
        request = pb.RouteRequest(prompt="Which of the numbers 91 and 97 is prime, and why?")
        begun = time.monotonic()
        while not ended.is_set():
            started = time.monotonic()
            try:
                stub.Route(request, timeout=120)
                status = "OK"
            except grpc.RpcError as error:
                status = error.code().name
            sys.stdout.write(f"{started} {time.monotonic() - started} {status}\n")
            sys.stdout.flush()
            begun = max(begun + EVERY_S, time.monotonic() - 1.0)
            ended.wait(max(0.0, begun - time.monotonic()))


if __name__ == "__main__":
    main()
