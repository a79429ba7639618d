"""JSON Web Tokens: which are taken, which are refused, and how keys change."""

from __future__ import annotations

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from router.errors import ConfigError, ForbiddenError, NotReadyError, UnauthenticatedError
from router.identity import key_sets
from router.identity.counts import DoorName, Refusal
from router.identity.gate import Gate, IdentitySettings
from router.identity.json_web_tokens import BadTokenError, ExpiredTokenError, JwtSettings, WebTokens
from router.identity.key_sets import FetchedKeys, parse_keys
from router.identity.method_scopes import DECIDING
from router.identity.principal import Principal, Scope

jwt = pytest.importorskip("jwt")
pytest.importorskip("cryptography")

from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa  # noqa: E402
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm  # noqa: E402

ISSUER, AUDIENCE = "https://id.example.com", "elle"
RSA_KEY = rsa.generate_private_key(65537, 2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
ED_KEY = ed25519.Ed25519PrivateKey.generate()
WEAK_KEY = rsa.generate_private_key(65537, 1024)  # noqa: S505  (the test is that it is refused)
KEYS: Mapping[str, tuple[Any, str, Any]] = {
    "rsa": (RSA_KEY, "RS256", RSAAlgorithm),
    "ec": (EC_KEY, "ES256", ECAlgorithm),
    "ed": (ED_KEY, "EdDSA", OKPAlgorithm),
    "weak": (WEAK_KEY, "RS256", RSAAlgorithm),
}


GOOD = ("rsa", "ec", "ed")


def public(*names: str, **changes: Any) -> bytes:
    rows = []
    for name in names:
        key, _, algorithm = KEYS[name]
        rows.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": name} | changes)
    return json.dumps({"keys": rows}).encode()


def token(name: str = "rsa", *, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
    key, algorithm, _ = KEYS[name]
    usual = {"iss": ISSUER, "aud": AUDIENCE, "sub": "somebody", "exp": time.time() + 600, "scope": "route openid"}
    found = {key: value for key, value in (usual | claims).items() if value is not None}
    return str(jwt.encode(found, key, algorithm, headers={"kid": name} if header is None else dict(header)))


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    (tmp_path / "jwks.json").write_bytes(public(*GOOD))
    return Gate(IdentitySettings(jwt=JwtSettings(str(tmp_path / "jwks.json"), ISSUER, AUDIENCE)))


def admitted(gate: Gate, text: str) -> Principal:
    return gate.admit(DoorName.GRPC, {"authorization": f"Bearer {text}"}, DECIDING)


@pytest.mark.parametrize("name", GOOD)
def test_a_token_of_the_provider_is_taken(gate: Gate, name: str) -> None:
    principal = admitted(gate, token(name))
    assert (principal.label, principal.scopes) == ("jwt", {Scope.ROUTE})
    assert principal.id.startswith("jwt:")
    assert "somebody" not in principal.id
    assert admitted(gate, token(name, exp=time.time() + 999)).id == principal.id
    assert admitted(gate, token(name, sub="else")).id != principal.id


def b64(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def forged_with_the_public_key() -> str:
    """Return a token that is signed by HMAC with the public key as its secret (algorithm confusion)."""
    import hashlib
    import hmac

    pem = RSA_KEY.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    body = token().split(".")[1]
    signed = f"{b64({'alg': 'HS256', 'typ': 'JWT', 'kid': 'rsa'})}.{body}"
    mac = hmac.new(pem, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def unsigned() -> str:
    return f"{b64({'alg': 'none', 'kid': 'rsa'})}.{token().split('.')[1]}."


BAD = {
    "signed by HMAC with the public key": forged_with_the_public_key,
    "not signed": unsigned,
    "another issuer": lambda: token(iss="https://evil.example.com"),
    "another audience": lambda: token(aud="other"),
    "no audience": lambda: token(aud=None),
    "no issuer": lambda: token(iss=None),
    "no expiry": lambda: token(exp=None),
    "an expiry beyond all numbers": lambda: token(exp=10**400),
    "no subject": lambda: token(sub=None),
    "not valid yet": lambda: token(nbf=time.time() + 600),
    "an unknown key": lambda: token(header={"kid": "new"}),
    "no key id": lambda: token(header={}),
    "the id of another key": lambda: token("ec", header={"kid": "rsa"}),
    "limits that cannot be read": lambda: token(elle_limits={"strong_share": 7}),
    "a changed body": lambda: ".".join([token().split(".")[0], token(sub="root").split(".")[1], token().split(".")[2]]),
    "no token": lambda: "a.b.c",
    "too long": lambda: token(more="x" * 20_000),
}


@pytest.mark.parametrize("make", BAD.values(), ids=BAD)
def test_a_token_that_is_not_of_the_provider_is_refused(gate: Gate, make: Any) -> None:
    text = make()
    with pytest.raises(UnauthenticatedError, match="not valid here") as caught:
        admitted(gate, text)
    assert text not in str(caught.value)
    assert gate.counts.snapshot()[DoorName.GRPC, Refusal.UNKNOWN_TOKEN] == 1


def test_an_expired_token_is_refused_by_that_name(gate: Gate) -> None:
    with pytest.raises(UnauthenticatedError, match="is expired"):
        admitted(gate, token(exp=time.time() - 60))
    assert gate.counts.snapshot()[DoorName.GRPC, Refusal.EXPIRED] == 1


def test_a_token_whose_signature_was_checked_before_expires_too(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(public("ec"))
    clock = [time.time()]
    tokens = WebTokens(JwtSettings(str(tmp_path / "jwks.json"), ISSUER, AUDIENCE), now=lambda: clock[0])
    text = token("ec")
    assert tokens.find(text) is tokens.find(text)
    clock[0] += 700
    with pytest.raises(ExpiredTokenError):
        tokens.find(text)


@pytest.mark.parametrize(
    ("claims", "scopes"),
    [
        ({"scope": "route complete"}, {"route", "complete"}),
        ({"scope": "elle:admin email"}, {"admin"}),
        ({"scope": None, "scp": ["feedback", 7]}, {"feedback"}),
        ({"scope": None}, set()),
        ({"scope": {"route": True}}, set()),
    ],
)
def test_scopes_come_from_the_token(gate: Gate, claims: dict[str, Any], scopes: set[str]) -> None:
    text = token(**claims)
    if "route" in scopes:
        assert admitted(gate, text).scopes == scopes
        return
    with pytest.raises(ForbiddenError, match=r"it has (\w+|none);"):
        admitted(gate, text)


def test_limits_come_from_the_token(gate: Gate) -> None:
    assert admitted(gate, token(elle_limits={"usd_per_day": 2})).limits.usd_per_day == 2


def test_a_key_that_is_withdrawn_is_withdrawn_for_known_tokens_too(gate: Gate, tmp_path: Path) -> None:
    text = token("ec")
    admitted(gate, text)
    (tmp_path / "new").write_bytes(public("rsa"))
    (tmp_path / "new").replace(tmp_path / "jwks.json")
    assert gate.refresh()
    with pytest.raises(UnauthenticatedError):
        admitted(gate, text)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>", "must be JSON"),
        (b"[]", "list of 1 to 100 keys"),
        (b'{"keys": []}', "list of 1 to 100 keys"),
        (b'{"keys": [7]}', "must be a JSON object"),
        (b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}', "of the kind 'oct'"),
        (public("ec", d="AA"), "one is private"),
        (public("ec", use="enc"), "must hold a key for signatures"),
        (public("ec", crv="P-999"), "must hold a key for signatures"),
        (public("rsa", "ec", kid="same"), "'same' occurs twice"),
        (public("weak"), "at least 2048 bits"),
        (public("rsa", alg="none"), "must hold a key for signatures"),
        (public("rsa", alg=["RS256"]), "must hold a key for signatures"),
        (public("rsa", alg="HS256"), "must hold a key for signatures"),
    ],
)
def test_keys_that_must_not_be_trusted_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_keys(data)


@pytest.mark.parametrize(
    "odd",
    [{"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}, {"kty": 7}, {"alg": "none"}, {"alg": ["RS256"]}, {"n": None}],
)
def test_a_key_of_a_kind_that_is_not_known_here_leaves_the_others_their_use(odd: dict[str, Any]) -> None:
    rows = json.loads(public("rsa"))["keys"]
    unknown = json.loads(public("rsa", **odd))["keys"][0] | {"kid": "new"}
    assert set(parse_keys(json.dumps({"keys": [unknown, *rows]}).encode())) == {"rsa"}


def test_a_file_of_keys_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "jwks.json").write_bytes(public("weak"))
    with pytest.raises(ConfigError, match=r"jwks\.json cannot be used: .*2048 bits"):
        WebTokens(JwtSettings(str(tmp_path / "jwks.json"), ISSUER, AUDIENCE))


class Provider(http.server.BaseHTTPRequestHandler):
    """Publishes what `body` holds; a body of None is an error, and a text leads elsewhere."""

    body: Any = b""
    asked = 0

    def do_GET(self) -> None:
        type(self).asked += 1
        if isinstance(self.body, str):
            self.send_response(302)
            self.send_header("location", self.body)
            self.end_headers()
            return
        self.send_response(200 if self.body else 500)
        self.end_headers()
        self.wfile.write(self.body or b"")

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[str]:
    Provider.body, Provider.asked = public("rsa"), 0
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/jwks"
    server.shutdown()
    server.server_close()
    thread.join()


def test_keys_of_a_url_are_fetched_now_and_then_and_the_last_good_ones_are_kept(provider: str) -> None:
    clock = [0.0]
    keys = FetchedKeys(provider, clock=lambda: clock[0])
    assert not keys.value
    assert (keys.refresh(), set(keys.value)) == (True, {"rsa"})
    assert (keys.refresh(), Provider.asked) == (False, 1)
    for bad in (None, b"x", public("ec", d="AA"), b" " * 300_000, "http://127.0.0.1:1/"):
        Provider.body = bad
        clock[0] += key_sets.FETCH_EVERY_S
        assert (keys.refresh(), set(keys.value)) == (False, {"rsa"})
    assert keys.failures == 5
    Provider.body = public("ec")
    clock[0] += key_sets.FETCH_AGAIN_S
    assert (keys.refresh(), set(keys.value)) == (True, {"ec"})


def test_before_the_first_keys_have_come_a_token_is_not_called_bad(provider: str) -> None:
    Provider.body = None
    gate = Gate(IdentitySettings(jwt=JwtSettings(provider, ISSUER, AUDIENCE)))
    gate.refresh()
    with pytest.raises(NotReadyError, match="not fetched yet"):
        admitted(gate, token())
    assert not any(gate.counts.snapshot().values())
    (keys,) = gate.watched_with(None)
    assert isinstance(keys, FetchedKeys)
    Provider.body = public("rsa")
    keys._due_at = 0.0
    assert gate.refresh()
    assert admitted(gate, token()).label == "jwt"


def test_what_stands_in_the_query_of_the_url_is_not_logged(provider: str, caplog: pytest.LogCaptureFixture) -> None:
    Provider.body = None
    FetchedKeys(f"{provider}?key=canary").refresh()
    assert f"the keys in {provider} cannot be used" in caplog.text
    assert "canary" not in caplog.text


def test_an_unknown_key_asks_for_an_early_fetch_but_not_for_one_each_time(provider: str) -> None:
    clock = [0.0]
    settings = JwtSettings(provider, ISSUER, AUDIENCE)
    tokens = WebTokens(settings)
    tokens.keys = keys = FetchedKeys(provider, clock=lambda: clock[0])
    keys.refresh()
    Provider.body = public("rsa", "ec")
    for _ in range(3):
        with pytest.raises(BadTokenError):
            tokens.find(token("ec"))
        keys.refresh()
    assert Provider.asked == 1
    clock[0] += key_sets.FETCH_AGAIN_S
    keys.refresh()
    assert (Provider.asked, tokens.find(token("ec")).label) == (2, "jwt")


@pytest.mark.parametrize("url", ["http://id.example.com/jwks", "ftp://x/y", "https://user:secret@id.example.com/jwks"])
def test_a_url_that_others_could_change_or_that_holds_a_password_is_refused(url: str) -> None:
    with pytest.raises(ConfigError) as caught:
        FetchedKeys(url)
    assert "secret" not in str(caught.value)
