"""Serve in several worker processes on one port (`elle serve --workers N`), which a parent keeps alive.

The kernel spreads *connections* over the workers (SO_REUSEPORT). A client with one connection has one worker, so
clients that send many requests should open several connections or use a load balancer. A worker listens once it has
loaded everything. The parent serves nothing itself; it replaces a worker that ends or is silent for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import math
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType
from typing import TYPE_CHECKING

from probes.shards.processes import obey_parent_only
from router.deciding.cores import usable_cores
from router.errors import ConfigError, RouterError
from router.observing.catalogue import WORKER_RESTARTS
from router.observing.logs import configure_logging
from router.observing.tally import Snapshot
from router.observing.totals import Totals
from router.serving.backlog import authority, reserved_port
from router.serving.event_loop import run_in_event_loop
from router.serving.reloading.hangup import on_hangup
from router.serving.reports import ReportSender, WorkerReports
from router.serving.settings import ServerSettings

if TYPE_CHECKING:
    from router.serving.server import RunningService
from router.sharing.private_state import private_state
from router.sharing.session_table import shared_block

log = logging.getLogger(__name__)

#: Seconds that a worker may take to load before its start counts as failed.
START_S = 120.0

#: Seconds from when a worker serves to the start of the next one, at least. They double, up to the second number, with
#: each worker in a row that does not become ready.
RESTART_S, LONGEST_RESTART_S = 1.0, 30.0

#: Seconds between two signs of life that a worker's event loop sends to the parent.
HEARTBEAT_S = 0.5

#: Longest time in seconds that the parent waits for news before it looks at the clock.
_POLL_S = 0.2

#: What a worker tells its parent: that it is ready, that it is alive, or that it cannot serve, followed by the reason.
_READY, _ALIVE, _FAILED = b"+", b".", b"!"

#: Called with the addresses of gRPC, of HTTP and of the operator's page, or None, once all workers are ready.
OnReady = Callable[[str, str | None, str | None], None]


def serve_workers(
    settings: ServerSettings, n_workers: int, on_ready: OnReady, *, worker_timeout_s: float = 10.0
) -> None:
    """Serve in `n_workers` processes until SIGTERM or SIGINT, then let each of them drain.

    A worker that dies is replaced, and so is a worker whose event loop is silent for `worker_timeout_s` seconds. SIGHUP
    is handed on to every worker, each of which then reloads for itself.

    Raises ConfigError if the port is occupied or the first workers cannot start.
    """
    with contextlib.ExitStack() as held:
        port = held.enter_context(reserved_port(settings.host, settings.port, "--port"))
        http_port = 0
        if settings.http:
            http_port = held.enter_context(reserved_port(settings.host, settings.http_port, "--http"))
        threads = settings.threads or max(1, usable_cores() // n_workers)
        shared = dataclasses.replace(settings, port=port, http_port=http_port, threads=threads, share_port=True)
        state = settings.state or (held.enter_context(private_state()) if settings.identity.is_on else None)
        block = shared_block(settings.max_sessions, None if state is None else state.key())
        shared = dataclasses.replace(shared, workers=n_workers, state=state, shared_sessions=block)
        pool = _WorkerPool(shared, n_workers, worker_timeout_s)
        admin_address = None
        if settings.is_watched:
            from router.serving.watching.admin_port import showing_all

            admin_address = held.enter_context(showing_all(settings, pool.totals, pool.try_prompt))
        on_hangup(pool.on_hangup)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, pool.on_signal)
        try:
            pool.start()
            if not pool.is_stopping:
                http_address = authority(settings.host, http_port) if settings.http else None
                on_ready(authority(settings.host, port), http_address, admin_address)
            pool.watch()
        finally:
            pool.stop()
            pool.join()


class _Worker:
    """Represents one worker process in its parent: how it ends, what it reports, and when it was last heard of.

    Attributes:
        process: the process.
        is_ready, ready_at: whether it serves, and since when.
        problem: why it cannot serve, in its own words; empty if it has said nothing.
        heard_at: when it last sent a sign of life, or was started; by the monotonic clock, as all times here.
        reports: what it has counted.
        knows_since: the time since when nothing was changed that it does not know of.
    """

    def __init__(self, context: multiprocessing.context.SpawnContext, settings: ServerSettings, name: str) -> None:
        self._pipe, theirs = context.Pipe(duplex=False)
        reports, their_reports = context.Pipe()
        self.process: SpawnProcess = context.Process(target=_work, args=(settings, theirs, their_reports), name=name)
        self.process.start()
        theirs.close()
        their_reports.close()
        self.reports = WorkerReports(reports)
        self.is_ready, self.ready_at = False, math.inf
        self.problem = ""
        self.heard_at = self.knows_since = time.monotonic()
        os.set_blocking(self._pipe.fileno(), False)

    @property
    def events(self) -> list[int]:
        """The file descriptors that become readable when the worker sends something or ends."""
        return [self.process.sentinel] + ([] if self._pipe.closed else [self._pipe.fileno()])

    def listen(self) -> None:
        """Read what the worker has sent: that it is ready, that it is alive, or why it cannot serve."""
        while not self._pipe.closed:
            try:
                heard = os.read(self._pipe.fileno(), 65536)
            except BlockingIOError:
                return
            if not heard:
                self._pipe.close()
                return
            self.heard_at = time.monotonic()
            signs, failed, problem = heard.partition(_FAILED)
            if _READY in signs:
                self.is_ready, self.ready_at = True, self.heard_at
            self.problem += problem.decode(errors="replace") if failed or self.problem else ""

    def close(self) -> None:
        """Wait until the worker process has ended, and close the pipes to it."""
        self.process.join()
        self._pipe.close()
        self.reports.close()


@dataclasses.dataclass
class _Slot:
    """The place of one worker: if the worker ends, another one is started in the same slot."""

    number: int
    worker: _Worker | None = None
    #: When the next worker is to be started.
    due_at: float = 0.0
    #: How many workers in a row did not become ready.
    failures: int = 0

    @property
    def name(self) -> str:
        return f"elle-worker-{self.number}"

    def wait_s(self, served_s: float) -> float:
        """Return the seconds until the next worker is started, after one that served for so long or, below 0, never."""
        return max(0.0, min(RESTART_S * 2.0**self.failures, LONGEST_RESTART_S) - max(0.0, served_s))


class _WorkerPool:
    """Starts, replaces and stops the workers of one service.

    Attributes:
        totals: what all workers have counted.
    """

    def __init__(self, settings: ServerSettings, n_workers: int, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._slots = [_Slot(number) for number in range(n_workers)]
        self._stopped_at: float | None = None
        self._polled_at = time.monotonic()
        self._last_problem = ""
        self._restarts: Counter[str] = Counter()
        self.totals = Totals()
        self.totals.follow("parent", self._counts)
        self._hangup_at = float("-inf")

    @property
    def is_stopping(self) -> bool:
        return self._stopped_at is not None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.is_stopping and number == signal.SIGINT:
            # A second Ctrl-C means that somebody at the terminal will not wait: workers are killed at once.
            self._stopped_at = float("-inf")
        self.stop()

    def on_hangup(self) -> None:
        self._hangup_at = time.monotonic()

    def start(self) -> None:
        """Start all workers, the first one alone. Raises ConfigError with the problem of one that cannot serve."""
        # The first worker starts alone, because it may have to export the encoder, which the others then load.
        for slots in (self._slots[:1], self._slots[1:]):
            for slot in slots:
                self._start_one(slot)
            while not self.is_stopping and not all(slot.worker and slot.worker.is_ready for slot in slots):
                self._poll()
                for slot in slots:
                    if slot.worker is None or slot.worker.problem:
                        raise ConfigError(self._problem_of(slot))

    def watch(self) -> None:
        while not self.is_stopping:
            self._poll()
            for slot in self._slots:
                if slot.worker is None and time.monotonic() >= slot.due_at and not self.is_stopping:
                    self._start_one(slot)

    def stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        for slot in self._slots:
            if slot.worker is not None and slot.worker.process.is_alive():
                slot.worker.process.terminate()

    def join(self) -> None:
        for slot in self._slots:
            if (worker := slot.worker) is None:
                continue
            while worker.process.is_alive():
                # Workers end in time by themselves, unless they are stopped or hang. The deadline is read anew in each
                # step, because a second SIGINT moves it.
                if time.monotonic() > (self._stopped_at or 0.0) + self._settings.drain_s + _POLL_S:
                    log.error("worker %d did not end in time; killing it", worker.process.pid)
                    worker.process.kill()
                worker.process.join(_POLL_S)
            worker.close()

    def _start_one(self, slot: _Slot) -> None:
        settings = dataclasses.replace(self._settings, worker=slot.number)
        slot.worker = _Worker(self._context, settings, slot.name)
        self.totals.follow(slot.name, slot.worker.reports.latest)

    def try_prompt(self, request: bytes) -> bytes:
        """Let any worker that is ready try a prompt, and return its answer."""
        for slot in self._slots:
            if (worker := slot.worker) is not None and worker.is_ready:
                with contextlib.suppress(TimeoutError, OSError):
                    return worker.reports.try_prompt(request)
        return b'{"error": "no worker answers now; try again in a few seconds."}'

    def _counts(self) -> Snapshot:
        """Return how many workers were replaced, by how they ended."""
        return Snapshot({WORKER_RESTARTS.name: {(how,): float(n) for how, n in self._restarts.items()}})

    def _poll(self) -> None:
        """Wait a little for news, and note which workers are ready, have ended, or are silent for too long."""
        workers = [slot.worker for slot in self._slots if slot.worker is not None]
        wait([event for worker in workers for event in worker.events], timeout=_POLL_S)
        if self.is_stopping:  # Workers end because they were told to.
            return
        now = time.monotonic()
        # If the parent was stopped for a while, its workers may have been stopped too, and are no more silent than it.
        was_stopped = now - self._polled_at > self._timeout_s / 2
        self._polled_at = now
        for slot in self._slots:
            if (worker := slot.worker) is None:
                continue
            worker.listen()
            worker.heard_at = max(worker.heard_at, now) if was_stopped else worker.heard_at
            if not worker.process.is_alive():
                self._replace(slot, worker, "died", f"ended with status {worker.process.exitcode}")
            elif now - worker.heard_at > (self._timeout_s if worker.is_ready else START_S):
                worker.process.kill()
                self._replace(slot, worker, "silent", f"was silent for {now - worker.heard_at:.0f} s and was killed")
            elif worker.is_ready:
                slot.failures = 0
                # A worker that still loads would end of the signal, so it gets it when it is ready.
                if worker.knows_since < self._hangup_at and (pid := worker.process.pid) is not None:
                    worker.knows_since = self._hangup_at
                    os.kill(pid, signal.SIGHUP)

    def _replace(self, slot: _Slot, worker: _Worker, how: str, words: str) -> None:
        """Note that a worker has ended, and when the next one is to start in its slot."""
        worker.process.join()
        worker.listen()
        log.error("worker %d %s; starting another. %s", worker.process.pid, words, worker.problem)
        self._restarts[how] += 1
        slot.failures += not worker.is_ready
        now = time.monotonic()
        slot.due_at = now + slot.wait_s(now - worker.ready_at)
        slot.worker, self._last_problem = None, worker.problem or f"a worker {words} while starting; see the log."
        worker.close()
        self.totals.note_end(slot.name)

    def _problem_of(self, slot: _Slot) -> str:
        return slot.worker.problem if slot.worker is not None else self._last_problem


def _work(settings: ServerSettings, parent: Connection, reports: Connection) -> None:
    """Serve as one worker process, and tell the parent when it is ready, that it is alive, or why it cannot serve."""
    # The event loop itself keeps only weak references to tasks.
    heartbeats: list[asyncio.Task[None]] = []
    senders: list[ReportSender] = []

    def on_ready(running: RunningService) -> None:
        os.set_blocking(parent.fileno(), False)
        os.write(parent.fileno(), _READY)
        heartbeats.append(asyncio.get_running_loop().create_task(_send_heartbeats(parent.fileno())))
        senders.append(ReportSender(reports, running.tally, running.try_prompt))

    configure_logging(settings.log)
    # Without a parent a worker would hold the port for ever. Until it serves, it leaves Ctrl-C to the parent.
    obey_parent_only(lambda: os.kill(os.getpid(), signal.SIGTERM))
    # The parent does without all that decides and answers, so that it starts its workers soon.
    from probes.errors import ProbesError
    from router.serving.server import serve_forever

    try:
        run_in_event_loop(serve_forever(settings, on_ready))
    except (RouterError, ProbesError) as error:
        # The parent may have been killed meanwhile.
        with contextlib.suppress(OSError):
            os.write(parent.fileno(), _FAILED + str(error).encode(errors="replace"))
        raise SystemExit(1) from error
    for sender in senders:
        sender.close()


async def _send_heartbeats(parent: int) -> None:
    """Send signs of life to the parent process for ever. They come from the event loop, so they stop if it hangs."""
    while True:
        # If the parent is stopped the pipe fills up; if it was killed, `obey_parent_only` notices.
        with contextlib.suppress(OSError):
            os.write(parent, _ALIVE)
        await asyncio.sleep(HEARTBEAT_S)
