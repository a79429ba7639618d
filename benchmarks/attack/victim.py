"""Be the other caller: ask `Route` a hundred times a second, and report when each call was made and how long it took.

    python -m benchmarks.attack.victim ADDRESS PID

A line on stdout for each call: when it began, by the monotonic clock of the machine, its seconds, its status, and the
seconds of processor time that the service, whose process PID is, spent while the call waited. Other programs on the
machine change the seconds of a call, but hardly those. Ends when its stdin does.
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
    ended, clock = threading.Event(), clock_of(int(sys.argv[2]))
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    with grpc.insecure_channel(sys.argv[1]) as channel:
        stub = pb_grpc.RouterServiceStub(channel)
        # One prompt: the same work each time, so that what is seen is the waiting.
        request = pb.RouteRequest(prompt="Which of the numbers 91 and 97 is prime, and why?")
        begun = time.monotonic()
        while not ended.is_set():
            started, worked = time.monotonic(), time.clock_gettime(clock)
            try:
                stub.Route(request, timeout=120)
                status = "OK"
            except grpc.RpcError as error:
                status = error.code().name
            took, worked = time.monotonic() - started, time.clock_gettime(clock) - worked
            sys.stdout.write(f"{started} {took} {status} {worked}\n")
            sys.stdout.flush()
            begun = max(begun + EVERY_S, time.monotonic() - 1.0)
            ended.wait(max(0.0, begun - time.monotonic()))


def clock_of(pid: int) -> int:
    """Return the clock of Linux that counts the processor time of a process, as `clock_getcpuclockid` of C does."""
    return ~pid << 3 | 2


if __name__ == "__main__":
    main()
