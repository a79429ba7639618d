"""Ask hostile upstreams, with and without LiteLLM, and let a caller try to make a candidate rest."""

from __future__ import annotations

import http.client
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator

import grpc

from benchmarks.attack.hostile_upstream import MODES, STREAMED
from benchmarks.attack.target import Found, Target, status_of
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.wire.structs import struct_from_request

#: How candidates are asked: over OpenAI's protocol as it is written, or translated by LiteLLM.
PROVIDERS = ("openai", "hosted_vllm")

#: Seconds that a candidate may take for an answer, and for the first content of a stream.
TIMEOUT_S = 5.0

#: How much later than promised an answer is too late, in seconds.
LATE_S = 5.0

#: Seconds after which whoever asked for a stream that never ends has read enough of it.
LEFT_S = 3.0

#: Values of `tools` that cannot be sent to any provider.
MALFORMED = (5, "search", [5], ["search"], [None], [[]], [{}], [{"type": 5}], [{"type": "function", "function": 5}])

HOSTILE = tuple(mode for mode in MODES if mode != "good")


def candidates(url: str) -> Iterator[dict[str, object]]:
    """Yield the candidates of the policy `hostile`, one for each mode of the upstream and each way to ask it."""
    for provider, mode in itertools.product(PROVIDERS, MODES):
        yield {
            "name": f"{provider}-{mode}",
            "model": f"{provider}/x",
            "api_base": f"{url}/{mode}/v1",
            "timeout_s": TIMEOUT_S,
            "first_token_timeout_s": TIMEOUT_S,
            "retries": 0,
            # Asked again and again: a candidate that rests attacks nobody. The good one has the limits of the default.
            "capabilities": ["text", "tools"],
            **({} if mode == "good" else {"break_after": 1_000_000, "cooldown_s": 0.001}),
        }


def _attack_by(provider: str, mode: str, *, over_http: bool = False) -> Callable[[Target], Found]:
    def attack(target: Target) -> Found:
        if over_http:
            return target.attacked_by(lambda: _streamed_over_http(target, f"{provider}-{mode}"), at_once=2)
        request = _asking(f"{provider}-{mode}")
        # A stream that never ends is left by its caller, as somebody leaves who reads nothing of use in it.
        call = _streamed if mode in STREAMED else _completed
        seconds = (TIMEOUT_S + LATE_S) * target.factor
        return target.attacked_by(lambda: call(target, request), at_once=2, answered_ms=seconds * 1e3)

    attack.__name__ = f"{provider}_{mode}" + "_over_http" * over_http
    what = (MODES[mode].__doc__ or "").splitlines()[0].rstrip(".")
    attack.__doc__ = f"{what}, from a candidate {provider}/..." + ", and pass it on over HTTP" * over_http
    return attack


def malformed_tools(target: Target) -> Found:
    """Send requests with malformed tools, by which one caller tries to take a candidate from all others."""
    asked = {provider: itertools.cycle(MALFORMED) for provider in PROVIDERS}
    asking = itertools.cycle(PROVIDERS)

    def ask() -> str:
        provider = next(asking)
        return _completed(target, _asking(f"{provider}-good", tools=next(asked[provider])))

    found = target.attacked_by(ask)
    rests = sum(_completed(target, _asking(f"{provider}-good")) != "OK" for provider in PROVIDERS)
    return Found({**found.measured, "rests": rests}, {**found.limits, "rests": 0})


def _asking(candidate: str, **parameters: object) -> pb.RouteRequest:
    request = pb.RouteRequest(prompt="hello", parameters=struct_from_request(parameters, "parameters"))
    request.overrides.policy, request.overrides.pin = "hostile", candidate
    return request


def _completed(target: Target, request: pb.RouteRequest) -> str:
    asked = pb.CompleteRequest(route=request)
    return _called(target, lambda stub: stub.Complete(asked, timeout=60))


def _streamed(target: Target, request: pb.RouteRequest) -> str:
    asked = pb.StreamCompleteRequest(route=request)
    return _called(target, lambda stub: deque(stub.StreamComplete(asked, timeout=LEFT_S), maxlen=0))


def _streamed_over_http(target: Target, candidate: str) -> str:
    asked = {"model": candidate, "messages": [{"role": "user", "content": "hello"}], "stream": True}

    def read(reply: http.client.HTTPResponse) -> None:
        ends = time.monotonic() + LEFT_S
        while time.monotonic() < ends and reply.read1(65_536):
            pass

    return target.post(asked, read)


def _called(target: Target, call: Callable[[pb_grpc.RouterServiceStub], object]) -> str:
    with grpc.insecure_channel(target.grpc, options=[("grpc.max_receive_message_length", -1)]) as channel:
        return status_of(lambda: call(pb_grpc.RouterServiceStub(channel)))


ATTACKS = (
    *itertools.starmap(_attack_by, itertools.product(PROVIDERS, HOSTILE)),
    *(_attack_by(provider, "endless_events", over_http=True) for provider in PROVIDERS),
    malformed_tools,
)
QUICK = (
    _attack_by("openai", "as_many_values_as_pass"),
    _attack_by("hosted_vllm", "error_of_a_megabyte"),
    malformed_tools,
)
