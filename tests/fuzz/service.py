"""Serve what is fuzzed, in a process of its own: gRPC with Envoy's processor, and HTTP, on a fake encoder.

`python -m tests.fuzz.service FOLDER UPSTREAM_URL` prints `{"grpc": ADDRESS, "http": ADDRESS}` and serves until its
standard input ends. What it logs goes to standard error.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any

from router.answering.upstreams.litellm_import import import_litellm
from router.deciding import pipeline
from router.gateways.ext_proc import ExternalProcessor
from router.gateways.http.http_gateway import HttpGateway
from router.serving.event_loop import run_in_event_loop
from router.serving.server import serving
from router.serving.settings import ServerSettings
from tests.fakes import FakeEncoder, write_policy

PRICES = {"input_usd_per_million_tokens": 1.0, "output_usd_per_million_tokens": 10.0}


def policies(folder: Path, upstream_url: str) -> tuple[Path, ...]:
    """Write the policies of `values.POLICIES`, and three for random answers, whose candidates hardly ever rest."""
    common = {"api_base": upstream_url, "retries": 0, "break_after": 10**6, "timeout_s": 20}
    able = common | {"capabilities": ["text", "image", "tools", "json_schema", "audio"], "prices": PRICES}
    both = [{"name": name, "model": f"openai/{name}", **able} for name in ("small", "large")]
    only = [{"name": "only", "model": "openai/only", "regions": ["eu"], "context_window_tokens": 5000, **common}]
    odd = [row | {"model": f"openai/odd-{row['name']}", "cooldown_s": 1e-6} for row in both]
    # These are called by LiteLLM, and not with the caller's own body.
    translated = [row | {"model": f"hosted_vllm/{row['name']}", "cooldown_s": 1e-6} for row in both]
    claude = [
        row | {"model": f"anthropic/{row['name']}", "cooldown_s": 1e-6, "api_base": upstream_url.removesuffix("/v1")}
        for row in both
    ]
    economy = {"economy": {"rule": {"kind": "gain", "thresholds": [0.9]}}}
    fixed = {"kind": "fixed", "candidate": "only"}
    return (
        write_policy(folder, name="main", candidates=both, profiles=economy),
        write_policy(folder, name="fixed", candidates=only, rule=fixed, safe_default="only", probe=None),
        write_policy(folder, name="odd", candidates=odd),
        write_policy(folder, name="translated", candidates=translated),
        write_policy(folder, name="claude", candidates=claude),
    )


def settings(folder: Path, upstream_url: str) -> ServerSettings:
    """Run a service on free ports with every door."""
    return ServerSettings(
        policies=policies(folder, upstream_url),
        port=0,
        drain_s=1,
        doors=(ExternalProcessor(),),
        http=HttpGateway(max_body_bytes=4 * 1024 * 1024),
    )


async def _serve(folder: Path, upstream_url: str) -> None:
    encoder: Any = FakeEncoder()
    pipeline.load_encoder = lambda *_: encoder  # type: ignore[assignment]
    async with serving(settings(folder, upstream_url)) as running:
        # The first answers wait for it, on a busy machine longer than the fuzzer does.
        await asyncio.to_thread(import_litellm)
        print(json.dumps({"grpc": running.address, "http": running.http_address}), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s %(message)s")
    for noisy in ("httpx", "LiteLLM", "asyncio", "aiohttp"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    run_in_event_loop(_serve(Path(sys.argv[1]), sys.argv[2]))
