"""Check JSON Web Tokens of an identity provider, and say whom they stand for (`WebTokens`). It needs PyJWT."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.errors import ConfigError, NotReadyError
from router.identity.key_sets import KeySet, keys_at
from router.identity.principal import NO_LIMITS, Principal, Scope, read_limits

#: The label under which metrics count all callers with such tokens: their names are not ours, and may be many.
JWT_LABEL = "jwt"

#: The claim that may hold limits, as `elle token` writes them.
LIMITS_CLAIM = "elle_limits"

#: The longest token that is looked at, in characters, and seconds by which two clocks may differ.
_MOST_CHARACTERS, _LEEWAY_S = 16_384, 30.0

#: The number of tokens whose signature need not be checked again.
_MOST_KNOWN = 10_000


class BadTokenError(Exception):
    """The token is no valid JSON Web Token for this service."""


class ExpiredTokenError(BadTokenError):
    """The token was valid once."""


@dataclass(frozen=True)
class JwtSettings:
    """Says which JSON Web Tokens are taken.

    Attributes:
        keys: a file with the public keys of the identity provider (JWKS), or the URL where it publishes them.
        issuer, audience: what the claims `iss` and `aud` must say.
    """

    keys: str
    issuer: str
    audience: str


class WebTokens:
    """Checks tokens: signature, issuer, audience and times.

    The algorithm is that of the key, whatever the token says, so that no public key can be taken for a secret.

    Attributes:
        keys: the keys of the identity provider, which `keep_fresh` looks at.

    Raises ConfigError if the keys cannot be used or PyJWT is not installed.
    """

    def __init__(self, settings: JwtSettings, *, now: Callable[[], float] = time.time) -> None:
        try:
            import jwt.algorithms
        except ModuleNotFoundError as error:
            raise _not_installed() from error
        if not jwt.algorithms.has_crypto:
            raise _not_installed()
        self._settings, self._now = settings, now
        self.keys = keys_at(settings.keys)
        self._known: OrderedDict[bytes, tuple[KeySet, Principal]] = OrderedDict()

    def find(self, text: str) -> Principal:
        """Return the caller that a token stands for.

        Raises BadTokenError or ExpiredTokenError, and NotReadyError before the first keys have come.
        """
        if not self.keys.value:
            raise NotReadyError("the keys that tokens are checked by were not fetched yet; try again in a few seconds.")
        if len(text) > _MOST_CHARACTERS:
            raise BadTokenError
        keys, digest = self.keys.value, hashlib.sha256(text.encode(errors="surrogatepass")).digest()
        known = self._known.get(digest)
        if known is None or known[0] is not keys:
            known = keys, self._checked(text, keys)
            self._known[digest] = known
            if len(self._known) > _MOST_KNOWN:
                self._known.popitem(last=False)
        principal = known[1]
        if (principal.expires_at or 0.0) + _LEEWAY_S <= self._now():
            raise ExpiredTokenError
        return principal

    def _checked(self, text: str, keys: KeySet) -> Principal:
        import jwt

        try:
            key = self._key(jwt.get_unverified_header(text), keys)
            claims = jwt.decode(
                text,
                key,
                algorithms=[key.algorithm_name],
                audience=self._settings.audience,
                issuer=self._settings.issuer,
                leeway=_LEEWAY_S,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
            return _principal(claims)
        except jwt.ExpiredSignatureError as error:
            raise ExpiredTokenError from error
        except (jwt.PyJWTError, ValueError, RecursionError, OverflowError) as error:
            raise BadTokenError from error

    def _key(self, header: Mapping[str, Any], keys: KeySet) -> Any:
        key_id = header.get("kid", "")
        if (key := keys.get(key_id) if isinstance(key_id, str) else None) is not None:
            return key
        if "kid" not in header and len(keys) == 1:
            return next(iter(keys.values()))
        # The provider may have begun to sign with a new key.
        self.keys.want()
        raise BadTokenError


def _principal(claims: Mapping[str, Any]) -> Principal:
    subject, expires = claims["sub"], claims["exp"]
    if not isinstance(subject, str) or not subject or isinstance(expires, bool) or not isinstance(expires, int | float):
        raise BadTokenError
    try:
        limits = read_limits(claims[LIMITS_CLAIM]) if LIMITS_CLAIM in claims else NO_LIMITS
    except ValueError as error:
        # Limits that nobody can read must not become no limits.
        raise BadTokenError from error
    name = hashlib.sha256(f"{claims['iss']}\0{subject}".encode(errors="surrogatepass")).hexdigest()[:32]
    return Principal(f"jwt:{name}", JWT_LABEL, _scopes(claims), limits, float(expires))


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    """Return the scopes in the claim `scope` or `scp`, each as `route` or `elle:route`; others are not ours."""
    given = claims.get("scope", claims.get("scp", ""))
    names = given.split() if isinstance(given, str) else given if isinstance(given, list) else []
    plain = {name.removeprefix("elle:") for name in names if isinstance(name, str)}
    return frozenset(scope for scope in Scope if scope.value in plain)


def _not_installed() -> ConfigError:
    return ConfigError(
        "--jwks needs PyJWT and cryptography, which are not installed; install them with "
        "`pip install 'elle-router[jwt]'`."
    )
