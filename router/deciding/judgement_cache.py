"""Keep what the probe said of recent prompts, so that a prompt that one caller repeats is judged only once.

The cache keeps no text, only its SHA-256. A judgement depends on policy, probe, text and task alone, and the choice
comes after it. So a hit decides exactly as a miss would, whatever the request asks beyond the policy. But a hit is
seven times as fast, and the decision record says so (`cached`), which would tell one caller what another one asked.
That is why judgements are kept for each credential by itself. Calls without a credential cannot be told apart, so
nothing is kept for them.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement

#: Caller, digest of the policy, digest of the probe, key of a task that the probe knows, SHA-256 of the text.
CacheKey = tuple[str, str, str, str, bytes]


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Counts of the cache over all callers: prompts found since the start, prompts not found, and entries now."""

    hits: int
    misses: int
    entries: int


class JudgementCache:
    """Keeps the most recently used judgements, up to a number of them. It is thread-safe.

    Args:
        max_entries: the number of judgements that are kept, about half a kilobyte each; 0 keeps none. If there are
            more, the least recently used one is dropped.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[CacheKey, Judgement] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    @staticmethod
    def key(policy: ServedPolicy, text: str, caller: str, task: str = "") -> CacheKey | None:
        """Return the key under which a caller's judgement is kept, or None if `caller` is empty, for then none is kept.

        caller: the key of whoever calls, as `router.asking.session_ids.caller_of` returns it. task: the key of a task
        that the probe knows; unknown ones are judged as none, and share the entry of none.
        """
        if not caller:
            return None
        probe = policy.probe_ref.digest if policy.probe_ref else ""
        return caller, policy.ref.digest, probe, task, hashlib.sha256(text.encode()).digest()

    def get(self, key: CacheKey) -> Judgement | None:
        """Return the judgement under this key, or None if the cache does not have it."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._entries.move_to_end(key)
            return found

    def put(self, key: CacheKey, judgement: Judgement) -> None:
        """Keep a judgement under this key."""
        with self._lock:
            self._entries[key] = judgement
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    @property
    def counts(self) -> CacheCounts:
        """Return the numbers of hits and misses since the start, and of entries now."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, len(self._entries))
