"""A process ends in time while upstreams that mean harm answer it."""

from __future__ import annotations

import contextlib
import itertools
import threading
from pathlib import Path

import grpc

from benchmarks.attack.hostile_upstream import STREAMED
from benchmarks.bench_http import process
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from tests.fakes import write_policy
from tests.router.serving.processes import elle_serve

DRAIN_S = 3.0

#: How much longer than it promises a process may take on a machine that is busy with something else.
SLACK_S = 60.0

MODES = ("endless_events", "answer_of_a_gigabyte", "as_many_values_as_pass", "endless_headers", "slow_answer")


def test_sigterm_ends_the_process_in_time_while_upstreams_answer_without_an_end(tmp_path: Path) -> None:
    pairs = list(itertools.product(("openai", "hosted_vllm"), MODES))
    with process("-m", "benchmarks.attack.hostile_upstream") as listening:
        candidates = [
            {
                "name": f"{provider}-{mode}",
                "model": f"{provider}/x",
                "api_base": f"{listening['http']}/{mode}/v1",
                "max_answer_bytes": 2**30,
            }
            for provider, mode in pairs
        ]
        first = candidates[0]["name"]
        rule = {"kind": "fixed", "candidate": first}
        policy = write_policy(tmp_path, probe=None, rule=rule, safe_default=first, candidates=candidates)
        options = ("--policy", str(policy), "--drain-delay-s", "0", "--drain-s", str(DRAIN_S))
        with elle_serve(*options) as service, grpc.insecure_channel(service.address) as channel:
            stub, streaming = pb_grpc.RouterServiceStub(channel), threading.Semaphore(0)

            def ask(provider: str, mode: str) -> None:
                request = pb.RouteRequest(prompt="hello")
                request.overrides.pin = f"{provider}-{mode}"
                with contextlib.suppress(grpc.RpcError):
                    if mode not in STREAMED:
                        stub.Complete(pb.CompleteRequest(route=request), timeout=120)
                    for answer in stub.StreamComplete(pb.StreamCompleteRequest(route=request), timeout=120):
                        if answer.text_delta:
                            streaming.release()

            callers = [threading.Thread(target=ask, args=pair) for pair in pairs]
            for caller in callers:
                caller.start()
            # A stream is under way, and with it what was asked at the same time.
            assert all(streaming.acquire(timeout=90) for _ in range(500))
            service.ask_to_end()
            service.process.wait(DRAIN_S + SLACK_S)
            for caller in callers:
                caller.join(30)
            assert not any(caller.is_alive() for caller in callers)
