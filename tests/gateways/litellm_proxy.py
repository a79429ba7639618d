"""Run LiteLLM's real Proxy, from the environment that `make test-litellm-proxy` makes."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.router.faults import closed_port

PROXY = ROOT / ".venv-proxy" / "bin" / "litellm"
#: The Proxy refuses to start without a key, and with a well-known one.
KEY = f"sk-{secrets.token_hex(16)}"

NEEDS_PROXY = [
    pytest.mark.slow,
    pytest.mark.skipif(not PROXY.exists(), reason="the Proxy is not installed; `make test-litellm-proxy` does that"),
]


@contextmanager
def running_proxy(config: Path, **environment: str) -> Iterator[str]:
    """Yield the URL of a Proxy with this configuration; it is asked with `KEY`."""
    port = closed_port()
    inherited = {name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "DATABASE_URL"}}
    ours = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MASTER_KEY": KEY}
    variables = {**inherited, **ours, **environment}
    command = [str(PROXY), "--config", str(config), "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    log = config.with_name("proxy.log")
    with (
        log.open("wb") as output,
        subprocess.Popen(command, env=variables, cwd=config.parent, stdout=output, stderr=output) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_for(f"{url}/health/liveliness", process, log)
            yield url
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when it answers; its start takes some 20 s."""
    give_up = time.monotonic() + 150
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if httpx.get(url, timeout=2).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise AssertionError(f"the Proxy did not start:\n{log.read_text('utf-8')[-3000:]}")
