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
from dataclasses import dataclass

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
        block: where the sessions are; None takes memory of this process.
        kind: which of the memories in the block this is, as `router.sharing.state_rows.SharedSession` numbers them.
    """

    def __init__(
        self,
        *,
        max_entries: int,
        ttl_s: float,
        clock: Callable[[], float] = time.monotonic,
        block: SharedBlock | None = None,
        kind: int = 0,
    ) -> None:
        self._ttl_s, self._clock, self._kind = ttl_s, clock, kind
        block = block or SharedBlock(SessionTable.n_bytes(max_entries))
        self._secret = block.secret
        self._table = SessionTable(block, max_entries, kind * max_entries)
        self._lock = threading.Lock()
        self.listener: Listener | None = None

    def __len__(self) -> int:
        return self._table.count_since(self._clock() - self._ttl_s)

    def held(self, caller: str, session_id: str, policy: str, candidates: Iterable[str]) -> HeldCandidate | None:
        """Return which of the candidates answered this caller's session last under this policy, or None."""
        if (entry := self.get(self.key(caller, session_id, policy))) is None:
            return None
        name = next((one for one in candidates if _digest(one) == entry.name), None)
        return None if name is None else HeldCandidate(name, entry.tokens, max(0.0, self._clock() - entry.at_s))

    def remember(self, caller: str, session_id: str, policy: str, candidate: str, input_tokens: int) -> None:
        """Remember that this candidate now answers the session, and that it has read about `input_tokens` tokens."""
        self.put(self.key(caller, session_id, policy), _digest(candidate), input_tokens)

    def get(self, key: bytes) -> Entry | None:
        """Return the entry of a key, or None if there is none or it is too old."""
        entry = self._table.get(key)
        return None if entry is None or self._clock() - entry.at_s > self._ttl_s else entry

    def put(self, key: bytes, name: bytes, number: int) -> None:
        """Make the entry of a key, whose fields `router.sharing.session_table.Entry` explains."""
        entry = Entry(name, number, self._clock())
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

    def key(self, caller: str, session_id: str, policy: str) -> bytes:
        """Return the key of an entry, which tells nothing of what it was made of."""
        # A digest has one size however long the ids are. JSON keeps the parts apart. In a database the keys of all
        # memories lie in one table, so a session that is called like a response must have another key.
        text = json.dumps([self._kind, caller, session_id, policy]).encode()
        return hashlib.blake2b(text, digest_size=KEY_BYTES, key=self._secret).digest()


@functools.lru_cache(4096)
def _digest(candidate: str) -> bytes:
    return hashlib.blake2b(candidate.encode(), digest_size=KEY_BYTES).digest()


@dataclass(frozen=True, slots=True)
class Unsettled:
    """Says of which decision a response is that is given in the background, and what was charged for it so far.

    Attributes:
        key: tells it from all others, for `AnswerMemory.settle_once`.
        decision_id: the id of the decision.
        charged_usd: what was charged, in US dollars to a millionth.
    """

    key: bytes
    decision_id: str
    charged_usd: float


#: The name in the entry of a response that is settled, and the numbers that charges are counted in.
_SETTLED, _USD = bytes(KEY_BYTES), 1e-6


class AnswerMemory:
    """Remembers which candidate answered, by sessions and by ids of responses. It is thread-safe.

    It names policies and candidates by their names, so it stays right when a policy gets a new version.

    Args:
        settings: say how much is remembered, and for how long.
        clock: returns the time in seconds, and never goes backwards.

    Attributes:
        settle_once: calls a function unless another process has done so for the same key, at once or in a moment.
    """

    def __init__(self, settings: RouterSettings, clock: Callable[[], float]) -> None:
        most, ttl_s = settings.max_sessions, settings.session_ttl_s
        block = settings.shared_sessions or shared_block(most)
        self.sessions = SessionMemory(max_entries=most, ttl_s=ttl_s, clock=clock, block=block)
        # Which candidate gave a response, by the response's id: only that candidate's provider keeps it.
        self.responses = SessionMemory(max_entries=most, ttl_s=ttl_s, clock=clock, block=block, kind=1)
        # What is to be settled of responses that are given in the background.
        self.unsettled = SessionMemory(max_entries=most, ttl_s=ttl_s, clock=clock, block=block, kind=2)
        self.settle_once: Callable[[bytes, Callable[[], None]], None] = lambda key, settle: settle()

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
        """Note which candidate gave a response. Requests whose `previous_response_id` names it go there then."""
        policy = _without_profile(decision.policy.name)
        self.responses.remember(caller, response_id, policy, candidate, decision.input_tokens_estimate)

    def note_unsettled(self, decision: RoutingDecision, response_id: str, charged_usd: float, caller: str) -> None:
        """Note that the cost of a response is not known yet, and what was charged in its place."""
        key = self.unsettled.key(caller, response_id, _without_profile(decision.policy.name))
        self.unsettled.put(key, bytes.fromhex(decision.decision_id), round(charged_usd / _USD))

    def take_unsettled(self, response_id: str, caller: str, policy: str) -> Unsettled | None:
        """Return what is to be settled of a response, or None. It is settled then, and nobody is told of it again.

        Processes of other machines may be told too, so `settle_once` must do what follows.
        """
        key = self.unsettled.key(caller, response_id, _without_profile(policy))
        entry = self.unsettled.get(key)
        if entry is None or entry.name == _SETTLED:
            return None
        self.unsettled.put(key, _SETTLED, 0)
        return Unsettled(key, entry.name.hex(), entry.tokens * _USD)

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
                self._keep_unsettled(self.unsettled.key(caller, response_id, name))
                return name, kept.candidate
        return None

    def _keep_unsettled(self, key: bytes) -> None:
        entry = self.unsettled.get(key)
        if entry is not None and entry.name != _SETTLED:
            self.unsettled.put(key, entry.name, entry.tokens)


def _without_profile(policy: str) -> str:
    """Return the name of a policy without that of a profile, because all profiles have the same candidates."""
    return policy.partition(":")[0]
