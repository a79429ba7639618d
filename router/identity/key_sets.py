"""Hold the public keys of an identity provider (JWKS), from a file or from a URL, and keep the last good ones."""

from __future__ import annotations

import logging
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probes.bounded.files import BoundedFileError, parse_json, read_bounded
from probes.bounded.text import os_fault
from router.errors import ConfigError
from router.identity.server_tls import is_loopback
from router.quoting import quoted
from router.watched_files import WatchedFiles, WatchedValue

if TYPE_CHECKING:
    import jwt

log = logging.getLogger(__name__)

#: The largest set of keys in bytes, and the largest number of keys in it.
_MOST_BYTES, _MOST_KEYS = 256 * 1024, 100

#: The kind of keys that have no public part: whoever can read one can sign.
_KIND_OF_SECRETS = "oct"

#: The least size of an RSA key in bits.
_LEAST_RSA_BITS = 2048

#: Seconds between two fetches of a URL, after a fetch that failed or if a token names an unknown key, and most seconds
#: of one fetch.
FETCH_EVERY_S, FETCH_AGAIN_S, _FETCH_S = 300.0, 30.0, 10.0

#: The keys by their id.
KeySet = Mapping[str, "jwt.PyJWK"]


class FetchedKeys(WatchedValue[KeySet]):
    """Holds the keys that a URL publishes, none before the first fetch.

    `keep_fresh` fetches them in another thread; no request waits for that.

    Raises ConfigError if the URL would be fetched without encryption, or holds a password.
    """

    def __init__(self, url: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        parts = urllib.parse.urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and is_loopback(parts.hostname or "")):
            raise ConfigError("--jwks must be a file, or a URL that begins with https://, or others could send keys.")
        if parts.username or parts.password:
            raise ConfigError("--jwks must be a URL without a user or a password, because it is written to the log.")
        # A query may hold a key of the provider, and the place is written to the log.
        super().__init__("keys", url.partition("?")[0], {})
        self._url, self._clock = url, clock
        self._due_at = self._asked_at = float("-inf")

    def refresh(self) -> bool:
        """Fetch the keys if that is due, and return whether they have changed. After a failure the old ones stay."""
        now = self._clock()
        if now < self._due_at:
            return False
        self._asked_at, before = now, self.value
        is_read = self.take(lambda: parse_keys(_fetch(self._url)))
        self._due_at = now + (FETCH_EVERY_S if is_read else FETCH_AGAIN_S)
        return self.value.keys() != before.keys()

    def want(self) -> None:
        """Ask for an early fetch, because a token names a key that is not known."""
        self._due_at = min(self._due_at, self._asked_at + FETCH_AGAIN_S)


class KeysInFile(WatchedFiles[KeySet]):
    """Holds the keys of a file, which is read again when it changes. Raises ConfigError if it cannot be used."""

    def __init__(self, path: Path) -> None:
        super().__init__("keys", (path,), lambda: _read(path))

    def want(self) -> None:
        """Do nothing, because the file is looked at all the time."""


def keys_at(place: str) -> FetchedKeys | KeysInFile:
    """Return the keys at a URL or in a file. Raises ConfigError."""
    return FetchedKeys(place) if "://" in place else KeysInFile(Path(place))


def parse_keys(data: bytes) -> KeySet:
    """Return the keys of a JWKS by their id. Raises ConfigError if it holds none that can be used, or a secret one."""
    import jwt

    try:
        document = parse_json(data)
    except BoundedFileError as error:
        raise ConfigError(f"a set of keys must be JSON: {error}.") from error
    rows = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(rows, list) or not rows or len(rows) > _MOST_KEYS:
        raise ConfigError(f"a set of keys must be a JSON object whose `keys` are a list of 1 to {_MOST_KEYS} keys.")
    found: dict[str, jwt.PyJWK] = {}
    for row in rows:
        if not isinstance(row, dict):
            raise ConfigError("each key of a set of keys must be a JSON object.")
        if row.get("kty") == _KIND_OF_SECRETS or "d" in row:
            raise ConfigError(
                f"a set of keys must hold public keys only, and one is private or of the kind {_KIND_OF_SECRETS!r}. "
                "Publish the public keys."
            )
        if row.get("use", "sig") != "sig":
            continue
        key_id = str(row.get("kid", ""))
        if key_id in found:
            raise ConfigError(f"the keys of a set must have different ids; {quoted(key_id)} occurs twice.")
        try:
            found[key_id] = _strong(jwt.PyJWK(row))
        except (jwt.PyJWTError, NotImplementedError, TypeError) as error:
            # A kind or an algorithm that is not known here, or none at all: tokens of that key are refused, those of
            # the others are not.
            log.warning("a key of the identity provider cannot be used: %s", type(error).__name__)
    if not found:
        raise ConfigError("a set of keys must hold a key for signatures (RSA, EC or Ed25519).")
    return found


def _strong(key: jwt.PyJWK) -> jwt.PyJWK:
    bits = getattr(key.key, "key_size", _LEAST_RSA_BITS)
    if key.key_type == "RSA" and bits < _LEAST_RSA_BITS:
        raise ConfigError(f"an RSA key of a set of keys must have at least {_LEAST_RSA_BITS} bits, got {bits}.")
    return key


def _read(path: Path) -> KeySet:
    try:
        data = read_bounded(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        fault = os_fault(error) if isinstance(error, OSError) else error
        raise ConfigError(f"the set of keys {path} cannot be read: {fault}.") from error
    try:
        return parse_keys(data)
    except ConfigError as error:
        raise ConfigError(f"the file {path} cannot be used: {error}") from error


def _fetch(url: str) -> bytes:
    opener = urllib.request.build_opener(_NoRedirects)
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310  (checked before)
    try:
        with opener.open(request, timeout=_FETCH_S) as answer:
            data: bytes = answer.read(_MOST_BYTES + 1)
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise ConfigError(f"it cannot be fetched ({type(error).__name__}).") from error
    if len(data) > _MOST_BYTES:
        raise ConfigError(f"it must have at most {_MOST_BYTES:,} bytes.")
    return data


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: it could lead to a place that anybody can write to."""

    def redirect_request(self, *_: Any) -> None:
        return None
