"""On Ray Serve the service decides as it does on its own port, takes new policies, scales, and may lose replicas.

`make test-ray` runs these in an environment that has Ray.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from router.client import RouterClient
from router.decision import RoutingDecision
from router.errors import ConfigError, ServiceError
from router.identity.gate import OPEN_GATE, IdentitySettings
from router.intake.bounds import Intake
from router.intake.in_flight import InFlight
from router.observing.logs import LogSettings
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.policies.loading import DEFAULT_POLICY
from router.serving.grpc_options import MAX_REQUEST_BYTES
from router.serving.on_ray import application
from router.serving.on_ray.application import ingress_options, require_fit
from router.serving.on_ray.ingress import add_to_ingress
from router.serving.on_ray.proxied_call import ProxiedMethods
from router.serving.settings import ServerSettings
from router.values import Overrides
from router.wire.servicer import METHODS, SERVICE_NAME, RouterService
from tests.ray_here import NEEDS_RAY
from tests.router.serving.processes import Service, elle_serve, wait_until

#: How many prompts are decided by both services.
DECISIONS = int(os.environ.get("ELLE_RAY_DECISIONS", "1000"))


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        (ServerSettings(metrics_port=0, insecure=True), "--metrics-port"),
        (ServerSettings(watch=True, canary=Path("c"), insecure=True), "--canary, --watch"),
        (ServerSettings(drift_state=Path("d"), insecure=True), "--drift-state"),
        (ServerSettings(log=LogSettings(decisions=True), insecure=True), "--log-decisions"),
        (ServerSettings(), "--insecure"),
    ],
)
def test_what_ray_does_not_have_is_refused(settings: ServerSettings, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        require_fit(settings)


@pytest.mark.parametrize(
    ("settings", "reflects"),
    [
        (ServerSettings(), True),
        (ServerSettings(reflection=False), False),
        (ServerSettings(identity=IdentitySettings(tokens=Path("t"))), False),
    ],
)
def test_the_ingress_reflects_only_if_nobody_is_asked_for_a_token(settings: ServerSettings, *, reflects: bool) -> None:
    assert ingress_options(settings, 1)["enable_reflection"] is reflects


@NEEDS_RAY
@pytest.mark.parametrize("reflects", [True, False])
def test_ray_knows_the_options_of_the_ingress(*, reflects: bool) -> None:
    from ray.serve.config import gRPCOptions

    options = ingress_options(ServerSettings(reflection=reflects), 1)
    given = gRPCOptions(**options)
    assert {name: getattr(given, name) for name in options} == options


@dataclass
class Proxied:
    """The context that Ray Serve hands to a replica, as far as our methods use it."""

    code: grpc.StatusCode | None = None
    details: str = ""
    trailers: list[tuple[str, str | bytes]] = field(default_factory=list)

    def set_code(self, code: grpc.StatusCode) -> None:
        self.code = code

    def set_details(self, details: str) -> None:
        self.details = details

    def set_trailing_metadata(self, trailers: list[tuple[str, str | bytes]]) -> None:
        self.trailers = trailers

    def invocation_metadata(self) -> list[tuple[str, str]]:
        return []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


@pytest.mark.parametrize(
    ("method", "data", "code"),
    [
        ("Route", b"\xff\xff no message", grpc.StatusCode.INVALID_ARGUMENT),
        ("Route", b"", grpc.StatusCode.UNAVAILABLE),
        ("GetPolicy", b"", grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_what_a_guarded_method_raises_becomes_the_status_of_the_proxied_call(
    method: str, data: bytes, code: grpc.StatusCode
) -> None:
    methods = ProxiedMethods(RouterService(), Intake(), OPEN_GATE, InFlight())
    proxied = Proxied()
    assert (await methods.answer(method, data, proxied)).data == b""
    assert proxied.code is code
    assert proxied.details
    assert proxied.trailers[0][0] == "grpc-status-details-bin"


async def test_a_stream_that_fails_ends_with_the_status() -> None:
    proxied = Proxied()
    methods = ProxiedMethods(RouterService(), Intake(), OPEN_GATE, InFlight())
    assert [item async for item in methods.stream("StreamComplete", b"", proxied)] == []
    assert proxied.code is grpc.StatusCode.UNAVAILABLE


def test_the_ingress_takes_every_method_as_bytes() -> None:
    added: list[Any] = []
    server = SimpleNamespace(add_generic_rpc_handlers=added.extend)
    add_to_ingress(RouterService(), server)
    (handlers,) = added
    paths = {f"/{SERVICE_NAME}/{name}" for name in METHODS}
    assert set(handlers._method_handlers) == paths
    assert paths
    for handler in handlers._method_handlers.values():
        assert handler.request_deserializer(b"as it came") == b"as it came"
        with pytest.raises(ValueError, match="at most"):
            handler.request_deserializer(bytes(MAX_REQUEST_BYTES + 1))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("policy") / "my.yaml"
    path.write_bytes(DEFAULT_POLICY.read_bytes())
    return path


#: A busy machine needs more than a minute to start Ray.
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def on_ray(policy: Path) -> Iterator[Service]:
    scale = ("--min-replicas", "1", "--max-replicas", "2", "--scale-up-s", "2", "--scale-down-s", "5")
    with elle_serve("--engine", "ray", "--insecure", "--policy", str(policy), *scale) as service:
        wait_until(lambda: "serving by Ray" in service.text or service.process.poll() is not None, 300)
        yield service
        service.ask_to_end()
        service.process.wait(120)
        assert service.process.returncode == 0, service.text


def decided(client: RouterClient, number: int) -> RoutingDecision:
    return client.route(f"Why is {number} times {number % 13} not a prime, and what would a proof be?")


@NEEDS_RAY
def test_the_decisions_are_those_of_the_plain_service(on_ray: Service, policy: Path) -> None:
    with (
        elle_serve("--policy", str(policy)) as plain,
        RouterClient(plain.address) as one,
        RouterClient(on_ray.address) as other,
    ):
        for number in range(DECISIONS):
            ours, theirs = decided(one, number), decided(other, number)
            assert (ours.chosen, ours.reason, ours.policy, ours.candidates) == (
                theirs.chosen,
                theirs.reason,
                theirs.policy,
                theirs.candidates,
            )


@NEEDS_RAY
def test_errors_carry_the_same_status_and_details(on_ray: Service) -> None:
    with RouterClient(on_ray.address) as client, pytest.raises(ServiceError, match="policy must be one of default"):
        client.route("hello", Overrides(policy="no such"))
    with grpc.insecure_channel(on_ray.address) as channel:
        call = channel.unary_unary("/elle.router.v1.RouterService/Route")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff no message", timeout=30)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        batch = pb.BatchRouteRequest(requests=[pb.RouteRequest(prompt="one"), pb.RouteRequest()])
        results = pb_grpc.RouterServiceStub(channel).BatchRoute(batch, timeout=30).results
        assert results[0].decision.chosen
        assert results[1].error.code


@NEEDS_RAY
def test_answers_are_whole_and_streamed(on_ray: Service) -> None:
    with RouterClient(on_ray.address) as client:
        whole = client.complete("What is 1 plus 1?")
        steps = list(client.stream("What is 1 plus 1?"))
    assert whole.text
    assert "".join(step.text for step in steps).strip() == whole.text


@dataclass
class Load:
    """Calls a service without a break from several threads, and keeps what was answered and what failed."""

    address: str
    answered: list[str] = field(default_factory=list)
    failed: list[BaseException] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def run(self, thread: int) -> None:
        with RouterClient(self.address) as client:
            number = 0
            while not self.stop.is_set():
                number += 1
                try:
                    self.answered.append(decided(client, thread * 1_000_000 + number).chosen)
                except Exception as error:
                    self.failed.append(error)


@contextmanager
def load(address: str, threads: int) -> Iterator[Load]:
    found = Load(address)
    running = [threading.Thread(target=found.run, args=(number,)) for number in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield found
    finally:
        found.stop.set()
        for thread in running:
            thread.join()


def replicas() -> set[int]:
    """Return the processes of Ray that are replicas of ours."""
    done = subprocess.run(["pgrep", "-f", "^ray::ServeReplica:elle"], capture_output=True, text=True)
    return {int(pid) for pid in done.stdout.split()}


@NEEDS_RAY
@pytest.mark.slow
def test_replicas_come_and_go_under_load_and_one_is_killed_without_a_lost_decision(on_ray: Service) -> None:
    with load(on_ray.address, 8) as found:
        wait_until(lambda: len(replicas()) == 2, 120)
        wait_until(lambda: len(found.answered) > 100)
        os.kill(min(replicas()), signal.SIGKILL)
        after = len(found.answered)
        wait_until(lambda: len(found.answered) > after + 200, 120)
        wait_until(lambda: len(replicas()) == 2, 120)
        killed = list(found.failed)
    # At most those that it was working on, which nobody has got: one call is open for each thread.
    assert len(killed) <= 8
    assert all("actor died" in str(error) for error in killed), killed
    with load(on_ray.address, 1) as slow:
        wait_until(lambda: len(replicas()) == 1, 180)
    assert found.failed == killed
    assert not slow.failed


def served(address: str) -> str:
    with RouterClient(address) as client:
        return client.get_policy().policy.digest


@pytest.mark.parametrize("fault", [RuntimeError("Deploying application elle failed"), FileNotFoundError("my.yaml")])
def test_a_deployment_that_ray_gives_up_leaves_the_service_running(
    fault: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def run(*_: object, **__: object) -> None:
        raise fault

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(serve=SimpleNamespace(run=run)))
    monkeypatch.setattr(application, "deployed", lambda *_: None)
    application._redeploy(ServerSettings(), application.Scale(), {})
    assert "not every replica has the policies" in caplog.text
    assert str(fault) in caplog.text
    with pytest.raises(ConfigError, match=str(fault)):
        application._run(ServerSettings(), application.Scale(), {})


@NEEDS_RAY
def test_a_new_policy_decides_without_a_restart(on_ray: Service, policy: Path) -> None:
    """SIGHUP hands the file to every replica by `user_config`; a file that cannot be used changes nothing."""
    before, started = served(on_ray.address), replicas()
    good = policy.read_text("utf-8")
    policy.write_text(good.replace("[0.102, 0.244]", "[0.2, 0.3]"), "utf-8")
    on_ray.ask_to_end(signal.SIGHUP)
    wait_until(lambda: served(on_ray.address) != before)
    # A replica that starts before that would find the file that is spoiled next.
    wait_until(lambda: "have loaded the policies again" in on_ray.text)
    after = served(on_ray.address)
    policy.write_text("schema: none of ours", "utf-8")
    on_ray.ask_to_end(signal.SIGHUP)
    wait_until(lambda: "were not replaced" in on_ray.text)
    assert served(on_ray.address) == after
    assert replicas() == started
