"""What a session is, and the memory of who answered it last.

Ids are read where clients and gateways usually put them; the memory is bounded in number and time, scoped per caller,
and holds digests, names and counts, no ids and no text.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from router.types import HeldCandidate

#: Headers that name a session, the first one present counts. Not `x-client-request-id`: most clients set a new one for
#: every request.
SESSION_HEADERS = (
    "x-elle-session-id",
    "x-session-id",
    "x-claude-code-session-id",
    "x-litellm-session-id",
    "x-conversation-id",
    "session-id",
    "session_id",
    "x-session-affinity",
    "helicone-session-id",
)

#: Fields that name a session, of a body and of its `metadata`. Not `prompt_cache_key`: many share one on purpose.
_BODY_FIELDS = ("session_id", "litellm_session_id", "conversation_id")
_METADATA_FIELDS = ("session_id", "conversation_id")

#: Within Anthropic's `metadata.user_id`, `user_..._account_..._session_...` or a JSON object, what begins the session.
_SESSION_IN_USER_ID = "session_"

#: Headers that say who calls.
_CALLER_HEADERS = ("authorization", "x-api-key", "api-key")


def session_id_of(given: str, headers: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """The session a request belongs to; empty for none. The one rule of every door.

    Args:
        given: an id that the caller stated outright; it goes before all others.
        headers: of the call, names in any case; `SESSION_HEADERS` are looked for, in that order.
        parameters: the further fields of the body: `session_id`, `litellm_session_id`, `conversation_id`,
            `conversation` (Responses), then `metadata` likewise, then the session within Anthropic's
            `metadata.user_id`. A user id that names no session is no session: one user has many.
    """
    if given:
        return given
    lowered = {name.lower(): value for name, value in headers.items()} if headers else {}
    for name in SESSION_HEADERS:
        if value := lowered.get(name):
            return value
    if not parameters:
        return ""
    metadata = parameters.get("metadata")
    conversation = parameters.get("conversation")
    candidates = [parameters.get(name) for name in _BODY_FIELDS]
    candidates.append(conversation.get("id") if isinstance(conversation, Mapping) else conversation)
    if isinstance(metadata, Mapping):
        candidates += [metadata.get(name) for name in _METADATA_FIELDS]
        candidates.append(_session_in(metadata.get("user_id")))
    return next((value for value in candidates if isinstance(value, str) and value), "")


def caller_of(headers: Mapping[str, str]) -> str:
    """An opaque key of who calls, from the credential of the call; empty where there is none. Never the credential."""
    lowered = {name.lower(): value for name, value in headers.items()}
    for name in _CALLER_HEADERS:
        if value := lowered.get(name):
            return hashlib.sha256(f"{name}\0{value}".encode(errors="surrogatepass")).hexdigest()
    return ""


def _session_in(user_id: Any) -> str | None:
    if not isinstance(user_id, str):
        return None
    if user_id.startswith("{"):
        try:
            value = json.loads(user_id).get("session_id")
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, str) else None
    _, mark, session = user_id.rpartition(_SESSION_IN_USER_ID)
    return session if mark else None


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
