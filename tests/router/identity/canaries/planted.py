"""Plant a different secret in every place that holds one, and run services that hold them all."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import yaml

from router.identity.principal import Scope
from tests.gateways.loopback import in_thread
from tests.router.identity.authority import Authority
from tests.router.identity.canaries.upstream import LITELLM_MODES, MODES, repeating_proxy, repeating_upstream
from tests.router.identity.guarded import PRICES, usual_tokens
from tests.router.identity.test_json_web_tokens import AUDIENCE, ISSUER, public, token
from tests.router.observing.collector import Collector, running_collector
from tests.router.policies.score_policy import write_score_policy
from tests.router.serving.processes import Service, elle_serve

#: Words that look like no key, so that nothing masks them by their shape alone.
PROVIDER_KEY, OTHER_KEY = "canary-key-of-the-provider", "canary-key-of-anthropic"
URL_PASSWORD, DATABASE_PASSWORD = "canary-password-in-url", "canary-password-of-database"
COLLECTOR_PASSWORD = "canary-password-of-collector"
PROXY_PASSWORD, QUERY_KEY = "canary-password-of-proxy", "canary-key-in-the-query-of-the-keys"
KEY_VARIABLE, OTHER_VARIABLE = "CANARY_PROVIDER_KEY", "CANARY_ANTHROPIC_KEY"

#: What a caller writes and nobody else may read: texts, metadata, and headers that mean nothing to us.
TEXTS = {
    "prompt": "canary-in-the-prompt",
    "system prompt": "canary-in-the-system-prompt",
    "metadata of the body": "canary-in-the-metadata",
    "user of the body": "canary-in-the-user",
    "arguments of a tool": "canary-in-a-tool",
    "unknown field": "canary-in-an-unknown-field",
    "header of the caller": "canary-in-a-header",
    "feedback": "canary-in-the-feedback",
    "session": "canary-in-the-session",
}


@dataclass
class World:
    """Holds the services with their secrets, and everything that they have said, by the name of the place."""

    folder: Path
    secrets: dict[str, str]
    tokens: Mapping[str, str]
    secure: Service
    plain: Service
    admin_url: str
    metrics_url: str
    collector: Collector
    verify: ssl.SSLContext
    credentials: grpc.ChannelCredentials
    said: dict[str, str] = field(default_factory=dict)

    @property
    def http_url(self) -> str:
        return self.secure._said(r"on (https://\S+)/v1")


def free_port() -> int:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        return int(held.getsockname()[1])


@contextmanager
def planted(folder: Path) -> Iterator[World]:
    """Run two services: one with TLS whose log is JSON, and one whose database is away and whose log is for people."""
    from router.serving.http_server import serve_on_loopback

    authority = Authority("a")
    pair = authority.sign("service")
    pair.write(folder / "cert.pem", folder / "key.pem")
    (folder / "jwks.json").write_bytes(public("rsa"))
    (folder / "ledger.key").write_text("canary-key-of-the-ledger", "utf-8")
    (folder / "state.key").write_text("canary-key-of-the-state", "utf-8")
    tokens = usual_tokens(folder / "tokens.json")
    tokens["web token"] = token(scope="route complete feedback admin")
    tokens["old web token"] = token(exp=time.time() - 600)
    metrics, admin = free_port(), free_port()
    with ExitStack() as stack:
        upstream = stack.enter_context(in_thread(serve_on_loopback(repeating_upstream())))
        collector = stack.enter_context(running_collector())
        policy = _policy(folder, upstream)
        proxy = f"http://me:{PROXY_PASSWORD}@127.0.0.1:{stack.enter_context(repeating_proxy())}"
        env = {
            KEY_VARIABLE: PROVIDER_KEY,
            OTHER_VARIABLE: OTHER_KEY,
            "ELLE_ADMIN_TOKEN": tokens["admin"],
            "ELLE_LOG_LEVEL": "debug",
            "ELLE_LOG_DECISIONS": "1",
            "OTEL_EXPORTER_OTLP_HEADERS": f"authorization={COLLECTOR_PASSWORD}",
            # The machine may send everything through a proxy; only what is meant for the one here goes there.
            "NO_PROXY": "127.0.0.1,localhost",
            "no_proxy": "127.0.0.1,localhost",
            **dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), proxy),
        }
        common = {"policy": [policy.name], "tokens": "tokens.json", "http": 0}
        jwt = {"jwks": "jwks.json", "jwt_issuer": ISSUER, "jwt_audience": AUDIENCE}
        tls = {"tls_cert": "cert.pem", "tls_key": "key.pem"}
        watched = {"admin_port": admin, "metrics_port": metrics, "log_format": "json", "ext_proc": "closed"}
        secure = {**common, **jwt, **tls, **watched, "ledger": str(folder / "ledger.db")}
        secure |= {"otlp_endpoint": collector.endpoint, "state": "state.db", "drift_state": "drift.json"}
        away = f"postgresql://me:{DATABASE_PASSWORD}@127.0.0.1:1/ledger"
        plain = {**common, "ledger": away, "ledger_key": "ledger.key", "ledger_spool": str(folder / "spool")}
        plain |= {"otlp_endpoint": "http://127.0.0.1:1", "state": away, "state_key": "state.key"}
        plain |= {**jwt, "jwks": f"http://127.0.0.1:1/keys?key={QUERY_KEY}"}
        for name, config in (("secure", secure), ("plain", plain)):
            (folder / f"{name}.yaml").write_text(yaml.safe_dump(config), "utf-8")
        first = stack.enter_context(elle_serve("--config", str(folder / "secure.yaml"), env=env))
        second = stack.enter_context(elle_serve("--config", str(folder / "plain.yaml"), env=env))
        yield World(
            folder,
            _secrets(tokens, folder, pair.key.decode()),
            tokens,
            first,
            second,
            f"https://127.0.0.1:{admin}",
            f"https://127.0.0.1:{metrics}",
            collector,
            ssl.create_default_context(cadata=authority.pem.decode()),
            grpc.ssl_channel_credentials(authority.pem),
        )


def _policy(folder: Path, upstream: str) -> Path:
    with_password = upstream.replace("http://", f"http://user:{URL_PASSWORD}@")
    # Nothing rests, so that every candidate fails in its own way each time.
    usual = {
        "prices": PRICES,
        "capabilities": ["text", "tools"],
        "retries": 0,
        "break_after": 9999,
        "cooldown_s": 0.001,
    }
    candidates = []
    for mode in MODES:
        base = {"model": f"openai/{mode}", "api_base": f"{upstream}/{mode}", "api_key_env": KEY_VARIABLE, **usual}
        candidates.append({"name": mode, **base})
        candidates.append({"name": f"{mode}-password", **base, "api_base": f"{with_password}/{mode}"})
    for mode in LITELLM_MODES:
        base = {"api_base": f"{upstream}/{mode}", "api_key_env": OTHER_VARIABLE}
        candidates.append({"name": f"{mode}-litellm", "model": f"anthropic/{mode}", **base, **usual})
    behind = {**usual, "api_base": "http://behind.invalid/v1"}
    candidates.append({"name": "proxied", "model": "openai/a", **behind})
    candidates.append({"name": "proxied-litellm", "model": "anthropic/a", **behind})
    names = tuple(one["name"] for one in candidates)
    risks = [{"scores": [0.5], "risks": [0.1]} for _ in candidates]
    score = {"name": "Confidence", "low": 0.0, "high": 1.0, "risks": risks}
    rule = {"kind": "fixed", "candidate": "ok"}
    return write_score_policy(folder, names=names, candidates=candidates, score=score, rule=rule)


def _secrets(tokens: Mapping[str, str], folder: Path, key: str) -> dict[str, str]:
    book = json.loads((folder / "tokens.json").read_text("utf-8"))["tokens"]
    kinds = {*(scope.value for scope in Scope), "expired", "revoked", "unknown"}
    return {
        **{f"token: {kind}": tokens[kind] for kind in kinds},
        **{f"secret part of the token: {kind}": tokens[kind].split("_", 2)[2] for kind in kinds},
        **{f"digest of the token {one['name']}": one["sha256"] for one in book},
        "web token": tokens["web token"],
        "signature of a web token": tokens["web token"].rpartition(".")[2],
        "key of a provider": PROVIDER_KEY,
        "key of another provider": OTHER_KEY,
        "password in api_base": URL_PASSWORD,
        "header of the password in api_base": base64.b64encode(f"user:{URL_PASSWORD}".encode()).decode().rstrip("="),
        "password of a database": DATABASE_PASSWORD,
        "password of a collector": COLLECTOR_PASSWORD,
        "TLS key": key.splitlines()[1],
        "key of the ledger": "canary-key-of-the-ledger",
        "key of the state": "canary-key-of-the-state",
        "password of a proxy": PROXY_PASSWORD,
        "header of the password of a proxy": base64.b64encode(f"me:{PROXY_PASSWORD}".encode()).decode().rstrip("="),
        "key in the URL of the keys": QUERY_KEY,
        **TEXTS,
    }
