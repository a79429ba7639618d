"""`elle serve --workers N`: several serving processes on one port, kept alive by a parent that serves nothing.

The kernel spreads *connections* over them (SO_REUSEPORT): a client with one connection has one worker, so clients of
many requests should open several, or sit behind a balancer.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess

from router.deciding.cores import usable_cores
from router.errors import ConfigError, RouterError
from router.serving import event_loop
from router.serving.server import ServerSettings, Serving, authority, serve_forever

log = logging.getLogger(__name__)

#: How long a worker may take to load before the start counts as failed.
START_S = 120.0

#: A worker that dies is started again, but not faster than this.
RESTART_S = 1.0

_POLL_S = 0.2

Say = Callable[[str, str | None], None]


def serve_workers(settings: ServerSettings, n_workers: int, on_ready: Say) -> None:
    """Serve in `n_workers` processes until SIGTERM or SIGINT, then let each drain.

    `on_ready` is called with the address, and the one for HTTP or None, once all are warm. A worker that dies is
    replaced.

    Raises ConfigError for an occupied port, and whatever stopped a worker from starting.
    """
    with contextlib.ExitStack() as held:
        port = held.enter_context(_reserved_port(settings.host, settings.port))
        http_port = held.enter_context(_reserved_port(settings.host, settings.http_port)) if settings.http else 0
        threads = settings.threads or max(1, usable_cores() // n_workers)
        shared = dataclasses.replace(settings, port=port, http_port=http_port, threads=threads, share_port=True)
        crew = _Crew(shared, n_workers)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: crew.stop())
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
            crew.join(settings.drain_s)


class _Crew:
    def __init__(self, settings: ServerSettings, n_workers: int) -> None:
        self._settings = settings
        self._context = multiprocessing.get_context("spawn")
        self._places: list[SpawnProcess | None] = [None] * n_workers
        self.stopping = False

    def start(self) -> None:
        # One after the other: the first may have to export the encoder, which the others then find.
        for place in range(len(self._places)):
            if not self.stopping:
                self._start_one(place)

    def watch(self) -> None:
        while not self.stopping:
            time.sleep(_POLL_S)
            for place, worker in enumerate(self._places):
                if worker is not None and not worker.is_alive() and not self.stopping:
                    log.error("worker %d ended with status %s; starting it again", worker.pid, worker.exitcode)
                    time.sleep(RESTART_S)
                    try:
                        self._start_one(place)
                    except RouterError as error:
                        log.error("worker not started: %s", error)  # noqa: TRY400 - the message says it all

    def stop(self) -> None:
        self.stopping = True
        for worker in self._places:
            if worker is not None and worker.is_alive():
                worker.terminate()

    def join(self, drain_s: float) -> None:
        ends = time.monotonic() + drain_s + 5.0
        for worker in self._places:
            if worker is not None:
                worker.join(max(0.1, ends - time.monotonic()))
                if worker.is_alive():
                    log.error("worker %d did not drain in time; killing it", worker.pid)
                    worker.kill()
                    worker.join()

    def _start_one(self, place: int) -> None:
        ours, theirs = self._context.Pipe(duplex=False)
        settings = self._settings
        if settings.metrics_port:
            settings = dataclasses.replace(settings, metrics_port=settings.metrics_port + place)
        worker = self._context.Process(target=_work, args=(settings, theirs), name=f"elle-worker-{place}")
        worker.start()
        theirs.close()
        self._places[place] = worker
        ends = time.monotonic() + START_S
        while not ours.poll(_POLL_S):
            if self.stopping:
                return
            if time.monotonic() > ends:
                worker.kill()
                raise ConfigError(f"a worker must be ready within {START_S:.0f} s, it was not; see the log.")
        try:
            problem = ours.recv()
        except EOFError:
            worker.join()
            raise ConfigError(f"a worker ended with status {worker.exitcode} while starting; see the log.") from None
        if problem is not None:
            worker.join()
            raise ConfigError(problem)


def _work(settings: ServerSettings, parent: Connection) -> None:
    """One worker. Says None to its parent when ready, or what keeps it from serving."""

    def on_ready(running: Serving) -> None:
        parent.send(None)

    # Ctrl-C reaches the whole group; the parent tells its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, name="parent-watch", daemon=True).start()
    from probes.errors import ProbesError

    try:
        event_loop.run(serve_forever(settings, on_ready))
    except (RouterError, ProbesError) as error:
        # Serving had begun if the pipe is closed already; then the log has it.
        with contextlib.suppress(OSError):
            parent.send(str(error))
        raise SystemExit(1) from error


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
