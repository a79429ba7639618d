"""Add up what all processes of a service have counted, those that have ended included (`Totals`)."""

from __future__ import annotations

import threading
from collections.abc import Callable

from router.observing.tally import MAX_VERSIONS, Snapshot

#: Returns what one process has counted so far.
Source = Callable[[], Snapshot]


class Totals:
    """Adds up the counts of several processes. What a process has counted stays after its end. It is thread-safe."""

    def __init__(self) -> None:
        self._sources: dict[str, Source] = {}
        self._ended = Snapshot()
        self._lock = threading.Lock()

    def follow(self, name: str, source: Source) -> None:
        """Add the counts of a process from now on.

        name: tells the processes apart that run at the same time.
        """
        with self._lock:
            self._sources[name] = source

    def note_end(self, name: str) -> None:
        """Note that a process has ended: its counters stay as they were last, and its gauges go."""
        with self._lock:
            source = self._sources.pop(name, None)
            if source is None:
                return
            last = source()
            self._ended.add(last.without_gauges())
            versions, new = self._ended.versions(), set(last.versions())
            oldest = [version for version in versions if version not in new] + [v for v in versions if v in new]
            for version in oldest[: max(0, len(versions) - MAX_VERSIONS)]:
                self._ended.drop(version)

    def snapshot(self) -> Snapshot:
        """Return the sum of all counts, and the gauges of the processes that run."""
        total = Snapshot()
        with self._lock:
            total.add(self._ended)
            sources = list(self._sources.values())
        for source in sources:
            total.add(source())
        return total
