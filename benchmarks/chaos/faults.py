"""Faults of processes, policies, the encoder, the upstream and clients."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Iterator

from benchmarks.attack.target import Found
from benchmarks.chaos.service import DEFAULT, STRICT, TURNS, WORKER_TIMEOUT_S
from benchmarks.chaos.trial import AGAIN_S, Trial
from router.pb import routing_pb2

#: Connections of a flood, of slow clients at each door, and of clients that use up the files of a worker.
FLOOD, SLOW, BEYOND_FILES = 2000, 100, 60


def service_killed(trial: Trial) -> Found:
    """Kill the whole service with SIGKILL, and start it again at once, as a supervisor does."""
    began, before = time.monotonic(), trial.service.starts
    trial.killed()
    workers = trial.service.workers()
    trial.service.kill()
    # Workers that are left end by themselves. While they still listen, what they answer does not count.
    trial.service.start(workers)
    measured = {"new_service_again_s": round(time.monotonic() - began, 2), "starts": trial.service.starts - before}
    return trial.found(began, measured, new_service_again_s=AGAIN_S * trial.factor)


def worker_killed(trial: Trial) -> Found:
    """Kill a worker with SIGKILL."""
    began = time.monotonic()
    trial.killed()
    trial.service.signal_worker(signal.SIGKILL)
    return trial.found(began)


def worker_stopped(trial: Trial) -> Found:
    """Stop a worker with SIGSTOP, and wait until its parent has replaced it."""
    began = time.monotonic()
    trial.killed()
    trial.service.signal_worker(signal.SIGSTOP)
    time.sleep(WORKER_TIMEOUT_S / 2)
    return trial.found(began)


def worker_stopped_briefly(trial: Trial) -> Found:
    """Stop a worker with SIGSTOP for a second, and let it go on."""
    pid = trial.service.workers()[0]
    trial.service.signal_worker(signal.SIGSTOP)
    time.sleep(1.0)
    trial.service.signal_worker(signal.SIGCONT)
    return trial.found(time.monotonic(), {"replaced": int(pid not in trial.service.workers())}, replaced=0)


def corrupt_policy(trial: Trial) -> Found:
    """Overwrite a policy file that is watched with bytes that are no policy, and then with a new version."""
    return _spoiled_policy(trial, b"\x00\xff not a policy: [")


def half_written_policy(trial: Trial) -> Found:
    """Cut a policy file that is watched in half, as a copy that is under way does, and then write a new version."""
    text = trial.service.turns_file.read_bytes()
    return _spoiled_policy(trial, text[: len(text) // 2])


def encoder_failure(trial: Trial) -> Found:
    """Let the encoder fail: one policy must take its safe default, and another one must refuse, as they say."""
    trial.service.encoder_fault.touch()
    time.sleep(0.3)
    began, ended = trial.wait()
    trial.service.encoder_fault.unlink()
    during = [reply for reply in trial.load.replies if began + 2.0 <= reply.at <= ended]
    judged = sum(one.policy == DEFAULT and one.reason != routing_pb2.REASON_FAILED_OPEN for one in during)
    failed = trial.load.failed(began, ended)
    measured = {
        "not_failed_open": judged,
        "not_refused": sum(one.policy == STRICT for one in during),
        "refused_by_others": sum(n for key, n in failed.items() if not key.startswith(STRICT)),
        "refused_by_strict": sum(n for key, n in failed.items() if key.startswith(STRICT)),
        "no_decision_was_seen": int(not during or not failed),
    }
    return trial.found(ended, measured, not_failed_open=0, not_refused=0, refused_by_others=0, no_decision_was_seen=0)


def upstream_outage(trial: Trial) -> Found:
    """Let the upstream cut every connection."""
    return _upstream_trouble(trial, ["away"])


def upstream_flapping(trial: Trial) -> Found:
    """Let the upstream fail, be away and answer in turns, eight times a second."""
    return _upstream_trouble(trial, ["failing", "good", "away", "good"] * 8)


def slow_clients(trial: Trial) -> Found:
    """Let a hundred clients at each door send one byte after the other."""
    heads = {
        trial.service.address: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        trial.service.http: b"POST /v1/chat/completions",
    }
    with _connections(heads, SLOW) as opened:
        began = time.monotonic()
        for turn in range(max(1, int(trial.seconds / 0.25))):
            time.sleep(0.25)
            for connection, head in opened:
                with contextlib.suppress(OSError):
                    connection.send(head[turn : turn + 1])
        ended = time.monotonic()
    return trial.found(ended, {"refused": trial.load.failed(began, ended).total()}, refused=0)


def connection_flood(trial: Trial) -> Found:
    """Open two thousand connections at each door, and send nothing."""
    with _connections({trial.service.address: b"", trial.service.http: b""}, FLOOD) as opened:
        _, ended = trial.wait()
        n_opened = len(opened)
    return trial.found(ended, {"opened": n_opened})


def files_exhausted(trial: Trial) -> Found:
    """Let the workers open only four more files than they have open, and open more connections than that."""
    trial.service.limit_files(4)
    with _connections({trial.service.address: b"", trial.service.http: b""}, BEYOND_FILES):
        began, ended = trial.wait()
    trial.service.limit_files(None)
    return trial.found(time.monotonic(), {"refused": trial.load.failed(began, ended).total()})


def _spoiled_policy(trial: Trial, text: bytes) -> Found:
    before = trial.service.asked()
    trial.service.turns_file.write_bytes(text)
    began, ended = trial.wait()
    during = [reply for reply in trial.load.replies if reply.policy == TURNS and began <= reply.at <= ended]
    measured = {
        "refused": trial.load.failed(began, ended).total(),
        "not_by_the_old_version": sum(reply.digest != before for reply in during),
    }
    number = 1 if trial.service.known[before] == trial.service.first else 2
    known = set(trial.service.known)
    trial.service.turn(number)
    (new,) = set(trial.service.known) - known
    mended = time.monotonic()
    while time.monotonic() < mended + 60 and not all(trial.service.asked() == new for _ in range(8)):
        time.sleep(0.05)
    measured["new_version_after_s"] = round(time.monotonic() - mended, 2)
    limits = {"refused": 0, "not_by_the_old_version": 0, "new_version_after_s": AGAIN_S * trial.factor}
    return trial.found(time.monotonic(), measured, **limits)


def _upstream_trouble(trial: Trial, modes: list[str]) -> Found:
    began = time.monotonic()
    for mode in modes:
        trial.upstream.mode = mode
        time.sleep(trial.seconds / len(modes))
    ended = time.monotonic()
    trial.upstream.mode = "good"
    while time.monotonic() < ended + 60 and not any(
        reply.method == "Complete" and reply.at > ended for reply in trial.load.replies
    ):
        time.sleep(0.02)
    measured = {
        "refused": trial.load.failed(began, ended).total(),
        "answered_again_s": round(time.monotonic() - ended, 2),
        "answers_failed": dict(trial.load.failed(began, ended, "Complete")),
    }
    return trial.found(time.monotonic(), measured, refused=0, answered_again_s=AGAIN_S * trial.factor)


@contextlib.contextmanager
def _connections(heads: dict[str, bytes], how_many: int) -> Iterator[list[tuple[socket.socket, bytes]]]:
    """Open connections to each address, with what they are to send. Those that are refused are left out."""
    with contextlib.ExitStack() as stack:
        opened = []
        for address, head in heads.items():
            host, _, port = address.partition(":")
            for _ in range(how_many):
                with contextlib.suppress(OSError):
                    one = stack.enter_context(socket.create_connection((host, int(port)), timeout=1.0))
                    opened.append((one, head))
        yield opened


FAULTS = (
    *(service_killed, worker_killed, worker_stopped, worker_stopped_briefly, corrupt_policy, half_written_policy),
    *(encoder_failure, upstream_outage, upstream_flapping, slow_clients, connection_flood, files_exhausted),
)
