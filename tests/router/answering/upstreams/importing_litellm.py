"""A program that imports LiteLLM in all the ways that can go wrong, and prints as JSON what came of each.

One process for all of them, because an import takes seconds, and in a process of tests it has happened long ago.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import importlib.abc
import json
import sys
import threading
import time
from typing import Any

from router.answering.reading.call_notes import CallNotes
from router.answering.upstream import Upstream
from router.answering.upstreams.litellm_import import import_litellm
from router.answering.upstreams.litellm_upstream import LiteLLMUpstream, error_of_status
from router.errors import DispatchError, DispatchNotInstalledError
from router.policies.candidates.candidate import Candidate
from router.values import RouteQuery
from tests.raw_server import raw_server

#: LiteLLM has imported most of itself when it comes to this module.
LATE_MODULE = "litellm.main"


class Finder(importlib.abc.MetaPathFinder):
    """Finds nothing. When the late module is looked for, it raises an error, or else says that the import has begun."""

    error: Exception | None = None

    def __init__(self) -> None:
        self.has_begun = threading.Event()

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name != LATE_MODULE:
            return
        if self.error is not None:
            raise self.error
        self.has_begun.set()
        time.sleep(0.2)


class WatchedImports:
    """Stands for `importlib.import_module`, and counts the threads that import LiteLLM at the same time.

    Attributes:
        most: the largest number of such threads.
        full_passes: how often the garbage collector looked through everything meanwhile.
    """

    def __init__(self) -> None:
        self._real, self._lock = importlib.import_module, threading.Lock()
        self._busy: set[int] = set()
        self.most = self.full_passes = 0
        gc.callbacks.append(self._note_pass)

    def _note_pass(self, phase: str, info: dict[str, int]) -> None:
        self.full_passes += phase == "start" and info["generation"] == 2 and len(self._busy) > 0

    def __call__(self, name: str, package: str | None = None) -> Any:
        thread = threading.get_ident()
        # LiteLLM imports itself by this name too, in the same thread.
        if name != "litellm" or thread in self._busy:
            return self._real(name, package)
        with self._lock:
            self._busy.add(thread)
            self.most = max(self.most, len(self._busy))
        time.sleep(0.3)
        try:
            return self._real(name, package)
        finally:
            with self._lock:
                self._busy.remove(thread)


def fail(finder: Finder) -> dict[str, Any]:
    """Let two imports of LiteLLM fail. Return the messages of the errors, and which of its modules stayed loaded."""
    said, left = [], []
    for error in (ModuleNotFoundError("no", name="some.package"), MemoryError("no room")):
        finder.error = error
        try:
            import_litellm()
        except DispatchNotInstalledError as found:
            said.append(found.message)
        left += [name for name in sys.modules if name.partition(".")[0] == "litellm"]
    finder.error = None
    return {"said": said, "left": left}


async def load_twice(finder: Finder) -> dict[str, Any]:
    """Import LiteLLM for a request that gives up, for two others, and while a thread has imported half of it."""
    upstream, other = Upstream(), Upstream()
    first = asyncio.create_task(upstream.load())
    await asyncio.to_thread(finder.has_begun.wait, 60)
    # As the deadline of a request does; the thread goes on. Now there is a module `litellm` without `acompletion`.
    first.cancel()
    seen = asyncio.create_task(asyncio.to_thread(import_litellm))
    await asyncio.gather(upstream.load(), other.load())
    litellm = await seen
    await upstream.aclose()
    await other.aclose()
    messages = [{"role": "user", "content": "hi"}]
    answer = await litellm.acompletion(model="openai/x", messages=messages, mock_response="hello")
    return {
        "whole": hasattr(litellm, "acompletion") and litellm is sys.modules["litellm"],
        "answer": answer.choices[0].message.content,
    }


async def _serve_error(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
    body = b'{"error": {"message": "' + b"lorem ipsum dolor " * 5000 + b'"}}'
    writer.write(b"HTTP/1.1 500 Broken\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
    await writer.drain()


async def get_errors() -> dict[str, Any]:
    """Ask an upstream that fails; return the errors, and the lengths of the texts that were searched for keys."""
    import httpx
    from litellm.litellm_core_utils import secret_redaction

    searched: list[int] = []
    secret_redaction.python_redact_string = lambda text: searched.append(len(text)) or text
    asked = LiteLLMUpstream()
    async with raw_server(_serve_error) as port:
        candidate = Candidate(name="c", model="hosted_vllm/x", api_base=f"http://127.0.0.1:{port}/v1")
        try:
            await asked.complete(candidate, candidate.api_base, RouteQuery.from_prompt("hello"), CallNotes())
        except DispatchError as error:
            status = error.http_status
        response = httpx.Response(500, text="lorem " * 5000, request=httpx.Request("POST", "http://x.invalid"))
        kind = type(await error_of_status(candidate, response)).__name__
    await asked.aclose()
    return {"status": status, "kind": kind, "searched": searched}


def main() -> None:
    finder, watched = Finder(), WatchedImports()
    sys.meta_path.insert(0, finder)
    report: dict[str, Any] = {"failed": fail(finder)}
    importlib.import_module = watched
    report["loaded"] = asyncio.run(load_twice(finder)) | {"most": watched.most}
    looked_at = len(gc.get_objects())
    report["collected"] = {"on": gc.isenabled(), "full_passes": watched.full_passes, "looked_at": looked_at}
    report["collected"]["exempt"] = gc.get_freeze_count()
    report["errors"] = asyncio.run(get_errors())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
