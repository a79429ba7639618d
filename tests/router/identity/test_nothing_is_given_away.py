"""Canaries in every place that holds a secret, and a search for them in everything that the service says."""

from __future__ import annotations

import base64
import json
import logging
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import yaml
from click.testing import CliRunner

from router.cli.main import cli
from router.client import RouterClient
from router.errors import ServiceError
from router.gateways.http.http_gateway import HttpGateway
from router.identity.gate import IdentitySettings
from router.identity.json_web_tokens import JwtSettings
from router.identity.principal import Scope
from router.identity.server_tls import TlsFiles
from router.observing.prometheus import families
from router.serving.http_server import serve_on_loopback
from router.serving.server import serving
from router.serving.settings import ServerSettings
from router.values import Overrides, RouteQuery
from tests.gateways.loopback import in_thread
from tests.router.identity.guarded import EASY, add_token
from tests.router.policies.score_policy import SCORE, write_score_policy

pytest.importorskip("cryptography")
pytest.importorskip("jwt")

from tests.router.identity.authority import Authority
from tests.router.identity.test_json_web_tokens import AUDIENCE, ISSUER, public, token

#: Words that look like no key, so that nothing masks them by their shape alone.
PASSWORD, KEY = "canary-password-in-url", "canary-key-of-provider"
KEY_VARIABLE = "ELLE_TEST_CANARY_KEY"


@dataclass
class Spoken:
    """Everything that was said: by name of the place."""

    service: ServerSettings
    address: str
    url: str
    credentials: grpc.ChannelCredentials
    verify: Any
    canaries: Mapping[str, str]
    metrics: Callable[[], str]
    said: dict[str, str] = field(default_factory=dict)

    def client(self, key: str) -> RouterClient:
        return RouterClient(self.address, credentials=self.credentials, api_key=key, timeout_s=60)

    def ask(self, name: str, key: str, query: RouteQuery, *, complete: bool = True) -> None:
        with self.client(key) as client:
            try:
                found: object = client.complete(query) if complete else client.route(query)
            except ServiceError as error:
                found = (str(error), vars(error))
        self.said[f"gRPC {name}"] = repr(found)

    def post(self, name: str, headers: Mapping[str, str], body: Any, path: str = "/v1/chat/completions") -> None:
        answer = httpx.post(
            self.url + path,
            content=json.dumps(body),
            headers={"content-type": "application/json", **headers},
            verify=self.verify,
            timeout=60,
        )
        self.said[f"HTTP {name}"] = f"{answer.status_code} {dict(answer.headers)} {answer.text}"


def echoing_upstream() -> Any:
    """Return an upstream that refuses every request and repeats the credential that it got."""
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def refuse(request: Any) -> Any:
        got = request.headers.get("authorization", "")
        message = f"Incorrect API key provided: {got.removeprefix('Bearer ')} ({got}) at {request.url}"
        status = 400 if "wrong" in request.url.path else 401
        return JSONResponse({"error": {"message": message, "type": "invalid_request_error"}}, status_code=status)

    return Starlette(routes=[Route("/{path:path}", refuse, methods=["POST"])])


@pytest.fixture(scope="module")
def spoken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Spoken]:
    folder = tmp_path_factory.mktemp("canaries")
    authority, files = Authority("a"), TlsFiles(folder / "cert.pem", folder / "key.pem")
    pair = authority.sign("service")
    pair.write(files.cert, files.key)
    (folder / "jwks.json").write_bytes(public("rsa"))
    text, made = add_token(folder / "tokens.json", "team", *Scope)
    with pytest.MonkeyPatch.context() as patch, in_thread(serve_on_loopback(echoing_upstream())) as upstream:
        patch.setenv(KEY_VARIABLE, KEY)
        with_password = upstream.replace("http://", f"http://user:{PASSWORD}@")
        candidates = [
            {"name": "small", "model": "openai/up-small", "api_base": with_password},
            {"name": "large", "model": "openai/up-large", "api_base": upstream, "api_key_env": KEY_VARIABLE},
            {"name": "wrong", "model": "openai/up-wrong", "api_base": f"{upstream}/wrong", "api_key_env": KEY_VARIABLE},
            {"name": "wrong2", "model": "openai/up-wrong", "api_base": f"{with_password}/wrong"},
        ]
        names, rule = tuple(one["name"] for one in candidates), {"kind": "fixed", "candidate": "small"}
        score = SCORE | {"risks": [SCORE["risks"][0]] * len(names)}
        policy = write_score_policy(folder, names=names, candidates=candidates, score=score, rule=rule)
        settings = ServerSettings(
            policies=(policy,),
            port=0,
            drain_s=1,
            http=HttpGateway(),
            metrics_port=0,
            identity=IdentitySettings(folder / "tokens.json", JwtSettings(str(folder / "jwks.json"), ISSUER, AUDIENCE)),
            tls=files,
        )
        with in_thread(serving(settings)) as running:
            canaries = {
                "token": text,
                "the secret part of the token": text.split("_", 2)[2],
                "digest of the token": made.sha256,
                "JSON Web Token": token(scope="route complete"),
                "password in api_base": PASSWORD,
                "header of that password": base64.b64encode(f"user:{PASSWORD}".encode()).decode().rstrip("="),
                "key of a provider": KEY,
                "TLS key": pair.key.decode().splitlines()[1],
            }
            found = Spoken(
                settings,
                running.address,
                f"https://{running.http_address}",
                grpc.ssl_channel_credentials(authority.pem),
                ssl.create_default_context(cadata=authority.pem.decode()),
                canaries,
                lambda: " ".join(map(repr, families(running.tally.snapshot()))),
            )
            yield found


def test_no_canary_is_in_anything_that_the_service_says(spoken: Spoken, caplog: pytest.LogCaptureFixture) -> None:
    text, web = spoken.canaries["token"], spoken.canaries["JSON Web Token"]
    chat = {"model": "test", "messages": [{"role": "user", "content": "hello"}]}
    with caplog.at_level(logging.INFO):
        for name, key in (
            ("token", text),
            ("web token", web),
            ("half a token", text[:-4]),
            ("bad web token", web[:-4]),
        ):
            spoken.ask(name, key, RouteQuery.from_prompt("hello", scores=EASY), complete=False)
            spoken.post(name, {"authorization": f"Bearer {key}"}, {**chat, "model": key})
            spoken.post(f"{name} in x-api-key", {"x-api-key": key}, chat, "/v1/messages")
        for candidate in ("small", "large", "wrong", "wrong2"):
            pinned = RouteQuery.from_prompt("hello", overrides=Overrides(pin=candidate))
            spoken.ask(f"the upstream of {candidate} repeats the key", text, pinned)
            spoken.post(f"{candidate}", {"x-api-key": text}, {**chat, "model": candidate})
            spoken.post(f"{candidate} streams", {"x-api-key": text}, {**chat, "model": candidate, "stream": True})
        with spoken.client(text) as client:
            policy = client.get_policy()
        spoken.said["GetPolicy"] = str(policy)
        spoken.said["models"] = httpx.get(
            f"{spoken.url}/v1/models", headers={"x-api-key": text}, verify=spoken.verify
        ).text
    spoken.said["log"] = caplog.text + "".join(repr(record.args) for record in caplog.records)
    spoken.said["settings"] = repr(spoken.service)
    spoken.said["metrics"] = spoken.metrics()
    assert "openai/up-small" in spoken.said["GetPolicy"]
    assert "elle_caller_decisions" in spoken.said["metrics"]
    # The upstream was asked, and its refusal was told without what it repeated.
    assert "UPSTREAM_DENIED" in spoken.said["HTTP large"]
    assert "It says: Incorrect API key provided: ***" in spoken.said["HTTP wrong"]
    for place, said in spoken.said.items():
        # Callers are not even told what they have sent themselves.
        for name, canary in spoken.canaries.items():
            assert canary not in said, f"{name} is in {place}"


def test_the_command_line_says_no_secret(spoken: Spoken, tmp_path: Path) -> None:
    litellm = {
        "model_list": [
            {
                "model_name": "a",
                "litellm_params": {
                    "model": "openai/a",
                    "api_base": f"https://user:{PASSWORD}@example.com/v1?key={KEY}",
                    "api_key": KEY,
                },
            }
        ]
    }
    (tmp_path / "litellm.yaml").write_text(yaml.safe_dump(litellm), "utf-8")
    policy = spoken.service.policies[0]
    by_mistake = yaml.safe_load(policy.read_text("utf-8"))
    secret = "sk-proj-Zx81kQw0canary92LmN4"
    by_mistake["candidates"][1]["api_key_env"] = secret
    (tmp_path / "mistake.yaml").write_text(yaml.safe_dump(by_mistake), "utf-8")
    tokens = str(spoken.service.identity.tokens)
    for words in (
        ["policy", "new", "--from-litellm", str(tmp_path / "litellm.yaml")],
        ["validate", str(policy), "--json"],
        ["validate", str(tmp_path / "mistake.yaml")],
        ["token", "list", "--tokens", tokens],
        ["token", "list", "--tokens", tokens, "--json"],
    ):
        done = CliRunner().invoke(cli, words)
        assert done.output
        for name, canary in {**spoken.canaries, "a key in place of its variable": secret}.items():
            assert canary not in done.output, f"{name} is in what `elle {' '.join(words)}` prints"
            assert canary not in repr(done.exception), name
