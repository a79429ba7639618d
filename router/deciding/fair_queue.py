"""Let the callers whose prompts wait for the encoder take turns, so that none waits for all prompts of another one."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Sequence
from typing import TypeAlias

from router.deciding.encode_job import EncodeJob

#: Says whose prompt waits, as far as the service can tell callers apart: the host, the connection, the credential.
#: Hosts take turns, and so do the connections of one host, and the credentials within one connection. A proxy sends
#: many callers over one connection, and whoever makes up connections or credentials only shares the turns of one host.
Who: TypeAlias = tuple[str, ...]

#: Somebody of whom nothing is known.
NOBODY: Who = ("", "", "")


def who(connection: str, credential: str) -> Who:
    """Return whose prompt waits.

    connection: where the call comes from, as in `ipv4:10.0.0.7:51234`; empty if the door does not know. credential: the
    opaque key of the credential (`router.asking.session_ids.caller_of`); empty if there is none.
    """
    return connection.rpartition(":")[0], connection, credential


class FairQueue:
    """Holds the prompts that wait, by caller. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = _Caller()
        #: True for each prompt that was put in, and False for each thread that shall end. Waiting for it costs less
        #: than for a condition of the standard library.
        self._signals: queue.SimpleQueue[bool] = queue.SimpleQueue()

    def put(self, job: EncodeJob, who: Who = NOBODY) -> None:
        """Let a prompt wait."""
        with self._lock:
            self._waiting.put(job, who)
        self._signals.put(True)

    def end(self) -> None:
        """Let one call of `take` or `wait` return that the queue has ended. Call it once for each thread."""
        self._signals.put(False)

    def take(self) -> EncodeJob | None:
        """Wait for a prompt, and remove and return the first one of the caller whose turn it is; None at the end."""
        while self._signals.get():
            with self._lock:
                # A prompt that made room for another one left its signal behind.
                if self._waiting:
                    return self._waiting.take()
        return None

    def wait(self, *, block: bool) -> bool:
        """Return False if the queue has ended. Until then wait for a prompt if `block` is True."""
        try:
            while self._signals.get(block):
                block = False
        except queue.Empty:
            return True
        return False

    def in_turn(self) -> list[EncodeJob]:
        """Return all prompts that wait, in the order in which the callers' turns come. None of them is removed."""
        with self._lock:
            return self._waiting.in_turn()

    def remove(self, jobs: Sequence[EncodeJob]) -> None:
        """Remove these prompts, of which some may be gone already. Their callers have had their turn."""
        with self._lock:
            self._waiting.remove(frozenset(map(id, jobs)), is_turn=True)

    def make_room_for(self, who: Who) -> EncodeJob | None:
        """Remove and return the newest prompt of the caller who has most, if `who` would still have fewer afterwards.

        Return None otherwise. Prompts that nobody waits for any more are removed as well.
        """
        with self._lock:
            self._waiting.remove(frozenset(id(job) for job in self._waiting.in_turn() if job.cancelled), is_turn=False)
            crowd = self._waiting.fullest_but(who)
            job = crowd.jobs[-1] if crowd is not None else None
            self._waiting.remove(frozenset((id(job),)), is_turn=False)
            return job

    def drain(self) -> list[EncodeJob]:
        """Remove and return all prompts that wait."""
        jobs = self.in_turn()
        self.remove(jobs)
        return jobs


class _Caller:
    """Holds the prompts of one caller, in the order of arrival, or other callers within it, in the order of turns."""

    def __init__(self) -> None:
        self.jobs: deque[EncodeJob] = deque()
        self._within: dict[str, _Caller] = {}

    def __len__(self) -> int:
        return len(self.jobs) + sum(map(len, self._within.values()))

    def put(self, job: EncodeJob, who: Who) -> None:
        if who:
            self._within.setdefault(who[0], _Caller()).put(job, who[1:])
        else:
            self.jobs.append(job)

    def take(self) -> EncodeJob:
        if self.jobs:
            return self.jobs.popleft()
        name = next(iter(self._within))
        job = self._within[name].take()
        self._had_turn(name)
        return job

    def in_turn(self) -> list[EncodeJob]:
        rounds = itertools.zip_longest(self.jobs, *(one.in_turn() for one in self._within.values()))
        return [job for one in rounds for job in one if job is not None]

    def remove(self, gone: frozenset[int], *, is_turn: bool) -> bool:
        """Remove the jobs with these ids, and return whether there were any. They were their callers' turn if so."""
        left = deque(job for job in self.jobs if id(job) not in gone)
        found = [name for name, one in self._within.items() if one.remove(gone, is_turn=is_turn)]
        for name in found:
            if is_turn or not len(self._within[name]):
                self._had_turn(name)
        self.jobs, before = left, self.jobs
        return bool(found) or len(left) < len(before)

    def fullest_but(self, who: Who | None) -> _Caller | None:
        """Return the caller with most jobs, if it has at least two more than `who`, or else None.

        With None, any caller with jobs is returned.
        """
        if not self._within:
            return self if self.jobs and who is None else None
        fullest = max(self._within, key=lambda name: len(self._within[name]))
        if who is None:
            return self._within[fullest].fullest_but(None)
        own = self._within.get(who[0], _Caller())
        if len(self._within[fullest]) > len(own) + 1:
            return self._within[fullest].fullest_but(None)
        return own.fullest_but(who[1:])

    def _had_turn(self, name: str) -> None:
        one = self._within.pop(name)
        if len(one):
            self._within[name] = one
