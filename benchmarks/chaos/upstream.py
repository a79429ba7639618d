"""Be an upstream on loopback that answers, fails or is away, as it is told (`Upstream`)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import Iterator

from benchmarks.bench_http import ANSWER

_HEAD = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"


class Upstream:
    """Answers in a thread of its own. `mode` is `good`, `failing` (status 500) or `away` (connections are cut)."""

    def __init__(self) -> None:
        self.mode, self.url = "good", ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="upstream", daemon=True)

    @contextlib.contextmanager
    def serving(self) -> Iterator[Upstream]:
        """Serve for as long as the context lasts."""
        self._thread.start()
        self._ready.wait()
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()

    def _run(self) -> None:
        server = self._loop.run_until_complete(asyncio.start_server(self._answer, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        self._ready.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        good = json.dumps(ANSWER).encode()
        bad = b'{"error":{"message":"out of order","type":"server_error"}}'
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            while self.mode != "away":
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                await reader.readexactly(int(head.partition(b"content-length:")[2].partition(b"\r\n")[0]))
                if self.mode == "away":
                    break
                status, body = (b"200 OK", good) if self.mode == "good" else (b"500 Broken", bad)
                writer.write(_HEAD % (status, len(body)) + body)
                await writer.drain()
        writer.close()
