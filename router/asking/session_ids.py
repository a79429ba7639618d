"""Which session a request belongs to and who calls, read from headers and body where clients usually put them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from router.plain_json import whole_text

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

#: Of a longer id the decision record holds the digest; the session is the same.
MAX_ID_CHARACTERS = 256

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
    return _fitting(_found_id(given, headers, parameters))


def _found_id(given: str, headers: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
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


def _fitting(session_id: str) -> str:
    """An id as every door, record and log can carry it: whole Unicode, and of a long one the digest."""
    if len(session_id) > MAX_ID_CHARACTERS:
        return f"sha256:{hashlib.sha256(session_id.encode(errors='surrogatepass')).hexdigest()}"
    return whole_text(session_id)


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
