"""Run coroutines beside the caller: as a task (`in_background`), or in a thread with a loop of its own (`LoopThread`).

The thread is for a library that may block the loop it is called in.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")

#: Items of a stream that the thread may be ahead of who reads them.
_AHEAD = 32

#: Threads for what blocks inside the loop's thread in its turn. Started when needed.
_IO_THREADS = 64

#: Seconds that its tasks may take to end when the thread is closed.
_FAREWELL_S = 5.0


@contextlib.asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run a coroutine while the context lasts, then cancel it and wait until it has ended."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


class LoopThread:
    """A thread with an event loop that runs a library's coroutines apart from the caller's loop and hands over results.

    The caller's loop only waits: whatever the library imports, looks up or computes holds up nobody else there. It is a
    daemon thread: code that never returns does not keep the process alive.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(_IO_THREADS, thread_name_prefix=name))
        self._thread = threading.Thread(target=self._loop.run_forever, name=name, daemon=True)
        self._thread.start()

    async def call(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return what the coroutine returns, or raise what it raises. Cancelling the call cancels the coroutine."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(_in_loop(work), self._loop))

    async def stream(self, work: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """Yield what the generator yields, at most `_AHEAD` items ahead. Closing this closes the generator."""
        ours = asyncio.get_running_loop()
        # Items travel in tuples, because None says that the stream has ended.
        items: asyncio.Queue[tuple[T] | None] = asyncio.Queue()
        # Only the thread's loop acquires and releases it, so a slow reader holds the library up and fills no memory.
        room = asyncio.Semaphore(_AHEAD)

        async def pump() -> None:
            async with contextlib.aclosing(work()) as found:
                async for item in found:
                    ours.call_soon_threadsafe(items.put_nowait, (item,))
                    await room.acquire()

        def ended(_: Future[None]) -> None:
            # A loop that was closed has nobody waiting in it.
            with contextlib.suppress(RuntimeError):
                ours.call_soon_threadsafe(items.put_nowait, None)

        pumping = asyncio.run_coroutine_threadsafe(pump(), self._loop)
        pumping.add_done_callback(ended)
        try:
            while (item := await items.get()) is not None:
                self._loop.call_soon_threadsafe(room.release)
                yield item[0]
            # The end may be an error, which is raised here.
            pumping.result()
        finally:
            pumping.cancel()

    async def aclose(self, farewell: Callable[[], Coroutine[Any, Any, None]] | None = None) -> None:
        """Cancel the calls in flight, run `farewell` in the loop, and end the thread, within `_FAREWELL_S` seconds."""

        async def end() -> None:
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if farewell is not None:
                await farewell()

        if self._thread.is_alive() and not self._loop.is_closed():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_FAREWELL_S):
                    await self.call(end)
            self._loop.call_soon_threadsafe(self._loop.stop)
            await asyncio.to_thread(self._thread.join, _FAREWELL_S)
        # A loop that still runs cannot be closed. Its thread is a daemon, and ends with the process.
        if not self._thread.is_alive():
            self._loop.close()


async def _in_loop(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # So that what `work` does before its coroutine exists happens in the thread too.
    return await work()
