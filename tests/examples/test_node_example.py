"""The Node client of examples/node talks to a real service with the protos of this repository."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from router.client import RouterClient
from tests.conftest import ROOT

EXAMPLE = ROOT / "examples" / "node"
PROMPT = "Which of the following is a prime number? A. 21 B. 33 C. 37 D. 51"


def run_client(*arguments: str) -> subprocess.CompletedProcess[str]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("node is not installed")
    if not (EXAMPLE / "node_modules" / "@grpc").is_dir():
        pytest.skip("the example's packages are not installed; run `npm ci --ignore-scripts` in examples/node")
    command = [node, str(EXAMPLE / "client.js"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_node_gets_the_decision_python_gets_then_an_error_with_details_then_a_stream(address, client: RouterClient):
    done = run_client(address, PROMPT)
    assert done.returncode == 0, done.stderr
    decision, error, answer = done.stdout.splitlines()
    expected = client.route(PROMPT)
    got = json.loads(decision)
    assert (got["chosen"], got["reason"]) == (expected.chosen, f"REASON_{expected.reason.value}")
    assert got["risks"] == {row.candidate: row.risk for row in expected.candidates}
    told = json.loads(error)
    assert "'nobody'" in told.pop("message")
    assert told == {"pinned": "nobody", "code": "INVALID_ARGUMENT", "hasDetails": True}
    assert answer.startswith("[canned answer")
    assert expected.chosen_model.partition("/")[2] in answer


def test_node_is_told_when_nobody_listens():
    done = run_client("127.0.0.1:1")
    assert done.returncode == 1
    assert done.stderr.startswith("UNAVAILABLE")
    assert "at 127.0.0.1:1. Start one by `elle serve`" in done.stderr
