"""Remember which candidate answered each session last, within bounds on number and time (`SessionMemory`).

Sessions of different callers are kept apart. The memory holds digests, names and numbers, but no ids and no text.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from router.values import HeldCandidate


@dataclass(frozen=True, slots=True)
class _Entry:
    candidate: str
    input_tokens: int
    at_s: float


class SessionMemory:
    """Remembers which candidate answered each session last. It is thread-safe.

    Args:
        max_entries: the number of sessions that are remembered, about 300 bytes each; 0 remembers none. If there are
            more, the least recently used one is forgotten.
        ttl_s: a session that was idle for more seconds than this is forgotten.
        clock: returns the time in seconds and never goes backwards.
    """

    def __init__(self, *, max_entries: int, ttl_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        # In the order of their last use, so that the entries to forget are in front.
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def held(self, caller: str, session_id: str, policy: str) -> HeldCandidate | None:
        """Return the candidate that answered this caller's session last under this policy, or None if it is new."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            entry = self._entries.get(_key(caller, session_id, policy))
        if entry is None:
            return None
        return HeldCandidate(entry.candidate, entry.input_tokens, idle_s=max(0.0, now - entry.at_s))

    def remember(self, caller: str, session_id: str, policy: str, candidate: str, input_tokens: int) -> None:
        """Remember that this candidate now answers the session, and that it has read about `input_tokens` tokens."""
        now = self._clock()
        key = _key(caller, session_id, policy)
        with self._lock:
            self._entries[key] = _Entry(candidate, input_tokens, now)
            self._entries.move_to_end(key)
            self._forget(now)

    def _forget(self, now: float) -> None:
        while self._entries:
            oldest = next(iter(self._entries.values()))
            if len(self._entries) <= self._max_entries and now - oldest.at_s <= self._ttl_s:
                return
            self._entries.popitem(last=False)


def _key(caller: str, session_id: str, policy: str) -> bytes:
    # A digest has one size however long the ids are. JSON keeps the three parts apart.
    return hashlib.sha256(json.dumps([caller, session_id, policy]).encode()).digest()
