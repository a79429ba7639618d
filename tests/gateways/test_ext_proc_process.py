"""Tests of the external processor as a process of its own: it is killed, set up and asked who it is."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
import yaml
from click.testing import CliRunner
from google.protobuf import descriptor_pool

from router.cli.main import cli
from router.errors import GatewayNotInstalledError
from router.gateways.ext_proc import SERVICE_NAME, ExternalProcessor
from router.policies.loading import EXAMPLE_POLICY
from tests.conftest import ROOT
from tests.gateways.envoy import EXAMPLE, cluster, listener, running_envoy, wait_until_idle
from tests.gateways.envoy_chat import NAMES, chat
from tests.gateways.loopback import running_upstream

pytest.importorskip("envoy.service")


@pytest.mark.usefixtures("_real_encoder")
def test_answers_outlive_a_killed_router_and_new_requests_are_refused_or_passed_on_as_envoy_was_told(tmp_path):
    config = yaml.safe_load(EXAMPLE.read_text("utf-8"))
    code = "from router.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--policy", str(EXAMPLE_POLICY), "--port", "0", "--ext-proc"]
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT))
        stack.callback(process.kill)
        address = next(line.split()[-1] for line in process.stderr if line.startswith("serving"))
        threading.Thread(target=process.stderr.read, daemon=True).start()
        upstreams, clusters = {}, [cluster(config, "elle-router", "elle-router", address)]
        for name in NAMES:
            upstreams[name], url = stack.enter_context(running_upstream(name))
            clusters.append(cluster(config, name, name, url.removeprefix("http://").removesuffix("/v1")))
        listeners = [
            listener(config, "closed", "elle-router"),
            listener(config, "open", "elle-router", failure_mode_allow=True),
        ]
        urls = stack.enter_context(running_envoy(tmp_path, listeners, clusters))
        body = chat("Why is the sky blue?") | {"model": "elle/mixtral-gpt4"}

        def ask(kind: str) -> httpx.Response:
            return httpx.post(urls[kind] + "/v1/chat/completions", json=body, timeout=60)

        alive = ask("closed")
        assert alive.status_code == 200
        assert alive.headers["x-elle-candidate"] in NAMES
        for upstream in upstreams.values():
            upstream.hurry.clear()
        with (
            ThreadPoolExecutor() as threads,
            httpx.stream(
                "POST", urls["closed"] + "/v1/chat/completions", json=body | {"stream": True}, timeout=60
            ) as begun,
        ):
            lines = (line for line in begun.iter_lines() if line)
            assert "I am" in next(lines)
            awaited = threads.submit(ask, "closed")
            other = threads.submit(httpx.post, urls["closed"] + "/v1/embeddings", json=body, timeout=60)
            while sum(len(upstream.seen) for upstream in upstreams.values()) < 4:
                time.sleep(0.01)
            # The router's part is over with its decision, which is all that the answers still had to do with it.
            wait_until_idle(urls, "elle-router")
            os.kill(process.pid, signal.SIGKILL)
            process.wait(60)
            for upstream in upstreams.values():
                upstream.gate.set()
                upstream.hurry.set()
            assert list(lines)[-1] == "data: [DONE]"
            assert awaited.result().headers["x-elle-candidate"] == alive.headers["x-elle-candidate"]
            assert (awaited.result().status_code, other.result().status_code) == (200, 200)
        for upstream in upstreams.values():
            upstream.seen.clear()
        refused = ask("closed")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "router_unavailable")
        assert not any(upstream.seen for upstream in upstreams.values())
        assert ask("open").status_code == 200
        # Nobody is left to rewrite the model: the last route's upstream gets what the client sent.
        assert json.loads(upstreams[NAMES[0]].seen[0].body)["model"] == "elle/mixtral-gpt4"


def test_without_envoys_protos_the_option_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "envoy.service.ext_proc.v3.external_processor_pb2", None)
    with pytest.raises(GatewayNotInstalledError, match=r"elle-router\[envoy\]"):
        ExternalProcessor()
    done = CliRunner().invoke(cli, ["serve", "--ext-proc", "open"])
    assert done.exit_code == 1
    assert "elle-router[envoy]" in done.output


def test_worker_processes_get_it_as_it_was_set():
    copy = pickle.loads(pickle.dumps(ExternalProcessor("open")))  # noqa: S301  (our own)
    assert copy.__reduce__() == (ExternalProcessor, ("open",))


def test_reflection_knows_the_service():
    ExternalProcessor()
    assert descriptor_pool.Default().FindServiceByName(SERVICE_NAME).methods_by_name["Process"]
