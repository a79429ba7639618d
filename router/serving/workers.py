"""`elle serve --workers N`: several serving processes on one port, kept alive by a parent that serves nothing.

The kernel spreads *connections* over them (SO_REUSEPORT): a client with one connection has one worker, so clients of
many requests should open several, or sit behind a balancer. A worker listens when it is warm, and is replaced when it
ends or is silent for too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from types import FrameType

from router.deciding.cores import usable_cores
from router.errors import ConfigError, RouterError
from router.serving import event_loop
from router.serving.ending import ignore_hangup
from router.serving.entrance import authority
from router.serving.server import ServerSettings, Serving, serve_forever

log = logging.getLogger(__name__)

#: How long a worker may take to load before the start counts as failed.
START_S = 120.0

#: A worker that ends is started again, but not faster than this; twice as late with each one that does not get ready.
RESTART_S, LONGEST_RESTART_S = 1.0, 30.0

#: How often a worker's event loop says that it is alive.
BEAT_S = 0.5

_POLL_S = 0.2

#: What a worker tells its parent: that it is ready, that it is alive, or with `_FAILED` why it cannot serve.
_READY, _ALIVE, _FAILED = b"+", b".", b"!"

Say = Callable[[str, str | None], None]


def serve_workers(settings: ServerSettings, n_workers: int, on_ready: Say, *, worker_timeout_s: float = 10.0) -> None:
    """Serve in `n_workers` processes until SIGTERM or SIGINT, then let each drain.

    `on_ready` is called with the address, and the one for HTTP or None, once all are warm. A worker that dies is
    replaced, and so is one whose event loop is silent for `worker_timeout_s`.

    Raises ConfigError for an occupied port, and whatever stopped a worker from starting.
    """
    with contextlib.ExitStack() as held:
        port = held.enter_context(_reserved_port(settings.host, settings.port))
        http_port = held.enter_context(_reserved_port(settings.host, settings.http_port)) if settings.http else 0
        threads = settings.threads or max(1, usable_cores() // n_workers)
        shared = dataclasses.replace(settings, port=port, http_port=http_port, threads=threads, share_port=True)
        crew = _Crew(shared, n_workers, worker_timeout_s)
        ignore_hangup()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, crew.on_signal)
        try:
            crew.start()
            if settings.max_sessions and not crew.stopping:
                log.warning(
                    "each worker remembers sessions for itself; clients must keep their connection for one to hold"
                )
            if not crew.stopping:
                http_address = authority(settings.host, http_port) if settings.http else None
                on_ready(authority(settings.host, port), http_address)
            crew.watch()
        finally:
            crew.stop()
            crew.join()


class _Worker:
    """One process, and what it says of itself.

    Attributes:
        ready: whether it serves.
        problem: why it cannot, if it said so.
        heard_at: when it was last heard of, or started; by the monotonic clock, as all times here.
    """

    def __init__(self, context: multiprocessing.context.SpawnContext, settings: ServerSettings, name: str) -> None:
        self._pipe, theirs = context.Pipe(duplex=False)
        self.process: SpawnProcess = context.Process(target=_work, args=(settings, theirs), name=name)
        self.process.start()
        theirs.close()
        self.ready = False
        self.problem = ""
        self.heard_at = time.monotonic()
        os.set_blocking(self._pipe.fileno(), False)

    @property
    def events(self) -> list[int]:
        """What to wait on for news of it."""
        return [self.process.sentinel] + ([] if self._pipe.closed else [self._pipe.fileno()])

    def listen(self) -> None:
        """Take in what it said."""
        while not self._pipe.closed:
            try:
                heard = os.read(self._pipe.fileno(), 65536)
            except BlockingIOError:
                return
            if not heard:
                self._pipe.close()
                return
            self.heard_at = time.monotonic()
            words, failed, problem = heard.partition(_FAILED)
            self.ready = self.ready or _READY in words
            self.problem += problem.decode(errors="replace") if failed or self.problem else ""

    def close(self) -> None:
        """Forget it, once it has ended."""
        self.process.join()
        self._pipe.close()


@dataclasses.dataclass
class _Place:
    """Where one worker after the other serves."""

    number: int
    worker: _Worker | None = None
    #: When the next one is to be started.
    due_at: float = 0.0
    #: How many in a row did not get ready.
    failures: int = 0
    #: How those before ended.
    ended: Counter[str] = dataclasses.field(default_factory=Counter)


class _Crew:
    def __init__(self, settings: ServerSettings, n_workers: int, timeout_s: float) -> None:
        self._settings = settings
        self._timeout_s = timeout_s
        self._context = multiprocessing.get_context("spawn")
        self._places = [_Place(number) for number in range(n_workers)]
        self._stopped_at: float | None = None
        self._looked_at = time.monotonic()

    @property
    def stopping(self) -> bool:
        return self._stopped_at is not None

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.stopping and number == signal.SIGINT:
            # Somebody at the terminal is tired of waiting.
            self._stopped_at = float("-inf")
        self.stop()

    def start(self) -> None:
        """Start all. Raises ConfigError with what keeps the first one that fails from serving."""
        # The first alone: it may have to export the encoder, which the others then find.
        for places in (self._places[:1], self._places[1:]):
            for place in places:
                self._start_one(place)
            while not self.stopping and not all(place.worker and place.worker.ready for place in places):
                self._look()
                for place in places:
                    if place.worker is None or place.worker.problem:
                        raise ConfigError(self._problem_of(place))

    def watch(self) -> None:
        while not self.stopping:
            self._look()
            for place in self._places:
                if place.worker is None and time.monotonic() >= place.due_at and not self.stopping:
                    self._start_one(place)

    def stop(self) -> None:
        if self._stopped_at is None:
            self._stopped_at = time.monotonic()
        for place in self._places:
            if place.worker is not None and place.worker.process.is_alive():
                place.worker.process.terminate()

    def join(self) -> None:
        for place in self._places:
            if (worker := place.worker) is None:
                continue
            while worker.process.is_alive():
                # They keep the time themselves, except for one that is stopped or hangs. By the step, because a second
                # SIGINT moves the end.
                if time.monotonic() > (self._stopped_at or 0.0) + self._settings.drain_s + _POLL_S:
                    log.error("worker %d did not end in time; killing it", worker.process.pid)
                    worker.process.kill()
                worker.process.join(_POLL_S)
            worker.close()

    def _start_one(self, place: _Place) -> None:
        settings = dataclasses.replace(self._settings, predecessors=dict(place.ended))
        if settings.metrics_port:
            settings = dataclasses.replace(settings, metrics_port=settings.metrics_port + place.number)
        place.worker = _Worker(self._context, settings, f"elle-worker-{place.number}")

    def _look(self) -> None:
        """Wait a little for news, and note who is ready, ended, or silent for too long."""
        workers = [place.worker for place in self._places if place.worker is not None]
        wait([event for worker in workers for event in worker.events], timeout=_POLL_S)
        now = time.monotonic()
        # If the parent itself was stopped, its workers may have been too.
        rested = now - self._looked_at > self._timeout_s / 2
        self._looked_at = now
        for place in self._places:
            if (worker := place.worker) is None:
                continue
            worker.listen()
            worker.heard_at = max(worker.heard_at, now) if rested else worker.heard_at
            if not worker.process.is_alive():
                self._lost(place, worker, "died", f"ended with status {worker.process.exitcode}")
            elif now - worker.heard_at > (self._timeout_s if worker.ready else START_S):
                worker.process.kill()
                self._lost(place, worker, "silent", f"was silent for {now - worker.heard_at:.0f} s and was killed")
            elif worker.ready:
                place.failures = 0

    def _lost(self, place: _Place, worker: _Worker, how: str, words: str) -> None:
        worker.process.join()
        worker.listen()
        log.error("worker %d %s; starting another. %s", worker.process.pid, words, worker.problem)
        place.ended[how] += 1
        place.failures += not worker.ready
        place.due_at = time.monotonic() + min(RESTART_S * 2.0**place.failures, LONGEST_RESTART_S)
        place.worker, self._last_problem = None, worker.problem or f"a worker {words} while starting; see the log."
        worker.close()

    def _problem_of(self, place: _Place) -> str:
        return place.worker.problem if place.worker is not None else self._last_problem


def _work(settings: ServerSettings, parent: Connection) -> None:
    """Be one worker: tell the parent when it is ready and then that it is alive, or what keeps it from serving."""
    beating: list[asyncio.Task[None]] = []

    def on_ready(running: Serving) -> None:
        os.set_blocking(parent.fileno(), False)
        os.write(parent.fileno(), _READY)
        beating.append(asyncio.get_running_loop().create_task(_beat(parent.fileno())))

    # Until it serves: Ctrl-C reaches the whole group, and the parent tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, name="parent-watch", daemon=True).start()
    from probes.errors import ProbesError

    try:
        event_loop.run(serve_forever(settings, on_ready))
    except (RouterError, ProbesError) as error:
        # The parent may be gone.
        with contextlib.suppress(OSError):
            os.write(parent.fileno(), _FAILED + str(error).encode(errors="replace"))
        raise SystemExit(1) from error


async def _beat(parent: int) -> None:
    """Say from the event loop that it turns, for as long as it does."""
    while True:
        # A parent that is stopped reads nothing, and one that is gone is noticed elsewhere.
        with contextlib.suppress(OSError):
            os.write(parent, _ALIVE)
        await asyncio.sleep(BEAT_S)


def _leave_with_parent() -> None:
    # A parent that is killed cannot tell its workers, and they would hold the port for ever.
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)


@contextlib.contextmanager
def _reserved_port(host: str, port: int) -> Iterator[int]:
    """The port to share: held, not listened on, so that nobody else takes it between two starts of workers."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as held:
        try:
            # Without SO_REUSEPORT first: a foreign server that shares its port would else go unnoticed.
            with socket.socket(family, socket.SOCK_STREAM) as alone:
                alone.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                alone.bind((host, port))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            held.bind((host, port))
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {host}:{port} ({error.strerror}); stop what holds the port, or choose another "
                f"one (0 takes a free one)."
            ) from error
        yield int(held.getsockname()[1])
