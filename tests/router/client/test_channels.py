"""Several addresses make one target, sessions travel in a header for balancers, and new certificates are taken over."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import grpc
import pytest

from router.client import ClientTlsFiles, RouterClient, channels
from router.client.channels import ClientChannel, target_of
from router.errors import ConfigError
from router.pb import router_service_pb2 as pb
from router.values import RouteQuery
from tests.router.client.test_calls import serving


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
    assert line.stub
    assert opened == ["localhost:1"]
    os.utime(ca, ns=(1, 1))
    assert line.stub
    assert line.channels == first
    assert line.stub
    assert line.channels[0] is first[0]
    assert len(line.channels) == len(opened) == 2
    ca.write_text("-----BEGIN CERTIFICATE-----\nspoiled")
    assert [line.stub, line.stub]
    assert len(opened) == 2
    assert "not taken over" in caplog.text
    for one in line.channels:
        one.close()


def test_files_that_do_not_fit_are_an_error_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be used"):
        RouterClient(credentials=ClientTlsFiles(tmp_path / "none.pem"))
    with pytest.raises(ConfigError, match="together"):
        ClientTlsFiles(cert=tmp_path / "client.pem")


def _any_certificates() -> bytes:
    import certifi

    return Path(certifi.where()).read_bytes()
