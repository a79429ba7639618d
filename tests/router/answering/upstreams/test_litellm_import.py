"""LiteLLM is imported whole or not at all, and nobody sees it while it is half imported."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

CODE = """
import asyncio, importlib.abc, sys, threading, time
from router.answering.upstreams.litellm_import import import_litellm
from router.errors import DispatchNotInstalledError

class Broken(importlib.abc.MetaPathFinder):
    error = None
    def find_spec(self, name, path=None, target=None):
        # LiteLLM has imported most of itself when it comes to this module.
        if name == "litellm.main" and self.error is not None:
            raise self.error
        return None

broken = Broken()
sys.meta_path.insert(0, broken)
for error in (ModuleNotFoundError("no", name="some.package"), MemoryError("no room")):
    broken.error = error
    try:
        import_litellm()
    except DispatchNotInstalledError as found:
        print(found.message)
    left = [name for name in sys.modules if name.partition(".")[0] == "litellm"]
    assert not left, left
broken.error = None

begun, seen = threading.Event(), []

class Begin(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "litellm.main":
            begun.set()
            time.sleep(0.2)
        return None

sys.meta_path.insert(0, Begin())
thread = threading.Thread(target=import_litellm)
thread.start()
assert begun.wait(60)
# Now there is a module `litellm`, which has no `acompletion` yet.
litellm = import_litellm()
print(hasattr(litellm, "acompletion"), litellm is sys.modules["litellm"])
thread.join()
answer = asyncio.run(litellm.acompletion(
    model="openai/x", messages=[{"role": "user", "content": "hi"}], mock_response="hello"))
print(answer.choices[0].message.content)
"""


def test_an_import_that_fails_does_not_spoil_the_next_one_and_others_wait_for_the_whole() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "answering needs LiteLLM, whose package some.package is not installed.",
        "answering needs LiteLLM, which is installed but cannot be imported; the log says why.",
        "True True",
        "hello",
    ]


ERROR = """
import asyncio
from router.answering.upstreams.litellm_import import import_litellm
from router.answering.upstreams.litellm_upstream import LiteLLMUpstream, error_of_status
from router.answering.reading.call_notes import CallNotes
from router.errors import DispatchError
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery
from tests.raw_server import raw_server

import_litellm()
import httpx
from litellm.litellm_core_utils import secret_redaction
searched = []
secret_redaction.python_redact_string = lambda text: searched.append(len(text)) or text

async def serve(reader, writer):
    head = await reader.readuntil(b"\\r\\n\\r\\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\\r\\n")[0]))
    body = b'{"error": {"message": "' + b"lorem ipsum dolor " * 5000 + b'"}}'
    writer.write(b"HTTP/1.1 500 Broken\\r\\ncontent-length: %d\\r\\n\\r\\n" % len(body) + body)
    await writer.drain()

async def main():
    asked = LiteLLMUpstream()
    async with raw_server(serve) as port:
        candidate = Candidate(name="c", model="hosted_vllm/x", api_base=f"http://127.0.0.1:{port}/v1")
        try:
            await asked.complete(candidate, candidate.api_base, RouteQuery.from_prompt("hello"), CallNotes())
        except DispatchError as error:
            print(error.http_status)
        response = httpx.Response(500, text="lorem " * 5000, request=httpx.Request("POST", "http://x.invalid"))
        print(type(await error_of_status(candidate, response)).__name__)
    await asked.aclose()

asyncio.run(main())
print(searched)
"""


def test_errors_are_not_searched_for_keys_by_litellm_which_takes_long_steps() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ERROR], capture_output=True, text=True, cwd=ROOT, check=False, timeout=300
    )
    assert done.stdout.splitlines() == ["500", "InternalServerError", "[]"], done.stdout + done.stderr
