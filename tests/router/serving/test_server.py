"""The life of the service as a process: ready, occupied port, bad files, SIGTERM."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health, health_pb2_grpc

from router.client import RouterClient
from router.errors import ConfigError, ServiceError
from router.observing.prometheus import serve_metrics
from router.observing.tally import Snapshot
from router.pb import router_service_pb2 as pb
from router.serving.settings import ServerSettings
from router.wire.guarded_server import add_to_server
from router.wire.servicer import RouterService
from tests.conftest import ROOT
from tests.service import running_service

ELLE = (sys.executable, "-c", "from router.cli.main import main; main()")


def elle(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*ELLE, *arguments], capture_output=True, text=True, cwd=ROOT, check=False)


@contextmanager
def elle_serve(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`elle serve` as a process; yields it and its address once it says that it serves."""
    process = subprocess.Popen([*ELLE, "serve", *arguments], stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if found := re.search(r"serving .* on (\S+)", line):
                yield process, found[1]
                break
        else:
            pytest.fail("the service ended before it was ready")
    finally:
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


@pytest.mark.usefixtures("_real_encoder")
class TestProcess:
    def test_it_serves_its_default_and_drains_on_sigterm(self) -> None:
        with elle_serve("--port", "0", "--drain-s", "5", "--drain-delay-s", "0") as (process, address):
            with RouterClient(address) as client:
                assert client.route("What is 2 + 2?").chosen
                # A batch in work when the signal comes is still answered.
                answers: list[object] = []
                worker = threading.Thread(target=lambda: answers.extend(client.route_batch(["hello there"] * 40)))
                worker.start()
                client.route("behind the batch")
                os.kill(process.pid, signal.SIGTERM)
                worker.join(20)
            assert process.wait(20) == 0
            assert len(answers) == 40
            assert not any(isinstance(answer, ServiceError) for answer in answers)

    def test_an_occupied_port_is_a_plain_error(self) -> None:
        with elle_serve("--port", "0") as (_, address):
            port = address.rpartition(":")[2]
            second = subprocess.run(
                [*ELLE, "serve", "--port", port], capture_output=True, text=True, cwd=ROOT, check=False
            )
        assert second.returncode == 1
        assert "cannot listen" in second.stderr
        assert "--port" in second.stderr
        assert "Traceback" not in second.stderr

    @pytest.mark.parametrize("missing", ["uvicorn", "starlette.applications"])
    def test_without_the_dispatch_extra_the_canned_default_is_a_plain_error_with_a_way_out(self, missing: str) -> None:
        code = f"import sys; sys.modules[{missing!r}] = None; from router.cli.main import main; main()"
        command = [sys.executable, "-c", code, "serve", "--port", "0"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == 1
        assert "pip install 'elle-router[dispatch]'" in done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [["serve", "--policy"], ["validate"], ["decide", "x", "--policy"]])
def test_a_bad_policy_file_is_a_plain_error_of_every_command(tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("schema: elle.policy/1\nnmae: x\n")
    done = elle(*arguments, str(path))
    assert done.returncode == 1
    assert "nmae: unknown key" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


async def test_before_it_is_warm_the_service_is_unavailable_and_says_so() -> None:
    server = grpc.aio.server()
    add_to_server(RouterService(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            call = channel.unary_unary("/elle.router.v1.RouterService/Route")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(pb.RouteRequest(prompt="x").SerializeToString())
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "still loading" in (caught.value.details() or "")
    finally:
        await server.stop(None)


async def test_an_unknown_error_tells_a_request_id_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(RouterService):
        async def Route(self, request: pb.RouteRequest, context: object) -> pb.RouteResponse:  # noqa: N802
            raise ZeroDivisionError("the secret inside")

    server = grpc.aio.server()
    add_to_server(Broken(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary("/elle.router.v1.RouterService/Route")(b"")
    finally:
        await server.stop(None)
    details = caught.value.details() or ""
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in details
    request_id = re.search(r"request ([0-9a-f]{32})", details)
    assert request_id is not None
    assert request_id[1] in caplog.text


@pytest.mark.usefixtures("_real_encoder")
def test_a_small_queue_answers_overload_as_resource_exhausted() -> None:
    settings = ServerSettings(port=0, threads=1, max_pending=1, drain_s=1)
    refused: list[ServiceError] = []
    with running_service(settings) as address, RouterClient(address) as client, ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> None:
            try:
                client.route(f"prompt {number}")
            except ServiceError as error:
                refused.append(error)

        list(pool.map(ask, range(200)))
        # A batch puts no more in the queue than fits.
        assert not [one for one in client.route_batch(["a", "b", "c"]) if isinstance(one, ServiceError)]
    assert refused
    assert {(one.code, one.service_reason, one.service_retryable) for one in refused} == {
        ("RESOURCE_EXHAUSTED", "OVERLOADED", True)
    }


@pytest.mark.usefixtures("_real_encoder")
def test_it_listens_on_addresses_with_colons_too() -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with running_service(ServerSettings(host="::1", port=0)) as address, RouterClient(address) as client:
        assert address.startswith("[::1]:")
        assert client.route("hello").chosen


def test_the_policy_json_of_the_service_is_json(client: RouterClient) -> None:
    assert json.loads(client.get_policy().policy_json)["schema"] == "elle.policy/1"


@pytest.mark.usefixtures("_real_encoder")
def test_prometheus_sees_how_often_a_prompt_was_judged_before() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_service(ServerSettings(port=0, metrics_port=port, drain_s=1)) as address:
        with RouterClient(address, api_key="ours") as client:
            for text in ("once", "twice", "twice"):
                client.route(text)
        told = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    assert "elle_decision_cache_hits_total 1.0" in told
    assert "elle_decision_cache_misses_total 2.0" in told
    assert "elle_decision_cache_entries 2.0" in told
    assert 'elle_reloads_total{result="failed"} 0.0' in told
    assert "elle_policy_loaded_timestamp_seconds" in told
    assert "process_resident_memory_bytes" in told


def test_an_occupied_metrics_port_is_refused_by_name() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        port = held.getsockname()[1]
        with pytest.raises(ConfigError, match="for metrics"), serve_metrics(Snapshot, "127.0.0.1", port):
            pass
