"""Remember which candidate answered each session last, and which one gave a response, within bounds.

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

from router.deciding.settings import RouterSettings
from router.decision import RoutingDecision
from router.policies.loading import ServedPolicy
from router.values import ApiFormat, HeldCandidate, RouteQuery


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


class AnswerMemory:
    """Remembers which candidate answered, by sessions and by ids of responses. It is thread-safe.

    It names policies and candidates by their names, so it stays right when a policy gets a new version.

    Args:
        settings: say how much is remembered, and for how long.
        clock: returns the time in seconds, and never goes backwards.
    """

    def __init__(self, settings: RouterSettings, clock: Callable[[], float]) -> None:
        bounds = {"max_entries": settings.max_sessions, "ttl_s": settings.session_ttl_s}
        self._sessions = SessionMemory(**bounds, clock=clock)  # type: ignore[arg-type]
        # Which candidate gave a response, by the response's id: only that candidate's provider keeps it.
        self._responses = SessionMemory(**bounds, clock=clock)  # type: ignore[arg-type]

    def holder(self, caller: str, session_id: str, policy: str) -> HeldCandidate | None:
        """Return the candidate that answered a session last; None if there is none, or no session."""
        return self._sessions.held(caller, session_id, policy) if session_id else None

    @property
    def n_sessions(self) -> int:
        """Return how many sessions are remembered."""
        return len(self._sessions)

    def keeper(self, query: RouteQuery, caller: str, policy: ServedPolicy) -> str:
        """Return the candidate that keeps the response from which a query goes on, or an empty text."""
        response_id = query.parameters.get("previous_response_id")
        if query.api_format is not ApiFormat.OPENAI_RESPONSES or not isinstance(response_id, str):
            return ""
        kept = self._responses.held(caller, response_id, _without_profile(policy.ref.name))
        return "" if kept is None or kept.candidate not in policy.rules.file.names else kept.candidate

    def note_answer(self, decision: RoutingDecision, candidate: str, caller: str) -> None:
        """Note which candidate answered the session of a decision. Without a session nothing is noted."""
        if decision.session_id:
            key = caller, decision.session_id, decision.policy.name
            self._sessions.remember(*key, candidate, decision.input_tokens_estimate)

    def note_response(self, decision: RoutingDecision, response_id: str, candidate: str, caller: str) -> None:
        """Note which candidate gave a response."""
        policy = _without_profile(decision.policy.name)
        self._responses.remember(caller, response_id, policy, candidate, decision.input_tokens_estimate)


def _without_profile(policy: str) -> str:
    """Return the name of a policy without that of a profile, because all profiles have the same candidates."""
    return policy.partition(":")[0]
