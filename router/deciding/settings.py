"""Define the settings of a router that do not depend on its policies (`RouterSettings`)."""

from __future__ import annotations

from dataclasses import dataclass

from router.sharing.session_table import SharedBlock


@dataclass(frozen=True)
class RouterSettings:
    """Holds the bounds of a router, such as the longest prompt, and the sizes of its memories.

    Attributes:
        max_prompt_bytes: a request with more bytes of text than this is refused. The default is about 128,000 tokens of
            English.
        threads: the number of encoder threads; None takes one per usable core. An encoder that works in batches always
            has one thread.
        max_pending: the number of prompts waiting for one encoder above which further ones are refused; None takes 16
            per thread, or two batches of the longest prompts.
        cache_entries: the number of judgements kept for prompts that the same credential sends again; 0 keeps none.
        max_sessions: the number of sessions that are remembered with their last candidate; 0 remembers none.
        session_ttl_s: a session that was idle for more seconds than this is forgotten.
        shared_sessions: the memory of sessions that processes share, for `max_sessions` of them; None makes one for
            this process alone.
    """

    max_prompt_bytes: int = 512 * 1024
    threads: int | None = None
    max_pending: int | None = None
    cache_entries: int = 10_000
    max_sessions: int = 50_000
    session_ttl_s: float = 3600.0
    shared_sessions: SharedBlock | None = None


#: The settings of a router for which nobody set anything else.
DEFAULT_SETTINGS = RouterSettings()
