"""The service, its policies and its upstreams that the tests of the OpenAI door share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.fakes import FakeEncoder, write_policy
from tests.gateways.chat_upstream import ChatUpstream
from tests.router.faults import FaultyUpstream

NAMES = ("small", "large")

CAPABILITIES = ["text", "image", "tools", "json_schema"]

FAULTS = ("429", "401", "400", "500", "hang", "malformed", "reset", "stall", "endless", "too-long", "429-wait", "ok")

MAX_BODY_BYTES = 4 * 1024 * 1024

JSON = {"content-type": "application/json"}


@dataclass
class Stack:
    """A running service with its HTTP door, in front of an upstream that answers and one that fails as told."""

    url: str
    address: str
    chat: ChatUpstream
    chat_url: str
    faulty: FaultyUpstream
    encoder: FakeEncoder

    @property
    def root(self) -> str:
        return self.url.removesuffix("/v1")

    def post(self, body: Any, **headers: str) -> httpx.Response:
        return httpx.post(f"{self.url}/chat/completions", json=body, headers=headers, timeout=60)


def write_door_policies(folder: Path, chat_url: str, faulty_url: str) -> tuple[Path, ...]:
    prices = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}
    good = [
        {"name": name, "model": f"openai/up-{name}", "api_base": chat_url, "capabilities": CAPABILITIES}
        | {"prices": prices}
        for name in NAMES
    ]
    common = {"api_base": faulty_url, "retries": 0, "break_after": 1000, "timeout_s": 20}
    bad = [{"name": f"fault-{fault}", "model": f"openai/{fault}", **common} for fault in FAULTS]
    bad += [{"name": name, "model": f"openai/{name}", **common, "api_base": chat_url} for name in ("flaky", "down")]
    plain: dict[str, Any] = {"probe": None, "safe_default": "fault-ok"}
    first, second, last = ({"name": name, **common} for name in ("first", "second", "last"))
    falls = [
        first | {"model": "openai/500@falls", "probe_model": "small"},
        second | {"model": "openai/ok@falls", "probe_model": "large"},
    ]
    cheap = {"kind": "gain", "thresholds": [0.99]}
    # Longer than any deadline of a test.
    slow = {"timeout_s": 60, "first_token_timeout_s": 60}
    stalls = [
        first | {"model": "openai/slow-first-token@stalls", "probe_model": "small"} | slow,
        second | {"model": "openai/ok@stalls", "probe_model": "large"} | slow,
    ]
    breaks = [first | {"model": "openai/reset@breaks"}, last | {"model": "openai/ok@breaks"}]
    fixed = {"kind": "fixed", "candidate": "first"}
    return (
        write_policy(
            folder,
            candidates=good,
            rule={"kind": "gain", "thresholds": [0.35]},
            profiles={"economy": {"rule": {"kind": "gain", "thresholds": [0.9]}}},
        ),
        write_policy(folder, name="faults", candidates=bad, rule={"kind": "fixed", "candidate": "fault-ok"}, **plain),
        write_policy(folder, name="falls", candidates=falls, safe_default="first", rule=cheap),
        write_policy(folder, name="stalls", candidates=stalls, safe_default="first", rule=cheap),
        write_policy(folder, name="breaks", candidates=breaks, probe=None, safe_default="first", rule=fixed),
    )


def hello(text: str = "Grüße, 你好 \u2028 \U0001f600") -> list[Any]:
    return [{"role": "user", "content": text}]
