"""Several addresses make one target, sessions travel in a header for balancers, and new certificates are taken over."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from router.client import ClientTlsFiles, RouterClient, channels
from router.client.admin_calls import AdminClient
from router.client.channels import ClientChannel, target_of
from router.errors import ConfigError, ServiceError
from router.pb import router_service_pb2 as pb
from router.pb import router_service_pb2_grpc as pb_grpc
from router.values import RouteQuery
from tests.router.client.test_calls import serving
from tests.router.identity.authority import Authority


@pytest.mark.parametrize(
    ("address", "target"),
    [
        ("dns:///elle:50051", "dns:///elle:50051"),
        (["10.0.0.7:1", "10.0.0.8:2"], "ipv4:10.0.0.7:1,10.0.0.8:2"),
        (["[::1]:1"], "ipv6:[::1]:1"),
    ],
)
def test_grpc_is_told_where_the_replicas_are(address: Any, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize("addresses", [[], ["elle:1"], ["10.0.0.7"], ["10.0.0.7:1", "[::1]:1"], ["10.0.0.7:x"]])
def test_addresses_that_grpc_could_not_use_are_refused(addresses: list[str]) -> None:
    with pytest.raises(ConfigError, match="address"):
        target_of(addresses)


@pytest.mark.parametrize("client", [RouterClient, AdminClient])
def test_a_url_is_no_address(client: Any) -> None:
    with pytest.raises(ConfigError, match=r"must be host:port, such as localhost:50051, got 'http://localhost:8080'"):
        client("http://localhost:8080")


def test_the_session_is_in_a_header_for_balancers() -> None:
    seen: list[str | None] = []

    def route(metadata: dict[str, str]) -> pb.RouteResponse:
        seen.append(metadata.get("x-elle-session-id"))
        return pb.RouteResponse()

    with serving(route) as address, RouterClient([address]) as client:
        client.route("hello", session_id="mine")
        client.route(RouteQuery.from_prompt("hello", session_id="ö\n" + "x" * 999))
        client.route("hello")
    assert seen == ["mine", ("%C3%B6%0A" + "x" * 999)[:256], None]


def test_a_channel_is_opened_anew_once_new_certificates_are_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(channels, "LOOK_S", 0.0)
    opened: list[str] = []

    def opener(target: str, credentials: Any, options: Any) -> grpc.Channel:
        opened.append(target)
        return grpc.secure_channel(target, credentials, options=options)

    ca = tmp_path / "ca.pem"
    ca.write_bytes(_any_certificates())
    line = ClientChannel((grpc.insecure_channel, opener), "localhost:1", ClientTlsFiles(ca))
    first = line.channels
    assert line.stub
    assert opened == ["localhost:1"]
    os.utime(ca, ns=(1, 1))
    while line.channels == first:
        assert line.stub
    assert line.channels[0] is first[0]
    assert len(line.channels) == len(opened) == 2
    ca.write_text("-----BEGIN CERTIFICATE-----\nspoiled")
    while "cannot be used, and the last good state stays" not in caplog.text:
        assert line.stub
    assert len(opened) == 2
    for one in line.channels:
        one.close()


@contextmanager
def encrypted(authority: Authority, clients: Authority, port: int = 0) -> Iterator[int]:
    """Serve over mutual TLS, and yield the port."""
    server = grpc.server(ThreadPoolExecutor(2))
    pb_grpc.add_RouterServiceServicer_to_server(_Decides(), server)
    pair = authority.sign("server")
    credentials = grpc.ssl_server_credentials([(pair.key, pair.cert)], clients.pem, require_client_auth=True)
    found = server.add_secure_port(f"127.0.0.1:{port}", credentials)
    server.start()
    try:
        yield found
    finally:
        server.stop(0).wait()


class _Decides(pb_grpc.RouterServiceServicer):
    def Route(self, request: pb.RouteRequest, context: grpc.ServicerContext) -> pb.RouteResponse:  # noqa: N802
        return pb.RouteResponse()


def test_a_client_goes_on_when_both_sides_get_new_authorities(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "LOOK_S", 0.0)
    files = ClientTlsFiles(tmp_path / "ca.pem", tmp_path / "cert.pem", tmp_path / "key.pem")
    assert files.ca
    assert files.cert
    assert files.key
    old, new = Authority("old"), Authority("new")
    files.ca.write_bytes(old.pem)
    old.sign("client").write(files.cert, files.key)
    with encrypted(old, old) as port, RouterClient(f"localhost:{port}", credentials=files) as client:
        client.route("hello")
    with encrypted(new, new, port), RouterClient(f"localhost:{port}", credentials=files, timeout_s=5) as client:
        with pytest.raises(ServiceError, match=r"UNAVAILABLE|DEADLINE_EXCEEDED"):
            client.route("hello")
        files.ca.write_bytes(new.pem)
        new.sign("client").write(files.cert, files.key)
        for _ in range(50):
            # The first look sees that they have changed, and a later one that they are whole.
            with contextlib.suppress(ServiceError):
                client.route("hello")
                break
            time.sleep(0.05)
        client.route("hello")


def test_files_that_do_not_fit_are_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        RouterClient(credentials=ClientTlsFiles(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match="together"):
        ClientTlsFiles(cert=tmp_path / "client.pem")


def _any_certificates() -> bytes:
    import certifi

    return Path(certifi.where()).read_bytes()
