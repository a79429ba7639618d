"""Tests of the OpenAI door with the HTTP client of Java, which offers HTTP/2 with every request."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.gateways.openai_door.door_stack import Stack, hello

JAVA = shutil.which("java")


@pytest.mark.skipif(JAVA is None, reason="no java on this machine")
def test_the_default_client_of_java_is_answered(stack: Stack, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps({"model": "elle/test", "messages": hello()}), "utf-8")
    program = ROOT / "tests" / "gateways" / "java" / "Chat.java"
    command = [str(JAVA), "-XX:TieredStopAtLevel=1", str(program), stack.url, str(body)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = [line.split(" ", 3) for line in done.stdout.splitlines()]
    whats = [what for what, _, _, _ in found]
    assert whats == ["models", "chat", "stream", "error", "chunked", "continue", *["many"] * 8]
    for what, version, status, text in found:
        assert (what, version, int(status)) == (what, "HTTP_1_1", 400 if what == "error" else 200)
        if what == "stream":
            assert text.endswith("data: [DONE]")
            assert '"elle"' in text
        elif what == "error":
            assert json.loads(text)["error"]["param"]
        elif what != "models":
            assert json.loads(text)["choices"][0]["message"]["content"].startswith("up-")
    assert len(stack.chat.sent) == len(found) - 2
