"""Read the id of a request's session, and a key of whoever calls, from the headers and body of the request."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from router.plain_json import PIECE, whole_text

#: Headers that name a session. The first one that is present counts. `x-client-request-id` is not among them, because
#: most clients set a new one for every request.
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

#: Fields of a body, and of its `metadata`, that name a session. `prompt_cache_key` is not among them, because many
#: sessions share one on purpose.
_BODY_FIELDS = ("session_id", "litellm_session_id", "conversation_id")
_METADATA_FIELDS = ("session_id", "conversation_id")

#: The mark before the session's id in Anthropic's `metadata.user_id`, as in `user_..._account_..._session_...`.
_SESSION_IN_USER_ID = "session_"

#: A longer id is replaced by its digest everywhere, so that it is still the id of the same session.
MAX_ID_CHARACTERS = 256

#: The largest number of characters of a `metadata.user_id` in which a session is looked for.
_MAX_USER_ID_CHARACTERS = 4096

#: Headers that hold the caller's credential.
_CALLER_HEADERS = ("authorization", "x-api-key", "api-key")


def session_id_of(given: str, headers: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    """Return the id of the session that a request belongs to, or an empty text if it names no session.

    Every door uses this rule.

    Args:
        given: an id that the caller stated explicitly; it is preferred to all others.
        headers: the headers of the call, with names in any case. `SESSION_HEADERS` are looked up in that order.
        parameters: the other fields of the body. These are looked up in this order: `session_id`,
            `litellm_session_id`, `conversation_id`, `conversation` (Responses API), `metadata.session_id`,
            `metadata.conversation_id`, and the session within Anthropic's `metadata.user_id`. A user id alone is no
            session, because one user has many.
    """
    return _bounded(_found_id(given, headers, parameters))


def ids_known_as(session: str) -> set[str]:
    """Return the ids that a session may have in records, if a caller names it so in a header or in a body.

    Headers are read as Latin-1, as HTTP says, also those of clients that write UTF-8.
    """
    in_header = session.encode(errors="surrogatepass").decode("latin-1")
    return {_bounded(one) for one in (session, in_header) if one}


def _found_id(given: str, headers: Mapping[str, str], parameters: Mapping[str, Any]) -> str:
    if given:
        return given
    if headers:
        lowered = {name.lower(): value for name, value in headers.items()}
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
        candidates.append(_session_in_user_id(metadata.get("user_id")))
    return next((value for value in candidates if isinstance(value, str) and value), "")


def caller_of(headers: Mapping[str, str]) -> str:
    """Return an opaque key of the caller, made from the credential, or an empty text if the request has no credential.

    The key does not reveal it.
    """
    lowered = {name.lower(): value for name, value in headers.items()}
    for name in _CALLER_HEADERS:
        if value := lowered.get(name):
            # The same credential may come in another header from another client, and is the same caller.
            scheme, _, rest = value.partition(" ")
            credential = rest.strip() if scheme.lower() == "bearer" else value
            return hashlib.sha256(f"credential\0{credential}".encode(errors="surrogatepass")).hexdigest()
    return ""


def _bounded(session_id: str) -> str:
    """Return the id as every door, record and log can carry it: valid Unicode, and a digest if it is long."""
    if len(session_id) <= MAX_ID_CHARACTERS:
        return whole_text(session_id)
    digest = hashlib.sha256()
    # In pieces, because a body may name a session of 30 MB, and encoding it is one step that holds up everybody.
    for begin in range(0, len(session_id), PIECE):
        digest.update(session_id[begin : begin + PIECE].encode(errors="surrogatepass"))
    return f"sha256:{digest.hexdigest()}"


def _session_in_user_id(user_id: Any) -> str | None:
    # Decoding a long text would hold up everybody: nobody has counted the values in it.
    if not isinstance(user_id, str) or len(user_id) > _MAX_USER_ID_CHARACTERS:
        return None
    if user_id.startswith("{"):
        try:
            value = json.loads(user_id).get("session_id")
        except (ValueError, RecursionError):
            return None
        return value if isinstance(value, str) else None
    _, mark, session = user_id.rpartition(_SESSION_IN_USER_ID)
    return session if mark else None
