"""How a serving process shuts down: health checks know, it ends in time, and whoever is cut short gets an error."""

from __future__ import annotations

import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.pb import routing_pb2
from tests.fakes import write_policy
from tests.router.faults import FaultyUpstream, upstream_in_thread
from tests.router.serving.processes import ELLE, RULE, elle_serve, route_once, wait_until

CHAT = {"model": "elle/test", "messages": [{"role": "user", "content": "hello"}]}

#: How much longer than it promises a process may take on a machine that is busy with something else. Without an end by
#: force it would never end.
SLACK_S = 60.0


@pytest.fixture(scope="module")
def upstream() -> Iterator[FaultyUpstream]:
    """Answers of `endless` never end, and those of `hang` never begin."""
    with upstream_in_thread() as (upstream, _):
        yield upstream


@pytest.fixture
def policy(tmp_path: Path, upstream: FaultyUpstream) -> Path:
    """Without a probe, so that no encoder is loaded: this is about processes."""
    names = {"small": "endless", "large": "hang"}
    candidates = [{"name": name, "model": f"openai/{fault}", "api_base": upstream.url} for name, fault in names.items()]
    return write_policy(tmp_path, probe=None, rule=RULE, safe_default="small", candidates=candidates)


def health_of(address: str) -> int:
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=60)
    return int(answer.status)


def refused(address: str) -> None:
    with pytest.raises(grpc.RpcError):
        route_once(address)


def test_sigterm_is_told_to_health_checks_while_new_connections_are_still_answered(policy: Path) -> None:
    options = ("--http", "0", "--drain-delay-s", "30", "--drain-s", "60")
    with elle_serve("--policy", str(policy), *options) as service:
        assert (health_of(service.address), httpx.get(f"{service.url}/healthz").status_code) == (1, 200)
        service.ask_to_end()
        wait_until(lambda: health_of(service.address) == health_pb2.HealthCheckResponse.NOT_SERVING)
        told = httpx.get(f"{service.url}/healthz")
        assert (told.status_code, told.json()["error"]["code"]) == (503, "shutting_down")
        assert route_once(service.address, wait=False) == "small"
        assert httpx.get(f"{service.url}/v1/models").status_code == 200
        # Nobody at a terminal waits for balancers.
        service.ask_to_end(signal.SIGINT)
        assert service.process.wait(60) == 1


def test_who_is_cut_short_is_told_so_over_every_door_and_the_time_is_kept(
    policy: Path, upstream: FaultyUpstream
) -> None:
    ends: dict[str, object] = {}

    def over_grpc(method: str, pin: str) -> None:
        route = pb.RouteRequest(prompt="hello", overrides=routing_pb2.Overrides(pin=pin))
        # Without the retries of our own client, which asks again wherever somebody listens.
        with grpc.insecure_channel(service.address, options=[("grpc.enable_retries", 0)]) as channel:
            stub = pb_grpc.RouterServiceStub(channel)
            try:
                if method == "stream":
                    for _ in stub.StreamComplete(pb.StreamCompleteRequest(route=route)):
                        begun.set()
                else:
                    stub.Complete(pb.CompleteRequest(route=route))
            except grpc.RpcError as error:
                status = rpc_status.from_call(error)
                info = error_details_pb2.ErrorInfo()
                assert status is not None
                assert status.details[0].Unpack(info)
                ends[method] = (error.code().name, info.reason, info.metadata["retryable"])

    def over_http(name: str, body: dict[str, object]) -> None:
        with httpx.stream("POST", f"{service.url}/v1/chat/completions", json=CHAT | body, timeout=60) as reply:
            # While LiteLLM is imported, a busy machine has the time to send a comment.
            lines = [line for line in reply.iter_lines() if line[:1] not in ("", ":")]
        ends[name] = [line.removeprefix("data: ") for line in lines]

    begun = threading.Event()
    options = ("--http", "0", "--drain-delay-s", "0", "--drain-s", "3")
    with elle_serve("--policy", str(policy), *options) as service:
        calls = [
            threading.Thread(target=over_grpc, args=("stream", "small")),
            threading.Thread(target=over_grpc, args=("complete", "large")),
            threading.Thread(target=over_http, args=("events", {"stream": True})),
            threading.Thread(target=over_http, args=("whole", {"model": "large"})),
        ]
        for call in calls:
            call.start()
        assert begun.wait(60)
        wait_until(lambda: len(upstream.seen) == len(calls))
        service.ask_to_end()
        assert service.process.wait(3 + SLACK_S) == 0
        for call in calls:
            call.join()
        assert "4 requests were cut short" in service.text
    cut = ("UNAVAILABLE", "SHUTTING_DOWN", "true")
    assert (ends["stream"], ends["complete"]) == (cut, cut)
    events, whole = ends["events"], ends["whole"]
    assert isinstance(events, list)
    assert isinstance(whole, list)
    assert json.loads(events[0])["choices"]
    for last in (events[-1], "".join(whole)):
        error = json.loads(last)["error"]
        assert (error["code"], error["retryable"]) == ("shutting_down", True)


def test_a_watcher_of_the_health_does_not_hold_up_the_end(policy: Path) -> None:
    options = ("--drain-delay-s", "0", "--drain-s", "600")
    with (
        elle_serve("--policy", str(policy), *options) as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        seen = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        assert next(seen).status == health_pb2.HealthCheckResponse.SERVING
        service.ask_to_end()
        assert next(seen).status == health_pb2.HealthCheckResponse.NOT_SERVING
        assert service.process.wait(60) == 0


def test_a_loop_that_hangs_is_left_by_force_when_the_time_is_over(policy: Path) -> None:
    code = f"""
import time
from router.deciding.pipeline import Router
async def adecide(self, *_, **__):
    print("hanging", file=__import__("sys").stderr, flush=True)
    time.sleep(600)
Router.adecide = adecide
{ELLE}
"""
    with elle_serve("--policy", str(policy), "--drain-s", "1", code=code) as service:
        asking = threading.Thread(target=refused, args=(service.address,))
        asking.start()
        wait_until(lambda: "hanging" in service.text)
        service.ask_to_end()
        assert service.process.wait(60) == 1
        asking.join()
        assert "exiting by force" in service.text


def test_on_a_hangup_it_takes_the_policy_again_and_a_broken_one_changes_nothing(policy: Path) -> None:
    with elle_serve("--policy", str(policy), "--drain-delay-s", "0") as service:
        assert route_once(service.address, wait=False) == "small"
        text = policy.read_text("utf-8")
        policy.write_text("name: [", "utf-8")
        service.ask_to_end(signal.SIGHUP)
        wait_until(lambda: "the policies were not replaced" in service.text)
        assert route_once(service.address, wait=False) == "small"
        policy.write_text(text.replace("candidate: small", "candidate: large"), "utf-8")
        service.ask_to_end(signal.SIGHUP)
        wait_until(lambda: "other policies decide from now on" in service.text)
        assert route_once(service.address, wait=False) == "large"
        service.ask_to_end(signal.SIGHUP)
        wait_until(lambda: "nothing has changed" in service.text)
        service.ask_to_end()
        assert service.process.wait(60) == 0


def test_with_http_it_decides_before_what_answers_is_imported_and_first_answers_wait_for_it(tmp_path: Path) -> None:
    policy = write_policy(tmp_path, probe=None, rule=RULE, safe_default="small")
    gate = tmp_path / "gate"
    code = f"""
import pathlib, sys, time
class Slow:
    def find_spec(self, name, path=None, target=None):
        while name == "openai" and not pathlib.Path({str(gate)!r}).exists():
            time.sleep(0.01)
sys.meta_path.insert(0, Slow())
{ELLE}
"""
    with elle_serve("--policy", str(policy), "--http", "0", "--drain-delay-s", "0", code=code) as service:
        assert route_once(service.address) == "small"
        assert httpx.get(f"{service.url}/healthz").status_code == 200
        answers: list[httpx.Response] = []
        url = f"{service.url}/v1/chat/completions"
        asking = threading.Thread(target=lambda: answers.append(httpx.post(url, json=CHAT, timeout=120)))
        asking.start()
        # The loop is free although somebody waits for the import.
        assert route_once(service.address) == "small"
        assert not answers
        gate.touch()
        asking.join()
        assert answers[0].status_code == 200
        service.ask_to_end()
        assert service.process.wait(60) == 0
