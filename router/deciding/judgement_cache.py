"""What the probe said of the prompts seen last: a prompt that one caller sends again is judged once.

Keeps no text, only its SHA-256. Judging is a function of policy, probe and text alone, and choosing comes after, so a
hit decides exactly as a miss would, whatever the request asks beyond the policy. But a hit is seven times as fast and
says so (`cached`), which would tell a caller what others asked: judgements are kept for each credential by itself, and
for calls without a credential, which nobody can tell apart, not at all.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass

from router.policies.loading import ServedPolicy
from router.policies.rules import Judgement

Key = tuple[str, str, str, bytes]


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """Since the start: how many prompts were found, how many were not; and how many are kept now. Of all callers."""

    hits: int
    misses: int
    entries: int


class JudgementCache:
    """The judgements used last. Thread-safe, bounded.

    Args:
        max_entries: the one used longest ago goes when there are more; 0 keeps none. One takes about half a kilobyte.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[Key, Judgement] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = 0

    @staticmethod
    def key(policy: ServedPolicy, text: str, caller: str) -> Key | None:
        """Return whose judgement it is and what it depends on: digests of policy, probe and text.

        None where `caller` (`router.asking.session_ids.caller_of`) is empty: then nothing is looked up or kept.
        """
        if not caller:
            return None
        probe = policy.probe_ref.digest if policy.probe_ref else ""
        return caller, policy.ref.digest, probe, hashlib.sha256(text.encode()).digest()

    def get(self, key: Key) -> Judgement | None:
        """The judgement kept under this key, if any."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self._misses += 1
            else:
                self._hits += 1
                self._entries.move_to_end(key)
            return found

    def put(self, key: Key, judgement: Judgement) -> None:
        """Keep a judgement."""
        with self._lock:
            self._entries[key] = judgement
            self._entries.move_to_end(key)
            while len(self._entries) > self._max_entries:
                self._entries.popitem(last=False)

    @property
    def counts(self) -> CacheCounts:
        """Hits, misses and size."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, len(self._entries))
