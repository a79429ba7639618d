"""Remember which candidate answered each session last, and which one gave a response, within bounds.

Sessions of different callers are kept apart. The memory holds keyed digests and numbers, but no ids, names or texts.
All workers of a machine share it (`router.sharing.session_table`).
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping

from router.deciding.settings import RouterSettings
from router.decision import RoutingDecision
from router.policies.loading import ServedPolicy
from router.sharing.session_table import KEY_BYTES, Entry, SessionTable, SharedBlock, shared_block
from router.values import ApiFormat, HeldCandidate, RouteQuery

#: Is told of every entry that this process makes: its key and what it holds.
Listener = Callable[[bytes, Entry], None]


class SessionMemory:
    """Remembers which candidate answered each session last. It is safe in threads and in processes that share `block`.

    Args:
        max_entries: the number of sessions that are remembered, 48 bytes each; 0 remembers none. If there are more, one
            of those that were not used for long is forgotten.
        ttl_s: a session that was idle for more seconds than this is forgotten.
        clock: returns the time in seconds, the same in all processes, and never goes backwards.
        block: where the sessions are, from entry `first` on; None takes memory of this process.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        block: SharedBlock | None = None,
        first: int = 0,
    ) -> None:
        self._ttl_s, self._clock = ttl_s, clock
        block = block or SharedBlock(SessionTable.n_bytes(max_entries))
        self._secret = block.secret
        self._table = SessionTable(block, max_entries, first)
        self._lock = threading.Lock()
        self.listener: Listener | None = None

    def __len__(self) -> int:
        return self._table.count_since(self._clock() - self._ttl_s)

    def held(self, caller: str, session_id: str, policy: str, candidates: Iterable[str]) -> HeldCandidate | None:
        """Return which of the candidates answered this caller's session last under this policy, or None."""
        entry = self._table.get(self._key(caller, session_id, policy))
        idle_s = max(0.0, self._clock() - entry.at_s) if entry is not None else 0.0
        if entry is None or idle_s > self._ttl_s:
            return None
        name = next((one for one in candidates if _digest(one) == entry.name), None)
        return None if name is None else HeldCandidate(name, entry.tokens, idle_s)

    def remember(self, caller: str, session_id: str, policy: str, candidate: str, input_tokens: int) -> None:
        """Remember that this candidate now answers the session, and that it has read about `input_tokens` tokens."""
        key, entry = self._key(caller, session_id, policy), Entry(_digest(candidate), input_tokens, self._clock())
        with self._lock:
            self._table.put(key, entry)
        if self.listener is not None:
            self.listener(key, entry)

    def learn(self, key: bytes, entry: Entry) -> None:
        """Take over an entry that another replica made, unless a newer one is here. `at_s` is by the clock of this."""
        with self._lock:
            known = self._table.get(key)
            if known is None or known.at_s < entry.at_s:
                self._table.put(key, entry)

    def _key(self, caller: str, session_id: str, policy: str) -> bytes:
        # A digest has one size however long the ids are. JSON keeps the three parts apart.
        text = json.dumps([caller, session_id, policy]).encode()
        return hashlib.blake2b(text, digest_size=KEY_BYTES, key=self._secret).digest()


@functools.lru_cache(4096)
def _digest(candidate: str) -> bytes:
    return hashlib.blake2b(candidate.encode(), digest_size=KEY_BYTES).digest()


class AnswerMemory:
    """Remembers which candidate answered, by sessions and by ids of responses. It is thread-safe.

    It names policies and candidates by their names, so it stays right when a policy gets a new version.

    Args:
        settings: say how much is remembered, and for how long.
        clock: returns the time in seconds, and never goes backwards.
    """

    def __init__(self, settings: RouterSettings, clock: Callable[[], float]) -> None:
        most, ttl_s = settings.max_sessions, settings.session_ttl_s
        block = settings.shared_sessions or shared_block(most)
        self.sessions = SessionMemory(max_entries=most, ttl_s=ttl_s, clock=clock, block=block)
        # Which candidate gave a response, by the response's id: only that candidate's provider keeps it.
        self.responses = SessionMemory(max_entries=most, ttl_s=ttl_s, clock=clock, block=block, first=most)

    def holder(self, caller: str, session_id: str, policy: ServedPolicy) -> HeldCandidate | None:
        """Return the candidate that answered a session last; None if there is none, or no session."""
        if not session_id:
            return None
        return self.sessions.held(caller, session_id, policy.ref.name, policy.rules.file.names)

    def keeper(self, query: RouteQuery, caller: str, policy: ServedPolicy) -> str:
        """Return the candidate that keeps the response from which a query goes on, or an empty text."""
        response_id = query.parameters.get("previous_response_id")
        if query.api_format is not ApiFormat.OPENAI_RESPONSES or not isinstance(response_id, str):
            return ""
        names = policy.rules.file.names
        kept = self.responses.held(caller, response_id, _without_profile(policy.ref.name), names)
        return "" if kept is None else kept.candidate

    def note_answer(self, decision: RoutingDecision, candidate: str, caller: str) -> None:
        """Note which candidate answered the session of a decision. Without a session nothing is noted."""
        if decision.session_id:
            key = caller, decision.session_id, decision.policy.name
            self.sessions.remember(*key, candidate, decision.input_tokens_estimate)

    def note_response(self, decision: RoutingDecision, response_id: str, candidate: str, caller: str) -> None:
        """Note which candidate gave a response."""
        policy = _without_profile(decision.policy.name)
        self.responses.remember(caller, response_id, policy, candidate, decision.input_tokens_estimate)

    def giver(self, response_id: str, caller: str, policies: Mapping[str, ServedPolicy]) -> tuple[str, str] | None:
        """Return the names of the policy and the candidate that gave this caller a response, or None.

        Whoever asks for a response goes on using it, so it is remembered for as long again.
        """
        for name, policy in policies.items():
            if name != _without_profile(name):
                continue
            kept = self.responses.held(caller, response_id, name, policy.rules.file.names)
            if kept is not None:
                self.responses.remember(caller, response_id, name, kept.candidate, kept.input_tokens)
                return name, kept.candidate
        return None


def _without_profile(policy: str) -> str:
    """Return the name of a policy without that of a profile, because all profiles have the same candidates."""
    return policy.partition(":")[0]
