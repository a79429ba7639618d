"""Remember which candidate answered each session last.

The memory is bounded in number and time and scoped per caller. It holds digests, names and counts, no ids and no text.
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


class Sessions:
    """Who answered each session last. Thread-safe; forgets the least recently used beyond `max_entries`, and the idle.

    Args:
        max_entries: sessions remembered at most; 0 remembers none. One takes about 300 bytes.
        ttl_s: a session that was idle for longer is forgotten.
        clock: seconds, never backwards.
    """

    def __init__(
        self, *, max_entries: int = 50_000, ttl_s: float = 3600.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_entries = max_entries
        self._ttl_s = ttl_s
        self._clock = clock
        self._lock = threading.Lock()
        # In the order of their last use, oldest first, so that whatever is to be forgotten stands in front.
        self._entries: OrderedDict[bytes, _Entry] = OrderedDict()

    def __len__(self) -> int:
        with self._lock:
            return len(self._entries)

    def held(self, caller: str, session_id: str, policy: str) -> HeldCandidate | None:
        """Who answered this session of this caller last under this policy; None for a new one."""
        now = self._clock()
        with self._lock:
            self._forget(now)
            entry = self._entries.get(_key(caller, session_id, policy))
        if entry is None:
            return None
        return HeldCandidate(entry.candidate, entry.input_tokens, idle_s=max(0.0, now - entry.at_s))

    def remember(self, caller: str, session_id: str, policy: str, candidate: str, input_tokens: int) -> None:
        """This candidate answers now, reading about so many input tokens."""
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
    # A digest: entries are of one size however long the ids are. JSON keeps the three apart.
    return hashlib.sha256(json.dumps([caller, session_id, policy]).encode()).digest()
