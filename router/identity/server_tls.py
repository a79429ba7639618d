"""Serve over TLS with certificates that may be replaced while the service runs (`ServerCertificates`)."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.bounded.files import read_bounded
from probes.bounded.text import os_fault
from router.errors import ConfigError
from router.watched_files import WatchedFiles

if TYPE_CHECKING:
    import grpc

#: The largest file of a key or of certificates, in bytes.
_MOST_BYTES = 1024 * 1024


@dataclass(frozen=True)
class TlsFiles:
    """Names the PEM files that TLS needs.

    Attributes:
        cert: the certificate of the service, followed by those that lead to its root.
        key: its private key, without a password.
        client_ca: the certificates of those who vouch for clients. If it is given, a client without a certificate of
            theirs cannot connect (mutual TLS).
    """

    cert: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True)
class _Loaded:
    """What the files held when they were read last, as gRPC and as HTTP need it."""

    grpc_configuration: grpc.ServerCertificateConfiguration
    http_context: ssl.SSLContext
    expires_at: datetime.datetime | None


class ServerCertificates:
    """Holds the certificate and the key of the service, and takes over new ones for new connections.

    A pair that does not fit together, or has expired, is not taken over: the last good one stays.

    Attributes:
        watched: the files, which `keep_fresh` looks at.

    Raises ConfigError if the files cannot be used at first.
    """

    def __init__(self, files: TlsFiles) -> None:
        paths = tuple(path for path in (files.cert, files.key, files.client_ca) if path is not None)
        self._mutual = files.client_ca is not None
        self.watched = WatchedFiles("certificates", paths, lambda: _load(files))

    @property
    def expires_at(self) -> datetime.datetime | None:
        """The time after which clients refuse the certificate; None if `cryptography` is not installed to read it."""
        return self.watched.value.expires_at

    def grpc_credentials(self) -> grpc.ServerCredentials:
        """Return the credentials of a gRPC port. Each new connection gets the certificates of its time."""
        import grpc

        first = self.watched.value.grpc_configuration
        changes: Any = self.grpc_changes(first)
        # The stub does not know that gRPC takes None for "as before".
        return grpc.dynamic_ssl_server_credentials(first, changes, require_client_authentication=self._mutual)

    def grpc_changes(
        self, last: grpc.ServerCertificateConfiguration
    ) -> Callable[[], grpc.ServerCertificateConfiguration | None]:
        """Return what gRPC asks with each new connection: it returns new certificates once, and None in between.

        gRPC builds its TLS anew for each configuration that it gets, also for an equal one, and a handshake in another
        thread may still use the old one. A process that gave it one with each connection crashed under load.

        last: the certificates that gRPC has.
        """

        def changed() -> grpc.ServerCertificateConfiguration | None:
            nonlocal last
            newest = self.watched.value.grpc_configuration
            if newest is last:
                return None
            last = newest
            return newest

        return changed

    def http_context(self) -> ssl.SSLContext:
        """Return the context of an HTTP port. Each new connection gets the certificates of its time."""
        context = _context(mutual=self._mutual)

        def choose(connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            connection.context = self.watched.value.http_context

        # OpenSSL asks at the beginning of each connection, also if the client names no server.
        context.sni_callback = choose
        return context


def _load(files: TlsFiles) -> _Loaded:
    cert, key = _read(files.cert, "certificate"), _read(files.key, "key")
    roots = _read(files.client_ca, "certificates of clients' issuers") if files.client_ca else None
    context = _context(mutual=roots is not None)
    try:
        context.load_cert_chain(files.cert, files.key, password=_no_password)
    except ssl.SSLError as error:
        # The text of OpenSSL names no contents.
        raise ConfigError(
            f"{files.cert} must be a certificate and {files.key} its private key, both PEM: {error.reason or error}."
        ) from None
    if roots is not None:
        try:
            context.load_verify_locations(cadata=roots.decode("ascii"))
        except (ssl.SSLError, UnicodeDecodeError):
            raise ConfigError(f"{files.client_ca} must hold certificates in PEM.") from None
    expires_at = _expiry(cert)
    if expires_at is not None and expires_at <= datetime.datetime.now(datetime.UTC):
        raise ConfigError(f"the certificate {files.cert} expired on {expires_at:%Y-%m-%d}; renew it.")
    import grpc

    configuration = grpc.ssl_server_certificate_configuration([(key, cert)], root_certificates=roots)
    return _Loaded(configuration, context, expires_at)


def _context(*, mutual: bool) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if mutual:
        context.verify_mode = ssl.CERT_REQUIRED
        # A client must not go on by a ticket after those who vouched for it are no longer trusted.
        context.options |= ssl.OP_NO_TICKET
        context.num_tickets = 0
    return context


def _read(path: Path, what: str) -> bytes:
    try:
        return read_bounded(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        fault = os_fault(error) if isinstance(error, OSError) else error
        raise ConfigError(f"the {what} {path} cannot be read: {fault}.") from error


def _no_password() -> str:
    raise ConfigError("the private key of TLS must not need a password; write it without one, readable to its owner.")


def _expiry(cert: bytes) -> datetime.datetime | None:
    try:
        from cryptography import x509
    except ModuleNotFoundError:
        return None
    try:
        return min(one.not_valid_after_utc for one in x509.load_pem_x509_certificates(cert))
    except ValueError as error:
        raise ConfigError("the certificate of TLS cannot be read as X.509 in PEM.") from error


def is_loopback(host: str) -> bool:
    """Return whether only programs on this machine can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return False
