"""Assign requests to the policy of a canary or to the policy that serves, the same way for a whole session."""

from __future__ import annotations

import hashlib

#: The number of equal parts that sessions are spread over; shares are rounded to whole parts.
N_PARTS = 10_000

#: The smallest share of the traffic that a canary can have.
LEAST_SHARE = 1 / N_PARTS


def is_in_canary(canary_id: str, key: str, share: float) -> bool:
    """Return whether the canary decides the requests with this key.

    A key that is in the canary at one share is in it at every larger share, so that a session never goes back when the
    canary is widened. Another canary draws other sessions.

    Args:
        canary_id: the id of the canary.
        key: the session's id, or another text that is the same for all requests that belong together.
        share: the share of the keys, 0 to 1, that the canary decides.
    """
    digest = hashlib.sha256(f"{canary_id}\0{key}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8]) % N_PARTS < round(share * N_PARTS)
