"""Open the channel to one or several replicas, and open it anew when the certificates change (`ClientChannel`)."""

from __future__ import annotations

import ipaddress
import json
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from router.errors import ConfigError
from router.pb import router_service_pb2_grpc as pb_grpc
from router.quoting import quoted
from router.watched_files import LOOK_S, WatchedFiles
from router.wire import conversion

DEFAULT_ADDRESS = "localhost:50051"

# Calls take turns among all addresses that answer. Retries are by grpc itself: only UNAVAILABLE, where the request was
# not worked on, or where the replica died, and deciding again does no harm. It waits as long as the service asks
# (`grpc-retry-pushback-ms`), or else as long as is said here. Overload is the caller's to handle.
_SERVICE_CONFIG = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{"service": "elle.router.v1.RouterService"}],
            "retryPolicy": {
                "maxAttempts": 4,
                "initialBackoff": "0.1s",
                "maxBackoff": "2s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
}
_OPTIONS = (
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.enable_retries", 1),
    # Replicas that are added or replaced get new addresses. grpc looks them up again when a connection ends, and by
    # default at most every 30 s.
    ("grpc.dns_min_time_between_resolutions_ms", 5000),
    ("grpc.max_receive_message_length", conversion.MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", conversion.MAX_MESSAGE_BYTES),
)


@dataclass(frozen=True)
class ClientTlsFiles:
    """Names the files for TLS. They may be replaced while the client lives.

    Attributes:
        ca: the certificates of authorities that may have signed that of the service; None takes the usual ones.
        cert, key: the client's own certificate and its key, for mutual TLS; both or none.
    """

    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def __post_init__(self) -> None:
        if (self.cert is None) != (self.key is None):
            raise ConfigError("cert and key must be given together.")

    @property
    def paths(self) -> tuple[Path, ...]:
        """Return the files that there are."""
        return tuple(path for path in (self.ca, self.cert, self.key) if path is not None)

    def load(self) -> grpc.ChannelCredentials:
        """Return the credentials in the files. Raises ConfigError if they cannot be read or do not fit together."""
        try:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            if self.ca is not None:
                context.load_verify_locations(self.ca)
            if self.cert is not None and self.key is not None:
                context.load_cert_chain(self.cert, self.key)
            ca, key, cert = (one.read_bytes() if one else None for one in (self.ca, self.key, self.cert))
        except (OSError, ssl.SSLError) as error:
            # An error of `ssl` is an OSError whose text names no content of a file.
            raise ConfigError(f"the files for TLS cannot be used: {error}.") from error
        return grpc.ssl_channel_credentials(ca, key, cert)


class ClientChannel:
    """Holds the channel of a client, and opens another one when the files of its certificates have changed.

    Calls that have begun end on the channel that they began on: an old channel lives on until the next change.

    Args:
        openers: grpc's functions that open a channel without TLS and with it.
        address: see `RouterClient`.
        credentials: credentials for TLS, or the files that hold them; None connects without encryption.
    """

    def __init__(
        self,
        openers: tuple[Callable[..., Any], Callable[..., Any]],
        address: str | Sequence[str],
        credentials: grpc.ChannelCredentials | ClientTlsFiles | None,
    ) -> None:
        self._openers = openers
        #: The name by which grpc finds the service.
        self.target = target_of(address)
        self._watched: WatchedFiles[grpc.ChannelCredentials] | None = None
        if isinstance(credentials, ClientTlsFiles):
            self._watched = WatchedFiles("certificates", credentials.paths, credentials.load)
            credentials = self._watched.value
        self._lock = threading.Lock()
        self._looking: threading.Thread | None = None
        self._looked_at = time.monotonic()
        self._old: Any = None
        self._open(credentials)

    @property
    def stub(self) -> Any:
        """Return the stub to call the service by."""
        if self._watched is not None and (self._is_due or self._watched.value is not self._used):
            with self._lock:
                self._look(self._watched)
        return self._stub

    @property
    def channels(self) -> list[Any]:
        """Return the channels that are to be closed with the client."""
        return [one for one in (self._old, self._channel) if one is not None]

    def _open(self, credentials: grpc.ChannelCredentials | None) -> None:
        self._used = credentials
        insecure, secure = self._openers
        self._channel = (
            insecure(self.target, options=_OPTIONS)
            if credentials is None
            else secure(self.target, credentials, options=_OPTIONS)
        )
        # The generated stub serves both kinds of channel.
        self._stub = pb_grpc.RouterServiceStub(self._channel)

    @property
    def _is_due(self) -> bool:
        return time.monotonic() - self._looked_at >= LOOK_S

    def _look(self, watched: WatchedFiles[grpc.ChannelCredentials]) -> None:
        """Let a thread look at the files if that is due, and open a channel with what an earlier look has found."""
        if self._is_due:
            self._looked_at = time.monotonic()
            if self._looking is None or not self._looking.is_alive():
                self._looking = threading.Thread(target=watched.refresh, name="certificates", daemon=True)
                self._looking.start()
        if watched.value is not self._used:
            self._old = self._channel
            self._open(watched.value)


def target_of(address: str | Sequence[str]) -> str:
    """Return the name by which grpc finds the replicas at an address or at several. Raises ConfigError."""
    if isinstance(address, str):
        if not address.strip() or address.startswith(("http://", "https://")):
            raise ConfigError(
                f"an address must be host:port, such as {DEFAULT_ADDRESS}, got {quoted(address)}; encryption is asked "
                "for by `credentials`."
            )
        return address
    versions = {_ip_version(one) for one in address}
    if len(versions) != 1:
        raise ConfigError(
            "a list of addresses must hold one at least, and only IPv4 or only IPv6; use a DNS name for both."
        )
    return f"ipv{versions.pop()}:{','.join(address)}"


def _ip_version(address: str) -> int:
    host, _, port = address.rpartition(":")
    try:
        found = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        found = None
    if found is None or not port.isascii() or not port.isdigit():
        raise ConfigError(
            f"each of several addresses must be an IP address with a port, such as 10.0.0.7:50051, got "
            f"{quoted(address)}; write a single DNS name that resolves to all replicas instead."
        )
    return found.version
