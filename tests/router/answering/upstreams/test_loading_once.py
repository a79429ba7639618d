"""LiteLLM is imported by one thread at a time: two at once see each other's modules half made."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT

CODE = """
import asyncio, importlib, threading, time
from router.answering.upstream import Upstream

real, lock, busy, most = importlib.import_module, threading.Lock(), set(), 0

def watched(name, package=None):
    global most
    thread = threading.get_ident()
    # LiteLLM imports itself by this name too, in the same thread.
    if name != "litellm" or thread in busy:
        return real(name, package)
    with lock:
        busy.add(thread)
        most = max(most, len(busy))
    time.sleep(0.3)
    try:
        return real(name, package)
    finally:
        with lock:
            busy.remove(thread)

importlib.import_module = watched

async def main():
    upstream, other = Upstream(), Upstream()
    first = asyncio.create_task(upstream.load())
    await asyncio.sleep(0.1)
    first.cancel()  # as the deadline of a request does; the thread goes on
    await asyncio.gather(upstream.load(), other.load())
    await upstream.aclose()
    await other.aclose()

asyncio.run(main())
print(most)
"""


def test_a_request_that_gives_up_while_it_is_imported_does_not_make_another_import_it_twice() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1"
