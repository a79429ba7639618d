"""TLS and mutual TLS on gRPC and HTTP, and certificates that change while the service runs."""

from __future__ import annotations

import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import grpc
import httpx
import pytest

from router.client import RouterClient
from router.errors import ConfigError, ServiceError
from router.identity.server_tls import ServerCertificates, TlsFiles, is_loopback
from router.observing.totals import Totals
from router.serving.ports import ServicePorts
from router.serving.settings import ServerSettings
from router.serving.watching.admin_port import showing_all
from tests.router.identity.guarded import EASY, Guarded, guarded_service

pytest.importorskip("cryptography")

from tests.router.identity.authority import Authority


@dataclass(frozen=True)
class Secured:
    """A running service with TLS, its files, and who signed its certificates."""

    service: Guarded
    files: TlsFiles
    authority: Authority
    clients: Authority

    def client(self, pair: tuple[bytes, bytes] | None = None, root: bytes | None = None) -> RouterClient:
        cert, key = pair or (None, None)
        credentials = grpc.ssl_channel_credentials(root or self.authority.pem, key, cert)
        return RouterClient(self.service.address, credentials=credentials, api_key=self.service.texts["route"])

    def context(self, folder: Path, pair: tuple[bytes, bytes] | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cadata=self.authority.pem.decode())
        if pair is not None:
            for name, data in zip(("c.pem", "k.pem"), pair, strict=True):
                (folder / name).write_bytes(data)
            context.load_cert_chain(folder / "c.pem", folder / "k.pem")
        return context

    def certificate(self, port: str, context: ssl.SSLContext) -> str:
        """Return the name in the certificate that a port shows to a new connection."""
        host, _, number = port.removeprefix("https://").rpartition(":")
        with (
            socket.create_connection((host, int(number)), 10) as raw,
            context.wrap_socket(raw, server_hostname=host) as wrapped,
        ):
            subject = wrapped.getpeercert()["subject"]  # type: ignore[index]
        return str(subject[0][0][1])

    @property
    def ports(self) -> tuple[str, str]:
        return self.service.address, self.service.http_url

    def replace(self, name: str) -> None:
        self.authority.sign(name).write(self.files.cert, self.files.key)


@pytest.fixture(scope="module", autouse=True)
def _looks_often() -> Iterator[None]:
    """Look at files more often than the service does, so that nobody waits for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("router.watched_files.keep_fresh.__defaults__", (0.05,))
        yield


def secured(folder: Path, *, mutual: bool) -> Iterator[Secured]:
    authority, clients = Authority("servers"), Authority("clients")
    files = TlsFiles(folder / "cert.pem", folder / "key.pem", folder / "ca.pem" if mutual else None)
    authority.sign("first").write(files.cert, files.key)
    if files.client_ca is not None:
        files.client_ca.write_bytes(clients.pem)
    with guarded_service(folder, tls=files) as running:
        service = Guarded(
            running.address, running.http_url.replace("http:", "https:"), *list(vars(running).values())[2:]
        )
        yield Secured(service, files, authority, clients)


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from secured(tmp_path_factory.mktemp("tls"), mutual=False)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    yield from secured(tmp_path_factory.mktemp("mutual"), mutual=True)


def test_both_ports_are_encrypted_and_nothing_else_is_served(tls: Secured, tmp_path: Path) -> None:
    with tls.client() as client:
        client.route("hello", scores=EASY)
    assert httpx.get(f"{tls.service.http_url}/healthz", verify=tls.context(tmp_path)).status_code == 200
    with pytest.raises(httpx.HTTPError):
        httpx.get(tls.service.http_url.replace("https", "http") + "/healthz")
    with RouterClient(tls.service.address, timeout_s=5) as plain, pytest.raises(ServiceError):
        plain.route("hello", scores=EASY)


def test_a_client_that_trusts_somebody_else_does_not_connect(tls: Secured) -> None:
    with tls.client(root=Authority("others").pem) as client, pytest.raises(ServiceError) as caught:
        client.route("hello", scores=EASY)
    assert caught.value.code == "UNAVAILABLE"


def test_certificates_replaced_under_load_fail_no_call(tls: Secured, tmp_path: Path) -> None:
    context, stop = tls.context(tmp_path), threading.Event()

    def on_new_connections() -> int:
        done = 0
        while not stop.is_set():
            with tls.client() as client:
                client.route("hello", scores=EASY)
            assert httpx.get(f"{tls.service.http_url}/healthz", verify=context).status_code == 200
            done += 2
        return done

    def on_one_connection() -> int:
        done = 0
        with tls.client() as client:
            while not stop.is_set():
                client.route("hello", scores=EASY)
                done += 1
        return done

    with ThreadPoolExecutor(4) as pool:
        loads = [pool.submit(one) for one in (on_new_connections, on_new_connections, on_one_connection)]
        try:
            for number in range(4):
                tls.replace(f"number {number}")
                # The new certificate is shown on both ports before the next one comes.
                while {tls.certificate(port, context) for port in tls.ports} != {f"number {number}"}:
                    time.sleep(0.05)
        finally:
            stop.set()
        assert all(load.result() > 4 for load in loads)


def test_grpc_is_given_new_certificates_once_and_nothing_in_between(tls: Secured) -> None:
    certificates = ServerCertificates(tls.files)
    first = certificates.watched.value.grpc_configuration
    changes = certificates.grpc_changes(first)
    assert [changes(), changes()] == [None, None]
    tls.replace("another")
    assert [certificates.watched.refresh() for _ in range(2)] == [False, True]
    newest = changes()
    assert newest is certificates.watched.value.grpc_configuration
    assert newest is not first
    assert changes() is None


def test_a_bad_pair_is_not_taken_over(tls: Secured, tmp_path: Path) -> None:
    context = tls.context(tmp_path)
    tls.replace("good")
    while tls.certificate(tls.service.http_url, context) != "good":
        time.sleep(0.05)
    certificates = ServerCertificates(tls.files)
    good = tls.files.cert.read_bytes()
    for bad in (tls.authority.sign("other").cert, tls.authority.sign("old", days=-1).cert, b"nothing"):
        tls.files.cert.write_bytes(bad)
        assert [certificates.watched.refresh() for _ in range(2)] == [False, False]
    assert certificates.watched.failures == 3
    assert tls.certificate(tls.service.http_url, context) == "good"
    tls.files.cert.write_bytes(good)


def test_mutual_tls_lets_in_only_clients_that_the_authority_signed(mutual: Secured, tmp_path: Path) -> None:
    signed, foreign = mutual.clients.sign("client"), mutual.authority.sign("client")
    pair, wrong = (signed.cert, signed.key), (foreign.cert, foreign.key)
    with mutual.client(pair) as client:
        client.route("hello", scores=EASY)
    url = f"{mutual.service.http_url}/healthz"
    assert httpx.get(url, verify=mutual.context(tmp_path, pair)).status_code == 200
    for other in (None, wrong):
        with mutual.client(other) as client, pytest.raises(ServiceError) as caught:
            client.route("hello", scores=EASY)
        assert caught.value.code == "UNAVAILABLE"
        with pytest.raises((httpx.HTTPError, ssl.SSLError)):
            httpx.get(url, verify=mutual.context(tmp_path, other))


def test_whoever_is_no_longer_vouched_for_cannot_connect(mutual: Secured, tmp_path: Path) -> None:
    others = Authority("new clients")
    assert mutual.files.client_ca is not None
    mutual.files.client_ca.write_bytes(others.pem)
    new = others.sign("client")
    url, context = f"{mutual.service.http_url}/healthz", mutual.context(tmp_path, (new.cert, new.key))
    while True:
        try:
            if httpx.get(url, verify=context).status_code == 200:
                break
        except httpx.HTTPError:
            continue
    old = mutual.clients.sign("client")
    with pytest.raises((httpx.HTTPError, ssl.SSLError)):
        httpx.get(url, verify=mutual.context(tmp_path, (old.cert, old.key)))
    with mutual.client((new.cert, new.key)) as client:
        client.route("hello", scores=EASY)


def test_the_metrics_are_encrypted_too_with_the_newest_certificate(tmp_path: Path) -> None:
    authority, files = Authority("a"), TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem")
    authority.sign("first").write(files.cert, files.key)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
    context = ssl.create_default_context(cadata=authority.pem.decode())
    secured = Secured(cast(Guarded, None), files, authority, authority)
    with showing_all(ServerSettings(metrics_port=port, tls=files), Totals(), bytes):
        url = f"https://127.0.0.1:{port}"
        # Who connects and says nothing keeps nobody waiting.
        with socket.create_connection(("127.0.0.1", port)):
            assert "elle_build_info" in httpx.get(f"{url}/metrics", verify=context).text
        with pytest.raises(httpx.HTTPError):
            httpx.get(f"http://127.0.0.1:{port}/metrics")
        assert secured.certificate(url, context) == "first"
        secured.replace("second")
        # A connection finds that the files have changed, and the next one that they are whole.
        assert [secured.certificate(url, context) for _ in range(2)] == ["first", "second"]


def test_files_that_cannot_serve_are_refused_at_the_start(tmp_path: Path) -> None:
    authority = Authority("a")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    files = TlsFiles(cert, key)
    with pytest.raises(ConfigError, match=r"the certificate .* cannot be read"):
        ServerCertificates(files)
    authority.sign("a").write(cert, key)
    assert ServerCertificates(files).expires_at is not None
    key.write_bytes(authority.sign("b").key)
    with pytest.raises(ConfigError, match="must be a certificate and"):
        ServerCertificates(files)
    authority.sign("old", days=-2).write(cert, key)
    with pytest.raises(ConfigError, match="expired on"):
        ServerCertificates(files)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = Authority("a").sign("a")
    pair.write(tmp_path / "cert.pem", tmp_path / "key.pem")
    key = serialization.load_pem_private_key(pair.key, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    (tmp_path / "key.pem").write_bytes(locked)
    with pytest.raises(ConfigError, match="must not need a password"):
        ServerCertificates(TlsFiles(tmp_path / "cert.pem", tmp_path / "key.pem"))


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        *((host, True) for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost")),
        *((host, False) for host in ("0.0.0.0", "::", "10.0.0.1", "example.com", "")),
    ],
)
def test_which_addresses_only_this_machine_reaches(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


def test_an_address_that_others_reach_needs_tls_or_the_word_of_the_operator() -> None:
    with pytest.raises(ConfigError, match=r"Give --tls-cert and --tls-key, or --insecure"):
        ServicePorts(ServerSettings(host="0.0.0.0"))
    ServicePorts(ServerSettings(host="0.0.0.0", insecure=True))


def test_a_port_of_metrics_that_we_choose_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with showing_all(ServerSettings(metrics_port=0), Totals(), bytes):
        (place,) = re.findall(r"metrics on (http://\S+)", caplog.text)
        assert "elle_build_info" in httpx.get(place).text
