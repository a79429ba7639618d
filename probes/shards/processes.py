"""Compute shards in several processes of this machine (`LocalProcesses`)."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import cached_property

from probes.errors import DataError
from probes.shards.work import ShardFunction, ShardWork

#: How often workers may die one after the other before a shard is finished.
_MOST_DEATHS = 3

#: Shards that wait for each worker. More would only be results that wait for the driver.
_WAITING = 2


class LocalProcesses:
    """The engine that computes shards in `n` processes of this machine with a thread each. One that dies is replaced.

    Raises DataError if n is below 1.
    """

    def __init__(self, n: int) -> None:
        if n < 1:
            raise DataError(f"the number of processes must be at least 1; got {n}.")
        self._n = n

    def results(self, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        """Compute the shards; see `Engine`. Raises DataError if workers die again and again."""
        missing, deaths = list(shards), 0
        while missing:
            before = len(missing)
            try:
                for number, result in self._computed(work, tuple(missing)):
                    missing.remove(number)
                    yield number, result
            except BrokenProcessPool as error:
                deaths = deaths + 1 if len(missing) == before else 1
                if deaths == _MOST_DEATHS:
                    raise DataError(
                        f"{deaths} times in a row a worker process was killed before it finished a shard, as happens "
                        "if memory runs out; use fewer processes. What is finished is kept."
                    ) from error

    def _computed(self, work: ShardWork, shards: Sequence[int]) -> Iterator[tuple[int, bytes]]:
        # Workers read this when they load their BLAS; several threads in each would fight for the cores.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        context = multiprocessing.get_context("spawn")
        n = min(self._n, len(shards))
        pool = ProcessPoolExecutor(n, mp_context=context, initializer=_start, initargs=(work,))
        try:
            left, running = iter(shards), dict[Future[bytes], int]()
            while True:
                for number in left:
                    running[pool.submit(_compute, number)] = number
                    if len(running) == _WAITING * n:
                        break
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    yield running.pop(future), future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class _Worker:
    """Opens the work when the first shard comes, because an error of an initializer would not reach the parent."""

    def __init__(self, work: ShardWork) -> None:
        self._work = work

    @cached_property
    def compute(self) -> ShardFunction:
        return self._work.open(1)


#: The worker that this process is.
_worker: _Worker


def _start(work: ShardWork) -> None:
    obey_parent_only(lambda: os._exit(1))
    global _worker
    _worker = _Worker(work)


def _compute(number: int) -> bytes:
    return _worker.compute(number)


def obey_parent_only(end: Callable[[], None]) -> None:
    """Let a worker process end with its parent, and not by Ctrl-C, which reaches every process of a terminal.

    end: what ends this process; it is called if the parent was killed and so could not tell its workers.
    """

    def watch() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            end()

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
